"""What is still parity: limits by precision, and how a measured difference is held against them.

Two things are measured on every leg of the gate, and both have an interval, because a gate sees tens to hundreds of
clips and not millions:

- **token divergence**: the chance that the artefact, having said the same so far, says another token than the source
  (end of text is a token too). Decoding is greedy, so behind the first different token the texts go their own ways;
  only the first one counts, and the tokens up to it are its chances. Wilson's interval.
- **rise of WER** against what is really said, with the paired bootstrap interval of `speechtune.scoring.bootstrap`.

A leg is refused where the data show the difference to be too large: divergence whose whole interval is above the
limit, or a rise above its limit whose interval is above zero. It is *proven* where both intervals lie within the
limits. Between the two, more clips would tell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speechtune.core.intervals import wilson


@dataclass(frozen=True, slots=True)
class Limits:
    """What one precision may do: ``divergence`` of tokens and rise of WER, both as fractions.

    ``times``: clips of which an end may move by more than `speechtune.export.times.TOLERANCE_S`.
    """

    divergence: float
    wer_rise: float
    times: float

    def of(self, habit: bool) -> Limits:
        """What a leg is allowed; ``habit``: it runs as people run it, not in the source's own way."""
        return Limits(self.divergence + HABIT, self.wer_rise + HABIT_WER, self.times) if habit else self


LIMITS = {
    "float": Limits(divergence=0.005, wer_rise=0.005, times=0.10),
    "8 bits": Limits(divergence=0.03, wer_rise=0.01, times=0.25),
    "5 bits": Limits(divergence=0.05, wer_rise=0.02, times=0.35),
    "4 bits": Limits(divergence=0.08, wer_rise=0.03, times=0.50),
}
"""By precision, from 240 clips of unseen children with a tuned tiny.en (docs/results/export.md)."""
HABIT, HABIT_WER = 0.05, 0.01
"""On top where a runtime's habits differ from the source's way: faster-whisper fills a window with zeros where Whisper
was trained on the log-mel of silence; whisper.cpp's flash attention attends to padding (docs/export.md)."""


def limits_of(dtype: str, max_wer_rise: float | None = None) -> Limits:
    """The tolerance for a precision."""
    bits = {"q8": "8 bits", "in": "8 bits", "q5": "5 bits", "q4": "4 bits"}.get(dtype[:2], "float")
    found = LIMITS[bits]
    return found if max_wer_rise is None else Limits(found.divergence, max_wer_rise, found.times)


def divergence(source: Sequence[Sequence[int]], target: Sequence[Sequence[int]]) -> dict[str, Any]:
    """How many texts diverge, in how many tokens that they had the chance to, with Wilson's 95 % interval.

    Args:
        source: tokens of each text, end of text not among them (it is added).
        target: of the same clips.
    """
    diverged = chances = 0
    for ours, theirs in zip(source, target, strict=True):
        pairs = list(zip([*ours, -1], [*theirs, -1], strict=False))
        place = next((number for number, (one, other) in enumerate(pairs) if one != other), None)
        diverged += place is not None
        chances += len(pairs) if place is None else place + 1
    if not chances:
        return {"diverged": 0, "tokens": 0, "rate": 0.0, "low": 0.0, "high": 1.0}
    low, high = wilson(diverged, chances)
    return {"diverged": diverged, "tokens": chances, "rate": diverged / chances, "low": low, "high": high}


def wer_too_high(rise: float, interval: dict[str, Any] | None, limit: float) -> bool:
    """Above the limit, and not by chance: its interval is above zero (or there is none to excuse it)."""
    return rise > limit and (interval is None or interval["low"] > 0)


def is_proven(found: dict[str, Any], limits: Limits, habit: bool) -> bool:
    """Whether the intervals of a leg lie within the limits, so that no more clips are needed."""
    difference = found["wer_difference"]
    if difference is None or difference["interval"] is None:
        return False
    allowed = limits.of(habit)
    return found["divergence"]["high"] <= allowed.divergence and difference["interval"]["high"] <= allowed.wer_rise
