"""The score of each slice: its counts and interval, whether it is too small to say much, and how it differs."""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechtune.scoring.alignment import Counts
from speechtune.scoring.bootstrap import (
    MIN_SPEAKERS,
    Difference,
    Integers,
    Interval,
    blocks_of,
    bootstrap_interval,
    student_p_value,
    student_quantile,
)
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.slices import block_name

SMALL_UTTERANCES, SMALL_WORDS = 30, 100
"""A slice with fewer utterances or reference words is marked as small: intervals of fewer than 30 units are too narrow
(docs/scoring.md), and below 100 words one error moves the rate by more than a point."""


@dataclass(slots=True, kw_only=True)
class SliceScore:
    """The utterances that share one value of a column: word counts, character counts, WER interval.

    ``small`` says why a slice is too small for its rate to say much, and is empty for others. ``against_rest`` is its
    rate minus that of all other utterances (`rate_against_rest`), ``None`` where it is the only slice;
    ``adjusted_p_value`` corrects its p-value for the number of slices of all columns (Holm).
    """

    counts: Counts
    chars: Counts
    utterances: int
    interval: Interval | None
    small: str = ""
    against_rest: Difference | None = None
    adjusted_p_value: float | None = None

    @property
    def wer(self) -> float | None:
        """Word error rate as a fraction; ``None`` where no reference has a word."""
        return self.counts.rate

    @property
    def cer(self) -> float | None:
        """Character error rate as a fraction."""
        return self.chars.rate

    def to_json(self) -> dict[str, Any]:
        """Rates and counts, JSON-ready."""
        rest = self.against_rest
        return {
            "utterances": self.utterances,
            "wer": self.wer,
            "interval": self.interval.to_json() if self.interval else None,
            "cer": self.cer,
            "words": self.counts.to_json(),
            "chars": self.chars.to_json(),
            "small": self.small or None,
            "against_rest": rest.to_json() | {"adjusted_p_value": self.adjusted_p_value} if rest else None,
        }


def interval_of_counts(counts: np.ndarray, blocks: Sequence[str | None], config: ScoringConfig) -> Interval | None:
    """The interval of errors / reference units of counts with shape [utterances, 4]."""
    return bootstrap_interval(
        counts[:, 1:].sum(axis=1),
        counts[:, :3].sum(axis=1),
        blocks,
        config.resamples,
        config.confidence_level,
        config.seed,
        block_name(config.resample_by),
    )


def score_slices(
    labels: Mapping[str, Sequence[str]],
    order: Mapping[str, Sequence[str]],
    words: np.ndarray,
    chars: np.ndarray,
    blocks: Sequence[str | None],
    config: ScoringConfig,
) -> dict[str, dict[str, SliceScore]]:
    """The score of every slice of every column.

    Args:
        labels: of each column, the label of each utterance.
        order: of each column, its labels in the order in which they are shown.
        words: hits, substitutions, deletions, insertions of each utterance, shape [utterances, 4].
        chars: the same over characters.
        blocks: what each utterance is resampled with.
        config: how intervals are made.
    """
    found: dict[str, dict[str, SliceScore]] = {}
    numbers = blocks_of(blocks, len(blocks))
    several = len(set(blocks) - {None}) >= MIN_SPEAKERS
    errors, lengths = words[:, 1:].sum(axis=1), words[:, :3].sum(axis=1)
    for column, values in order.items():
        places: dict[str, list[int]] = {value: [] for value in values}
        for place, label in enumerate(labels[column]):
            places[label].append(place)
        found[column] = {}
        for value, part in places.items():
            own = [blocks[place] for place in part]
            inside = np.zeros(len(words), dtype=bool)
            inside[part] = True
            counts = Counts(*map(int, words[part].sum(axis=0)))
            found[column][value] = SliceScore(
                counts=counts,
                chars=Counts(*map(int, chars[part].sum(axis=0))),
                utterances=len(part),
                interval=interval_of_counts(words[part], own, config),
                small=_small(len(part), counts.reference_length, own if several else None, config),
                against_rest=_against_rest(
                    errors, lengths, inside, numbers, config.confidence_level, block_name(config.resample_by)
                )
                if config.resamples and len(values) > 1
                else None,
            )
    _adjust([one for parts in found.values() for one in parts.values()])
    return found


def _small(utterances: int, words: int, own: Sequence[str | None] | None, config: ScoringConfig) -> str:
    """Why a slice is small; ``own`` are the speakers of its utterances, ``None`` where the corpus knows too few."""
    reasons = []
    if utterances < SMALL_UTTERANCES:
        reasons.append(f"{utterances} utterance{'s' * (utterances != 1)}")
    if words < SMALL_WORDS:
        reasons.append(f"{words} word{'s' * (words != 1)}")
    known = MIN_SPEAKERS if own is None else len(set(own) - {None})
    if known < MIN_SPEAKERS:
        reasons.append(f"{known} {block_name(config.resample_by)}{'s' * (known != 1)}")
    return ", ".join(reasons)


def _adjust(slices: Sequence[SliceScore]) -> None:
    from speechtune.scoring.significance import adjust

    p_values = [one.against_rest.p_value if one.against_rest else None for one in slices]
    for one, adjusted in zip(slices, adjust(p_values), strict=True):
        one.adjusted_p_value = adjusted


def rate_against_rest(
    errors: Integers,
    lengths: Integers,
    inside: np.ndarray,
    groups: Sequence[Hashable | None] | None = None,
    level: float = 0.95,
    block: str = "speaker",
) -> Difference | None:
    """The error rate of a slice minus that of all other utterances, with its interval and p-value.

    Speakers may stand on both sides. The variance is the cluster-robust one of the linearised difference of two ratios
    (Cochran 1977, "Sampling Techniques", chapter 6); the degrees of freedom are those of the side with fewer blocks, so
    that a slice of three speakers is not judged by the hundred speakers it is compared with. Nothing is resampled.

    Args:
        errors: errors of each utterance, shape [utterances].
        lengths: reference words of each.
        inside: whether each is in the slice.
        groups: speaker of each, used as in `bootstrap_interval`.
        level: coverage of the interval.
        block: what a group is called.

    Returns:
        ``None`` where one side has no reference words; no interval where one side has a single block.
    """
    error, length = np.asarray(errors, dtype=np.float64), np.asarray(lengths, dtype=np.float64)
    return _against_rest(error, length, inside, blocks_of(groups, len(error)), level, block)


def _against_rest(
    error: np.ndarray, length: np.ndarray, inside: np.ndarray, blocks: np.ndarray | None, level: float, block: str
) -> Difference | None:
    sides = (inside, ~inside)
    words = [float(length[side].sum()) for side in sides]
    if not all(words):
        return None
    rates = [float(error[side].sum()) / own for side, own in zip(sides, words, strict=True)]
    difference = rates[0] - rates[1]
    residuals = np.where(inside, (error - rates[0] * length) / words[0], (rates[1] * length - error) / words[1])
    if blocks is None:
        blocks, block = np.arange(len(error)), "utterance"
    sums = np.bincount(blocks, residuals)
    units = len(sums)
    degrees = min(len(np.unique(blocks[side])) for side in sides) - 1
    deviation = math.sqrt(units / (units - 1) * float((sums**2).sum())) if units > 1 else 0.0
    if degrees < 1 or not deviation:
        return Difference(difference, None, None)
    reach = student_quantile(0.5 + level / 2, degrees) * deviation
    interval = Interval(difference - reach, difference + reach, level, block, units, 0, 0)
    return Difference(difference, interval, student_p_value(difference / deviation, degrees))
