"""Where there is speech in a clip: Silero's probabilities, and the spans made of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field

from speechtune.audio import silero
from speechtune.audio.io import SAMPLE_RATE_HZ, Samples

FRAME_SAMPLES = silero.FRAME_SAMPLES
FRAME_S = FRAME_SAMPLES / SAMPLE_RATE_HZ
"""The time from one speech probability to the next: 32 ms."""


@dataclass(frozen=True, slots=True)
class SpeechSpan:
    """A stretch of speech, in seconds from the start of the waveform."""

    start_s: float
    end_s: float

    @property
    def duration_s(self) -> float:
        """Its length."""
        return self.end_s - self.start_s


class VadConfig(BaseModel):
    """How speech probabilities become spans. The defaults are those of Silero's ``get_speech_timestamps``."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    threshold: float = Field(0.5, gt=0, lt=1, description="Speech begins at a frame with at least this probability.")
    release_drop: float = Field(
        0.15, ge=0, lt=1, description="Speech ends at a frame whose probability is this much below the threshold."
    )
    min_speech_s: float = Field(0.25, ge=0, description="Shorter stretches of speech are taken for noise.")
    min_silence_s: float = Field(0.1, ge=0, description="Shorter pauses do not divide a span.")
    pad_s: float = Field(0.03, ge=0, description="Added to both ends of a span, up to the middle of the pause.")


def speech_probabilities(waveforms: Sequence[Samples]) -> list[npt.NDArray[np.float32]]:
    """The probability of speech in every 32 ms of every waveform.

    Many clips in one call are several times faster than one clip per call, and give exactly the same numbers.

    Args:
        waveforms: mono 16 kHz arrays of shape ``(samples,)``.

    Returns:
        For each waveform a float32 array of shape ``(ceil(samples / 512),)``.

    Raises:
        InputError: the package with the detector's weights is not installed.
    """
    return silero.probabilities(waveforms)


def speech_spans(waveform: Samples, config: VadConfig | None = None) -> list[SpeechSpan]:
    """The spans of speech in a mono 16 kHz ``(samples,)`` array, in order and without overlap."""
    return spans_from_probabilities(speech_probabilities([waveform])[0], len(waveform), config)


def spans_from_probabilities(
    probabilities: npt.NDArray[np.floating], length_samples: int, config: VadConfig | None = None
) -> list[SpeechSpan]:
    """Spans from one probability per 32 ms: hysteresis, short pauses closed, short spans left out, the rest padded.

    Args:
        probabilities: shape ``(frames,)``.
        length_samples: the waveform's length at 16 kHz; no span reaches beyond it.
        config: see `VadConfig`.
    """
    config = config or VadConfig()
    runs: list[tuple[int, int]] = []
    for first, last in _active_runs(probabilities, config.threshold, config.threshold - config.release_drop):
        start, end = first * FRAME_SAMPLES, min(last * FRAME_SAMPLES, length_samples)
        if runs and start - runs[-1][1] < config.min_silence_s * SAMPLE_RATE_HZ:
            runs[-1] = (runs[-1][0], end)
        else:
            runs.append((start, end))
    runs = [(start, end) for start, end in runs if end - start > config.min_speech_s * SAMPLE_RATE_HZ]
    pad = config.pad_s * SAMPLE_RATE_HZ
    spans = []
    for number, (start, end) in enumerate(runs):
        before = (start - runs[number - 1][1]) / 2 if number else math.inf
        after = (runs[number + 1][0] - end) / 2 if number + 1 < len(runs) else math.inf
        start_s = max(0.0, start - min(pad, before)) / SAMPLE_RATE_HZ
        end_s = min(length_samples, end + min(pad, after)) / SAMPLE_RATE_HZ
        spans.append(SpeechSpan(start_s, end_s))
    return spans


def _active_runs(values: npt.NDArray[np.floating], enter: float, leave: float) -> list[tuple[int, int]]:
    """Half-open runs of frames that begin at ``enter`` or more and last until a frame below ``leave``."""
    marks = np.where(values >= enter, 1, np.where(values < leave, 0, -1))  # -1: stays as it was
    last_mark = np.maximum.accumulate(np.where(marks >= 0, np.arange(len(marks)), -1))
    active = (last_mark >= 0) & (marks[np.maximum(last_mark, 0)] == 1)
    edges = np.flatnonzero(np.diff(np.r_[False, active, False]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


_EDGE_HOP_SAMPLES = 160
_EDGE_BLUR_FRAMES = 5
_HEARD_HOP_S = _EDGE_HOP_SAMPLES / SAMPLE_RATE_HZ
_BELOW_SPEECH_DB = 25.0
_ABOVE_FLOOR_DB = 12.0


def audible_spans(waveform: Samples, spans: Sequence[SpeechSpan]) -> list[SpeechSpan]:
    """The spans with the first and the last one extended to whatever is heard before and after them.

    Silero overlooks whole words of some voices at the beginning of a clip: in speechocean762 the first 1.5 s of two
    children, as loud as the rest. Who cuts or judges silence by its spans alone loses them. Heard is a level, averaged
    over 50 ms, within 25 dB of the spans' and 12 dB above the quietest tenth of the clip: steady noise is not heard.

    Args:
        waveform: mono, 16 kHz, shape (samples,).
        spans: from `speech_spans`; none stay none.
    """
    heard = _heard_frames(waveform, spans)
    if not heard.any():
        return list(spans)
    frames = np.flatnonzero(heard)
    start_s = min(spans[0].start_s, float(frames[0]) * _HEARD_HOP_S)
    end_s = max(spans[-1].end_s, float(frames[-1] + 1) * _HEARD_HOP_S)
    if len(spans) == 1:
        return [SpeechSpan(start_s, end_s)]
    return [SpeechSpan(start_s, spans[0].end_s), *spans[1:-1], SpeechSpan(spans[-1].start_s, end_s)]


def heard_spans(waveform: Samples, spans: Sequence[SpeechSpan], min_heard_s: float = 0.2) -> list[SpeechSpan]:
    """The spans and, between and around them, whatever else is heard for ``min_heard_s`` or longer.

    For cutting a recording up: a word that the detector overlooked between two spans is in no piece otherwise. Heard
    is as in `audible_spans`.

    Args:
        waveform: mono, 16 kHz, shape (samples,).
        spans: from `speech_spans`; none stay none.
        min_heard_s: shorter sounds (clicks, breaths) are left out.

    Returns:
        Spans in order, without overlap; those that touch are one.
    """
    edges = np.flatnonzero(np.diff(np.r_[False, _heard_frames(waveform, spans), False]))
    found = [(one.start_s, one.end_s) for one in spans]
    for first, last in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
        if (last - first) * _HEARD_HOP_S >= min_heard_s:
            found.append((first * _HEARD_HOP_S, last * _HEARD_HOP_S))
    merged: list[SpeechSpan] = []
    for start_s, end_s in sorted(found):
        if merged and start_s <= merged[-1].end_s:
            merged[-1] = SpeechSpan(merged[-1].start_s, max(merged[-1].end_s, end_s))
        else:
            merged.append(SpeechSpan(start_s, end_s))
    return merged


def _heard_frames(waveform: Samples, spans: Sequence[SpeechSpan]) -> npt.NDArray[np.bool_]:
    """Which hops of 10 ms are heard, shape (frames,); none where there is no span to compare with."""
    frames = len(waveform) // _EDGE_HOP_SAMPLES
    none = np.zeros(frames, bool)
    if not spans or frames < _EDGE_BLUR_FRAMES:
        return none
    power = np.square(waveform[: frames * _EDGE_HOP_SAMPLES].reshape(frames, -1), dtype=np.float64).mean(axis=1)
    inside = none.copy()
    for span in spans:
        inside[int(span.start_s * 100) : math.ceil(span.end_s * 100)] = True
    if not inside.any():
        return none
    floor = max(float(np.percentile(power, 10)) * 10 ** (_ABOVE_FLOOR_DB / 10), 1e-10)
    limit = max(float(power[inside].mean()) * 10 ** (-_BELOW_SPEECH_DB / 10), floor)
    smooth = np.convolve(power, np.full(_EDGE_BLUR_FRAMES, 1 / _EDGE_BLUR_FRAMES), mode="same")
    return np.asarray((smooth > limit) & (power > limit))
