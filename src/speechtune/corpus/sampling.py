"""Which utterances an epoch shows: a pure function of the seed and the epoch, and subsets by hours.

Utterances fall into groups (a corpus of the mixture, a value of the balanced column). The size of every group in an
epoch is its expected size rounded down or up (systematic sampling: one uniform offset decides all roundings, so no
group is favoured in expectation and the total is exact). Inside a group utterances come in seeded permutations, one
after the other, across epochs: none comes a second time before all have come once. With weights, systematic sampling
again decides how often each comes (Kitagawa 1996, Monte Carlo filter and smoother, appendix).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from speechtune.core.errors import InputError
from speechtune.corpus.config import CurriculumConfig
from speechtune.corpus.table import Utterance

Indices = npt.NDArray[np.int64]
Numbers = npt.NDArray[np.float64]

_STREAM = 3  # training.data draws from (seed, epoch, 0), (…, 1) and (…, 2)
_SIZES, _MEMBERS, _ORDER = 0, 1, 2


def temperature_shares(amounts: Sequence[float] | Numbers, temperature: float) -> Numbers:
    """Shares proportional to ``amounts ** (1 / temperature)``: 1 keeps the natural ones, infinity makes them equal.

    The exponent is alpha in XLM (Lample & Conneau 2019, arXiv 1901.07291: 0.5; 0.7 in multilingual BERT's README, 0.3
    in XLM-R, arXiv 1911.02116); as 1/T in Arivazhagan et al. 2019 (arXiv 1907.05019).
    """
    given = np.asarray(amounts, dtype=np.float64)
    raised = (given / given.max()) ** (1.0 / temperature)
    return raised / raised.sum()


def systematic(expected: Numbers, rng: np.random.Generator) -> Indices:
    """Whole numbers near ``expected``: each rounded down or up, right on average, with the (whole) total kept."""
    total = round(float(expected.sum()))
    edges = np.cumsum(expected)
    edges *= total / edges[-1]
    marks = np.floor(np.concatenate([[0.0], edges]) + rng.random())
    marks[-1] = marks[0] + total
    return np.diff(marks).astype(np.int64)


@dataclass(frozen=True, slots=True)
class Group:
    """Utterances of a pool that share a part and a balanced value; ``share`` is their share of an epoch."""

    name: str
    members: Indices
    share: float


@dataclass(frozen=True, eq=False)
class PoolDraw:
    """The draw of every epoch.

    Attributes:
        groups: they cover the pool, each utterance once.
        epoch_utterances: how many utterances an epoch shows once the curriculum has grown to everything.
        weights: relative frequency of each utterance inside its group, shape (pool,); ``None``: equal.
        difficulty: what the curriculum orders by, shape (pool,), small first; ``None``: no curriculum.
        curriculum: how it grows.
    """

    groups: tuple[Group, ...]
    epoch_utterances: int
    weights: Numbers | None = None
    difficulty: Numbers | None = None
    curriculum: CurriculumConfig = field(default_factory=CurriculumConfig)

    def __call__(self, seed: int, epoch: int) -> Indices:
        """Positions in the pool, ascending; one stands as often as it is shown."""
        sizes = self._sizes(seed, epoch)
        parts = [self._members(seed, epoch, number, int(size)) for number, size in enumerate(sizes)]
        return np.sort(np.concatenate(parts))

    def is_sorted(self, epoch: int) -> bool:
        """Whether the batches of this epoch come in order of difficulty."""
        plan = self.curriculum
        return self.difficulty is not None and plan.how == "sorted" and epoch < plan.epochs

    def grown(self, epoch: int) -> float:
        """The share of every group, the easiest first, that this epoch draws from."""
        if self.difficulty is None or self.curriculum.how == "sorted":
            return 1.0
        return min(1.0, (epoch + 1) / self.curriculum.epochs)

    def to_json(self) -> dict[str, Any]:
        """The plan: utterances of an epoch, and per group how many there are and how many an epoch shows."""
        return {
            "epoch_utterances": self.epoch_utterances,
            "groups": [
                {
                    "group": group.name,
                    "utterances": len(group.members),
                    "share": round(group.share, 6),
                    "shown_per_epoch": round(group.share * self.epoch_utterances, 2),
                }
                for group in self.groups
            ],
        }

    def _sizes(self, seed: int, epoch: int) -> Indices:
        total = max(1, round(self.epoch_utterances * self.grown(epoch)))
        expected = np.array([group.share for group in self.groups]) * total
        return systematic(expected, np.random.default_rng((seed, epoch, _STREAM, _SIZES)))

    def _members(self, seed: int, epoch: int, number: int, size: int) -> Indices:
        members, rng = self.groups[number].members, np.random.default_rng((seed, epoch, _STREAM, _MEMBERS, number))
        if self.grown(epoch) < 1.0 and self.difficulty is not None:
            easiest = np.argsort(self.difficulty[members], kind="stable")
            members = members[easiest[: max(1, math.ceil(self.grown(epoch) * len(members)))]]
        elif self.weights is None:
            return self._next_in_stream(seed, epoch, number, size)
        weights = np.ones(len(members)) if self.weights is None else self.weights[members]
        order = rng.permutation(len(members))
        times = systematic(size * weights[order] / weights.sum(), rng) if size else np.zeros(len(members), np.int64)
        return np.repeat(members[order], times)

    def _next_in_stream(self, seed: int, epoch: int, number: int, size: int) -> Indices:
        """The next ``size`` of the group's endless row of permutations, after those of the epochs before."""
        members = self.groups[number].members
        full = [before for before in range(epoch) if self.grown(before) == 1.0]
        start = sum(int(_sizes_of(self, seed, before)[number]) for before in full)
        rounds = range(start // len(members), (start + size - 1) // len(members) + 1) if size else range(0)
        row = [np.random.default_rng((seed, lap, _STREAM, _ORDER, number)).permutation(len(members)) for lap in rounds]
        offset = start % len(members)
        return members[np.concatenate(row)[offset : offset + size]] if row else members[:0]


@lru_cache(maxsize=4096)
def _sizes_of(draw: PoolDraw, seed: int, epoch: int) -> Indices:
    return draw._sizes(seed, epoch)


def nested_order(utterances: Sequence[Utterance], seed: int) -> list[int]:
    """An order of utterances in which every beginning holds about the same share of every speaker's seconds.

    Each speaker's utterances are shuffled and laid out between 0 and 1 by their seconds; all are then sorted by where
    they lie. Utterances without a speaker count as one. The order of the rows does not matter.
    """
    speakers: dict[str, list[int]] = {}
    for index in sorted(range(len(utterances)), key=lambda one: (utterances[one].utterance_id, one)):
        speakers.setdefault(utterances[index].speaker_id or "", []).append(index)
    rng = np.random.default_rng(seed)
    places: list[tuple[float, int]] = []
    for _, indices in sorted(speakers.items()):
        shuffled = [indices[position] for position in rng.permutation(len(indices))]
        seconds = np.array([max(utterances[index].duration_s, 1e-6) for index in shuffled])
        ends = np.cumsum(seconds)
        where = (ends - seconds * rng.random(len(shuffled))) / ends[-1]
        places += zip(where.tolist(), shuffled, strict=True)
    return [index for _, index in sorted(places)]


def subset_of_seconds(utterances: Sequence[Utterance], seconds: float, seed: int) -> list[int]:
    """Positions (ascending) of a subset of at most ``seconds``; with one seed, smaller ones lie inside larger ones.

    Raises:
        InputError: not even one utterance fits.
    """
    chosen, total = [], 0.0
    for index in nested_order(utterances, seed):
        total += utterances[index].duration_s
        if total > seconds + 1e-6:
            break
        chosen.append(index)
    if utterances and not chosen:
        raise InputError(f"{seconds / 3600:g} hours are too few for one utterance: ask for more hours")
    return sorted(chosen)
