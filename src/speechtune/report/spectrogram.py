"""Small log-mel pictures of clips, as PNG data URIs of a few kilobytes."""

from __future__ import annotations

import base64
import functools
import struct
import zlib

import numpy as np
import numpy.typing as npt

from speechtune.audio.io import SAMPLE_RATE_HZ

BANDS = 64
MOST_COLUMNS = 240
RANGE_DB = 70.0
"""From white to black, below the loudest place of the clip."""

FLOOR_DB = -100.0
"""Power of a frame's band (relative to full scale) that is white whatever the rest of the clip is."""

_WINDOW_SAMPLES = 400
_FFT_SAMPLES = 512
_HOP_SAMPLES = 160
_SHADES = 16
_WIDEST_PX = 480
_LINEAR_WINDOW_SAMPLES = 400
_LINEAR_RANGE_DB = 80.0


def log_mel_db(samples: npt.NDArray[np.float32], columns: int = MOST_COLUMNS) -> npt.NDArray[np.float64]:
    """Band powers in decibels, 25 ms windows every 10 ms, averaged to at most ``columns`` columns.

    Args:
        samples: shape ``(samples,)`` at 16 kHz.
        columns: most columns of the result.

    Returns:
        float array of shape ``(64, columns)``; the first row is the lowest band (0 to 8 kHz on the HTK mel scale).
    """
    length = max(len(samples), 1)
    centres = np.arange(0, length, _HOP_SAMPLES)
    padded = np.zeros(int(centres[-1]) + _WINDOW_SAMPLES + _WINDOW_SAMPLES // 2, np.float32)
    padded[_WINDOW_SAMPLES // 2 : _WINDOW_SAMPLES // 2 + len(samples)] = samples
    frames = padded[centres[:, None] + np.arange(_WINDOW_SAMPLES)] * np.hanning(_WINDOW_SAMPLES)
    power = np.square(np.abs(np.fft.rfft(frames, _FFT_SAMPLES, axis=1))) / (_WINDOW_SAMPLES / 4) ** 2
    bands = power @ mel_filters().T
    pooled = -(-len(bands) // columns)
    starts = np.arange(0, len(bands), pooled)
    sizes = np.diff(np.append(starts, len(bands)))
    means = np.add.reduceat(bands, starts, axis=0) / sizes[:, None]
    decibels: npt.NDArray[np.float64] = 10 * np.log10(means.T + 1e-12)
    return decibels


@functools.cache
def mel_filters() -> npt.NDArray[np.float64]:
    """Triangular filters, shape ``(64, 257)``, equally wide on the HTK mel scale (2595 log10(1 + f / 700))."""
    top = 2595 * np.log10(1 + SAMPLE_RATE_HZ / 2 / 700)
    edges_hz = 700 * (10 ** (np.linspace(0, top, BANDS + 2) / 2595) - 1)
    bins_hz = np.arange(_FFT_SAMPLES // 2 + 1) * SAMPLE_RATE_HZ / _FFT_SAMPLES
    # The lowest bands are narrower than a bin: a band reaches at least one bin to either side of its centre.
    centre = edges_hz[1:-1, None]
    low = np.minimum(edges_hz[:-2, None], centre - bins_hz[1])
    high = np.maximum(edges_hz[2:, None], centre + bins_hz[1])
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    filters = np.maximum(0.0, np.minimum(rising, falling))
    result: npt.NDArray[np.float64] = filters / filters.sum(axis=1, keepdims=True)
    return result


def spectrogram_uri(samples: npt.NDArray[np.float32]) -> str:
    """The picture of a clip at 16 kHz: time to the right, low to high upwards, dark where it is loud; 16 greys."""
    level_db = log_mel_db(samples)
    white = max(float(level_db.max()) - RANGE_DB, FLOOR_DB)
    dark = np.clip((level_db - white) / RANGE_DB, 0.0, 1.0)
    shades = np.round(dark * (_SHADES - 1)) * (255 // (_SHADES - 1))
    picture = grey_png((255 - shades[::-1]).astype(np.uint8))
    return "data:image/png;base64," + base64.b64encode(picture).decode("ascii")


def spectrogram_png(samples: npt.NDArray[np.float32]) -> bytes:
    """A grey picture, dark where the sound is loud: time to the right, 0 to 8 kHz upwards, 80 dB from black to white.

    At most 480 columns; short clips have a column every 10 ms.
    """
    hop = max(SAMPLE_RATE_HZ // 100, -(-len(samples) // _WIDEST_PX))
    padded = np.pad(samples, (_LINEAR_WINDOW_SAMPLES // 2, _LINEAR_WINDOW_SAMPLES))
    starts = np.arange(0, max(len(samples), 1), hop)
    frames = padded[starts[:, None] + np.arange(_LINEAR_WINDOW_SAMPLES)] * np.hanning(_LINEAR_WINDOW_SAMPLES)
    level_db = 20 * np.log10(np.abs(np.fft.rfft(frames, axis=1)) + 1e-6)
    dark = np.clip((level_db - level_db.max() + _LINEAR_RANGE_DB) / _LINEAR_RANGE_DB, 0.0, 1.0)
    return grey_png((255 * (1 - dark.T[::-1])).astype(np.uint8))


def grey_png(pixels: npt.NDArray[np.uint8]) -> bytes:
    """An 8-bit grey PNG of an array of shape (rows, columns)."""
    rows, columns = pixels.shape

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    scanlines = np.concatenate([np.zeros((rows, 1), np.uint8), pixels], axis=1).tobytes()
    head = struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(scanlines, 9)) + chunk(b"IEND", b"")
    )
