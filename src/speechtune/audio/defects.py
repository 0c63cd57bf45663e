"""Faults of a recording that show in its samples: clipping, cancelling channels, dropouts, mains hum."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples

FLOOR_DB = -120.0
"""What levels and ratios are cut off at (and at +120 dB), so that every measure is a finite number."""

_FULL_SCALE = 0.9999
_PLATEAU = 0.98
_QUIETEST_PEAK = 0.03
_CLIP_RUN, _COARSE_CLIP_RUN = 3, 8
_ZERO = 1.5 / 32768
_DROPOUT_S = 0.005
_EDGE_S = 0.01
_EDGE_DB = -25.0
_LIVE_S = 0.02
_LONGEST_AT_BORDER_S = 0.25
_FRAME_S = 0.01
_SEGMENT_SAMPLES = SAMPLE_RATE_HZ // 2
_SEGMENT_HOP = _SEGMENT_SAMPLES // 4
_HARMONICS = 5
_ASIDE_HZ = 5.0
_HUM_PROMINENCE_DB = 12.0


def decibels(power: float) -> float:
    """10 log10 of a power, within +-120 dB."""
    return min(max(10 * math.log10(power), FLOOR_DB), -FLOOR_DB) if power > 0 else FLOOR_DB


def clipping(frames: npt.NDArray[np.float32], coarse: bool = False) -> tuple[float, int]:
    """The share of clipped samples and the longest run of them, of a ``(frames, channels)`` array as it was stored.

    A run is clipped if it is at least 3 samples long and lies at full scale, or is exactly flat and within 2 % of the
    channel's peak: so material that was made quieter after it had clipped is found too. ``coarse`` (8-bit and companded
    audio, whose steps are wide) asks for 8 samples. Lossy coding bends plateaus: there, only full scale is found.
    """
    clipped = longest = 0
    least = _COARSE_CLIP_RUN if coarse else _CLIP_RUN
    for column in frames.T:
        channel = np.ascontiguousarray(column)
        peak = max(float(channel.max()), -float(channel.min()))
        if peak < _QUIETEST_PEAK:
            continue
        bound = np.float32(_PLATEAU * min(peak, 1.0))
        at = np.flatnonzero((channel >= bound) | (channel <= -bound))
        if len(at) < least:
            continue
        values = channel[at]
        full = np.sign(values) * (np.abs(values) >= _FULL_SCALE)
        joined = (np.diff(at) == 1) & ((np.diff(values) == 0) | ((full[1:] == full[:-1]) & (full[1:] != 0)))
        edges = np.flatnonzero(np.concatenate([[True], ~joined, [True]]))
        runs = np.diff(edges)
        runs = runs[runs >= least]
        clipped += int(runs.sum())
        longest = max(longest, int(runs.max(initial=0)))
    return clipped / frames.size, longest


def channel_agreement(frames: npt.NDArray[np.float32], mono: Samples) -> tuple[float | None, float | None]:
    """The least correlation with the first channel, and the level lost by averaging in dB.

    The loss is 0 for equal channels, 3 for unrelated ones (or one silent), up to 120 for opposite ones. ``None`` for
    mono; the correlation is also ``None`` where a channel does not vary.
    """
    if frames.shape[1] < 2:
        return None, None
    moments = (frames.T @ frames).astype(np.float64) / len(frames)
    means = frames.mean(axis=0, dtype=np.float64)
    covariance = moments - np.outer(means, means)
    spread = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    correlation = None
    if (spread > 1e-7).all():
        correlation = float(np.clip(covariance[0, 1:] / (spread[0] * spread[1:]), -1.0, 1.0).min())
    apart = float(np.trace(moments)) / len(moments)
    together = float(np.mean(np.square(mono), dtype=np.float64))
    if apart < 1e-12:
        return correlation, 0.0
    return correlation, max(0.0, decibels(apart / together) if together > 0 else -FLOOR_DB)


@dataclass(frozen=True, slots=True)
class Hole:
    """A run of zeros with an abrupt edge, in seconds.

    ``sound_before`` and ``sound_after`` say whether what lies between it and the beginning (end) of the recording is
    sound of at least 20 ms rather than digital silence.
    """

    start_s: float
    end_s: float
    sound_before: bool
    sound_after: bool

    def tears(self, first_s: float, last_s: float) -> bool:
        """Whether it tears speech that is heard from ``first_s`` to ``last_s``.

        A hole that took the first (last) sound of a word with it is itself the border of what is heard. It counts if
        it is no longer than 0.25 s (a longer one is a pause) and sound goes on beyond it: a noise gate that opens at
        the first word has digital silence there.
        """
        if self.end_s <= first_s - _FRAME_S or self.start_s >= last_s + _FRAME_S:
            return False
        if self.start_s >= first_s and self.end_s <= last_s:
            return True
        sound = (self.start_s >= first_s or self.sound_before) and (self.end_s <= last_s or self.sound_after)
        return sound and self.end_s - self.start_s <= _LONGEST_AT_BORDER_S


def holes(samples: Samples, rate_hz: int) -> list[Hole]:
    """Runs of at least 5 ms of (16-bit) zeros that begin or end abruptly.

    Abruptly: the 10 ms before or after are no quieter than 25 dB below the level of the whole. So digital silence
    between words, which a noise gate leaves, is not counted, and a hole torn into a word is.
    """
    silent = np.abs(samples) < _ZERO
    if not silent.any():
        return []
    edges = np.flatnonzero(silent[1:] != silent[:-1]) + 1
    edges = np.concatenate([[0] if silent[0] else [], edges, [len(silent)] if silent[-1] else []]).astype(np.int64)
    starts, ends = edges[::2], edges[1::2]
    bound = float(np.dot(samples, samples)) / len(samples) * 10 ** (_EDGE_DB / 10)
    margin = max(1, round(_EDGE_S * rate_hz))
    zeros = np.concatenate([[0], np.cumsum(ends - starts)])
    least = max(1, round(_LIVE_S * rate_hz))
    found = []
    for number, (start, end) in enumerate(zip(starts.tolist(), ends.tolist(), strict=True)):
        if end - start < _DROPOUT_S * rate_hz or start == 0 or end == len(samples):
            continue
        before, after = samples[max(0, start - margin) : start], samples[end : end + margin]
        if max(float(np.mean(np.square(side))) for side in (before, after)) >= bound:
            lead, trail = start, len(samples) - end
            sound_before = lead - int(zeros[number]) >= max(least, lead / 2)
            sound_after = trail - int(zeros[-1] - zeros[number + 1]) >= max(least, trail / 2)
            found.append(Hole(start / rate_hz, end / rate_hz, sound_before, sound_after))
    return found


@dataclass(frozen=True, slots=True)
class Hum:
    """Mains hum: the mains frequency (``None``: no hum), how far it stands out, and its level."""

    mains_hz: int | None
    prominence_db: float
    level_dbfs: float


NO_HUM = Hum(None, 0.0, FLOOR_DB)


def mains_hum(samples: Samples, pauses: npt.NDArray[np.bool_]) -> Hum:
    """Look for 50 or 60 Hz and their first five multiples in the quiet half-seconds of a mono 16 kHz array.

    The power at the multiples is compared with the power 5 Hz beside them, in the quietest eighth of the segments
    (those with most frames in ``pauses`` come first). Hum is reported from 12 dB on. A held vowel or a musical tone at
    one of these frequencies is taken for hum if there is no pause. Clips under half a second have no answer.

    Args:
        samples: shape ``(samples,)``.
        pauses: for every 512 samples, whether there is no speech in them.
    """
    if len(samples) < _SEGMENT_SAMPLES:
        return NO_HUM
    windows = np.lib.stride_tricks.sliding_window_view(samples, _SEGMENT_SAMPLES)[::_SEGMENT_HOP]
    centres = (np.arange(len(windows)) * _SEGMENT_HOP + _SEGMENT_SAMPLES // 2) // 512
    reach = _SEGMENT_SAMPLES // 1024
    counts = np.concatenate([[0], np.cumsum(pauses)])
    free = counts[np.minimum(centres + reach, len(pauses))] - counts[np.maximum(centres - reach, 0)]
    order = np.lexsort((np.einsum("ij,ij->i", windows, windows), -free))
    chosen = windows[order[: max(1, len(windows) // 8)]]
    power = np.square(chosen @ _tones()).reshape(len(chosen), 2, _HARMONICS, 3, 2).sum(axis=4)
    lines = np.median(power, axis=0)  # (mains, harmonic, below | at | above)
    beside = np.maximum(lines[:, :, 0], lines[:, :, 2])
    prominence = 10 * np.log10((lines[:, :, 1].sum(axis=1) + 1e-14) / (beside.sum(axis=1) + 1e-14))
    best = int(np.argmax(prominence))
    mains = (50, 60)[best] if prominence[best] >= _HUM_PROMINENCE_DB else None
    return Hum(mains, float(prominence[best]), decibels(float(lines[best, :, 1].sum())))


@lru_cache(maxsize=1)
def _tones() -> npt.NDArray[np.float32]:
    """Windowed cosines and sines, shape (segment, 2 mains x 5 multiples x 3 frequencies x 2), power of a tone = 1."""
    frequencies = [
        mains * multiple + aside
        for mains in (50, 60)
        for multiple in range(1, _HARMONICS + 1)
        for aside in (-_ASIDE_HZ, 0.0, _ASIDE_HZ)
    ]
    time_s = np.arange(_SEGMENT_SAMPLES) / SAMPLE_RATE_HZ
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(_SEGMENT_SAMPLES) / _SEGMENT_SAMPLES)
    waves = [wave(2 * np.pi * hz * time_s) * window for hz in frequencies for wave in (np.cos, np.sin)]
    return (np.array(waves).T * (math.sqrt(2) / window.sum())).astype(np.float32)
