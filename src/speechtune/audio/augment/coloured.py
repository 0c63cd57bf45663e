"""Noise made from a seed: white, pink, brown, and the hum of the mains."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from speechtune.audio.io import SAMPLE_RATE_HZ

COLOURS = {"white": 0.0, "pink": 0.5, "brown": 1.0}
"""Exponent by which the amplitude falls with frequency (power 1/f for pink, 1/f squared for brown)."""
LOWEST_BROWN_HZ = 20.0
"""Brown noise is level below this; else nearly all of its power would lie where nothing can be heard."""


def coloured_noise(samples: int, colour: str, seed: int) -> npt.NDArray[np.float64]:
    """Noise of root mean square 1, float64, shape (samples,): ``white``, ``pink`` or ``brown``."""
    white = np.random.default_rng(seed).standard_normal(samples)
    exponent = COLOURS[colour]
    if exponent and samples > 1:
        spectrum = np.fft.rfft(white)
        bins = np.arange(1, len(spectrum))
        if colour == "brown":
            bins = np.maximum(bins, LOWEST_BROWN_HZ * samples / SAMPLE_RATE_HZ)
        spectrum[1:] /= np.sqrt(bins) if colour == "pink" else bins**exponent
        spectrum[0] = 0
        white = np.fft.irfft(spectrum, samples)
    return white / max(float(np.sqrt(np.mean(np.square(white)))) if samples else 1.0, 1e-12)


def hum(samples: int, mains_hz: float, levels_db: Sequence[float], phases: Sequence[float]) -> npt.NDArray[np.float64]:
    """Mains hum: the fundamental and its harmonics, float64, shape (samples,), root mean square 1.

    Args:
        samples: how many, at 16 kHz.
        mains_hz: 50 or 60, or a little beside it.
        levels_db: of each harmonic, the fundamental first.
        phases: of each, in radians.
    """
    time_s = np.arange(samples) / SAMPLE_RATE_HZ
    wave = np.zeros(samples)
    for number, (level_db, phase) in enumerate(zip(levels_db, phases, strict=True), start=1):
        if number * mains_hz < SAMPLE_RATE_HZ / 2:
            wave += 10 ** (level_db / 20) * np.sin(2 * np.pi * number * mains_hz * time_s + phase)
    return wave / max(float(np.sqrt(np.mean(np.square(wave)))) if samples else 1.0, 1e-12)
