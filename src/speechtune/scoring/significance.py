"""Tests of the difference between two recognisers on the same utterances, and the correction of many p-values.

All work on what is known of each utterance (errors of both systems, the words of its reference, its speaker), so a
p-value never depends on the order of the rows. ``groups`` is the speaker, session or any other block of each
utterance (``None``: unknown, a block of its own). Utterances of one speaker are alike: a test that takes them for
independent calls too many differences real (tests/scoring/test_significance.py shows by how much), so every test has
a form that only takes blocks for independent; it is used from `MIN_SPEAKERS` known blocks on.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from speechtune.core.errors import InputError
from speechtune.scoring.bootstrap import (
    Difference,
    Integers,
    blocks_of,
    normal_p_value,
    paired_difference,
    student_p_value,
)
from speechtune.scoring.power import Power, needed_data
from speechtune.scoring.segments import Segments, sentence_segments
from speechtune.scoring.slices import block_name

if TYPE_CHECKING:
    from speechtune.scoring.config import ScoringConfig
    from speechtune.scoring.score import Score

Groups = Sequence[Hashable | None]
Correction = Literal["holm", "benjamini-hochberg"]
CORRECTIONS: tuple[Correction, ...] = ("holm", "benjamini-hochberg")


@dataclass(frozen=True, slots=True)
class TestResult:
    """One test of the hypothesis that two systems make equally many errors.

    ``statistic`` and ``p_value`` (two-sided) are ``None`` where nothing can be tested: fewer than two units. Where
    all units differ by the same, there is no statistic and the p-value is that of the sign test. ``statistic`` is
    negative where system b makes fewer errors. ``unit`` says what was taken for independent, ``units`` how many there
    were; ``details`` holds the test's own counts.
    """

    __test__ = False

    name: str
    statistic: float | None
    p_value: float | None
    unit: str
    units: int
    details: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON-ready, the details beside the others."""
        own = {name: getattr(self, name) for name in ("statistic", "p_value", "unit", "units")}
        return {**own, **self.details}


def matched_pairs(
    errors_a: Integers,
    errors_b: Integers,
    groups: Groups | None = None,
    name: str = "matched-pairs",
    unit: str = "utterance",
    block: str = "block",
) -> TestResult:
    """Whether the mean difference of errors (b minus a) of paired units is zero (Gillick & Cox 1989).

    Without usable groups: the normal test, variance divided by n - 1 as NIST's sc_stats does. With them, the sum over
    each block takes the place of the unit: the variance is the cluster-robust one with its factor K / (K - 1) (Liang
    & Zeger 1986, Biometrika 73), and the statistic is compared with Student's t of K - 1 degrees of freedom.

    Args:
        errors_a: errors of system a in each unit (utterance or segment), shape [units].
        errors_b: the same for system b.
        groups: block of each unit.
        name: name of the result.
        unit: what a unit is called in the result.
        block: what a block is called in the result.
    """
    change = np.asarray(errors_b, dtype=np.int64) - np.asarray(errors_a, dtype=np.int64)
    blocks = blocks_of(groups, len(change))
    independent, units = unit, len(change)
    if blocks is not None:
        sums = np.stack([np.bincount(blocks, change), np.bincount(blocks)])
        independent, units = block, sums.shape[1]
    details = {"mean_difference": float(change.mean()) if len(change) else None}
    if units < 2:
        return TestResult(name, None, None, independent, units, details)
    if not change.any():
        return TestResult(name, 0.0, 1.0, independent, units, details)
    if blocks is None:
        error, effect = math.sqrt(float(change.var(ddof=1)) / units), float(change.mean())
    else:
        residuals = sums[0] - sums[1] * change.mean()
        error = math.sqrt(units / (units - 1) * float((residuals**2).sum()))
        effect = float(change.sum())
    if error < 1e-9 * abs(effect):
        # Every unit differs by the same: no variance to judge by, so the sign test says what so many units are worth.
        return TestResult(name, None, min(1.0, 2 * 0.5**units), independent, units, details)
    statistic = effect / error
    p_value = normal_p_value(statistic) if blocks is None else student_p_value(statistic, units - 1)
    return TestResult(name, statistic, p_value, independent, units, details)


def mapsswe(
    references: Sequence[Sequence[str]],
    hypotheses_a: Sequence[Sequence[str]],
    hypotheses_b: Sequence[Sequence[str]],
    groups: Groups | None = None,
    separating_words: int = 2,
    block: str = "block",
) -> TestResult:
    """Matched-pairs sentence-segment word error test (Gillick & Cox 1989; Pallett et al. 1990).

    Utterances are cut into segments where ``separating_words`` reference words in a row are correct in both systems
    (`speechtune.scoring.segments`), which makes the errors of different segments nearly independent; then
    `matched_pairs` of the segments. Without groups this is the test of NIST's sc_stats.

    Args:
        references: words of each normalised reference.
        hypotheses_a: words of system a's normalised output for the same utterances.
        hypotheses_b: words of system b's.
        groups: block of each utterance: the clustered variant.
        separating_words: correct words in a row that end a segment; sc_stats has 2.
        block: what a block is called in the result.
    """
    return _of_segments(sentence_segments(references, hypotheses_a, hypotheses_b, separating_words), groups, block)


def _of_segments(found: Segments, groups: Groups | None, block: str) -> TestResult:
    of_segments = None if groups is None else [groups[index] for index in found.utterances]
    name = "mapsswe" if groups is None else "mapsswe-clustered"
    result = matched_pairs(found.errors_a, found.errors_b, of_segments, name, "segment", block)
    counts = {"segments": len(found.utterances), "errors_a": sum(found.errors_a), "errors_b": sum(found.errors_b)}
    return TestResult(name, result.statistic, result.p_value, result.unit, result.units, result.details | counts)


def mcnemar(wrong_a: Sequence[bool] | np.ndarray, wrong_b: Sequence[bool] | np.ndarray) -> TestResult:
    """McNemar's test on whole utterances: whether each system is wrong alone equally often (McNemar 1947).

    ``p_value`` is the exact one (binomial); ``p_value_corrected`` the chi-square with Edwards's continuity correction
    (1948). Utterances count as independent; for speakers, `matched_pairs` of the two columns of zeros and ones.
    """
    first, second = np.asarray(wrong_a, dtype=bool), np.asarray(wrong_b, dtype=bool)
    only_a, only_b = int((first & ~second).sum()), int((second & ~first).sum())
    discordant = only_a + only_b
    exact, corrected, statistic = 1.0, 1.0, 0.0
    if discordant:
        exact = min(1.0, 2 * _binomial_half_tail(min(only_a, only_b), discordant))
        corrected = normal_p_value(max(0, abs(only_b - only_a) - 1) / math.sqrt(discordant))
        statistic = (only_b - only_a) / math.sqrt(discordant)
    details = {
        "only_a_wrong": only_a,
        "only_b_wrong": only_b,
        "both_wrong": int((first & second).sum()),
        "both_right": int((~first & ~second).sum()),
        "p_value_corrected": corrected,
    }
    return TestResult("mcnemar", statistic, exact, "utterance", len(first), details)


def _binomial_half_tail(most: int, trials: int) -> float:
    """Probability of at most ``most`` heads of a fair coin."""
    logs = [
        math.lgamma(trials + 1) - math.lgamma(heads + 1) - math.lgamma(trials - heads + 1) - trials * math.log(2)
        for heads in range(most + 1)
    ]
    return math.fsum(map(math.exp, logs))


def adjust(p_values: Sequence[float | None], method: Correction = "holm") -> list[float | None]:
    """P-values corrected for their number, in their order; ``None`` (nothing to test) stays and is not counted.

    ``holm`` (Holm 1979) bounds the chance of even one false difference, whatever the tests have in common;
    ``benjamini-hochberg`` (1995) bounds the expected share of false ones among those called real, and assumes that
    the tests are independent or positively correlated. An adjusted value below 0.05 is significant at 5 %.

    Raises:
        InputError: the method is unknown.
    """
    if method not in CORRECTIONS:
        raise InputError(f"there is no correction {method!r}: use one of {', '.join(CORRECTIONS)}")
    places = [place for place, value in enumerate(p_values) if value is not None]
    values = np.array([p_values[place] for place in places], dtype=np.float64)
    order = np.argsort(values, kind="stable")
    number = len(values)
    if method == "holm":
        raised = np.maximum.accumulate(values[order] * (number - np.arange(number)))
    else:
        ranked = values[order] * number / np.arange(1, number + 1)
        raised = np.minimum.accumulate(ranked[::-1])[::-1]
    adjusted: list[float | None] = [None] * len(p_values)
    for rank, place in enumerate(order.tolist()):
        adjusted[places[place]] = min(1.0, float(raised[rank]))
    return adjusted


@dataclass(slots=True, kw_only=True)
class PairTests:
    """Every test of system b against system a.

    ``p_value`` is the one to quote: of the segment test over blocks (over segments where speakers are unknown). That
    of the bootstrap, in ``wer``, cannot be small with few speakers, so it would not survive a correction.
    ``adjusted`` is the quoted one corrected for the number of pairs compared together (`compare_all`), else ``None``.
    """

    wer: Difference
    mapsswe: TestResult
    mapsswe_clustered: TestResult
    mcnemar: TestResult
    mcnemar_clustered: TestResult
    power: Power | None
    adjusted: float | None = None

    @property
    def p_value(self) -> float | None:
        """The p-value to quote."""
        return self.mapsswe_clustered.p_value

    def to_json(self) -> dict[str, Any]:
        """Every test by name, JSON-ready."""
        tests = (self.mapsswe, self.mapsswe_clustered, self.mcnemar, self.mcnemar_clustered)
        return {
            "wer": self.wer.to_json(),
            "p_value": self.p_value,
            "adjusted_p_value": self.adjusted,
            "tests": {one.name: one.to_json() for one in tests},
            "power": self.power.to_json() if self.power else None,
        }

    def to_text(self) -> str:
        """One line for each test, for a person."""
        tests = (self.mapsswe, self.mapsswe_clustered, self.mcnemar, self.mcnemar_clustered)
        lines = []
        for one in tests:
            chance = "-" if one.p_value is None else f"{one.p_value:.3g}"
            lines.append(f"  {one.name:<18}  p = {chance:<9} over {one.units} {one.unit}s")
        return "\n".join(["tests of the difference:", *lines, *([self.power.to_text()] if self.power else [])])


def pair_tests(a: Score, b: Score, config: ScoringConfig | None = None, points: float = 1.0) -> PairTests:
    """Every test of b against a, on two scores of the same utterances.

    Args:
        a: the baseline.
        b: the other system.
        config: resamples, level and seed of the bootstrap.
        points: difference of WER in percentage points for which the data needed is estimated.

    Raises:
        InputError: the scores are of different utterances, references or normalisers.
    """
    from speechtune.scoring.config import ScoringConfig
    from speechtune.scoring.score import pairs_of

    config = config or ScoringConfig()
    pairs, block = pairs_of(a, b), block_name(config.resample_by)
    errors_a = [one.words.errors for one, _ in pairs]
    errors_b = [one.words.errors for _, one in pairs]
    lengths = [one.words.reference_length for one, _ in pairs]
    groups = [one.block for one, _ in pairs]
    references = [one.reference.split() for one, _ in pairs]
    outputs_a, outputs_b = [one.hypothesis.split() for one, _ in pairs], [one.hypothesis.split() for _, one in pairs]
    segments = sentence_segments(references, outputs_a, outputs_b)
    wrong_a, wrong_b = [errors > 0 for errors in errors_a], [errors > 0 for errors in errors_b]
    return PairTests(
        wer=paired_difference(
            errors_a,
            errors_b,
            lengths,
            groups,
            config.resamples,
            config.confidence_level,
            config.seed,
            block,
        ),
        mapsswe=_of_segments(segments, None, block),
        mapsswe_clustered=_of_segments(segments, groups, block),
        mcnemar=mcnemar(wrong_a, wrong_b),
        mcnemar_clustered=matched_pairs(
            np.asarray(wrong_a, int), np.asarray(wrong_b, int), groups, "mcnemar-clustered", block=block
        ),
        power=needed_data(errors_a, errors_b, lengths, groups, points, 1 - config.confidence_level, block=block),
    )


def compare_all(
    scores: Mapping[str, Score], config: ScoringConfig | None = None, method: Correction = "holm"
) -> dict[tuple[str, str], PairTests]:
    """Every pair of systems, first named against later named, with p-values corrected for the number of pairs.

    Raises:
        InputError: as `pair_tests`.
    """
    found = {(a, b): pair_tests(scores[a], scores[b], config) for a, b in combinations(scores, 2)}
    for one, adjusted in zip(found.values(), adjust([one.p_value for one in found.values()], method), strict=True):
        one.adjusted = adjusted
    return found
