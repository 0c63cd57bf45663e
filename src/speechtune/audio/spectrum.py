"""The one short-time spectrum that all spectral measures share, and the true bandwidth."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples

WINDOW_SAMPLES = 1024
HOP_SAMPLES = 512
"""At 16 kHz: 64 ms windows every 32 ms, each centred on the frame that one speech probability stands for."""
BIN_HZ = SAMPLE_RATE_HZ / WINDOW_SAMPLES
Power = npt.NDArray[np.float32]

_LOUDEST_FRAMES = 100
_FLOOR_DB = -113.0
"""Per-bin level that 16-bit rounding noise (-101 dBFS in all) stays below: what is no louder was not recorded."""
_RANGE_DB = 75.0
_CLIFF_DB = 20.0
_GAP_HZ, _SIDE_HZ = 125.0, 375.0
_LEAST_HZ = 1_500.0


def power_frames(samples: Samples) -> Power:
    """Power spectrum of a 16 kHz ``(samples,)`` array: shape (ceil(samples / 512), 513).

    Scaled so that the bins of a frame add up to the frame's mean square (Hann window; a sine of amplitude 1 gives 0.5).
    """
    count = -(-len(samples) // HOP_SAMPLES)
    margin = (WINDOW_SAMPLES - HOP_SAMPLES) // 2
    padded = np.zeros((count - 1) * HOP_SAMPLES + WINDOW_SAMPLES, np.float32)
    padded[margin : margin + len(samples)] = samples[: len(padded) - margin]
    return _power(np.lib.stride_tricks.sliding_window_view(padded, WINDOW_SAMPLES)[::HOP_SAMPLES])


def bandwidth_hz(samples: Samples, rate_hz: int, frames: Power | None = None) -> float:
    """Up to which frequency the recording holds sound: less than half the rate for upsampled or low-passed audio.

    The highest frequency that (a) is above the rounding noise of 16 bits, (b) is within 75 dB of the loudest band, and
    (c) does not lie above a cliff: 20 dB within 250 Hz, with nothing as loud beyond. Measured in the louder half of the
    frames, to about 100 Hz. The thresholds are this project's, set on 280 clips of speechocean762: the steepest fall in
    a clip as recorded was 19 dB, the least in one taken through 8 kHz was 39 dB (21 dB with noise of -80 dBFS added
    afterwards; from -60 dBFS on, half of them are missed). Upsampling by linear interpolation leaves mirror images up
    to the top and is not found.

    Args:
        samples: mono, shape ``(samples,)``, at ``rate_hz``.
        rate_hz: the rate it was stored at.
        frames: `power_frames` of ``samples``, where ``rate_hz`` is 16 kHz.
    """
    if frames is None:
        frames = _native_frames(samples, rate_hz)
    bin_hz = rate_hz / 2 / (frames.shape[1] - 1)
    energy = frames.sum(axis=1)
    loud = frames[energy >= np.median(energy)]
    # The level of a band, in dB: mean over the loud frames, then over 5 bins.
    smooth = np.convolve(loud.mean(axis=0, dtype=np.float64), np.full(5, 0.2), "same")
    level = 10 * np.log10(np.maximum(smooth, 1e-20))
    floor_db = max(_FLOOR_DB + 10 * np.log10(512 / (frames.shape[1] - 1)), level.max() - _RANGE_DB)
    present = np.flatnonzero(level > floor_db)
    if not len(present):
        return 0.0
    top = int(present[-1]) + 1
    return min(_below_cliff(level, bin_hz), top * bin_hz, rate_hz / 2)


def _below_cliff(level: npt.NDArray[np.float64], bin_hz: float) -> float:
    """The frequency of the steepest lasting fall of ``level``, or infinity where none is steep enough."""
    gap, side = max(1, round(_GAP_HZ / bin_hz)), max(2, round(_SIDE_HZ / bin_hz))
    first = max(round(_LEAST_HZ / bin_hz), side + gap)
    at = np.arange(first, len(level) - gap - side // 2)
    if not len(at):
        return math.inf
    sums = np.concatenate([[0.0], np.cumsum(level)])
    below = (sums[at - gap] - sums[at - gap - side]) / side
    loudest_beyond = np.maximum.accumulate(level[::-1])[::-1][at + gap]
    fall = below - loudest_beyond
    best = int(np.argmax(fall))
    if fall[best] < _CLIFF_DB:
        return math.inf
    # The edge itself: where the level passes half-way between its two sides.
    edge = level[at[best] - gap - 1 : at[best] + gap + 2]
    middle = (below[best] + loudest_beyond[best]) / 2
    under = np.flatnonzero(edge < middle)
    return float((at[best] - gap - 1 + (under[0] if len(under) else gap + 1)) * bin_hz)


def _native_frames(samples: Samples, rate_hz: int) -> Power:
    """Power spectra of the loudest 64 ms windows at any rate, at most 100 of them."""
    size = 1 << round(np.log2(rate_hz * WINDOW_SAMPLES / SAMPLE_RATE_HZ))
    whole = max(1, len(samples) // size)
    windows = np.pad(samples, (0, max(0, size - len(samples))))[: whole * size].reshape(whole, size)
    if whole > _LOUDEST_FRAMES:
        energy = np.einsum("ij,ij->i", windows, windows)
        windows = windows[np.sort(np.argpartition(energy, -_LOUDEST_FRAMES)[-_LOUDEST_FRAMES:])]
    return _power(windows)


def _power(windows: npt.NDArray[np.float32]) -> Power:
    size = windows.shape[1]
    hann = (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(size) / size)).astype(np.float32)
    spectrum = np.fft.rfft(windows * hann, axis=1)
    power = np.square(spectrum.real)
    power += np.square(spectrum.imag)
    power *= np.float32(2 / (size * float(np.square(hann).sum())))
    power[:, [0, -1]] *= 0.5
    return power
