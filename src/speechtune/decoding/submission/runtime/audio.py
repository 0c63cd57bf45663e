"""Sound files to 16 kHz, Whisper's log-mel features with numpy alone, and cuts in what is longer than the window."""

from __future__ import annotations

from pathlib import Path

import numpy as np

RATE_HZ = 16_000
HOP, WINDOW = 160, 400
FULL_FRAMES = 3_000


def load(path: Path) -> np.ndarray:
    """The mono float32 samples of a file at 16 kHz; what is not finite raises ValueError."""
    import soundfile

    samples, rate_hz = soundfile.read(str(path), dtype="float32", always_2d=True)
    mono = samples.mean(axis=1, dtype=np.float32)
    if not len(mono) or not np.isfinite(mono).all():
        raise ValueError(f"{path} holds no usable samples")
    if rate_hz != RATE_HZ:
        import soxr

        mono = np.asarray(soxr.resample(mono, rate_hz, RATE_HZ, quality="HQ"), dtype=np.float32)
    return mono


def loudest_dbfs(samples: np.ndarray, frame: int = 320) -> float:
    """The level of the loudest 20 ms, in dB below full scale."""
    whole = len(samples) // frame * frame
    frames = samples[:whole].reshape(-1, frame) if whole else samples[None]
    power = float(np.max(np.mean(np.square(frames, dtype=np.float64), axis=1))) if frames.size else 0.0
    return float(10.0 * np.log10(max(power, 1e-20)))


def pieces(samples: np.ndarray, longest: int) -> list[np.ndarray]:
    """The samples in pieces of at most ``longest``, cut at the quietest 50 ms of the last two fifths of each."""
    parts = []
    frame = RATE_HZ // 20
    while len(samples) > longest:
        first = longest * 3 // 5
        window = samples[first:longest]
        whole = max(frame, len(window) // frame * frame)
        power = np.square(window[:whole]).reshape(-1, min(frame, whole)).mean(axis=1)
        cut = first + int(np.argmin(power)) * frame + frame // 2
        parts.append(samples[:cut])
        samples = samples[cut:]
    return [*parts, samples]


def log_mel(waveforms: list[np.ndarray], n_frames: int, filters: np.ndarray) -> np.ndarray:
    """Features of a batch: float32 of shape (clips, mels, n_frames), as Whisper's feature extractor makes them.

    Args:
        waveforms: 16 kHz, none longer than ``n_frames`` of 10 ms.
        n_frames: at most 3000; at 3000 the end of the 30 s is reflected, before that silence follows the clip.
        filters: the mel filters, (mels, 201).
    """
    samples = FULL_FRAMES * HOP if n_frames == FULL_FRAMES else n_frames * HOP + 2 * WINDOW
    window = (0.5 - 0.5 * np.cos(2.0 * np.pi * np.arange(WINDOW) / WINDOW)).astype(np.float32)
    result = np.empty((len(waveforms), len(filters), n_frames), dtype=np.float32)
    for row, waveform in enumerate(waveforms):
        padded = np.zeros(samples, dtype=np.float32)
        padded[: len(waveform)] = waveform
        padded = np.pad(padded, WINDOW // 2, mode="reflect")
        frames = np.lib.stride_tricks.sliding_window_view(padded, WINDOW)[::HOP][: samples // HOP]
        power = np.abs(np.fft.rfft(frames * window, axis=1)).astype(np.float32) ** 2
        log = np.log10(np.maximum(filters @ power.T, 1e-10))
        log = np.maximum(log, log.max() - 8.0)
        result[row] = ((log + 4.0) / 4.0)[:, :n_frames]
    return result
