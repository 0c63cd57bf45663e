"""Transcripts of the same utterances by several systems, side by side."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_jsonl
from speechtune.decoding.lm.text import Words
from speechtune.decoding.transcript import Transcript, read_transcripts

_LISTED = 3


@dataclass(frozen=True, slots=True)
class Word:
    """A word of a hypothesis: ``key`` is what words are compared by, ``surface`` how the system wrote it.

    ``confidence`` lies between 0 and 1.
    """

    key: str
    surface: str
    confidence: float


@dataclass(slots=True)
class System:
    """One system's transcripts by utterance id; ``confidences`` holds those of its words, where it gives them."""

    name: str
    transcripts: dict[str, Transcript]
    confidences: dict[str, list[float]]

    def words(self, utterance_id: str, words: Words) -> list[Word]:
        """The words of one transcript; without word confidences, each has the mean token probability of the text."""
        transcript = self.transcripts[utterance_id]
        own = self.confidences.get(utterance_id)
        return words_of(transcript.text, words, own if own is not None else confidence_of(transcript))


def confidence_of(transcript: Transcript) -> float:
    """The geometric mean probability of a transcript's tokens; 1 where it gives no log-probability."""
    return math.exp(min(transcript.log_prob, 0.0)) if transcript.log_prob is not None else 1.0


def words_of(text: str, words: Words, confidence: float | Sequence[float] = 1.0) -> list[Word]:
    """A text as words; what stands between spaces is one word, punctuation that stands alone joins the word before.

    Args:
        text: as the system wrote it.
        words: how a written word becomes its key (`speechtune.decoding.lm.text`).
        confidence: of the text, or of each of its words.
    """
    found: list[Word] = []
    for place, surface in enumerate(text.split()):
        own = confidence if isinstance(confidence, int | float) else confidence[place]
        key = " ".join(words(surface))
        if key:
            found.append(Word(key, surface, float(own)))
        elif found:
            last = found[-1]
            found[-1] = Word(last.key, f"{last.surface} {surface}", last.confidence)
    return found


def read_systems(paths: Sequence[Path], least: int = 1) -> list[System]:
    """Read transcript files of the same utterances.

    A row may hold ``words``, a list of objects with ``confidence`` (0 to 1), one for each word of its text.

    Raises:
        InputError: fewer files than ``least``, files of different utterances, or confidences that do not fit.
    """
    if len(paths) < least:
        raise InputError(f"{len(paths)} transcript files are given and {least} are needed: name more")
    systems = []
    for path, name in zip(paths, _names(paths), strict=True):
        transcripts = {one.utterance_id: one for one in read_transcripts(path)}
        systems.append(System(name, transcripts, _confidences(path)))
    first = systems[0]
    for path, other in zip(paths[1:], systems[1:], strict=True):
        missing = [name for name in first.transcripts if name not in other.transcripts]
        extra = [name for name in other.transcripts if name not in first.transcripts]
        if missing or extra:
            shown = ", ".join(repr(one) for one in (missing or extra)[:_LISTED])
            what = f"lacks {len(missing)}" if missing else f"has {len(extra)} more"
            raise InputError(f"{path} {what} utterances than {paths[0]} ({shown}): transcribe the same ones with all")
    if not first.transcripts:
        raise InputError(f"{paths[0]} holds no transcripts: there is nothing to combine")
    return systems


def _names(paths: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell them apart, without the last one's suffix."""
    plain = [path.with_suffix("") for path in paths]
    for length in range(1, max(len(path.parts) for path in plain) + 1):
        names = ["/".join(path.parts[-length:]) for path in plain]
        if len(set(names)) == len(names):
            return names
    return [f"{path}#{number}" for number, path in enumerate(paths, start=1)]


def _confidences(path: Path) -> dict[str, list[float]]:
    found = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        listed: Any = row.get("words")
        if not listed or not all(isinstance(one, dict) and "confidence" in one for one in listed):
            continue
        values = [one["confidence"] for one in listed]
        if any(not isinstance(one, int | float) or not 0 <= one <= 1 for one in values):
            raise InputError(f"{path} row {number} has a word confidence that is not within 0 and 1: correct it")
        if len(values) != len(row["text"].split()):
            raise InputError(
                f"{path} row {number} has {len(values)} words with confidence and {len(row['text'].split())} in its "
                "text: give one for each"
            )
        found[row["utterance_id"]] = [float(one) for one in values]
    return found
