"""Which clips an epoch puts together, and its clips without speech: a pure function of the seed and the epoch."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from speechtune.training.format_config import FormatConfig

OPEN_GROUPS = 32
"""Groups of one key that a clip is tried in before it begins a new one."""

ROUNDING_S = 0.02
"""Kept free for each clip of a group: table and file may differ by rounding."""

_STREAM = 4  # training.data draws from (seed, epoch, 0) to (…, 2), corpus.sampling from (…, 3)
_GROUPS, _EMPTY = 0, 1

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Part:
    """A clip that follows others in one example, ``gap_s`` after the one before; see `Pick` for the rest."""

    index: int
    place: int
    speed: float
    gap_s: float


@dataclass(slots=True)
class Unit:
    """One example of an epoch: places of its clips in the epoch's draw, with the silence before each (first: 0).

    ``empty_s`` > 0 is a clip without speech of that length; its single place says whose language and previous text
    it has.
    """

    places: list[int]
    gaps_s: list[float]
    duration_s: float
    tokens: int = 0
    most: int = 1
    empty_s: float = 0.0


@dataclass(slots=True)
class FormatPlan:
    """Draws the units of an epoch.

    Attributes:
        config: what is asked for.
        keys: of each utterance, what the clips of a group share; ``None``: it stays alone.
        tokens: label tokens of each utterance, shape (utterances,).
        max_tokens: most label tokens of a group.
        window_s: longest example.
    """

    config: FormatConfig
    keys: Sequence[Hashable | None] = ()
    tokens: Sequence[int] = ()
    max_tokens: int = 0
    window_s: float = 30.0

    def units(self, seed: int, epoch: int, shown: Sequence[int], durations_s: Numbers) -> list[Unit]:
        """The examples of an epoch.

        Args:
            seed: of the run.
            epoch: which one.
            shown: the utterance at each place of the epoch's draw.
            durations_s: how long each of those is at its drawn speed.
        """
        if self.config.groups:
            units = self._grouped(np.random.default_rng((seed, epoch, _STREAM, _GROUPS)), shown, durations_s)
        else:
            units = [Unit([place], [0.0], float(seconds)) for place, seconds in enumerate(durations_s)]
        return units + self._empty(np.random.default_rng((seed, epoch, _STREAM, _EMPTY)), len(shown), len(units))

    def _grouped(self, rng: np.random.Generator, shown: Sequence[int], durations_s: Numbers) -> list[Unit]:
        """First fit in drawn order; a clip that is not drawn for a join, or has no key, is a unit by itself."""
        packs, count = self.config.pack.seconds > 0, len(shown)
        longest_s = min(self.config.pack.seconds, self.window_s) if packs else self.window_s
        order = rng.permutation(count)
        gaps_s = rng.uniform(*self.config.pack.gap_s, count)
        most = np.full(count, self.config.pack.max_clips or count) if packs else rng.integers(2, 4, count)
        cost = self.config.pack.max_cost
        joined = np.ones(count, dtype=bool) if packs else rng.random(count) < self.config.join_share
        units: list[Unit] = []
        groups: dict[Hashable, list[Unit]] = {}
        for place in order.tolist():
            index, seconds = int(shown[place]), float(durations_s[place])
            key, tokens = self.keys[index], self.tokens[index]
            found = groups.setdefault(key, []) if key is not None and joined[place] else []
            gap_s = float(gaps_s[place])
            for unit in found:
                length_s = unit.duration_s + gap_s + seconds
                spare_s = ROUNDING_S * (len(unit.places) + 1)
                fits = cost is None or length_s * (unit.tokens + tokens) <= cost
                if fits and length_s + spare_s <= longest_s and unit.tokens + tokens <= self.max_tokens:
                    unit.places.append(place)
                    unit.gaps_s.append(gap_s)
                    unit.duration_s, unit.tokens = length_s, unit.tokens + tokens
                    if len(unit.places) >= unit.most:
                        found.remove(unit)
                    break
            else:
                unit = Unit([place], [0.0], seconds, tokens, int(most[place]))
                units.append(unit)
                found.append(unit)
                del found[:-OPEN_GROUPS]
        return units

    def _empty(self, rng: np.random.Generator, shown: int, units: int) -> list[Unit]:
        share = self.config.empty.share
        count = round(units * share / (1 - share))
        low_s, high_s = (min(seconds, self.window_s) for seconds in self.config.empty.duration_s)
        lengths_s = rng.uniform(low_s, high_s, count)
        beside = rng.integers(0, shown, count)
        return [
            Unit([int(place)], [0.0], float(seconds), empty_s=float(seconds))
            for place, seconds in zip(beside, lengths_s, strict=True)
        ]
