"""How much data would show a given difference between two systems, judged from the differences observed."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np

from speechtune.scoring.bootstrap import Integers, blocks_of, student_quantile


@dataclass(frozen=True, slots=True, kw_only=True)
class Power:
    """What a test set must hold so that a difference of ``points`` (percentage points of WER) is seen.

    "Seen" means: a two-sided test at ``alpha`` calls it real with probability ``power``. ``blocks_needed`` speakers
    with as many utterances each as here, that is ``utterances_needed`` utterances; ``utterances_if_independent`` is
    what would be needed if utterances of one speaker were not alike (every utterance of another speaker), and
    ``design_effect`` the ratio of the two variances. ``visible_points`` is the smallest difference that the data at
    hand shows with that probability. ``blocks`` is ``None`` where speakers are unknown and utterances are the units;
    ``block`` is what they are called.
    """

    points: float
    alpha: float
    power: float
    blocks: int | None
    utterances: int
    blocks_needed: int | None
    utterances_needed: int
    utterances_if_independent: int
    design_effect: float | None
    visible_points: float
    block: str = "speaker"

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON-ready."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def to_text(self) -> str:
        """Two sentences for a person."""
        needed = f"{self.utterances_needed} utterances"
        if self.blocks_needed is not None:
            needed = f"{self.blocks_needed} {self.block}s ({needed} at as many each as here)"
        return (
            f"these {self.utterances} utterances show a difference of {self.visible_points:.2f} points in "
            f"{self.power:.0%} of the cases; to see {self.points:g} points: {needed}"
        )


def needed_data(
    errors_a: Integers,
    errors_b: Integers,
    lengths: Integers,
    groups: Sequence[Hashable | None] | None = None,
    points: float = 1.0,
    alpha: float = 0.05,
    power: float = 0.8,
    block: str = "speaker",
) -> Power | None:
    """The data that would show a difference of ``points`` percentage points of WER.

    The standard error of the difference of two corpus rates comes from the observed differences of each block around
    their mean (linearised ratio; Cochran 1977, "Sampling Techniques", chapters 6 and 9A) and falls with the square root
    of the number of blocks. Quantiles are Student's. The systems compared matter: two that err on the same words need
    less data than two that err on different ones, so the answer holds for a pair like this one.

    Args:
        errors_a: errors of system a in each utterance, shape [utterances].
        errors_b: errors of system b.
        lengths: reference words of each utterance.
        groups: speaker of each utterance; used as in `speechtune.scoring.bootstrap`.
        points: difference to be seen, in percentage points, above 0.
        alpha: level of the two-sided test.
        power: wanted probability of seeing it.
        block: what a group is called.

    Returns:
        The estimate, or ``None`` where the systems never differ, or with fewer than two units or no reference words.
    """
    change = np.asarray(errors_b, dtype=np.float64) - np.asarray(errors_a, dtype=np.float64)
    words = np.asarray(lengths, dtype=np.float64)
    if len(change) < 2 or not words.sum() or not change.any():
        return None
    residuals = change - words * (change.sum() / words.sum())
    alone = _standard_error(residuals, words.sum())
    blocks = blocks_of(groups, len(change))
    units = len(change)
    error = alone
    if blocks is not None:
        sums = np.bincount(blocks, residuals)
        units, error = len(sums), _standard_error(sums, words.sum())
    if not error or not alone:
        return None
    needed = _units_needed(error * math.sqrt(units), points / 100, alpha, power)
    independent = _units_needed(alone * math.sqrt(len(change)), points / 100, alpha, power)
    return Power(
        points=points,
        alpha=alpha,
        power=power,
        blocks=units if blocks is not None else None,
        utterances=len(change),
        blocks_needed=needed if blocks is not None else None,
        utterances_needed=math.ceil(needed * len(change) / units),
        utterances_if_independent=independent,
        design_effect=(error / alone) ** 2 if blocks is not None else None,
        block=block,
        visible_points=100 * error * _quantiles(units, alpha, power),
    )


def _standard_error(residuals: np.ndarray, words: float) -> float:
    units = len(residuals)
    return math.sqrt(units / (units - 1) * float((residuals**2).sum())) / float(words)


def _quantiles(units: int, alpha: float, power: float) -> float:
    return student_quantile(1 - alpha / 2, units - 1) + student_quantile(power, units - 1)


def _units_needed(error_of_one: float, difference: float, alpha: float, power: float) -> int:
    """The least number of units of which the standard error is small enough."""
    normal = NormalDist()
    quantiles = normal.inv_cdf(1 - alpha / 2) + normal.inv_cdf(power)
    units = max(2, math.ceil((quantiles * error_of_one / difference) ** 2))
    while error_of_one / math.sqrt(units) * _quantiles(units, alpha, power) > difference:
        units += 1
    return units
