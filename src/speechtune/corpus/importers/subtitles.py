"""Subtitles (.srt, .vtt) beside their recording: weak labels, filtered by rules that say what they leave out.

Every row has ``weak_label: true``. A cue that a rule rejects is left out and counted (``filter=drop``), or kept with
the rules in the column ``weak_reasons`` (``filter=mark``).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import MALFORMED, Importer, RawRow
from speechtune.corpus.importers.spans import (
    OVERLAP_SLACK_S,
    Cue,
    cue_rows,
    holds,
    media_of,
    no_folders,
    transcripts,
)
from speechtune.corpus.importers.subtitle_files import read_cues

NAME = "subtitles"
_SUFFIXES = (".srt", ".vtt")
_TRACK = re.compile(r"(?P<stem>.+)\.(?P<language>[A-Za-z]{2,3}(?:-[A-Za-z0-9]+)?)(?:\.(?:forced|sdh|cc|auto))?")

MUSIC = "music"
SOUND = "sound description"
TWO_SPEAKERS = "two speakers in one cue"
FAST = "more characters per second than speech"
SLOW = "fewer characters per second than speech"
SHORT = "too short"
LONG = "too long"
OVERLAPS = "overlapping cue"


class Settings(BaseModel):
    """What ``--set`` takes."""

    model_config = ConfigDict(extra="forbid")

    filter: Literal["drop", "mark"] = Field("drop", description="Rejected cues: leave out, or keep with weak_reasons.")
    language: str = Field("", description="Which track, where there are x.en.srt and x.te.srt.")
    max_chars_per_s: float = Field(
        25.0, gt=0, description="Own choice; Netflix's timed text guide lets adults read 20 characters a second."
    )
    min_chars_per_s: float = Field(
        2.0, ge=0, description="Below it, a cue stands longer than its words last (own choice)."
    )
    min_duration_s: float = Field(0.4, ge=0, description="Shorter cues are rejected (own choice).")
    max_duration_s: float = Field(30.0, gt=0, description="Longer cues are rejected; 30 s is Whisper's window.")


def recognises(source: str) -> bool:
    """A .srt or .vtt file, or a folder that holds one at any depth."""
    return holds(source, _SUFFIXES)


def read(source: str, settings: Settings) -> Iterator[RawRow]:
    """One row per cue.

    Raises:
        InputError: no subtitle file, or several tracks of one recording and no language was chosen.
    """
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    chosen: dict[Path, tuple[Path, str | None]] = {}
    for path in transcripts(source, _SUFFIXES, "subtitles"):
        audio, language = _recording(path)
        if settings.language and language not in (None, settings.language):
            continue
        if audio in chosen:
            raise InputError(
                f"{audio.name} has the subtitles {chosen[audio][0].name} and {path.name}: choose with "
                "--set language=en, or import one by its path"
            )
        chosen[audio] = (path, language)
    if not chosen:
        raise InputError(
            f"{source} has no subtitles in the language {settings.language!r}: choose another --set language"
        )
    for audio, (path, language) in chosen.items():
        yield from cue_rows(_cues(path, language, settings), audio, root, overlaps_are_faults=False)


def _recording(path: Path) -> tuple[Path, str | None]:
    """The recording, and the language that the subtitle's name states (talk.en.srt beside talk.mp4)."""
    plain = media_of(path)
    if plain.is_file():
        return plain, None
    match = _TRACK.fullmatch(path.stem)
    if match is None:
        return plain, None
    return media_of(path.with_name(f"{match['stem']}.srt")), match["language"].split("-")[0].lower()


def _cues(path: Path, language: str | None, settings: Settings) -> list[Cue]:
    cues = []
    reached_s = 0.0
    for number, start_s, end_s, lines in read_cues(path):
        cue = Cue(where=f"{path} line {number}", text="", start_s=start_s, end_s=end_s)
        cues.append(cue)
        if start_s is None or end_s is None:
            cue.problem = (MALFORMED, "its time is not START --> END")
            continue
        cue.columns["weak_label"] = True
        if language:
            cue.columns["language"] = language
        cue.text, reasons = spoken_text(lines)
        reasons += _timing(cue.text, end_s - start_s, settings) if cue.text and end_s > start_s else []
        if start_s < reached_s - OVERLAP_SLACK_S:
            reasons.append(OVERLAPS)
        reached_s = max(reached_s, end_s)
        if reasons and (settings.filter == "drop" or not cue.text):
            cue.skip = (reasons[0], f"the weak-label filter rejects it ({', '.join(reasons)})")
        elif reasons:
            cue.columns["weak_reasons"] = reasons
    return cues


def spoken_text(lines: list[str]) -> tuple[str, list[str]]:
    """The words of a cue's lines, and why they are no good label (empty: nothing speaks against them)."""
    reasons = []
    joined = " ".join(line.strip() for line in lines if line.strip())
    if re.search(r"[♪♫♬♩]|^#.*#$", joined):
        reasons.append(MUSIC)
    dashes = sum(bool(re.match(r"\s*[-\u2013\u2014]\s*\S", line)) for line in lines)
    if dashes > 1:
        reasons.append(TWO_SPEAKERS)
    text = re.sub(r"[♪♫♬♩]", " ", joined)
    text = re.sub(r"\[[^\]]*\]|\([^)]*\)|\uff08[^\uff09]*\uff09|【[^】]*】|(?<!\w)\*[^*]+\*", " ", text)
    text = re.sub(r"(^|\s)(?:[-\u2013\u2014]\s*)?(?:>>+\s*)+", r"\1", text)
    text = re.sub(r"^\s*[-\u2013\u2014](?!\d)\s*|(?<=[.?!…])\s+[-\u2013\u2014]\s+", " ", text)
    text = re.sub(r"^\s*[A-ZÀ-Þ][A-ZÀ-Þ0-9 .'-]*[A-ZÀ-Þ0-9]:\s+", "", text)
    text = re.sub(r"\s+", " ", text).strip()
    if not re.search(r"\w", text):
        text = ""
        reasons = reasons or [SOUND]
    return text, reasons


def _timing(text: str, length_s: float, settings: Settings) -> list[str]:
    rate = len(text) / length_s
    checks = (
        (FAST, rate > settings.max_chars_per_s),
        (SLOW, rate < settings.min_chars_per_s),
        (SHORT, length_s < settings.min_duration_s),
        (LONG, length_s > settings.max_duration_s),
    )
    return [name for name, rejected in checks if rejected]


IMPORTER = Importer(NAME, recognises, read, no_folders, Settings)
