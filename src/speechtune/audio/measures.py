"""Everything that can be measured of a clip without knowing its text, several hundred times faster than it plays."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speechtune.audio import defects, loudness, noise, spectrum, voices
from speechtune.audio.channels import Recording, read_channels
from speechtune.audio.fingerprint import fingerprint
from speechtune.audio.fingerprint import fingerprint_distance as fingerprint_distance
from speechtune.audio.io import SAMPLE_RATE_HZ, AudioError, Samples, resample
from speechtune.audio.vad import (
    FRAME_SAMPLES,
    SpeechSpan,
    VadConfig,
    audible_spans,
    spans_from_probabilities,
    speech_probabilities,
)

AudioSpan = tuple[Path | str, float | None, float | None]
"""A file, and where a span of it starts and ends in seconds (``None``: at the file's beginning or end)."""

SILENT_DBFS = -60.0
"""A clip whose loudest 32 ms are quieter than this holds nothing that could be transcribed."""

_SPANS = VadConfig(pad_s=0.0)
_BATCH_SAMPLES = 600 * SAMPLE_RATE_HZ


@dataclass(frozen=True, slots=True, kw_only=True)
class AudioMeasures:
    """What is measured of one clip. All numbers are finite; levels end at -120 dB. ``None``: it does not apply.

    "As stored" means at the file's own rate, before mixing and resampling; all else is of what a model hears: the
    channels' mean at 16 kHz.
    """

    format: str
    """Container, as its decoder names it: WAV, FLAC, OGG, MP3, MOV, ..."""
    subtype: str
    """Coding within it: PCM_16, OPUS, AAC, ..."""
    sample_rate_hz: int
    channels: int
    bit_depth: int | None
    """Bits per stored sample; ``None`` for lossy codings."""
    bitrate_kbps: float | None
    """Of the whole file; ``None`` for lossless codings."""
    duration_s: float

    bandwidth_hz: float
    """As stored: the highest frequency that holds sound (`spectrum.bandwidth_hz`)."""
    channel_correlation: float | None
    """As stored, least correlation with the first channel; ``None`` for mono or a constant channel."""
    phase_cancellation_db: float | None
    """Level lost by averaging the channels: 0 equal, 3 unrelated, 120 opposite; ``None`` for mono."""
    level_lufs: float
    """Integrated loudness (BS.1770-4) of the mono signal; -70 is the gate, that is silence."""
    rms_dbfs: float
    """As stored, of the channels' mean; a full-scale sine has -3."""
    peak_dbfs: float
    """As stored, of the loudest channel; above 0 where a lossy decoder overshoots."""
    clipped_frac: float
    """As stored: share of samples on clipped plateaus (`defects.clipping`)."""
    longest_clipped_run_samples: int
    dc_offset: float
    """As stored: mean of the channels' mean, full scale being 1."""

    snr_db: float | None
    """Estimate (`noise.snr_db`), -20 to 100; ``None`` without speech."""
    lead_silence_s: float
    """Before the first speech; the whole duration where there is none."""
    trail_silence_s: float
    """After the last speech; the whole duration where there is none."""
    longest_silence_s: float
    """Longest stretch without speech, beginning and end included."""
    speech_frac: float
    """Share of the duration that is inside speech spans."""
    dropouts: int
    """Runs of at least 5 ms of zeros that tear a sound, between the first and the last speech."""
    dropout_s: float
    """Their length together."""
    hum_mains_hz: int | None
    """50 or 60 where mains hum is found (`defects.mains_hum`)."""
    hum_prominence_db: float
    """How far the stronger candidate stands out of its surroundings; hum from 12 dB on."""
    hum_dbfs: float
    """Level of that candidate's lines."""
    music_score: float
    """Heuristic, 0 to 1 (`voices.music_score`)."""
    several_speakers_score: float
    """Heuristic, 0 to 1 (`voices.several_speakers_score`)."""
    is_silent: bool
    """The loudest 32 ms are below -60 dBFS."""

    fingerprint: str
    """How the clip sounds (`fingerprint.fingerprint`); compare with `fingerprint_distance`."""
    samples_sha256: str
    """Of the 16 kHz samples as 16-bit integers: equal for equal audio in any lossless container."""


def measure_file(path: Path | str, start_s: float | None = None, end_s: float | None = None) -> AudioMeasures:
    """Measure a file, or the span from ``start_s`` to ``end_s`` of it. For many files, `measure_batch` is faster.

    Raises:
        AudioError: as `speechtune.audio.io.load_audio` does.
    """
    result = measure_batch([(path, start_s, end_s)])[0]
    if isinstance(result, AudioError):
        raise result
    return result


def measure_batch(clips: Sequence[AudioSpan]) -> list[AudioMeasures | AudioError]:
    """Measure many clips: each is decoded once, and speech is sought in many at a time.

    The result of a clip does not depend on the others. Memory grows with the longest clip (about 0.8 MB for each of
    its seconds at 16 kHz) and 10 minutes of audio, not with the number of clips.

    Returns:
        In the order of ``clips``, the measures, or the error of a clip that cannot be used.
    """
    results: list[AudioMeasures | AudioError] = []
    waiting: list[tuple[int, _Stored, Samples]] = []
    samples_waiting = 0
    for path, start_s, end_s in clips:
        try:
            stored, samples = _measure_stored(read_channels(path, start_s, end_s))
        except AudioError as error:
            results.append(error)
            continue
        waiting.append((len(results), stored, samples))
        results.append(AudioError("", ""))
        samples_waiting += len(samples)
        if samples_waiting >= _BATCH_SAMPLES:
            _measure_heard(waiting, results)
            waiting, samples_waiting = [], 0
    _measure_heard(waiting, results)
    return results


@dataclass(frozen=True, slots=True)
class _Stored:
    """What is measured before mixing and resampling, by the names of `AudioMeasures`, and what later steps need."""

    values: dict[str, object]
    holes: list[defects.Hole]


def _measure_stored(recording: Recording) -> tuple[_Stored, Samples]:
    """The measures of the stored samples, and the mono 16 kHz signal."""
    frames, rate_hz = recording.frames, recording.sample_rate_hz
    mono = recording.mono()
    samples = resample(mono, rate_hz, SAMPLE_RATE_HZ)
    coarse = recording.subtype in ("ULAW", "ALAW", "PCM_S8", "PCM_U8") or recording.bit_depth == 8
    clipped_frac, longest_run = defects.clipping(frames, coarse)
    correlation, cancellation_db = defects.channel_agreement(frames, mono)
    peak = max(float(frames.max()), -float(frames.min()))
    values: dict[str, object] = {
        "format": recording.format,
        "subtype": recording.subtype,
        "sample_rate_hz": rate_hz,
        "channels": frames.shape[1],
        "bit_depth": recording.bit_depth,
        "bitrate_kbps": recording.bitrate_kbps,
        "duration_s": recording.duration_s,
        "channel_correlation": correlation,
        "phase_cancellation_db": cancellation_db,
        "rms_dbfs": defects.decibels(float(np.dot(mono, mono)) / len(mono)),
        "peak_dbfs": defects.decibels(peak * peak),
        "clipped_frac": clipped_frac,
        "longest_clipped_run_samples": longest_run,
        "dc_offset": float(mono.mean(dtype=np.float64)),
    }
    if rate_hz != SAMPLE_RATE_HZ:
        values["bandwidth_hz"] = spectrum.bandwidth_hz(mono, rate_hz)
    return _Stored(values, defects.holes(mono, rate_hz)), samples


def _measure_heard(waiting: list[tuple[int, _Stored, Samples]], results: list[AudioMeasures | AudioError]) -> None:
    """Put the measures of the waiting clips in their places in ``results``."""
    speech = speech_probabilities([samples for _, _, samples in waiting])
    for (place, stored, samples), probabilities in zip(waiting, speech, strict=True):
        results[place] = _complete(stored, samples, probabilities)


def _complete(stored: _Stored, samples: Samples, probabilities: npt.NDArray[np.float32]) -> AudioMeasures:
    frames = spectrum.power_frames(samples)
    spans = spans_from_probabilities(probabilities, len(samples), _SPANS)
    values = dict(stored.values)
    heard = audible_spans(samples, spans)
    values.update(_silences(heard, len(samples) / SAMPLE_RATE_HZ))
    if "bandwidth_hz" not in values:
        values["bandwidth_hz"] = spectrum.bandwidth_hz(samples, SAMPLE_RATE_HZ, frames)
    torn = [hole for hole in stored.holes if heard and hole.tears(heard[0].start_s, heard[-1].end_s)]
    hum = defects.mains_hum(samples, probabilities < _SPANS.threshold)
    squares = np.square(samples[: len(samples) // FRAME_SAMPLES * FRAME_SAMPLES]).reshape(-1, FRAME_SAMPLES)
    loudest = squares.mean(axis=1).max() if len(squares) else np.square(samples).mean()
    pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype("<i2")
    return AudioMeasures(
        **values,  # type: ignore[arg-type]
        level_lufs=loudness.integrated_lufs(samples),
        snr_db=noise.snr_db(frames, probabilities),
        dropouts=len(torn),
        dropout_s=sum(hole.end_s - hole.start_s for hole in torn),
        hum_mains_hz=hum.mains_hz,
        hum_prominence_db=hum.prominence_db,
        hum_dbfs=hum.level_dbfs,
        music_score=voices.music_score(frames),
        several_speakers_score=voices.several_speakers_score(frames, probabilities),
        is_silent=defects.decibels(float(loudest)) < SILENT_DBFS,
        fingerprint=fingerprint(frames),
        samples_sha256=hashlib.sha256(pcm.tobytes()).hexdigest(),
    )


def _silences(spans: list[SpeechSpan], duration_s: float) -> dict[str, float]:
    if not spans:
        nothing = dict.fromkeys(("lead_silence_s", "trail_silence_s", "longest_silence_s"), duration_s)
        return {**nothing, "speech_frac": 0.0}
    edges = [0.0, *(edge for span in spans for edge in (span.start_s, span.end_s)), duration_s]
    gaps = [end - start for start, end in zip(edges[::2], edges[1::2], strict=True)]
    return {
        "lead_silence_s": gaps[0],
        "trail_silence_s": gaps[-1],
        "longest_silence_s": max(gaps),
        "speech_frac": sum(span.duration_s for span in spans) / duration_s,
    }
