"""Integrated loudness (LUFS) after ITU-R BS.1770-4, for mono 16 kHz signals.

The two K-weighting filters are recursive, and NumPy has no recursive filter. Their state is carried from block to
block by a parallel scan and everything within a block is one matrix product: exact, and much faster than real time.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples

ABSOLUTE_GATE_LUFS = -70.0
"""BS.1770-4: quieter blocks do not count. It is also the least value `integrated_lufs` returns."""
_RELATIVE_GATE_LU = -10.0
_OFFSET_LU = -0.691
_STEP_SAMPLES = SAMPLE_RATE_HZ // 10  # 400 ms blocks that overlap by 75 %
_BLOCK = 320
_STATES = 4


def integrated_lufs(samples: Samples) -> float:
    """The gated loudness of a mono 16 kHz ``(samples,)`` array; one ungated block if it is shorter than 0.4 s.

    A full-scale 997 Hz sine measures -3.01 LUFS (at 16 kHz the filters are 0.04 dB off there). What lies above 8 kHz is
    not in the signal and does not count.
    """
    weighted = k_weighted(samples)
    steps = len(weighted) // _STEP_SAMPLES
    if steps < 4:
        return max(_lufs(float(np.mean(np.square(weighted))) if len(weighted) else 0.0), ABSOLUTE_GATE_LUFS)
    squares = np.square(weighted[: steps * _STEP_SAMPLES]).reshape(steps, -1).mean(axis=1, dtype=np.float64)
    powers = np.convolve(squares, np.full(4, 0.25), "valid")
    powers = powers[powers > _power(ABSOLUTE_GATE_LUFS)]
    if not len(powers):
        return ABSOLUTE_GATE_LUFS
    gate = _power(_lufs(float(powers.mean())) + _RELATIVE_GATE_LU)
    return _lufs(float(powers[powers > gate].mean()))


def k_weighted(samples: Samples) -> Samples:
    """A ``(samples,)`` array through BS.1770's shelf and high-pass filters, at 16 kHz."""
    direct, to_state, from_state, advance = _block_matrices()
    blocks = -(-len(samples) // _BLOCK)
    padded = np.zeros(blocks * _BLOCK, np.float32)
    padded[: len(samples)] = samples
    rows = padded.reshape(blocks, _BLOCK)
    states = np.zeros((blocks, _STATES))
    states[1:] = rows[:-1] @ to_state
    distance, power = 1, advance
    while distance < blocks and np.abs(power).max() > 1e-12:
        states[distance:] += states[:-distance] @ power
        distance, power = 2 * distance, power @ power
    result = rows @ direct
    result += states.astype(np.float32) @ from_state
    return result.reshape(-1)[: len(samples)]


def _lufs(power: float) -> float:
    return _OFFSET_LU + 10 * math.log10(power) if power > 0 else -math.inf


def _power(lufs: float) -> float:
    return 10 ** ((lufs - _OFFSET_LU) / 10)


def _biquads() -> list[tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]]:
    """(b, a) of the shelf and the high-pass at 16 kHz.

    BS.1770-4 states coefficients at 48 kHz only; the analogue parameters behind them are those of libebur128.
    """
    k, q = math.tan(math.pi * 1681.974450955533 / SAMPLE_RATE_HZ), 0.7071752369554196
    high = 10 ** (3.999843853973347 / 20)
    middle = high**0.4996667741545416
    scale = 1 + k / q + k * k
    shelf = np.array([high + middle * k / q + k * k, 2 * (k * k - high), high - middle * k / q + k * k]) / scale
    shelf_poles = np.array([1.0, 2 * (k * k - 1) / scale, (1 - k / q + k * k) / scale])
    k, q = math.tan(math.pi * 38.13547087602444 / SAMPLE_RATE_HZ), 0.5003270373238773
    scale = 1 + k / q + k * k
    poles = np.array([1.0, 2 * (k * k - 1) / scale, (1 - k / q + k * k) / scale])
    return [(shelf, shelf_poles), (np.array([1.0, -2.0, 1.0]), poles)]


@lru_cache(maxsize=1)
def _block_matrices() -> tuple[npt.NDArray[np.float32], ...]:
    """What a block of inputs does to its outputs and the next state, and what a state does to both.

    Found by running the plain recursion once on all unit inputs and unit states side by side.
    """
    columns = _BLOCK + _STATES
    state = np.zeros((2, 2, columns))
    state.reshape(_STATES, columns)[:, _BLOCK:] = np.eye(_STATES)
    outputs = np.zeros((_BLOCK, columns))
    for step in range(_BLOCK):
        signal = np.zeros(columns)
        signal[step] = 1.0
        for number, (b, a) in enumerate(_biquads()):
            result = b[0] * signal + state[number, 0]
            state[number, 0] = b[1] * signal - a[1] * result + state[number, 1]
            state[number, 1] = b[2] * signal - a[2] * result
            signal = result
        outputs[step] = signal
    final = state.reshape(_STATES, columns)
    return (
        np.ascontiguousarray(outputs[:, :_BLOCK].T, np.float32),
        np.ascontiguousarray(final[:, :_BLOCK].T, np.float32),
        np.ascontiguousarray(outputs[:, _BLOCK:].T, np.float32),
        np.ascontiguousarray(final[:, _BLOCK:].T),
    )
