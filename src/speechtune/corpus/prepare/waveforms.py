"""One utterance's audio: decoding, one channel, 16 kHz, trimming, level; each with a record of what it did."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speechtune.audio.channels import read_channels
from speechtune.audio.io import SAMPLE_RATE_HZ, Samples, resample
from speechtune.corpus.prepare.policy import AudioPolicy, LevelPolicy, TrimPolicy

NO_SPEECH = "no speech found"
_CANCELLATION = 0.5
"""The mean of N unrelated channels keeps 1/N of their power; less than half of that is cancellation."""


@dataclass(slots=True)
class AudioChange:
    """One step that changed the audio, with what was measured before and after."""

    rule: str
    before: dict[str, Any]
    after: dict[str, Any]


@dataclass(slots=True)
class Waveform:
    """Float32 mono samples at 16 kHz of shape ``(samples,)`` and what was done to get them."""

    samples: Samples
    changes: list[AudioChange] = field(default_factory=list)

    @property
    def duration_s(self) -> float:
        """Its length."""
        return len(self.samples) / SAMPLE_RATE_HZ


def read_waveform(path: Path, start_s: float | None, end_s: float | None, policy: AudioPolicy) -> Waveform:
    """Decode a file or a span of it into one channel at 16 kHz.

    Raises:
        AudioError: the file cannot be used.
    """
    recording = read_channels(path, start_s, end_s)
    mono, channel, kept = one_channel(recording.frames, policy.channels)
    result = Waveform(resample(np.ascontiguousarray(mono), recording.sample_rate_hz, SAMPLE_RATE_HZ))
    count = recording.frames.shape[1]
    if count > 1:
        after = {"channel": "mean" if channel is None else channel}
        result.changes.append(AudioChange("channels", {"channels": count, "mean_keeps_power": kept}, after))
    if recording.sample_rate_hz != SAMPLE_RATE_HZ:
        before = {"sample_rate_hz": recording.sample_rate_hz}
        result.changes.append(AudioChange("resample", before, {"sample_rate_hz": SAMPLE_RATE_HZ}))
    return result


def one_channel(
    frames: npt.NDArray[np.float32], choice: str = "auto"
) -> tuple[npt.NDArray[np.float32], int | None, float]:
    """The mean of the channels, or the loudest where the mean cancels.

    Args:
        frames: shape (frames, channels).
        choice: ``auto``, or ``mean`` for always the mean.

    Returns:
        Samples of shape (frames,), the number of the chosen channel (``None``: the mean), and the power of the mean
        as a share of the mean power of the channels (1: all are the same).
    """
    if frames.shape[1] == 1:
        return frames[:, 0], None, 1.0
    mean = frames.mean(axis=1, dtype=np.float32)
    powers = np.square(frames, dtype=np.float64).mean(axis=0)
    total = float(powers.mean())
    kept = float(np.square(mean, dtype=np.float64).mean()) / total if total else 1.0
    if choice == "auto" and kept < _CANCELLATION / frames.shape[1]:
        loudest = int(np.argmax(powers))
        return frames[:, loudest], loudest, round(kept, 6)
    return mean, None, round(kept, 6)


def trim(waveform: Waveform, policy: TrimPolicy) -> bool:
    """Cut the silence at both ends, less the margin; returns whether any speech was found (nothing is cut if not)."""
    if policy.mode == "off":
        return True
    span = _speech_vad(waveform.samples) if policy.mode == "vad" else _speech_energy(waveform.samples, policy)
    if span is None:
        return False
    margin = round(policy.margin_s * SAMPLE_RATE_HZ)
    first, last = max(0, span[0] - margin), min(len(waveform.samples), span[1] + margin)
    if (first, last) != (0, len(waveform.samples)):
        before = {"duration_s": waveform.duration_s}
        waveform.samples = waveform.samples[first:last]
        after = {"duration_s": waveform.duration_s, "start_s": first / SAMPLE_RATE_HZ, "end_s": last / SAMPLE_RATE_HZ}
        waveform.changes.append(AudioChange(f"trim_{policy.mode}", before, after))
    return True


def _speech_vad(samples: Samples) -> tuple[int, int] | None:
    from speechtune.audio.vad import VadConfig, audible_spans, speech_spans

    spans = audible_spans(samples, speech_spans(samples, VadConfig()))
    if not spans:
        return None
    return round(spans[0].start_s * SAMPLE_RATE_HZ), round(spans[-1].end_s * SAMPLE_RATE_HZ)


def _speech_energy(samples: Samples, policy: TrimPolicy) -> tuple[int, int] | None:
    from speechtune.corpus.segmentation.cuts import HOP_SAMPLES, frame_energy_db

    energy_db = frame_energy_db(samples)
    loudest = float(energy_db.max())
    if loudest <= -99.0:  # digital silence
        return None
    loud = np.flatnonzero(energy_db >= loudest - policy.energy_below_db)
    return int(loud[0]) * HOP_SAMPLES, min((int(loud[-1]) + 1) * HOP_SAMPLES, len(samples))


def set_level(waveform: Waveform, policy: LevelPolicy) -> None:
    """Apply one gain that reaches the target without a sample beyond the ceiling."""
    if policy.mode == "off" or not len(waveform.samples):
        return
    peak = float(np.abs(waveform.samples).max())
    if peak == 0.0:
        return
    peak_dbfs = 20.0 * math.log10(peak)
    if policy.mode == "peak":
        before, wanted_db = {"peak_dbfs": round(peak_dbfs, 2)}, policy.target_peak_dbfs - peak_dbfs
        ceiling = policy.target_peak_dbfs
    else:
        from speechtune.audio.loudness import integrated_lufs

        lufs = integrated_lufs(waveform.samples)
        before = {"lufs": round(lufs, 2), "peak_dbfs": round(peak_dbfs, 2)}
        wanted_db, ceiling = policy.target_lufs - lufs, policy.peak_ceiling_dbfs
    gain_db = round(min(wanted_db, ceiling - peak_dbfs, policy.max_gain_db), 4)
    if abs(gain_db) < 0.05:
        return
    waveform.samples = (waveform.samples * np.float32(10.0 ** (gain_db / 20.0))).astype(np.float32)
    held = "target" if gain_db == round(wanted_db, 4) else "limited"
    waveform.changes.append(AudioChange(f"level_{policy.mode}", before, {"gain_db": gain_db, "reached": held}))
