"""A synthetic voice that the detector takes for speech: pulses through three formants, four syllables a second."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

VOWELS_HZ = ((730, 1090, 2440), (270, 2290, 3010), (570, 840, 2410), (530, 1840, 2480), (300, 870, 2240))


def voice(seconds: float, seed: int = 0, pitch_hz: float = 120.0, pause_s: float = 0.0) -> npt.NDArray[np.float32]:
    """float32 at 16 kHz, peak 0.5; different seeds say different vowels; ``pause_s`` of zeros at either end."""
    rng = np.random.default_rng(seed)
    count = round(seconds * 16_000)
    time_s = np.arange(count) / 16_000
    glide = 1 + 0.12 * np.sin(2 * np.pi * 1.3 * time_s + rng.uniform(0, 6))
    phase = np.cumsum(pitch_hz * glide) / 16_000
    result = np.zeros(count)
    for first in range(0, count, 4_000):
        part = slice(first, first + 4_000)
        formants = VOWELS_HZ[rng.integers(len(VOWELS_HZ))]
        for harmonic in range(1, int(3_800 / pitch_hz)):
            hz = harmonic * pitch_hz
            gain = sum(1 / (1 + ((hz - formant) / 90) ** 2) for formant in formants) + 0.003
            result[part] += gain * np.cos(2 * np.pi * harmonic * phase[part])
    result *= 0.15 + np.abs(np.sin(np.pi * 4 * time_s))
    edges = np.zeros(round(pause_s * 16_000))
    return np.concatenate([edges, result / np.abs(result).max() * 0.5, edges]).astype(np.float32)
