"""Where a clip has speech, how loud it is there, and how far above a noise."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from speechtune.audio.io import SAMPLE_RATE_HZ

NOMINAL_SPEECH_DBFS = -26.0
"""Speech level that stands in where a clip has none (the nominal level of ITU-T P.56 practice)."""

FRAME_SAMPLES = SAMPLE_RATE_HZ // 100
_MARGIN_DB = 15.9  # ITU-T P.56 (12/2011), method B
_HANGOVER_FRAMES = 20  # 0.2 s, as there
_SMOOTHING_FRAMES = 3
_TINY = 1e-12


def speech_active(waveform: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Which samples belong to speech, shape (samples,).

    The active speech level is found as in ITU-T P.56 method B (a threshold 15.9 dB below the level of what is above it,
    with 0.2 s of hangover), on 10 ms frames instead of samples. Active are then the frames, smoothed over 30 ms, that
    reach the threshold; the hangover, which has no speech in it, is not counted. A clip of digital silence has none.
    """
    frames = -(-len(waveform) // FRAME_SAMPLES)
    if frames == 0:
        return np.zeros(0, bool)
    padded = np.zeros(frames * FRAME_SAMPLES)
    padded[: len(waveform)] = waveform
    power = np.square(padded).reshape(frames, FRAME_SAMPLES).mean(axis=1)
    if power.max() < _TINY:
        return np.zeros(len(waveform), bool)
    kernel = np.ones(_SMOOTHING_FRAMES) / _SMOOTHING_FRAMES
    level_db = 10 * np.log10(np.convolve(power, kernel, "same") + _TINY)
    active = level_db >= _threshold_db(level_db, power.sum())
    return np.repeat(active, FRAME_SAMPLES)[: len(waveform)]


def _threshold_db(level_db: npt.NDArray[np.float64], energy: float) -> float:
    """The lowest threshold that is at most 15.9 dB below the level of the frames it leaves, in steps of 1 dB."""
    thresholds = np.arange(level_db.max() - 60.0, level_db.max(), 1.0)
    frames = np.arange(len(level_db))
    above = np.where(level_db >= thresholds[:, None], frames, -_HANGOVER_FRAMES - 1)
    held = frames - np.maximum.accumulate(above, axis=1) <= _HANGOVER_FRAMES
    active_db = 10 * np.log10(energy / np.maximum(held.sum(axis=1), 1) + _TINY)
    found = np.flatnonzero(active_db - thresholds <= _MARGIN_DB)
    return float(thresholds[found[0]]) if len(found) else float(thresholds[-1])


def power(waveform: npt.NDArray[np.float32], where: npt.NDArray[np.bool_] | None = None) -> float:
    """Mean square of the samples, or of those where a mask is set; 0 where there are none."""
    samples = waveform if where is None else waveform[where]
    return float(np.mean(np.square(samples, dtype=np.float64))) if len(samples) else 0.0


def speech_level_db(waveform: npt.NDArray[np.float32]) -> float:
    """Root mean square over the speech-active samples in dB of full scale; minus infinity for digital silence."""
    return decibels(power(waveform, speech_active(waveform)))


def snr_db(speech: npt.NDArray[np.float32], noise: npt.NDArray[np.float32]) -> float:
    """Power of the speech over that of the noise, both over the speech-active samples, in dB.

    Args:
        speech: the clip before the noise, shape (samples,).
        noise: what was added to it, same shape.
    """
    active = speech_active(speech)
    return decibels(power(speech, active)) - decibels(power(noise, active))


def decibels(ratio: float) -> float:
    """10 log10 of a power; minus infinity for zero."""
    return 10 * math.log10(ratio) if ratio > 0 else -math.inf


def amplitude(decibel: float) -> float:
    """The factor on samples that a level change in dB stands for."""
    return float(10 ** (decibel / 20))
