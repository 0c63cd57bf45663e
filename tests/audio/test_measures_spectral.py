"""Loudness, bandwidth, signal-to-noise ratio and fingerprint against signals whose answer is known."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import soundfile
import soxr
from synthetic_voice import voice

from speechtune.audio.fingerprint import SAME_RECORDING_DISTANCE, fingerprint, fingerprint_distance, fingerprint_words
from speechtune.audio.loudness import integrated_lufs, k_weighted
from speechtune.audio.noise import snr_db
from speechtune.audio.spectrum import bandwidth_hz, power_frames
from speechtune.audio.vad import speech_probabilities

RNG = np.random.default_rng(7)
NOISE = RNG.standard_normal(160_000).astype(np.float32)


def sine(hz: float, seconds: float, dbfs: float = 0.0) -> np.ndarray:
    time_s = np.arange(round(seconds * 16_000)) / 16_000
    return (10 ** (dbfs / 20) * np.sin(2 * np.pi * hz * time_s)).astype(np.float32)


def hissing_voice(seed: int, seconds: float = 4.0, hiss: float = 1e-3) -> np.ndarray:
    """A voice with sound up to 8 kHz, as fricatives and a room give."""
    samples = voice(seconds, seed, pitch_hz=100 + 13 * seed)
    return samples + np.float32(hiss) * NOISE[: len(samples)]


def rounded(samples: np.ndarray) -> np.ndarray:
    return (np.rint(samples * 32767) / 32768).astype(np.float32)


def coded(samples: np.ndarray, container: str, subtype: str) -> np.ndarray:
    buffer = io.BytesIO()
    soundfile.write(buffer, samples, 16_000, format=container, subtype=subtype)
    buffer.seek(0)
    return soundfile.read(buffer, dtype="float32")[0]


# --- loudness: ITU-R BS.1770-4 and EBU Tech 3341 (whose stereo tones are 3 dB louder than their mono halves) ---


@pytest.mark.parametrize("dbfs", [0.0, -23.0, -50.0])
def test_a_997_hz_sine_measures_three_below_its_level(dbfs: float) -> None:
    assert integrated_lufs(sine(997, 5, dbfs)) == pytest.approx(dbfs - 3.01, abs=0.05)


def test_the_filters_have_the_standards_response() -> None:
    """The standard's own 48 kHz coefficients, evaluated on the unit circle."""
    shelf = ([1.53512485958697, -2.69169618940638, 1.19839281085285], [1, -1.69065929318241, 0.73248077421585])
    high_pass = ([1.0, -2.0, 1.0], [1, -1.99004745483398, 0.99007225036621])
    for hz in (30, 60, 150, 500, 2_000, 4_000):
        z = np.exp(-2j * np.pi * hz / 48_000) ** np.arange(3)
        expected = np.prod([abs(np.dot(b, z) / np.dot(a, z)) for b, a in (shelf, high_pass)])
        tone = k_weighted(sine(hz, 3))[16_000:]
        assert 20 * math.log10(np.sqrt(2 * np.mean(tone**2)) / expected) == pytest.approx(0, abs=0.15), hz


def test_filtering_is_the_same_recursion_whatever_the_length() -> None:
    whole = k_weighted(NOISE[:5_000])
    for length in (1, 319, 320, 321, 3_333):
        np.testing.assert_allclose(k_weighted(NOISE[:length]), whole[:length], atol=1e-5)


def test_filtering_in_blocks_is_the_plain_recursion() -> None:
    from speechtune.audio.loudness import _biquads

    expected = NOISE[:4_000].astype(np.float64) + 1.0
    for b, a in _biquads():
        source, filtered = np.r_[0, 0, expected], np.zeros(len(expected) + 2)
        for at in range(2, len(source)):
            filtered[at] = b @ source[at - 2 : at + 1][::-1] - a[1] * filtered[at - 1] - a[2] * filtered[at - 2]
        expected = filtered[2:]
    np.testing.assert_allclose(k_weighted(NOISE[:4_000] + np.float32(1.0)), expected, atol=1e-4)


def test_quiet_parts_are_gated_out() -> None:
    """EBU Tech 3341 case 3: 10 s at -36, 60 s at -23, 10 s at -36 dBFS is as loud as the middle alone."""
    parts = np.concatenate([sine(1_000, 10, -36), sine(1_000, 60, -23), sine(1_000, 10, -36)])
    assert integrated_lufs(parts) == pytest.approx(-23.0 - 3.01, abs=0.1)
    assert integrated_lufs(np.concatenate([sine(997, 3, -20), np.zeros(80_000, np.float32)])) > -24.0


def test_short_and_silent_clips_have_a_loudness() -> None:
    assert integrated_lufs(sine(997, 0.2)) == pytest.approx(-3.01, abs=0.3)
    assert integrated_lufs(np.zeros(16_000, np.float32)) == -70.0
    assert integrated_lufs(np.zeros(1, np.float32)) == -70.0


# --- bandwidth ---


def test_power_frames_add_up_to_the_mean_square() -> None:
    frames = power_frames(sine(1_000, 2))
    assert frames.shape == (63, 513)
    np.testing.assert_allclose(frames[5:-5].sum(axis=1), 0.5, rtol=1e-3)
    np.testing.assert_allclose(power_frames(NOISE)[2:-2].sum(axis=1).mean(), 1.0, rtol=0.02)


@pytest.mark.parametrize("level", [1.0, 0.05])
@pytest.mark.parametrize(("through_hz", "edge_hz"), [(8_000, 4_000), (11_025, 5_512), (12_000, 6_000)])
def test_upsampled_audio_is_found(through_hz: int, edge_hz: float, level: float) -> None:
    for seed in range(4):
        samples = soxr.resample(soxr.resample(hissing_voice(seed, hiss=0.02), 16_000, through_hz), through_hz, 16_000)
        assert bandwidth_hz(rounded(samples * level), 16_000) == pytest.approx(edge_hz, rel=0.06)


def test_full_band_audio_keeps_its_band_at_any_level_and_rate() -> None:
    for seed in range(4):
        samples = hissing_voice(seed, hiss=0.02)
        assert bandwidth_hz(rounded(samples), 16_000) > 7_500
        assert bandwidth_hz(rounded(samples * 0.1), 16_000) > 7_500
        stretched = rounded(soxr.resample(samples, 16_000, 44_100))
        assert bandwidth_hz(stretched, 44_100) == pytest.approx(8_000, rel=0.06)


def test_upsampled_audio_is_found_under_noise_that_was_added_later() -> None:
    for seed in range(4):
        narrow = soxr.resample(soxr.resample(hissing_voice(seed, hiss=0.02), 16_000, 8_000), 8_000, 16_000)
        assert bandwidth_hz(rounded(narrow + 3e-4 * NOISE[: len(narrow)]), 16_000) == pytest.approx(4_000, rel=0.06)


def test_silence_has_no_bandwidth() -> None:
    assert bandwidth_hz(np.zeros(8_000, np.float32), 16_000) == 0.0
    assert bandwidth_hz(np.zeros(100, np.float32), 48_000) == 0.0


# --- signal-to-noise ratio ---


def estimate(samples: np.ndarray) -> float | None:
    return snr_db(power_frames(samples), speech_probabilities([samples])[0])


@pytest.mark.parametrize("wanted_db", [5.0, 10.0, 20.0, 30.0])
def test_noise_mixed_in_at_a_known_ratio_is_measured(wanted_db: float) -> None:
    for seed in range(3):
        clean = voice(3.0, seed, pause_s=0.6)
        speech_power = np.mean(clean[9_600:-9_600] ** 2)
        noisy = clean + NOISE[: len(clean)] * np.sqrt(speech_power) * 10 ** (-wanted_db / 20)
        assert estimate(noisy) == pytest.approx(wanted_db, abs=1.0)


def test_the_ratio_does_not_depend_on_the_level() -> None:
    noisy = voice(3.0, 1, pause_s=0.6) + 0.003 * NOISE[:67_200]
    assert estimate(noisy * 0.25) == pytest.approx(estimate(noisy), abs=0.5)


def test_digital_silence_is_not_taken_for_a_quiet_room() -> None:
    noisy = voice(3.0, 1, pause_s=0.6) + 0.01 * NOISE[:67_200]
    padded = np.concatenate([np.zeros(32_000, np.float32), noisy, np.zeros(32_000, np.float32)])
    assert estimate(padded) == pytest.approx(estimate(noisy), abs=1.0)


def test_without_speech_there_is_no_ratio() -> None:
    assert estimate(0.01 * NOISE[:32_000]) is None
    assert estimate(np.zeros(32_000, np.float32)) is None


# --- fingerprint ---


def print_of(samples: np.ndarray) -> str:
    return fingerprint(power_frames(samples.astype(np.float32)))


CHANGES = {
    "quieter": lambda x: x * 0.2,
    "mp3": lambda x: coded(x, "MP3", "MPEG_LAYER_III"),
    "opus": lambda x: coded(x, "OGG", "OPUS"),
    "telephone band": lambda x: soxr.resample(soxr.resample(x, 16_000, 8_000), 8_000, 16_000),
    "trimmed": lambda x: x[4_811:-4_000],
    "padded": lambda x: np.pad(x, (10_688, 3_000)),
    "mp3, quieter, trimmed": lambda x: coded(x, "MP3", "MPEG_LAYER_III")[1_700:-3_000] * 0.3,
}


@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_copy_has_nearly_the_same_fingerprint(change: str) -> None:
    for seed in range(4):
        original = hissing_voice(seed)
        distance = fingerprint_distance(print_of(original), print_of(CHANGES[change](original)))
        assert distance < SAME_RECORDING_DISTANCE - 0.02


def test_gain_changes_nothing_at_all() -> None:
    assert fingerprint_distance(print_of(hissing_voice(1)), print_of(hissing_voice(1) * 0.5)) < 0.001


def test_different_clips_are_far_apart() -> None:
    prints = [print_of(hissing_voice(seed)) for seed in range(8)]
    for number, first in enumerate(prints):
        for second in prints[:number]:
            assert fingerprint_distance(first, second) > SAME_RECORDING_DISTANCE


def test_a_clip_is_found_inside_a_longer_one_and_order_does_not_matter() -> None:
    long = print_of(np.concatenate([hissing_voice(seed) for seed in range(12)]))
    part = print_of(hissing_voice(5))
    assert fingerprint_distance(long, part) == fingerprint_distance(part, long) < SAME_RECORDING_DISTANCE


def test_too_little_sound_is_never_called_a_copy() -> None:
    short = print_of(hissing_voice(0, 0.5))
    silent = print_of(np.zeros(64_000))
    assert fingerprint_distance(short, short) == fingerprint_distance(silent, silent) == 1.0
    assert fingerprint_distance("", "") == 1.0
    assert not fingerprint_words(silent).any()
    assert print_of(np.zeros(10)) == ""
