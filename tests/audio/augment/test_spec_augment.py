"""Masks: their laws, and the statistics of Transformers' own function."""

from __future__ import annotations

import json

import numpy as np
import pytest

from speechtune.audio.augment import MaskDraw, apply_masks, draw_masks_by_count, draw_masks_by_share


def covered(draw: MaskDraw, frames: int) -> np.ndarray:
    row = np.zeros(frames, bool)
    for first, width in draw.time:
        row[first : first + width] = True
    return row


@pytest.mark.parametrize(
    ("frames", "share", "width", "fewest"),
    [(300, 0.05, 10, 2), (1_000, 0.15, 10, 0), (37, 0.5, 7, 1), (3_000, 0.065, 10, 2)],
)
def test_masks_by_share_have_the_statistics_of_transformers(frames: int, share: float, width: int, fewest: int) -> None:
    whisper = pytest.importorskip(
        "transformers.models.whisper.modeling_whisper", reason="needs transformers (extra: train)"
    )
    rounds = 3_000
    np.random.seed(0)
    theirs = np.concatenate(
        [whisper._compute_mask_indices((1, frames), share, width, min_masks=fewest) for _ in range(rounds)]
    )
    rng = np.random.default_rng(0)
    ours = np.array(
        [
            covered(
                draw_masks_by_share(rng, frames, 80, time_prob=share, time_length=width, time_min_masks=fewest), frames
            )
            for _ in range(rounds)
        ]
    )
    error = 4 * np.sqrt((ours.mean(1).var() + theirs.mean(1).var()) / rounds) + 1e-9
    assert ours.mean() == pytest.approx(theirs.mean(), abs=error)
    assert ours.mean(1).std() == pytest.approx(theirs.mean(1).std(), rel=0.1, abs=1e-3)
    places = np.abs(ours.mean(0) - theirs.mean(0)).max()
    assert places < 6 * np.sqrt(2 * share / rounds) + 0.02


def test_masks_by_count_are_uniform_in_width_and_stay_inside() -> None:
    rng = np.random.default_rng(0)
    draws = [
        draw_masks_by_count(rng, 200, 80, time_masks=2, time_width=40, bin_masks=1, bin_width=27) for _ in range(4_000)
    ]
    widths = np.array([width for draw in draws for _, width in draw.time])
    assert widths.min() == 0
    assert widths.max() == 40
    assert widths.mean() == pytest.approx(20, abs=0.6)
    assert all(len(draw.time) == 2 and len(draw.bins) == 1 for draw in draws)
    assert all(first >= 0 and first + width <= 200 for draw in draws for first, width in draw.time)
    assert all(first + width <= 80 for draw in draws for first, width in draw.bins)
    narrow = draw_masks_by_count(rng, 50, 80, time_width=400, time_share_max=0.2)
    assert all(width <= 10 for _, width in narrow.time)


def test_apply_blanks_exactly_the_stripes_of_a_copy() -> None:
    features = np.random.default_rng(0).standard_normal((2, 80, 100)).astype(np.float32)
    kept = features.copy()
    draw = MaskDraw(((10, 5), (97, 3)), ((0, 2),))
    masked = apply_masks(features, MaskDraw.from_json(json.loads(json.dumps(draw.to_json()))), value=-1.5)
    assert np.array_equal(features, kept)
    expected = np.zeros((80, 100), bool)
    expected[:, 10:15] = expected[:, 97:] = expected[:2] = True
    assert np.array_equal(masked == -1.5, np.broadcast_to(expected, masked.shape))
    assert np.array_equal(masked[:, ~expected], kept[:, ~expected])


def test_apply_takes_torch_too() -> None:
    torch = pytest.importorskip("torch", reason="needs torch (extra: train)")
    features = torch.ones(80, 50)
    masked = apply_masks(features, MaskDraw(((0, 10),), ()))
    assert float(masked.sum()) == 80 * 40
    assert float(features.sum()) == 80 * 50


def test_a_share_of_none_and_a_clip_shorter_than_a_mask_give_no_mask() -> None:
    rng = np.random.default_rng(0)
    assert draw_masks_by_share(rng, 300, 80, time_prob=0.0) == MaskDraw()
    assert draw_masks_by_share(rng, 5, 80, time_prob=0.5, time_length=10).time == ()


def test_no_more_masks_than_fit_beside_each_other() -> None:
    draw = draw_masks_by_share(np.random.default_rng(0), 37, 80, time_prob=0.1, time_length=7, time_min_masks=50)
    assert len(draw.time) == 5
