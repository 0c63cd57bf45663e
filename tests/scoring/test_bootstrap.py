from __future__ import annotations

import numpy as np
import pytest

from speechtune.scoring.bootstrap import bootstrap_interval, paired_difference


def _simulate(seed: int, speakers: int, each: int, spread: float) -> tuple[np.ndarray, np.ndarray, list[str]]:
    """Errors and lengths of utterances whose speakers have error rates of mean 0.2 and standard deviation spread."""
    draw = np.random.default_rng(seed)
    lengths = draw.integers(3, 15, (speakers, each))
    total = 0.2 * 0.8 / spread**2 - 1
    rates = draw.beta(0.2 * total, 0.8 * total, speakers)
    errors = draw.binomial(lengths, rates[:, None])
    return errors.ravel(), lengths.ravel(), [f"s{i}" for i in range(speakers) for _ in range(each)]


@pytest.mark.parametrize(("speakers", "lowest", "highest"), [(8, 0.90, 0.97), (40, 0.92, 0.975)])
def test_interval_covers_the_truth(speakers: int, lowest: float, highest: float) -> None:
    covered = 0
    for seed in range(400):
        errors, lengths, groups = _simulate(seed, speakers, 20, 0.1)
        interval = bootstrap_interval(errors, lengths, groups, resamples=500, seed=seed)
        assert interval is not None
        covered += interval.low <= 0.2 <= interval.high
    assert lowest <= covered / 400 <= highest


def test_matches_direct_resampling() -> None:
    errors, lengths, _ = _simulate(5, 1, 2000, 0.1)
    interval = bootstrap_interval(errors, lengths, resamples=4000)
    picks = np.random.default_rng(1).integers(0, 2000, (4000, 2000))
    low, high = np.quantile(errors[picks].sum(1) / lengths[picks].sum(1), [0.025, 0.975])
    assert interval is not None
    assert (interval.low, interval.high) == (pytest.approx(low, abs=5e-4), pytest.approx(high, abs=5e-4))
    assert (interval.unit, interval.units) == ("utterance", 2000)


def test_speaker_blocks_are_wider_for_clustered_data() -> None:
    errors, lengths, groups = _simulate(1, 30, 40, 0.12)
    blocks, single = bootstrap_interval(errors, lengths, groups), bootstrap_interval(errors, lengths)
    assert blocks is not None and single is not None
    assert (blocks.unit, blocks.units) == ("speaker", 30)
    assert blocks.high - blocks.low > 2 * (single.high - single.low)


def test_fewer_than_five_speakers_fall_back_to_utterances() -> None:
    errors, lengths, groups = _simulate(1, 4, 20, 0.1)
    interval = bootstrap_interval(errors, lengths, groups)
    assert interval is not None and interval.unit == "utterance"


def test_unknown_speakers_are_blocks_of_their_own() -> None:
    groups = ["a", "b", "c", "d", "e", None, None]
    interval = bootstrap_interval([1] * 7, [5] * 7, groups)
    assert interval is not None and (interval.unit, interval.units) == ("speaker", 7)


def test_order_does_not_matter_and_the_seed_does() -> None:
    errors, lengths, groups = _simulate(2, 12, 10, 0.1)
    shuffle = np.random.default_rng(0).permutation(len(errors))
    first = bootstrap_interval(errors, lengths, groups, seed=3)
    assert first == bootstrap_interval(errors[shuffle], lengths[shuffle], [groups[i] for i in shuffle], seed=3)
    other = bootstrap_interval(errors, lengths, groups, seed=4)
    assert first is not None and other is not None and first.low != other.low


@pytest.mark.parametrize(
    ("errors", "lengths", "resamples"), [([], [], 100), ([1], [4], 100), ([1, 2], [0, 0], 100), ([1, 2], [3, 3], 0)]
)
def test_nothing_to_resample(errors: list[int], lengths: list[int], resamples: int) -> None:
    assert bootstrap_interval(errors, lengths, resamples=resamples) is None


def test_identical_systems_do_not_differ() -> None:
    errors, lengths, groups = _simulate(3, 20, 10, 0.1)
    result = paired_difference(errors, errors, lengths, groups)
    assert result.difference == 0 and result.p_value == 1
    assert result.interval is not None and (result.interval.low, result.interval.high) == (0, 0)


def test_difference_is_b_minus_a() -> None:
    errors, lengths, groups = _simulate(4, 20, 10, 0.1)
    worse = errors + 1
    there, back = paired_difference(errors, worse, lengths, groups), paired_difference(worse, errors, lengths, groups)
    assert there.difference == pytest.approx(200 / lengths.sum()) and back.difference == pytest.approx(
        -200 / lengths.sum()
    )
    assert there.interval is not None and there.interval.low > 0
    assert there.p_value is not None and there.p_value < 0.01


def test_pairing_is_narrower_than_the_systems_apart() -> None:
    errors, lengths, groups = _simulate(6, 20, 20, 0.15)
    better = np.maximum(errors - (np.arange(len(errors)) % 10 == 0), 0)
    paired = paired_difference(errors, better, lengths, groups).interval
    alone = bootstrap_interval(errors, lengths, groups)
    assert paired is not None and alone is not None
    assert paired.high - paired.low < (alone.high - alone.low) / 4


def test_p_value_is_small_as_often_as_it_says() -> None:
    """Two systems of the same true rate: p < 0.1 in about a tenth of the experiments."""
    small = 0
    for seed in range(400):
        draw = np.random.default_rng(seed)
        lengths = draw.integers(3, 15, 200)
        a, b = draw.binomial(lengths, 0.2), draw.binomial(lengths, 0.2)
        p_value = paired_difference(a, b, lengths, [f"s{i % 10}" for i in range(200)], resamples=400, seed=seed).p_value
        assert p_value is not None
        small += p_value < 0.1
    assert 0.06 <= small / 400 <= 0.14


def test_p_value_agrees_with_the_interval() -> None:
    for seed in range(60):
        draw = np.random.default_rng(seed)
        lengths = draw.integers(3, 15, 300)
        a, b = draw.binomial(lengths, 0.22), draw.binomial(lengths, 0.2)
        result = paired_difference(a, b, lengths, [f"s{i % 12}" for i in range(300)], resamples=2000, seed=seed)
        assert result.interval is not None and result.p_value is not None
        if not 0.04 < result.p_value < 0.06:
            assert (result.p_value < 0.05) == (result.interval.low > 0 or result.interval.high < 0)


def test_many_utterances_are_fast() -> None:
    import time

    draw = np.random.default_rng(0)
    lengths = draw.integers(0, 40, 200_000)
    start = time.process_time()
    bootstrap_interval(draw.binomial(lengths, 0.2), lengths)
    assert time.process_time() - start < 10
