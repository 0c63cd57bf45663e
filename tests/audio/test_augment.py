"""Speed: length and pitch move by the factor, and back."""

from __future__ import annotations

import numpy as np
import pytest

from speechtune.audio.augment import change_speed


@pytest.mark.parametrize("factor", [0.9, 0.95, 1.0, 1.0371, 1.1])
def test_length_and_pitch_follow_the_factor(factor: float) -> None:
    tone = np.sin(2 * np.pi * 400 * np.arange(32_000) / 16_000).astype(np.float32)
    changed = change_speed(tone, factor)
    assert len(changed) == round(32_000 / factor)
    assert changed.dtype == np.float32
    peak_hz = np.abs(np.fft.rfft(changed * np.hanning(len(changed)))).argmax() * 16_000 / len(changed)
    assert peak_hz == pytest.approx(400 * factor, abs=1)


def test_there_and_back_is_nearly_the_same() -> None:
    noise = np.random.default_rng(0).standard_normal(16_000)
    smooth = np.convolve(noise, np.hanning(33) / 16, mode="same").astype(np.float32)
    back = change_speed(change_speed(smooth, 0.9), 1 / 0.9)[: len(smooth)]
    inner = slice(500, 15_000)
    assert np.corrcoef(back[inner], smooth[inner])[0, 1] > 0.999
    assert change_speed(smooth, 1.0) is smooth
