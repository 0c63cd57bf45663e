"""An estimate of the signal-to-noise ratio from one recording."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from speechtune.audio.spectrum import BIN_HZ, Power

_LOWEST_BIN = round(80 / BIN_HZ)
_SPEECH, _MAYBE = 0.5, 0.2
_GUARD_FRAMES = 2
_LEAST_PAUSE_FRAMES = 4
_MISSED_SPEECH = 10.0
_DIGITAL_SILENCE = 1e-10
_PERCENTILE = 5
LIMITS_DB = (-20.0, 100.0)


def snr_db(frames: Power, probabilities: npt.NDArray[np.float32]) -> float | None:
    """Level of speech over level of noise, in dB, or ``None`` where no speech is found.

    Speech is the mean power of the frames that Silero calls speech, less the noise. Noise is the median power of the
    frames that are not, two frames (64 ms) away from any speech. Where there are fewer than 4 of those, or they are 10
    dB above the quietest twentieth of the clip (speech that the detector missed, as it does for up to 0.3 s when a clip
    begins within a word), that quietest twentieth is the noise. Below 80 Hz nothing counts. Digital silence is no
    evidence of a clean recording and is left out.

    Its error, with noise mixed into 60 clips of speechocean762 at 0 to 20 dB: steady noise (white, pink) within
    0.4 dB on average, standard deviation 0.3 dB (1.3 dB at 0 dB). With every pause at the ends cut off, at 10 to 20 dB:
    1 to 2 dB too low, standard deviation 2 to 3 dB; at 0 dB and at more than 35 dB it means little. Voices in the
    background are speech to the detector: babble reads 10 dB and more too high.

    Args:
        frames: `power_frames` of the clip, shape (frames, 513).
        probabilities: one per frame.
    """
    power = frames[:, _LOWEST_BIN:].sum(axis=1, dtype=np.float64)
    heard = power > _DIGITAL_SILENCE
    speech = (probabilities >= _SPEECH) & heard
    if not speech.any():
        return None
    level = float(power[speech].mean())
    near = np.convolve(probabilities >= _MAYBE, np.ones(2 * _GUARD_FRAMES + 1))[_GUARD_FRAMES:-_GUARD_FRAMES] > 0
    pause = power[heard & ~near]
    noise = float(np.percentile(power[heard], _PERCENTILE))
    if len(pause) >= _LEAST_PAUSE_FRAMES:
        median = float(np.median(pause))
        noise = median if median <= min(noise * _MISSED_SPEECH, level) else noise
    ratio = 10 * np.log10(max(level - noise, 1e-12) / noise)
    return float(np.clip(ratio, *LIMITS_DB))
