"""What a sweep varies: lists of values and ranges of numbers, and the combinations that are trained."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from speechtune.core.errors import InputError, missing_extra

Params = dict[str, str]
"""Recipe keys and the values they get, as they would be typed behind ``speechtune train``."""


@dataclass(frozen=True, slots=True)
class Range:
    """Numbers from ``low`` to ``high``; ``log``: drawn evenly in their logarithm; ``whole``: integers."""

    low: float
    high: float
    log: bool = False
    whole: bool = False


@dataclass(frozen=True, slots=True)
class Space:
    """Lists of values by recipe key, and ranges by recipe key."""

    grid: dict[str, list[str]]
    ranges: dict[str, Range]

    def combinations(self) -> list[Params]:
        """Every combination of the lists, the last key changing fastest."""
        return [dict(zip(self.grid, values, strict=True)) for values in itertools.product(*self.grid.values())]


def read_space(grid: Sequence[str], ranges: Sequence[str]) -> Space:
    """The space of ``--grid key=a,b`` and ``--range key=low:high[:log]`` options.

    A value may hold commas inside brackets, braces or quotes: ``adapter.targets=[attention],[attention,mlp]``.

    Raises:
        InputError: an option is malformed, a key is given twice, or nothing is varied.
    """
    lists: dict[str, list[str]] = {}
    numbers: dict[str, Range] = {}
    for option, text in [*(("--grid", one) for one in grid), *(("--range", one) for one in ranges)]:
        key, equals, values = text.partition("=")
        if not equals or not key or not values:
            raise InputError(f"{option} {text!r} is not key=values: write for example {option} {_EXAMPLES[option]}")
        if key in lists or key in numbers:
            raise InputError(f"{key} is varied twice: give all its values in one option")
        if option == "--grid":
            lists[key] = _split(values, text)
        else:
            numbers[key] = _range(values, text)
    if not lists and not numbers:
        raise InputError(f"nothing is varied: add for example --grid {_EXAMPLES['--grid']}")
    return Space(lists, numbers)


_EXAMPLES = {"--grid": "training.learning_rate=1e-5,3e-5", "--range": "training.learning_rate=1e-6:1e-4:log"}


def _split(values: str, text: str) -> list[str]:
    found, depth, quote, start = [], 0, "", 0
    for place, char in enumerate(values):
        if quote:
            quote = "" if char == quote else quote
        elif char in "'\"":
            quote = char
        elif char in "[{(":
            depth += 1
        elif char in "]})":
            depth -= 1
        elif char == "," and depth == 0:
            found.append(values[start:place])
            start = place + 1
    found = [one.strip() for one in [*found, values[start:]]]
    if depth or quote or not all(found):
        raise InputError(f"--grid {text!r} has an empty value, or a bracket or quote that is not closed")
    if len(set(found)) < len(found):
        raise InputError(f"--grid {text!r} names a value twice: leave one out")
    return found


def _range(values: str, text: str) -> Range:
    parts = values.split(":")
    log = len(parts) == 3 and parts[2] == "log"
    try:
        if len(parts) not in (2, 3) or (len(parts) == 3 and not log):
            raise ValueError
        low, high = float(parts[0]), float(parts[1])
    except ValueError as error:
        raise InputError(
            f"--range {text!r} is not low:high or low:high:log: write for example --range {_EXAMPLES['--range']}"
        ) from error
    if not (math.isfinite(low) and math.isfinite(high) and low < high) or (log and low <= 0):
        raise InputError(f"--range {text!r} must rise, and with :log begin above 0")
    whole = all(part.lstrip("+-").isdigit() for part in parts[:2])
    return Range(low, high, log, whole)


class Searcher:
    """Draws combinations one after the other, by chance or by what the earlier ones gave (TPE, through Optuna).

    A draw depends on the seed, its number and the earlier trials alone, so an interrupted search goes on with the same.

    Raises:
        InputError: Optuna is not installed.
    """

    def __init__(self, space: Space, method: str, seed: int, startup: int) -> None:
        try:
            import optuna
        except ImportError as error:
            raise missing_extra("optuna", "tune") from error
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self._optuna: Any = optuna
        self.method, self.seed, self.startup = method, seed, startup
        self.distributions: dict[str, Any] = {
            key: optuna.distributions.CategoricalDistribution(tuple(values)) for key, values in space.grid.items()
        }
        for key, one in space.ranges.items():
            self.distributions[key] = (
                optuna.distributions.IntDistribution(int(one.low), int(one.high), log=one.log)
                if one.whole
                else optuna.distributions.FloatDistribution(one.low, one.high, log=one.log)
            )
        self.study: Any = optuna.create_study(direction="minimize")

    def draw(self, number: int) -> dict[str, Any]:
        """The values of trial ``number``."""
        samplers, seed = self._optuna.samplers, self.seed + 1000 * number
        self.study.sampler = (
            samplers.RandomSampler(seed)
            if self.method == "random"
            else samplers.TPESampler(seed=seed, n_startup_trials=self.startup)
        )
        trial = self.study.ask(self.distributions)
        values = dict(trial.params)
        self.study.tell(trial, state=self._optuna.trial.TrialState.FAIL)
        return values

    def learn(self, values: dict[str, Any], wer: float | None) -> None:
        """What a trial gave; ``None``: it failed."""
        states = self._optuna.trial.TrialState
        outcome = {"state": states.FAIL} if wer is None else {"state": states.COMPLETE, "value": wer}
        self.study.add_trial(
            self._optuna.trial.create_trial(params=values, distributions=self.distributions, **outcome)
        )
