"""Two to ten systems on the same utterances: rates, differences of every pair, slices, and what the systems cost.

Pure numbers: `speechtune.report.compare_systems` finds the transcripts, `speechtune.report.compare_report` draws the
page.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.progress import track
from speechtune.corpus.table import Corpus
from speechtune.scoring.bootstrap import Difference, blocks_of, paired_difference
from speechtune.scoring.calibration import Calibration, Kind, calibration_of, utterance_pairs
from speechtune.scoring.comparison_records import (
    BANDS,
    Cost,
    SystemComparison,
    SystemInput,
    SystemResult,
    Test,
    Wins,
    cost_of,
)
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.power import needed_data
from speechtune.scoring.score import Score, score_transcripts
from speechtune.scoring.significance import adjust, mapsswe, matched_pairs, mcnemar
from speechtune.scoring.slices import block_labels, block_name

__all__ = [
    "BANDS",
    "Cost",
    "SystemComparison",
    "SystemInput",
    "SystemResult",
    "Test",
    "Wins",
    "chance_of_best",
    "compare_systems",
    "cost_of",
]

MAX_SYSTEMS = 10
MAX_ALIGNED = 20_000
"""MAPSSWE, which aligns every text once more, is left out above this many utterances."""

_RESAMPLES_PER_TEST = 10
"""Resamples for each test and unit of 1 / alpha: with Holm's correction the smallest p-value must still reach alpha."""


def compare_systems(
    corpus: Corpus,
    inputs: Sequence[SystemInput],
    config: ScoringConfig | None = None,
    *,
    split: str | None = None,
    reference: int = 0,
    examples: int = 20,
) -> SystemComparison:
    """Score every system on every utterance and test every difference.

    Every pair is tested on the whole set; in the slices, every system against the reference system. Each of the two
    families of tests is corrected by Holm (1979), and the resamples are raised so that a corrected p-value can be
    small enough.

    Args:
        corpus: the references; every system needs a transcript for each utterance and none beside them.
        inputs: two to ten systems with different names.
        config: normaliser, slices, resamples, seed.
        split: the split that ``corpus`` is, for the record.
        reference: place of the system that the others are measured against.
        examples: utterances listed for each system and direction.

    Raises:
        InputError: the number of systems, a repeated name, or an id that is missing on either side.
    """
    config = config or ScoringConfig()
    _check_systems(inputs)
    results, places, references, normaliser = [], {}, [], config.normaliser
    for number, one in enumerate(inputs):
        used = config.model_copy(update={"normaliser": normaliser})
        result, found = _score_one(corpus, one, used)
        results.append(result)
        normaliser = result.score.normaliser
        if not number:
            places, references = found, [row.reference for row in result.score.utterances]
        result.score.utterances = []
    others = [place for place in range(len(results)) if place != reference]
    pairs = [(a, b) for a in range(len(results)) for b in range(a + 1, len(results))]
    slice_count = sum(len(values) for values in places.values()) * len(others)
    alpha = 1 - config.confidence_level
    needed = math.ceil(_RESAMPLES_PER_TEST * max(len(pairs), slice_count) / alpha)
    config = config.model_copy(update={"resamples": max(config.resamples, needed) if config.resamples else 0})
    groups = block_labels(corpus, config.resample_by)
    everything = np.arange(len(corpus))
    tests = [_test(results, a, b, everything, groups, config) for a, b in track(pairs, "testing pairs")]
    _correct(tests)
    for test in tests:
        if reference in (test.a, test.b):
            _second_opinions(test, results, references, groups, block_name(config.resample_by))
    slice_tests = _slice_tests(results, reference, others, places, groups, config)
    _chances(results, groups, config)
    return SystemComparison(
        corpus=corpus,
        split=split,
        systems=results,
        reference=reference,
        references=references,
        pairs=tests,
        slices=places,
        slice_tests=slice_tests,
        wins=[_wins(results, reference, b, [one.utterance_id for one in corpus], examples) for b in others],
        alpha=alpha,
        resamples=config.resamples,
        notes=list(dict.fromkeys(note for one in results for note in one.score.notes)),
    )


def _check_systems(inputs: Sequence[SystemInput]) -> None:
    if not 2 <= len(inputs) <= MAX_SYSTEMS:
        raise InputError(f"{len(inputs)} systems cannot be compared: give 2 to {MAX_SYSTEMS}")
    names = [one.name for one in inputs]
    for name in names:
        if names.count(name) > 1:
            raise InputError(f"two systems are called {name!r}: name them, as in first=PATH second=PATH")


def _score_one(
    corpus: Corpus, one: SystemInput, config: ScoringConfig
) -> tuple[SystemResult, dict[str, dict[str, np.ndarray]]]:
    try:
        score = score_transcripts(corpus, one.transcripts, confidence=config, rows=one.rows)
    except InputError as error:
        raise InputError(f"{one.name} ({one.source}): {error}") from error
    rows = score.utterances
    places = {
        column: {
            value: np.flatnonzero(np.fromiter((row.columns[column] == value for row in rows), bool, len(rows)))
            for value in values
        }
        for column, values in score.slices.items()
    }
    result = SystemResult(
        name=one.name,
        source=one.source,
        score=score,
        words=_array([row.words for row in rows]),
        chars=_array([row.chars for row in rows]),
        hypotheses=[row.hypothesis for row in rows],
        cost=one.cost,
        notes=one.notes,
        calibration=_calibration(score, one, config),
    )
    return result, places


def _calibration(score: Score, one: SystemInput, config: ScoringConfig) -> dict[Kind, Calibration]:
    found: dict[Kind, Calibration] = {}
    kinds: tuple[Kind, ...] = ("utterance-mean", "utterance-sum")
    for kind in kinds:
        calibration = calibration_of(
            utterance_pairs(score, one.transcripts, one.rows, kind),
            resamples=config.resamples,
            level=config.confidence_level,
            seed=config.seed,
        )
        if calibration is not None:
            found[kind] = calibration
    return found


def _array(counts: Sequence[Any]) -> np.ndarray:
    rows = ((one.hits, one.substitutions, one.deletions, one.insertions) for one in counts)
    return np.array(list(rows), dtype=np.int64).reshape(-1, 4)


def _slice_tests(
    results: Sequence[SystemResult],
    reference: int,
    others: Sequence[int],
    places: Mapping[str, Mapping[str, np.ndarray]],
    groups: Sequence[Hashable | None],
    config: ScoringConfig,
) -> dict[str, dict[str, list[Test]]]:
    tests: dict[str, dict[str, list[Test]]] = {column: {} for column in places}
    parts = [(column, value, where) for column, values in places.items() for value, where in values.items()]
    for column, value, where in track(parts, "testing slices") if parts else ():
        tests[column][value] = [_test(results, reference, b, where, groups, config) for b in others]
    _correct([one for values in tests.values() for found in values.values() for one in found])
    return tests


def _test(
    results: Sequence[SystemResult],
    a: int,
    b: int,
    where: np.ndarray,
    groups: Sequence[Hashable | None],
    config: ScoringConfig,
) -> Test:
    first, second = results[a].words[where], results[b].words[where]
    difference = paired_difference(
        first[:, 1:].sum(axis=1),
        second[:, 1:].sum(axis=1),
        first[:, :3].sum(axis=1),
        [groups[place] for place in where],
        config.resamples,
        config.confidence_level,
        config.seed,
        block_name(config.resample_by),
    )
    p_value = _sharpened(difference, second - first, [groups[place] for place in where])
    return Test(a=a, b=b, difference=difference, alpha=1 - config.confidence_level, p_value=p_value)


def _sharpened(difference: Difference, change: np.ndarray, groups: Sequence[Hashable | None]) -> float | None:
    """The p-value of a test: the bootstrap's, unless no resample crosses zero.

    There the bootstrap only knows that the value is below its least one, and a correction for many tests needs to know
    better: the matched-pairs test over the same units takes its place, but not below 2 ** (1 - units), the least value
    of a sign-flip test, which assumes nothing of the distribution.
    """
    p_value, interval = difference.p_value, difference.interval
    if p_value is None or interval is None or p_value > _least_p(interval.units, interval.resamples):
        return p_value
    errors = change[:, 1:].sum(axis=1)
    other = matched_pairs(np.zeros_like(errors), errors, groups).p_value
    return p_value if other is None else min(p_value, max(other, 2.0 ** (1 - interval.units)))


@functools.lru_cache(maxsize=256)
def _least_p(units: int, resamples: int) -> float:
    """The bootstrap's p-value where every resample is on one side of zero."""
    ones = [1] * units
    least = paired_difference([0] * units, ones, ones, None, resamples).p_value
    return 1.0 if least is None else least + 1e-12


def _correct(tests: Sequence[Test]) -> None:
    for one, adjusted in zip(tests, adjust([one.p_value for one in tests]), strict=True):
        one.p_adjusted = adjusted


def _second_opinions(
    one: Test, results: Sequence[SystemResult], references: Sequence[str], groups: Sequence[str | None], block: str
) -> None:
    first, second = results[one.a], results[one.b]
    lengths = first.words[:, :3].sum(axis=1)
    one.power = needed_data(first.errors, second.errors, lengths, groups, alpha=one.alpha)
    wrong = [first.errors > 0, second.errors > 0]
    one.others = [
        mcnemar(*wrong),
        matched_pairs(wrong[0].astype(int), wrong[1].astype(int), groups, "mcnemar-clustered", block=block),
    ]
    if len(references) <= MAX_ALIGNED:
        parts = (references, first.hypotheses, second.hypotheses)
        said, a, b = ([text.split() for text in part] for part in parts)
        one.others += [mapsswe(said, a, b), mapsswe(said, a, b, groups, block=block)]


def _wins(results: Sequence[SystemResult], a: int, b: int, ids: Sequence[str], examples: int) -> Wins:
    change = results[b].errors - results[a].errors
    bands = [int((np.clip(change, -BANDS, BANDS) == band).sum()) for band in range(-BANDS, BANDS + 1)]
    return Wins(
        a=a,
        b=b,
        bands=bands,
        fewer=int((change < 0).sum()),
        same=int((change == 0).sum()),
        more=int((change > 0).sum()),
        better=_largest(-change, ids, examples),
        worse=_largest(change, ids, examples),
    )


def _largest(amounts: np.ndarray, ids: Sequence[str], most: int) -> list[int]:
    """Places of the largest positive amounts, the largest first, equals by id."""
    positive = np.flatnonzero(amounts > 0)
    if len(positive) > most:
        edge = np.partition(amounts[positive], -most)[-most] if most else np.inf
        positive = positive[amounts[positive] >= edge]
    return sorted(map(int, positive), key=lambda place: (-int(amounts[place]), ids[place]))[:most]


def _chances(results: Sequence[SystemResult], groups: Sequence[Hashable | None], config: ScoringConfig) -> None:
    errors = np.stack([one.errors for one in results])
    chances = chance_of_best(errors, results[0].words[:, :3].sum(axis=1), groups, config.resamples, config.seed)
    for place, one in enumerate(results):
        one.best_probability = chances[place] if chances else None


def chance_of_best(
    errors: np.ndarray,
    lengths: np.ndarray,
    groups: Sequence[Hashable | None] | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> list[float] | None:
    """How often each system has the lowest rate when the set is drawn anew, all systems together.

    The share of paired bootstrap resamples that a system wins, those won together divided between the winners.

    Args:
        errors: errors of each system and utterance, shape [systems, utterances].
        lengths: reference units of each utterance, shape [utterances].
        groups: speaker of each utterance; used as in `bootstrap_interval`.
        resamples: bootstrap samples.
        seed: seed of the resampling.

    Returns:
        Shares that add up to 1, in the order of the systems; ``None`` where nothing can be resampled.
    """
    values = np.concatenate([errors, lengths[None, :]]).T.astype(np.int64)
    blocks = blocks_of(groups, len(values))
    if blocks is not None:
        sums = np.zeros((int(blocks.max()) + 1, values.shape[1]), dtype=np.int64)
        np.add.at(sums, blocks, values)
        values = sums
    if len(values) < 2 or not resamples or not values[:, -1].any():
        return None
    distinct, multiplicity = np.unique(values, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    won = np.zeros(len(errors))
    chunk = max(1, 4_000_000 // len(distinct))
    for start in range(0, resamples, chunk):
        size = min(chunk, resamples - start)
        drawn = generator.multinomial(len(values), multiplicity / len(values), size=size) @ distinct
        best = drawn[:, :-1] == drawn[:, :-1].min(axis=1, keepdims=True)
        won += (best / best.sum(axis=1, keepdims=True)).sum(axis=0)
    return [float(one) for one in won / resamples]
