"""Joined clips: nothing lost, nothing doubled, never too long."""

from __future__ import annotations

import numpy as np
import pytest

from speechtune.audio.augment import ClipInfo, ConcatenateDraw, apply_concatenation, draw_concatenations, join_texts


def clips(count: int = 60) -> list[ClipInfo]:
    rng = np.random.default_rng(2)
    return [
        ClipInfo(f"u{number}", float(rng.uniform(0.5, 12)), f"s{number % 5}" if number % 7 else None)
        for number in range(count)
    ]


@pytest.mark.parametrize("partner", ["speaker", "any"])
def test_groups_hold_each_clip_at_most_once_and_fit(partner: str) -> None:
    given = {one.utterance_id: one for one in clips()}
    drawn = draw_concatenations(
        np.random.default_rng(0), list(given.values()), max_duration_s=20.0, most=4, partner=partner
    )  # type: ignore[arg-type]
    assert drawn == draw_concatenations(
        np.random.default_rng(0), list(given.values()), max_duration_s=20.0, most=4, partner=partner
    )  # type: ignore[arg-type]
    used = [name for one in drawn for name in one.utterance_ids]
    assert len(used) == len(set(used)) > 30
    for one in drawn:
        assert 2 <= len(one.utterance_ids) <= 4
        assert len(one.gaps_s) == len(one.utterance_ids) - 1
        total_s = sum(given[name].duration_s for name in one.utterance_ids) + sum(one.gaps_s)
        assert one.duration_s == pytest.approx(total_s)
        assert total_s <= 20.0
        speakers = {given[name].speaker_id for name in one.utterance_ids}
        if partner == "speaker":
            assert len(speakers) == 1
            assert None not in speakers
        assert ConcatenateDraw.from_json(one.to_json()) == one
    if partner == "any":
        assert any(len({given[name].speaker_id for name in one.utterance_ids}) > 1 for one in drawn)


def test_the_result_is_the_clips_with_silence_between() -> None:
    parts = [np.full(count, value, np.float32) for count, value in ((100, 1.0), (200, 2.0), (50, 3.0))]
    joined = apply_concatenation(ConcatenateDraw(("a", "b", "c"), (0.01, 0.02), 0.0), parts)
    assert len(joined) == 350 + 160 + 320
    assert np.array_equal(joined[joined != 0], np.concatenate(parts))
    assert not joined[100:260].any()


def test_texts_are_joined_with_blanks_where_the_language_has_them() -> None:
    assert join_texts(["one two ", "", "three"], "en") == "one two three"
    assert join_texts(["你好", "世界"], "zh-CN") == "你好世界"
