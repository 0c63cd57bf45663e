"""Changes to a waveform. Draws are made elsewhere: everything here is a pure function of its arguments."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speechtune.audio.io import SAMPLE_RATE_HZ


def change_speed(samples: npt.NDArray[np.float32], factor: float) -> npt.NDArray[np.float32]:
    """Play ``samples`` (mono, 16 kHz) ``factor`` times as fast: tempo and pitch move together.

    Speed perturbation as in Ko et al. 2015, "Audio augmentation for speech recognition" (Interspeech), by
    resampling with soxr HQ. The result has ``round(len(samples) / factor)`` samples.
    """
    import soxr

    if factor == 1.0:
        return samples
    length = max(1, round(len(samples) / factor))
    faster = soxr.resample(samples, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ, quality="HQ")[:length]
    return np.pad(faster, (0, length - len(faster))).astype(np.float32)
