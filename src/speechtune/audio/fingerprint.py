"""A compact fingerprint of how a clip sounds, for finding copies of a recording that differ in their bytes.

After Haitsma and Kalker, "A highly robust audio fingerprinting system" (ISMIR 2002): one bit for every pair of
neighbouring bands, set where their energy difference grows over time. It differs from theirs in what suits short
clips of speech: 33 mel bands of 250-4000 Hz (what a telephone passes), logarithmic energies (a fixed filter cancels),
differences over 128 ms, and one 32-bit word per 64 ms. Pauses have no word: noise there would be random bits.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from speechtune.audio.spectrum import BIN_HZ, Power

WORD_S = 0.064
"""The time from one 32-bit word to the next."""
SAME_RECORDING_DISTANCE = 0.30
"""`fingerprint_distance` of two clips below this means that they hold the same recording (unrelated: about 0.45)."""
_BANDS = 33
_LOWEST_HZ, _HIGHEST_HZ = 250.0, 4_000.0
_SMOOTH_FRAMES = 8  # 256 ms
_HOP_FRAMES = 2
_LAG_WORDS = 2
_QUIET_FRACTION = 1e-4  # 40 dB below the loudest word
_LEAST_WORDS = 12
_MOST_WORDS = 250

Words = npt.NDArray[np.uint32]


def fingerprint(frames: Power) -> str:
    """The fingerprint of `power_frames`: eight hexadecimal digits per 64 ms; ``00000000`` where it is quiet."""
    words = max(0, (len(frames) - _SMOOTH_FRAMES) // _HOP_FRAMES + 1)
    if words <= _LAG_WORDS:
        return ""
    bands = np.concatenate([np.zeros((1, _BANDS)), np.cumsum(frames @ _filters(), axis=0, dtype=np.float64)])
    starts = np.arange(words) * _HOP_FRAMES
    energy = np.maximum(bands[starts + _SMOOTH_FRAMES] - bands[starts], 0.0)
    loudness = energy.sum(axis=1)
    slope = np.diff(np.log(energy + 1e-12 + 1e-6 * loudness.max()), axis=1)
    rising = slope[_LAG_WORDS:] > slope[:-_LAG_WORDS]
    numbers = np.packbits(rising, axis=1).view(">u4")[:, 0]
    quiet = np.minimum(loudness[_LAG_WORDS:], loudness[:-_LAG_WORDS]) <= _QUIET_FRACTION * loudness.max()
    return np.where(quiet, 0, numbers).astype(">u4").tobytes().hex()


def fingerprint_words(text: str) -> Words:
    """The words of a fingerprint as integers, shape (words,), for instance to index them; 0 stands for a pause."""
    return np.frombuffer(bytes.fromhex(text), ">u4").astype(np.uint32)


def fingerprint_distance(first: str, second: str) -> float:
    """The least share of differing bits over all ways of laying the shorter clip over the longer: 0 same, 0.5 not.

    A tenth of the shorter clip (at least 4 words) may stick out at either end; of more than 16 s the middle is
    compared. Returns 1.0 where fewer than 12 words (0.8 s of sound) can be compared: too little to tell anything.
    """
    short, long = sorted((fingerprint_words(first), fingerprint_words(second)), key=len)
    if len(short) > _MOST_WORDS:
        middle = (len(short) - _MOST_WORDS) // 2
        short = short[middle : middle + _MOST_WORDS]
    slack = max(4, len(short) // 10)
    best = 1.0
    padded = np.concatenate([np.zeros(slack, np.uint32), long, np.zeros(slack, np.uint32)])
    if len(short) < _LEAST_WORDS or len(padded) < len(short):
        return best
    layers = np.lib.stride_tricks.sliding_window_view(padded, len(short))
    both = (layers != 0) & (short != 0)
    compared = both.sum(axis=1)
    differing = np.where(both, _ones(layers ^ short), 0).sum(axis=1)
    usable = compared >= _LEAST_WORDS
    if usable.any():
        best = float((differing[usable] / (32 * compared[usable])).min())
    return best


def _ones(words: Words) -> npt.NDArray[np.uint8]:
    """How many bits of each word are set."""
    octets = np.ascontiguousarray(words).view(np.uint8).reshape(*words.shape, 4)
    return _BITS_SET[octets].sum(axis=-1, dtype=np.uint8)


_BITS_SET = np.array([bin(value).count("1") for value in range(256)], np.uint8)


@lru_cache(maxsize=1)
def _filters() -> npt.NDArray[np.float32]:
    """Triangular mel bands, shape (513, 33)."""
    low, high = (1127 * np.log1p(hz / 700) for hz in (_LOWEST_HZ, _HIGHEST_HZ))
    corners = 700 * np.expm1(np.linspace(low, high, _BANDS + 2) / 1127) / BIN_HZ
    bins = np.arange(513)[:, None]
    left, centre, right = corners[:-2], corners[1:-1], corners[2:]
    rising, falling = (bins - left) / (centre - left), (right - bins) / (right - centre)
    return np.maximum(np.minimum(rising, falling), 0.0).astype(np.float32)
