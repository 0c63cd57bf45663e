"""Reading any audio file as one float32 channel at one sample rate, and writing WAV, FLAC and Ogg Opus.

WAV, FLAC, Ogg (Vorbis, Opus), MP3 and whatever else libsndfile knows are read through ``soundfile``; all other
formats (M4A, AAC, WebM, video files, ...) through PyAV, or an ``ffmpeg`` executable where PyAV is not installed.
Several channels are averaged with equal weights. Resampling is soxr's HQ quality.
"""

from __future__ import annotations

import io
import math
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speechtune.audio.containers import promised_bytes_missing
from speechtune.core.errors import InputError, explain_write_errors

SAMPLE_RATE_HZ = 16_000
_SUFFIX_WORDS = """
wav wave flac ogg oga opus mp3 m4a mp4 aac webm weba mka aif aiff aifc au snd caf w64 wma amr 3gp sph mkv mov
"""
AUDIO_SUFFIXES = frozenset(f".{word}" for word in _SUFFIX_WORDS.split())
"""File name endings (lower case) that are taken for audio when a folder is listed."""

UNREADABLE = "unreadable audio"
TRUNCATED = "truncated audio"
EMPTY = "empty audio"
NON_FINITE = "non-finite audio"
MISSING = "missing audio"
OUTSIDE = "span outside audio"

Samples = npt.NDArray[np.float32]

_BLOCK_FRAMES = 1 << 18
_SPAN_SLACK_S = 0.010
"""A span may end (or start) this far outside the file, one 10 ms feature hop, and is clipped: tables round times."""
_SHORTFALL_S = 0.1
"""How much less than a lossy container's stated length may be decoded before it counts as truncated."""
_UNKNOWN_FRAMES = 1 << 62
_SEEK_BEYOND_S = 10.0
_PREROLL_S = 1.0
_OPUS_RATES_HZ = (8_000, 12_000, 16_000, 24_000, 48_000)
# Formats whose header states the length; elsewhere (ADTS, raw streams) libavformat only estimates it.
_AV_EXACT = ("mov", "flac", "wav", "matroska")


class AudioError(InputError):
    """An audio file that cannot be used. ``reason`` is one of this module's upper-case constants."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says: length, rate, channels, container format and the decoder that reads it."""

    duration_s: float
    sample_rate_hz: int
    channels: int
    format: str
    decoder: str


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
    path = Path(path)
    samples, rate_hz = _decode(path, start_s, end_s)
    if not np.isfinite(samples).all():
        raise AudioError(NON_FINITE, f"{path} holds NaN or infinite samples: export it again from its source")
    return resample(samples, rate_hz, sample_rate_hz)


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


def probe(path: Path | str) -> AudioInfo:
    """Read a file's header without decoding it (except where the format states no length).

    Raises:
        AudioError: the file is missing, empty, visibly truncated or not audio.
    """
    path = Path(path)
    _check_file(path)
    import soundfile

    try:
        with soundfile.SoundFile(path) as file:
            if file.frames < _UNKNOWN_FRAMES:
                return AudioInfo(
                    file.frames / file.samplerate, file.samplerate, file.channels, file.format, "soundfile"
                )
    except soundfile.LibsndfileError:
        pass
    try:
        import av
    except ImportError:
        samples, rate_hz = _decode(path, None, None)
        return AudioInfo(len(samples) / rate_hz, rate_hz, 0, path.suffix.lstrip(".").upper(), "ffmpeg")
    try:
        with av.open(str(path)) as container:
            stream = _audio_stream(container, path)
            promised = _promised_s(container, stream)
            rate_hz, channels, name = stream.rate, stream.codec_context.channels, container.format.name
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error
    if promised is None:
        samples, rate_hz = _decode(path, None, None)
        promised = len(samples) / rate_hz
    return AudioInfo(promised, rate_hz, channels, name.split(",")[0].upper(), "av")


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
        for first in range(0, len(pcm), _BLOCK_FRAMES):  # one huge write of Ogg overflows libsndfile's stack
            file.write(pcm[first : first + _BLOCK_FRAMES])
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


def _decode(path: Path, start_s: float | None, end_s: float | None) -> tuple[Samples, int]:
    """The span as a mono array at the file's own rate, and that rate."""
    if start_s is not None and (not math.isfinite(start_s) or start_s < -_SPAN_SLACK_S):
        raise AudioError(OUTSIDE, f"a span of {path} starts at {start_s} s: start it at 0 s or later")
    _check_file(path)
    import soundfile

    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        return _decode_elsewhere(path, start_s, end_s)
    with file:
        try:
            return _read_soundfile(file, path, start_s, end_s), file.samplerate
        except soundfile.LibsndfileError as error:
            raise AudioError(
                TRUNCATED, f"{path} is damaged or truncated ({error.error_string.rstrip('.')}): copy it again"
            ) from error


def _read_soundfile(file: Any, path: Path, start_s: float | None, end_s: float | None) -> Samples:
    known = file.frames < _UNKNOWN_FRAMES
    frames = file.frames if known else None
    if frames == 0:
        raise _no_samples(path)
    first, last = _span_frames(path, start_s, end_s, frames, file.samplerate)
    if first:
        file.seek(first)
    samples = _mono(_blocks(file, None if last is None else last - first))
    if last is not None and len(samples) < last - first:
        short_s = (last - first - len(samples)) / file.samplerate
        if not (file.format == "MP3" and short_s < _SHORTFALL_S):  # its length may be an estimate
            raise _truncated(path, (first + len(samples)) / file.samplerate, last / file.samplerate)
    if not len(samples):
        raise _no_samples(path)
    return samples


def _blocks(file: Any, wanted: int | None) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks of shape (frames, channels) until ``wanted`` frames or the end of the file."""
    left = _UNKNOWN_FRAMES if wanted is None else wanted
    while left > 0:
        block = file.read(min(left, _BLOCK_FRAMES), dtype="float32", always_2d=True)
        if not len(block):
            return
        left -= len(block)
        yield block


def _mono(blocks: Iterator[npt.NDArray[np.float32]]) -> Samples:
    parts = [block[:, 0] if block.shape[1] == 1 else block.mean(axis=1, dtype=np.float32) for block in blocks]
    return np.ascontiguousarray(np.concatenate(parts)) if parts else np.zeros(0, np.float32)


def _span_frames(
    path: Path, start_s: float | None, end_s: float | None, frames: int | None, rate_hz: int
) -> tuple[int, int | None]:
    """First frame and one past the last (``None``: to the end of a file whose length is not stated)."""
    total_s = math.inf if frames is None else frames / rate_hz
    start = max(start_s or 0.0, 0.0)
    end = total_s if end_s is None else end_s
    if not (start < end and start < total_s and end <= total_s + _SPAN_SLACK_S):
        raise AudioError(
            OUTSIDE,
            f"the span {start:g}-{end:g} s is not inside {path} ({total_s:.3f} s long): correct its start and end",
        )
    first = round(start * rate_hz)
    if math.isinf(end):
        return first, None
    last = round(end * rate_hz)
    return first, last if frames is None else min(last, frames)


def _check_file(path: Path) -> None:
    """Refuse what no decoder needs to be asked about: missing, empty, cut off in the middle of a chunk or page."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise AudioError(MISSING, f"the audio file {path} does not exist: check the path") from error
    if path.is_dir():
        raise AudioError(MISSING, f"{path} is a directory, not an audio file: check the path")
    if size == 0:
        raise AudioError(EMPTY, f"{path} has zero bytes: copy it again or leave it out")
    try:
        missing = promised_bytes_missing(path)
    except OSError as error:
        raise AudioError(UNREADABLE, f"cannot read {path} ({error.strerror}): check its permissions") from error
    if missing:
        raise AudioError(TRUNCATED, f"{path} is truncated (at least {missing} bytes are missing): copy it again")


def _decode_elsewhere(path: Path, start_s: float | None, end_s: float | None) -> tuple[Samples, int]:
    """What libsndfile cannot open, through PyAV or the ffmpeg executable."""
    try:
        import av
    except ImportError:
        return _decode_ffmpeg(path, start_s, end_s)
    try:
        with av.open(str(path)) as container:
            return _read_av(container, path, start_s, end_s)
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error


def _read_av(container: Any, path: Path, start_s: float | None, end_s: float | None) -> tuple[Samples, int]:
    stream = _audio_stream(container, path)
    rate_hz = stream.rate
    promised_s = _promised_s(container, stream)
    frames = None if promised_s is None else round(promised_s * rate_hz)
    first, last = _span_frames(path, start_s, end_s, frames, rate_hz)
    origin_s = float((stream.start_time or 0) * stream.time_base)
    if first > _SEEK_BEYOND_S * rate_hz:
        container.seek(int((first / rate_hz - _PREROLL_S + origin_s) / stream.time_base), stream=stream)
    parts: list[npt.NDArray[np.float32]] = []
    begins = None  # the file's frame number of the first decoded sample
    count = 0
    for frame, block in _av_blocks(container, stream):
        if begins is None:
            late_s = 0.0 if frame.time is None else frame.time - origin_s
            begins = round(late_s * rate_hz) if first > _SEEK_BEYOND_S * rate_hz else 0
        parts.append(block.mean(axis=0, dtype=np.float32))
        count += block.shape[1]
        if last is not None and begins + count >= last:
            break
    if not parts or begins is None:
        raise _no_samples(path)
    samples = np.concatenate(parts)[max(first - begins, 0) :]
    reached = first + len(samples)
    if promised_s is not None and last is not None and reached < last - _SHORTFALL_S * rate_hz:
        raise _truncated(path, reached / rate_hz, last / rate_hz)
    if last is not None and frames is None and reached < last - _SPAN_SLACK_S * rate_hz:
        _span_frames(path, start_s, end_s, reached, rate_hz)
    if last is not None:
        samples = samples[: last - first]
    if not len(samples):
        raise _no_samples(path) if not first else AudioError(OUTSIDE, f"{path} ends before {start_s:g} s")
    return np.ascontiguousarray(samples), rate_hz


def _av_blocks(container: Any, stream: Any) -> Iterator[tuple[Any, npt.NDArray[np.float32]]]:
    """Decoded frames with their samples, shape (channels, samples), float32."""
    import av

    planar = av.AudioResampler(format="fltp")
    for frame in container.decode(stream):
        for piece in planar.resample(frame):
            yield frame, np.asarray(piece.to_ndarray(), dtype=np.float32)


def _audio_stream(container: Any, path: Path) -> Any:
    if not container.streams.audio:
        raise AudioError(UNREADABLE, f"{path} holds no audio: check that it is a recording")
    return container.streams.audio[0]


def _promised_s(container: Any, stream: Any) -> float | None:
    """The length in seconds that the header states, or ``None`` if it states none or libavformat only guesses it."""
    if not container.format.name.startswith(_AV_EXACT):
        return None
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    if container.duration is not None and len(container.streams) == 1:
        return container.duration / 1_000_000
    return None


def _decode_ffmpeg(path: Path, start_s: float | None, end_s: float | None) -> tuple[Samples, int]:
    """Decode the whole file with the ffmpeg executable and cut the span out."""
    program = shutil.which("ffmpeg")
    if program is None:
        raise AudioError(
            UNREADABLE,
            f"{path} is not a format that libsndfile reads: pip install av (or install ffmpeg), or convert it",
        )
    command = [program, "-v", "error", "-xerror", "-nostdin", "-i", str(path.resolve()), "-vn"]
    done = subprocess.run([*command, "-c:a", "pcm_f32le", "-f", "wav", "-"], capture_output=True, check=False)
    if done.returncode or not done.stdout:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise _unreadable(path, lines[-1] if lines else f"ffmpeg ended with {done.returncode}")
    import soundfile

    with soundfile.SoundFile(io.BytesIO(done.stdout)) as file:
        return _read_soundfile(file, path, start_s, end_s), file.samplerate


def _unreadable(path: Path, error: object) -> AudioError:
    detail = getattr(error, "strerror", None) or str(error)
    return AudioError(UNREADABLE, f"{path} is not readable as audio ({detail}): check that it is a complete recording")


def _truncated(path: Path, got_s: float, promised_s: float) -> AudioError:
    return AudioError(
        TRUNCATED, f"{path} is truncated ({got_s:.3f} s decoded, {promised_s:.3f} s expected): copy it again"
    )


def _no_samples(path: Path) -> AudioError:
    return AudioError(EMPTY, f"{path} holds no samples: record it again or leave it out")
