"""Every channel of a file at the file's own rate: the one place where audio is decoded.

`speechtune.audio.io.load_audio` mixes and resamples what is read here; measures look at the channels themselves.
"""

from __future__ import annotations

import io
import math
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speechtune.audio.containers import promised_bytes_missing
from speechtune.core.errors import InputError

UNREADABLE = "unreadable audio"
TRUNCATED = "truncated audio"
EMPTY = "empty audio"
NON_FINITE = "non-finite audio"
MISSING = "missing audio"
OUTSIDE = "span outside audio"

Samples = npt.NDArray[np.float32]

BLOCK_FRAMES = 1 << 18
_SPAN_SLACK_S = 0.010
"""A span may end (or start) this far outside the file, one 10 ms feature hop, and is clipped: tables round times."""
_SHORTFALL_S = 0.1
"""How much less than a lossy container's stated length may be decoded before it counts as truncated."""
_UNKNOWN_FRAMES = 1 << 62
_SEEK_BEYOND_S = 10.0
_PREROLL_S = 1.0
# Formats whose header states the length; elsewhere (ADTS, raw streams) libavformat only estimates it.
_AV_EXACT = ("mov", "flac", "wav", "matroska")


_BITS = {"PCM_S8": 8, "PCM_U8": 8, "PCM_16": 16, "PCM_24": 24, "PCM_32": 32, "FLOAT": 32, "DOUBLE": 64}
_BITS |= {"ULAW": 8, "ALAW": 8}
_AV_BITS = {"u8": 8, "s16": 16, "s24": 24, "s32": 32, "f32": 32, "f64": 64}


class AudioError(InputError):
    """An audio file that cannot be used. ``reason`` is one of this module's upper-case constants."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


@dataclass(frozen=True, slots=True, eq=False)
class Recording:
    """A decoded span as stored: ``frames`` is float32 of shape (frames, channels), nominally within [-1, 1]."""

    frames: npt.NDArray[np.float32]
    sample_rate_hz: int
    format: str
    subtype: str
    bit_depth: int | None
    bitrate_kbps: float | None

    @property
    def duration_s(self) -> float:
        """The length of the span."""
        return len(self.frames) / self.sample_rate_hz

    def mono(self) -> Samples:
        """The mean of the channels, shape (frames,): what `load_audio` hears before it resamples."""
        total = self.frames[:, 0].copy()
        for channel in self.frames.T[1:]:  # many times faster than a mean over the short axis, and equal to it
            total += channel
        return total / np.float32(self.frames.shape[1])


@dataclass(frozen=True, slots=True)
class AudioInfo:
    """What a file's header says: length, rate, channels, container format and the decoder that reads it."""

    duration_s: float
    sample_rate_hz: int
    channels: int
    format: str
    decoder: str


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
        whole = _decode_ffmpeg(path, None, None)
        return AudioInfo(whole.duration_s, whole.sample_rate_hz, whole.frames.shape[1], whole.format, "ffmpeg")
    try:
        with av.open(str(path)) as container:
            stream = _audio_stream(container, path)
            promised = _promised_s(container, stream)
            rate_hz, channels, name = stream.rate, stream.codec_context.channels, container.format.name
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error
    if promised is None:
        promised = read_channels(path).duration_s
    return AudioInfo(promised, rate_hz, channels, name.split(",")[0].upper(), "av")


def read_channels(path: Path | str, start_s: float | None = None, end_s: float | None = None) -> Recording:
    """Read a file, or the span from ``start_s`` to ``end_s`` of it, without mixing or resampling.

    Raises:
        AudioError: as `speechtune.audload_audio` does.
    """
    import soundfile

    path = Path(path)
    if start_s is not None and (not math.isfinite(start_s) or start_s < -_SPAN_SLACK_S):
        raise AudioError(OUTSIDE, f"a span of {path} starts at {start_s} s: start it at 0 s or later")
    _check_file(path)
    try:
        file = soundfile.SoundFile(path)
    except soundfile.LibsndfileError:
        recording = _read_elsewhere(path, start_s, end_s)
    else:
        with file:
            try:
                recording = _read_soundfile(file, path, start_s, end_s)
            except soundfile.LibsndfileError as error:
                raise AudioError(
                    TRUNCATED, f"{path} is damaged or truncated ({error.error_string.rstrip('.')}): copy it again"
                ) from error
    if not np.isfinite(recording.frames).all():
        raise AudioError(NON_FINITE, f"{path} holds NaN or infinite samples: export it again from its source")
    return recording


def _read_soundfile(file: Any, path: Path, start_s: float | None, end_s: float | None) -> Recording:
    total = file.frames if file.frames < _UNKNOWN_FRAMES else None
    if total == 0:
        raise _no_samples(path)
    first, last = _span_frames(path, start_s, end_s, total, file.samplerate)
    if first:
        file.seek(first)
    blocks = list(_blocks(file, None if last is None else last - first))
    if not blocks:
        raise _no_samples(path)
    frames = blocks[0] if len(blocks) == 1 else np.concatenate(blocks)
    if last is not None and len(frames) < last - first:
        short_s = (last - first - len(frames)) / file.samplerate
        if not (file.format == "MP3" and short_s < _SHORTFALL_S):
            raise _truncated(path, (first + len(frames)) / file.samplerate, last / file.samplerate)
    bits = _BITS.get(file.subtype)
    whole_s = (total or len(frames)) / file.samplerate
    kbps = None if bits else path.stat().st_size * 8 / whole_s / 1000
    return Recording(frames, file.samplerate, file.format, file.subtype, bits, kbps)


def _blocks(file: Any, wanted: int | None) -> Iterator[npt.NDArray[np.float32]]:
    """Blocks of shape (frames, channels) until ``wanted`` frames or the end of the file."""
    left = _UNKNOWN_FRAMES if wanted is None else wanted
    while left > 0:
        block = file.read(min(left, BLOCK_FRAMES), dtype="float32", always_2d=True)
        if not len(block):
            return
        left -= len(block)
        yield block


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


def _read_elsewhere(path: Path, start_s: float | None, end_s: float | None) -> Recording:
    """What libsndfile cannot open: PyAV, or the ffmpeg executable."""
    try:
        import av
    except ImportError:
        return _decode_ffmpeg(path, start_s, end_s)
    try:
        with av.open(str(path)) as container:
            return _read_av(container, path, start_s, end_s)
    except av.error.FFmpegError as error:
        raise _unreadable(path, error) from error


def _read_av(container: Any, path: Path, start_s: float | None, end_s: float | None) -> Recording:
    stream = _audio_stream(container, path)
    rate_hz = stream.rate
    promised_s = _promised_s(container, stream)
    total = None if promised_s is None else round(promised_s * rate_hz)
    first, last = _span_frames(path, start_s, end_s, total, rate_hz)
    origin_s = float((stream.start_time or 0) * stream.time_base)
    seeks = first > _SEEK_BEYOND_S * rate_hz
    if seeks:
        container.seek(int((first / rate_hz - _PREROLL_S + origin_s) / stream.time_base), stream=stream)
    blocks: list[npt.NDArray[np.float32]] = []
    begins = count = 0  # begins: the file's frame number of the first decoded sample
    for frame, block in _av_blocks(container, stream):
        if not blocks and seeks and frame.time is not None:
            begins = round((frame.time - origin_s) * rate_hz)
        if blocks and len(block) != len(blocks[0]):
            raise AudioError(UNREADABLE, f"{path} changes its number of channels midway: convert it to one layout")
        blocks.append(block)
        count += block.shape[1]
        if last is not None and begins + count >= last:
            break
    if not blocks:
        raise _no_samples(path)
    frames = np.ascontiguousarray(np.concatenate(blocks, axis=1)[:, max(first - begins, 0) :].T)
    reached = first + len(frames)
    if total is not None and last is not None and reached < last - _SHORTFALL_S * rate_hz:
        raise _truncated(path, reached / rate_hz, last / rate_hz)
    if last is not None and total is None and reached < last - _SPAN_SLACK_S * rate_hz:
        _span_frames(path, start_s, end_s, reached, rate_hz)
    frames = frames if last is None else frames[: last - first]
    if not len(frames):
        raise _no_samples(path) if not first else AudioError(OUTSIDE, f"{path} ends before {start_s:g} s")
    codec = stream.codec_context
    lossless = codec.name.startswith(("pcm", "flac", "alac", "wavpack"))
    bits = _AV_BITS.get(codec.format.name.removesuffix("p")) if lossless else None
    kbps = stream.bit_rate or container.bit_rate
    return Recording(
        frames,
        rate_hz,
        container.format.name.split(",")[0].upper(),
        codec.name.upper(),
        bits,
        None if lossless or not kbps else kbps / 1000,
    )


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


def _decode_ffmpeg(path: Path, start_s: float | None, end_s: float | None) -> Recording:
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
        recording = _read_soundfile(file, path, start_s, end_s)
    return replace(recording, format=path.suffix.lstrip(".").upper(), subtype="UNKNOWN", bit_depth=None)


def _unreadable(path: Path, error: object) -> AudioError:
    detail = getattr(error, "strerror", None) or str(error)
    return AudioError(UNREADABLE, f"{path} is not readable as audio ({detail}): check that it is a complete recording")


def _truncated(path: Path, got_s: float, promised_s: float) -> AudioError:
    return AudioError(
        TRUNCATED, f"{path} is truncated ({got_s:.3f} s decoded, {promised_s:.3f} s expected): copy it again"
    )


def _no_samples(path: Path) -> AudioError:
    return AudioError(EMPTY, f"{path} holds no samples: record it again or leave it out")
