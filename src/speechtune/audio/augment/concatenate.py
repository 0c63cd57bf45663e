"""Several short clips as one example, so that a model learns to go on after a pause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from speechtune.audio.augment.draws import ClipInfo
from speechtune.audio.augment.effects.base import Samples, uniform
from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.core.errors import InputError

UNSPACED = frozenset({"ja", "zh", "yue", "th", "lo", "my", "km", "bo"})
"""Languages written without blanks between words: Japanese, Chinese, Cantonese, Thai, Lao, Burmese, Khmer, Tibetan."""


@dataclass(frozen=True, slots=True)
class ConcatenateDraw:
    """Which clips follow each other; ``gaps_s`` are the silences between them, one fewer than clips."""

    utterance_ids: tuple[str, ...]
    gaps_s: tuple[float, ...]
    duration_s: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {"concatenate": list(self.utterance_ids), "gaps_s": list(self.gaps_s), "duration_s": self.duration_s}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> ConcatenateDraw:
        """The inverse of `to_json`.

        Raises:
            InputError: the value is not such a draw.
        """
        try:
            return cls(tuple(value["concatenate"]), tuple(value["gaps_s"]), float(value["duration_s"]))
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(
                f"{str(value)[:80]!r} is not a concatenation draw ({error}): give what ConcatenateDraw.to_json wrote"
            ) from error


def draw_concatenations(
    rng: np.random.Generator,
    clips: Sequence[ClipInfo],
    *,
    max_duration_s: float = 30.0,
    most: int = 8,
    partner: Literal["speaker", "any"] = "speaker",
    gap_s: tuple[float, float] = (0.1, 0.6),
) -> list[ConcatenateDraw]:
    """Group clips so that each is used at most once and no group is longer than the limit.

    Clips are shuffled, then each group takes from its speaker's (or everybody's) remaining clips as long as they fit.
    Clips that found no partner are in no group.

    Args:
        rng: a seeded generator.
        clips: what may be joined.
        max_duration_s: longest result, silences included.
        most: most clips of a group (8 in the concat-mix of a phonetic-track winner of the children's challenge).
        partner: ``speaker`` joins clips of one speaker (those without a speaker are left alone), ``any`` joins all.
        gap_s: range of the silence between two clips.
    """
    decks: dict[str, list[ClipInfo]] = {}
    for index in rng.permutation(len(clips)):
        clip = clips[int(index)]
        if partner == "any" or clip.speaker_id is not None:
            decks.setdefault("" if partner == "any" else str(clip.speaker_id), []).append(clip)
    groups = []
    for key in sorted(decks):
        group: list[ClipInfo] = []
        gaps: list[float] = []
        duration_s = 0.0
        target = int(rng.integers(2, most + 1))
        for clip in decks[key]:
            gap = uniform(rng, gap_s) if group else 0.0
            if group and (len(group) >= target or duration_s + gap + clip.duration_s > max_duration_s):
                groups.append((group, gaps, duration_s))
                group, gaps, duration_s, gap = [], [], 0.0, 0.0
                target = int(rng.integers(2, most + 1))
            if group:
                gaps.append(gap)
            group.append(clip)
            duration_s += gap + clip.duration_s
        groups.append((group, gaps, duration_s))
    return [
        ConcatenateDraw(tuple(one.utterance_id for one in group), tuple(gaps), duration_s)
        for group, gaps, duration_s in groups
        if len(group) > 1
    ]


def apply_concatenation(draw: ConcatenateDraw, waveforms: Sequence[Samples]) -> Samples:
    """The clips one after the other, with zeros between them.

    Args:
        draw: from `draw_concatenations`.
        waveforms: the clips in the order of ``draw.utterance_ids``, each of shape (samples,), 16 kHz.
    """
    parts: list[Samples] = [np.asarray(waveforms[0], np.float32)]
    for gap, waveform in zip(draw.gaps_s, waveforms[1:], strict=True):
        parts += [np.zeros(round(gap * SAMPLE_RATE_HZ), np.float32), np.asarray(waveform, np.float32)]
    return np.concatenate(parts)


def join_texts(texts: Sequence[str], language: str | None = None) -> str:
    """The transcripts one after the other, with a blank between them where the language has blanks."""
    code = (language or "").lower().replace("_", "-").split("-")[0]
    return ("" if code in UNSPACED else " ").join(text.strip() for text in texts if text.strip())
