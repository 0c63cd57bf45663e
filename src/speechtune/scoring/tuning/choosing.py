"""The setting to take among those that were measured, and an honest figure for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from speechtune.core.errors import InputError
from speechtune.scoring.bootstrap import Difference, paired_difference
from speechtune.scoring.tuning.measuring import Measured


@dataclass(frozen=True, slots=True)
class Limits:
    """What a setting may cost to be chosen, beside the default (the first of those measured).

    ``slowdown``: times the default's decoding time; ``more_inserted_per_min``: words a minute on clips without speech
    beyond the default's.
    """

    slowdown: float = 4.0
    more_inserted_per_min: float = 0.0


@dataclass(slots=True)
class Choice:
    """The outcome; error rates are fractions.

    ``chosen``: the setting with the fewest errors on everybody, whose own rate (``rate_chosen``) is too good to be
    reported. ``rate_crossed``: every speaker decoded with the setting chosen on the others: the figure to report.
    ``folds``: the setting of each group of speakers. ``pareto``: settings that no other beats in errors, inserted words
    and time at once. ``admissible``: settings within the limits.
    """

    chosen: int
    rate_default: float
    rate_crossed: float
    rate_chosen: float
    difference: Difference
    folds: list[int]
    pareto: list[int]
    admissible: list[int]

    @property
    def significant(self) -> bool:
        """Whether the cross-validated gain over the default is real at the 5 % level."""
        gap = self.difference
        return gap.difference is not None and gap.difference < 0 and gap.p_value is not None and gap.p_value < 0.05


def choose(
    measured: Sequence[Measured],
    lengths: np.ndarray,
    speakers: Sequence[str | None],
    limits: Limits,
    *,
    folds: int = 5,
    resamples: int = 1000,
    seed: int = 0,
) -> Choice:
    """Choose a setting, and cross-validate the choosing over speakers.

    Args:
        measured: the default first, then what was tried; of equally good ones the first wins.
        lengths: reference units of each utterance.
        speakers: of each utterance; utterances of unknown speakers are one speaker each.
        limits: which settings may be chosen.
        folds: groups of speakers; 0: each speaker is one.
        resamples, seed: of the interval; the seed also deals the speakers to groups.

    Raises:
        InputError: fewer than two speakers, or no reference units.
    """
    names = [name if name is not None else f"({place})" for place, name in enumerate(speakers)]
    known = sorted(set(names))
    if len(known) < 2:
        raise InputError("settings cannot be cross-validated over fewer than two speakers: give a split with more")
    total = int(lengths.sum())
    if not total:
        raise InputError("there are no reference words to tune on: choose another --split")
    default = measured[0]
    admissible = [
        place
        for place, one in enumerate(measured)
        if place == 0
        or (
            one.rtf <= limits.slowdown * default.rtf
            and one.inserted_per_min <= default.inserted_per_min + limits.more_inserted_per_min + 1e-9
        )
    ]
    errors = np.stack([measured[place].errors for place in admissible], axis=1)
    groups = deal(known, folds or len(known), seed)
    owner = np.array([groups[name] for name in names])
    crossed = np.zeros(len(names), np.int64)
    chosen_by_fold = []
    for fold in range(int(owner.max()) + 1):
        inside = owner == fold
        best = int(errors[~inside].sum(axis=0).argmin())
        crossed[inside] = errors[inside, best]
        chosen_by_fold.append(admissible[best])
    best = int(errors.sum(axis=0).argmin())
    return Choice(
        admissible[best],
        float(default.errors.sum() / total),
        float(crossed.sum() / total),
        float(errors[:, best].sum() / total),
        paired_difference(default.errors, crossed, lengths, list(speakers), resamples, 0.95, seed),
        chosen_by_fold,
        pareto_front([(float(one.errors.sum()), one.inserted_per_min, one.rtf) for one in measured]),
        admissible,
    )


def deal(names: Sequence[str], groups: int, seed: int) -> dict[str, int]:
    """Deal names to groups of equal size, in an order drawn by the seed."""
    order = np.random.default_rng(seed).permutation(len(names)).tolist()
    return {names[place]: number % min(groups, len(names)) for number, place in enumerate(order)}


def pareto_front(points: Sequence[tuple[float, ...]]) -> list[int]:
    """The points that no other is at least as low in everything and lower in something."""
    table = np.array(points)
    front = []
    for place, point in enumerate(table):
        beaten = (table <= point).all(axis=1) & (table < point).any(axis=1)
        if not beaten.any():
            front.append(place)
    return front
