"""Channels, trimming and level against what the signals were made of."""

from __future__ import annotations

import numpy as np
import pytest

from speechtune.audio.loudness import integrated_lufs
from speechtune.corpus.prepare.policy import LevelPolicy, TrimPolicy
from speechtune.corpus.prepare.waveforms import Waveform, one_channel, set_level, trim

RNG = np.random.default_rng(5)


def noise(samples: int = 16_000, amplitude: float = 0.1) -> np.ndarray:
    return RNG.uniform(-amplitude, amplitude, samples).astype(np.float32)


def test_channels_that_agree_are_averaged_and_those_that_cancel_are_not() -> None:
    left, right = noise(), noise()
    for frames in (np.stack([left, left], 1), np.stack([left, right], 1), np.stack([left, 0 * left], 1)):
        mono, channel, _ = one_channel(frames)
        assert channel is None
        assert np.allclose(mono, frames.mean(axis=1), atol=1e-7)
    turned = np.stack([0.9 * left, -left], 1)
    mono, channel, kept = one_channel(turned)
    assert (channel, np.array_equal(mono, turned[:, 1])) == (1, True)
    assert kept < 0.01
    assert one_channel(turned, "mean")[1] is None
    mostly = np.stack([left + 0.4 * right, -left + 0.4 * right], 1)  # correlation -0.72
    assert one_channel(mostly)[1] is not None
    six = np.stack([noise() for _ in range(6)], 1)
    assert one_channel(six)[1] is None  # unrelated microphones are no cancellation
    assert one_channel(np.zeros((100, 2), np.float32))[1] is None


@pytest.mark.parametrize("margin_s", [0.0, 0.1, 5.0])
def test_energy_trimming_keeps_the_sound_and_the_margin(margin_s: float) -> None:
    sound = noise(8_000, 0.5)
    waveform = Waveform(np.concatenate([noise(16_000, 1e-4), sound, noise(24_000, 1e-4)]))
    whole = waveform.samples
    assert trim(waveform, TrimPolicy(mode="energy", margin_s=margin_s))
    if margin_s == 5.0:
        assert waveform.samples is whole
        assert waveform.changes == []
        return
    change = waveform.changes[0].after
    first, last = round(change["start_s"] * 16_000), round(change["end_s"] * 16_000)
    assert np.array_equal(waveform.samples, whole[first:last])
    slack = 400  # 25 ms frames
    assert 16_000 - margin_s * 16_000 - slack <= first <= 16_000
    assert 24_000 <= last <= 24_000 + margin_s * 16_000 + slack


def test_a_clip_without_speech_is_left_alone() -> None:
    waveform = Waveform(np.zeros(16_000, np.float32))
    assert not trim(waveform, TrimPolicy(mode="energy"))
    assert len(waveform.samples) == 16_000
    pytest.importorskip("silero_vad", reason="silero-vad is not installed")
    assert not trim(waveform, TrimPolicy(mode="vad"))


@pytest.mark.parametrize("amplitude", [0.001, 0.05, 1.0])
def test_levels_are_reached_or_limited_and_never_clip(amplitude: float) -> None:
    samples = noise(32_000, amplitude)
    peaked = Waveform(samples)
    set_level(peaked, LevelPolicy(mode="peak", target_peak_dbfs=-3, max_gain_db=80))
    assert 20 * np.log10(np.abs(peaked.samples).max()) == pytest.approx(-3, abs=0.01)
    loud = Waveform(samples)
    set_level(loud, LevelPolicy(mode="lufs", target_lufs=-23, max_gain_db=80))
    assert integrated_lufs(loud.samples) == pytest.approx(-23, abs=0.1)
    hot = Waveform(samples)
    set_level(hot, LevelPolicy(mode="lufs", target_lufs=-1, peak_ceiling_dbfs=-1, max_gain_db=80))
    assert 20 * np.log10(np.abs(hot.samples).max()) == pytest.approx(-1, abs=0.06)
    held = Waveform(samples)
    set_level(held, LevelPolicy(mode="peak", target_peak_dbfs=0, max_gain_db=6))
    assert np.abs(held.samples).max() <= min(1.0, 2 * float(np.abs(samples).max())) * 1.001


def test_silence_has_no_level() -> None:
    waveform = Waveform(np.zeros(100, np.float32))
    set_level(waveform, LevelPolicy(mode="lufs"))
    assert waveform.changes == []
