"""Reading any audio file as one float32 channel at one sample rate, and writing WAV, FLAC and Ogg Opus.

WAV, FLAC, Ogg (Vorbis, Opus), MP3 and whatever else libsndfile knows are read through ``soundfile``; all other
formats (M4A, AAC, WebM, video files, ...) through PyAV, or an ``ffmpeg`` executable where PyAV is not installed.
Several channels are averaged with equal weights. Resampling is soxr's HQ quality.
"""

from __future__ import annotations

import io
import os
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speechtune.audio.channels import (
    BLOCK_FRAMES,
    EMPTY,
    MISSING,
    NON_FINITE,
    OUTSIDE,
    TRUNCATED,
    UNREADABLE,
    AudioError,
    AudioInfo,
    Samples,
    probe,
    read_channels,
)
from speechtune.core.errors import InputError, explain_write_errors

__all__ = [
    "AUDIO_SUFFIXES",
    "EMPTY",
    "MISSING",
    "NON_FINITE",
    "OUTSIDE",
    "SAMPLE_RATE_HZ",
    "TRUNCATED",
    "UNREADABLE",
    "AudioError",
    "AudioInfo",
    "Samples",
    "load_audio",
    "probe",
    "resample",
    "resampled_length",
    "write_audio",
]

SAMPLE_RATE_HZ = 16_000
_SUFFIX_WORDS = """
wav wave flac ogg oga opus mp3 m4a mp4 aac webm weba mka aif aiff aifc au snd caf w64 wma amr 3gp sph mkv mov
"""
AUDIO_SUFFIXES = frozenset(f".{word}" for word in _SUFFIX_WORDS.split())
"""File name endings (lower case) that are taken for audio when a folder is listed."""
_OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)


def load_audio(
    path: Path | str, start_s: float | None = None, end_s: float | None = None, sample_rate_hz: int = SAMPLE_RATE_HZ
) -> Samples:
    """Read a file, or the span from ``start_s`` to ``end_s`` of it.

    A span of ``n`` frames at the file's own rate ``r`` (``n = round(end_s * r) - round(start_s * r)``) becomes exactly
    ``max(1, floor(n * sample_rate_hz / r + 0.5))`` samples. Spans are read by seeking, not by decoding what precedes.

    Args:
        path: any file that libsndfile or FFmpeg decodes, with any rate and number of channels.
        start_s: where the span begins in seconds (``None``: at the beginning).
        end_s: where it ends (``None``: at the end of the file).
        sample_rate_hz: the rate of the result.

    Returns:
        float32 array of shape ``(samples,)``, nominally within [-1, 1], all finite.

    Raises:
        AudioError: the file is missing, empty, not audio or truncated, holds NaN or infinite samples, or the span lies
            outside it (an `InputError` that names the file).
    """
    recording = read_channels(path, start_s, end_s)
    return resample(recording.mono(), recording.sample_rate_hz, sample_rate_hz)


def resample(samples: Samples, from_hz: int, to_hz: int) -> Samples:
    """Change the rate of a ``(samples,)`` array with soxr HQ; the length follows the law in `load_audio`."""
    if from_hz == to_hz:
        return samples
    import soxr

    length = resampled_length(len(samples), from_hz, to_hz)
    result = np.asarray(soxr.resample(samples, from_hz, to_hz, quality="HQ"), dtype=np.float32)[:length]
    return np.pad(result, (0, length - len(result)))


def resampled_length(samples: int, from_hz: int, to_hz: int) -> int:
    """How many samples at ``to_hz`` stand for ``samples`` samples at ``from_hz`` (rounded half up, at least one)."""
    return max(1, (2 * samples * to_hz + from_hz) // (2 * from_hz))


def write_audio(path: Path | str, samples: npt.NDArray[Any], sample_rate_hz: int = SAMPLE_RATE_HZ) -> None:
    """Write a mono ``(samples,)`` array, atomically; the suffix says how: .wav, .flac (16 bit), .ogg or .opus (Opus).

    Samples beyond [-1, 1) are clipped. What was read from 16-bit PCM at the same rate is written back bit for bit.

    Raises:
        InputError: the suffix or the rate cannot be written, a sample is not finite, or the place cannot be written to.
    """
    path = Path(path)
    kind = {".wav": ("WAV", "PCM_16"), ".flac": ("FLAC", "PCM_16"), ".ogg": ("OGG", "OPUS"), ".opus": ("OGG", "OPUS")}
    if path.suffix.lower() not in kind:
        raise InputError(f"cannot write {path}: choose a name that ends in .wav, .flac or .ogg")
    container, subtype = kind[path.suffix.lower()]
    if subtype == "OPUS" and sample_rate_hz not in _OPUS_RATES_HZ:
        raise InputError(f"cannot write {path} at {sample_rate_hz} Hz: Opus takes 8, 12, 16, 24 or 48 kHz")
    if samples.ndim != 1 or not np.isfinite(samples).all():
        raise InputError(f"cannot write {path}: needs finite samples of shape (samples,), got shape {samples.shape}")
    import soundfile

    pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    encoded = io.BytesIO()  # libsndfile's callbacks into a Python file would swallow a full disk
    with soundfile.SoundFile(encoded, "w", sample_rate_hz, 1, subtype, format=container) as file:
        for first in range(0, len(pcm), BLOCK_FRAMES):  # one huge write of Ogg overflows libsndfile's stack
            file.write(pcm[first : first + BLOCK_FRAMES])
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, draft = tempfile.mkstemp(dir=path.parent, prefix=".audio-")
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(encoded.getbuffer())
            os.chmod(draft, 0o644)
            os.replace(draft, path)
        except BaseException:
            Path(draft).unlink(missing_ok=True)
            raise
