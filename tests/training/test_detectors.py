"""Every detector finds what was planted and stays silent on healthy curves."""

from __future__ import annotations

import math

import numpy as np
import pytest

from speechtune.training.monitor import detectors as d
from speechtune.training.monitor.detectors import DevPoint, Finding, TrainPoint


def train(losses: list[float], norms: list[float] | None = None) -> list[TrainPoint]:
    return [TrainPoint(10 * (place + 1), loss, norms[place] if norms else 1.0) for place, loss in enumerate(losses)]


def dev(wers: list[float], losses: list[float] | None = None, every: int = 50) -> list[DevPoint]:
    return [DevPoint(every * (place + 1), wer, losses[place] if losses else None) for place, wer in enumerate(wers)]


def healthy(seed: int, rows: int = 100) -> tuple[list[TrainPoint], list[DevPoint]]:
    """A fine-tune as it should be: noisy exponential fall, WER that wobbles by some per cent and improves."""
    rng = np.random.default_rng(seed)
    losses = 0.4 + 2 * np.exp(-np.arange(rows) / 25) * np.exp(rng.normal(0, 0.12, rows))
    wers = 0.2 + 0.3 * np.exp(-np.arange(rows // 5) / 6) + rng.normal(0, 0.004, rows // 5)
    norms = np.exp(rng.normal(0, 0.4, rows))
    points = train(losses.tolist(), norms.tolist())
    return points, dev(wers.tolist(), (wers * 3).tolist())


@pytest.mark.parametrize("seed", range(20))
def test_nothing_is_found_on_healthy_curves_at_any_moment(seed: int) -> None:
    points, evaluations = healthy(seed)
    for end in range(1, len(points) + 1):
        seen = [one for one in evaluations if one.step <= points[end - 1].step]
        assert d.divergence(points[:end]) is None
        assert d.exploding_gradient(points[:end]) is None
        assert d.overfitting(points[:end], seen) is None
        rates = [100.0 + (place * 7919 % 13) for place in range(end)]
        assert d.slow(points[end - 1].step, rates) is None
        assert d.growing_memory(points[end - 1].step, [3 + 0.02 * min(place, 20) for place in range(end)]) is None
    half = points[: len(points) // 2]
    assert d.plateau(half, [one for one in evaluations if one.step <= half[-1].step]) is None


def test_one_spike_is_no_divergence_and_a_climb_that_stays_is() -> None:
    falling = [2.0 - 0.05 * place for place in range(20)]
    assert d.divergence(train([*falling, 30.0, *falling[-6:]])) is None
    found = d.divergence(train([*falling, 1.5, 3.0, 5.0, 6.0, 7.0, 7.0, 7.0]))
    assert found is not None
    assert found.kind == "divergence"
    assert found.onset == 200
    small = [0.02] * 10 + [0.2] * 6
    assert d.divergence(train(small)) is None, "tenfold, but of next to nothing"


def test_a_rate_far_too_high_is_seen_from_the_first_row_on() -> None:
    found = d.divergence(train([2.0, 6.0, 8.0, 9.0, 9.0, 9.0]))
    assert found is not None
    assert found.onset == 0


@pytest.mark.parametrize(("loss", "norm", "found"), [(1.0, 1.0, False), (math.nan, 1.0, True), (math.inf, 1.0, True)])
def test_what_is_not_a_number_is_found(loss: float, norm: float, found: bool) -> None:
    assert (d.not_finite(7, [1.0, loss], norm) is not None) == found


def test_a_gradient_that_is_not_finite_is_told_from_a_loss_that_is_not() -> None:
    found = d.not_finite(7, [1.0], math.inf)
    assert found is not None
    assert "gradient" in found.what
    assert found.onset == 6


FALLING = [2.0 * 0.97**place for place in range(60)]


def test_overfitting_needs_a_rising_wer_and_a_falling_loss() -> None:
    rising = [0.4, 0.3, 0.28, 0.31, 0.33, 0.36]
    found = d.overfitting(train(FALLING), dev(rising))
    assert found is not None
    assert (found.kind, found.onset) == ("overfitting", 150)
    assert d.overfitting(train([2.0] * 60), dev(rising)) is None, "the training loss stands still: not over-fitting"
    assert d.overfitting(train(FALLING), dev([0.4, 0.3, 0.28, 0.31, 0.33, 0.281])) is None, "back at its best"
    assert d.overfitting(train(FALLING), dev([0.4, 0.3, 0.28, 0.31, 0.33])) is None, "only two in a row"


def test_a_rising_dev_loss_alone_is_said_and_is_no_reason_to_stop() -> None:
    found = d.overfitting(train(FALLING), dev([0.4, 0.3, 0.28, 0.27, 0.26, 0.255], [1.0, 0.9, 0.8, 0.9, 1.0, 1.1]))
    assert found is not None
    assert (found.kind, found.severity) == ("overconfidence", "info")


def test_a_plateau_is_flat_in_both_and_an_over_fit_is_none() -> None:
    flat = dev([0.5, 0.3, 0.301, 0.299, 0.3, 0.302])
    found = d.plateau(train([1.0] * 60), flat)
    assert found is not None
    assert found.kind == "plateau"
    assert d.plateau(train(FALLING), flat) is None, "the loss still falls"
    assert d.plateau(train([1.0] * 60), dev([0.5, 0.3, 0.29, 0.28, 0.27, 0.26])) is None


def test_gradients_that_explode_or_are_missing() -> None:
    assert d.exploding_gradient(train([1.0] * 20, [1.0] * 15 + [50.0] * 5)) is not None
    rows = [{"encoder.layers.0": 0.0, "decoder.layers.0": 1.0}] * 3
    assert [one.subject for one in d.silent_groups(30, rows)] == ["encoder.layers.0"]
    assert d.silent_groups(30, [*rows[:2], {"encoder.layers.0": 1e-9, "decoder.layers.0": 1.0}]) == []


def test_drift_memory_speed_and_transcripts() -> None:
    far = d.far_drift(5, {"a": 0.9, "b": 0.05})
    assert far is not None
    assert "1 of 2" in far.what
    assert d.far_drift(5, {"a": 0.1, "b": 0.05}) is None
    assert d.growing_memory(5, [2 + 0.2 * place for place in range(20)]) is not None
    assert d.growing_memory(5, [2.0] * 5 + [6.0] * 15) is None, "a step that stays is no leak"
    assert d.growing_memory(5, [2.0] * 6 + [3.3] * 15 + [5.1] * 8) is None, "two longer batches are none either"
    assert d.growing_memory(5, [2 + 0.3 * (place // 3) for place in range(40)]) is not None, "rising in steps"
    assert d.slow(5, [100.0] * 20 + [30.0] * 5) is not None
    assert d.bad_transcripts(5, {"u1": "'a' 9 times", "u2": "x"}, 50) is not None
    assert d.bad_transcripts(5, {"u1": "'a' 9 times"}, 10) is None, "one alone"
    assert d.bad_transcripts(5, {"u1": "x", "u2": "x"}, 1000) is None, "two of a thousand"


def test_every_finding_says_what_to_do() -> None:
    found: list[Finding | None] = [
        d.divergence(train([2.0, 6.0, 8.0, 9.0, 9.0, 9.0])),
        d.not_finite(1, [math.nan]),
        d.overfitting(train(FALLING), dev([0.4, 0.3, 0.28, 0.31, 0.33, 0.36])),
    ]
    for one in found:
        assert one is not None
        assert set(one.to_json()) >= {"step", "kind", "severity", "what", "remedy"}
