"""Time: speed (tempo and pitch together), tempo alone, pitch alone, and silence put around a clip."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speechtune.audio.augment.draws import ClipInfo
from speechtune.audio.augment.effects.base import Effect, Parameters, Range, Samples, uniform
from speechtune.audio.augment.materials import Materials
from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.core.errors import missing_extra

_STRETCH_SEED = 1


def change_speed(samples: npt.NDArray[np.float32], factor: float) -> npt.NDArray[np.float32]:
    """Play ``samples`` (mono, 16 kHz) ``factor`` times as fast: tempo and pitch move together.

    Speed perturbation as in Ko et al. 2015, "Audio augmentation for speech recognition" (Interspeech), by
    resampling with soxr HQ. The result has ``round(len(samples) / factor)`` samples.
    """
    import soxr

    if factor == 1.0:
        return samples
    length = max(1, round(len(samples) / factor))
    faster = soxr.resample(samples, SAMPLE_RATE_HZ * factor, SAMPLE_RATE_HZ, quality="HQ")[:length]
    return np.pad(faster, (0, length - len(faster))).astype(np.float32)


def stretch(samples: npt.NDArray[np.float32], tempo: float = 1.0, semitones: float = 0.0) -> npt.NDArray[np.float32]:
    """Change tempo and pitch independently, with Signalsmith Stretch (python-stretch, MIT; what audiomentations uses).

    The result has ``round(len(samples) / tempo)`` samples. The stretcher's own generator is seeded, so that the same
    call gives the same samples.

    Raises:
        InputError: python-stretch is not installed.
    """
    length = max(1, round(len(samples) / tempo))
    stretcher = _stretcher()(_STRETCH_SEED)
    stretcher.preset(1, SAMPLE_RATE_HZ)
    stretcher.setTimeFactor(tempo)
    stretcher.setTransposeSemitones(semitones)
    stretched = np.asarray(stretcher.process(np.array(samples, np.float32)[None]), np.float32)[0][:length]
    return np.pad(stretched, (0, length - len(stretched)))


def _stretcher() -> Any:
    try:
        from python_stretch import Signalsmith
    except ImportError as error:
        raise missing_extra("python-stretch", "augment") from error
    return Signalsmith.Stretch


class Speed(Effect):
    """Play faster or slower; pitch moves too (Ko et al. 2015)."""

    kind: Literal["speed"] = "speed"
    factor: Range = Field((0.9, 1.1), description="How many times as fast, drawn uniformly.")

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters:
        """``factor``: never so slow that the clip outgrows the longest length."""
        return {"factor": _fitting(uniform(rng, self.factor), clip, materials)}

    @classmethod
    def duration_after(cls, duration_s: float, parameters: Parameters) -> float:
        """Divided by the factor."""
        return duration_s / float(parameters["factor"])

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """`change_speed`."""
        return change_speed(waveform, parameters["factor"])


class Tempo(Effect):
    """Speak faster or slower at the same pitch (TimeStretch of audiomentations)."""

    kind: Literal["tempo"] = "tempo"
    factor: Range = Field((0.9, 1.1), description="How many times as fast, drawn uniformly.")

    def needs(self, materials: Materials) -> None:
        """The stretching library."""
        _stretcher()

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters:
        """``factor``: never so slow that the clip outgrows the longest length."""
        return {"factor": _fitting(uniform(rng, self.factor), clip, materials)}

    @classmethod
    def duration_after(cls, duration_s: float, parameters: Parameters) -> float:
        """Divided by the factor."""
        return duration_s / float(parameters["factor"])

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """`stretch` in time."""
        return stretch(waveform, tempo=parameters["factor"])


class Pitch(Effect):
    """A higher or lower voice at the same tempo."""

    kind: Literal["pitch"] = "pitch"
    semitones: Range = Field((-2.0, 2.0), description="Change of pitch in semitones, drawn uniformly.")

    def needs(self, materials: Materials) -> None:
        """The stretching library."""
        _stretcher()

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters:
        """``semitones``."""
        return {"semitones": uniform(rng, self.semitones)}

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """`stretch` in pitch."""
        return stretch(waveform, semitones=parameters["semitones"])


class Shift(Effect):
    """Silence before and behind the clip, so that speech does not always begin at once. Nothing is ever cut off."""

    kind: Literal["shift"] = "shift"
    lead_s: Range = Field((0.0, 0.5), description="Seconds of silence before the clip.")
    tail_s: Range = Field((0.0, 0.5), description="Seconds of silence behind it.")

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters | None:
        """``lead_s`` and ``tail_s``, cut to what the longest length leaves; ``None`` where it leaves nothing."""
        room_s = _floor(materials.max_duration_s - clip.duration_s)
        lead_s = min(uniform(rng, self.lead_s), room_s)
        tail_s = min(uniform(rng, self.tail_s), _floor(room_s - lead_s))
        return {"lead_s": lead_s, "tail_s": tail_s} if lead_s + tail_s > 0 else None

    @classmethod
    def duration_after(cls, duration_s: float, parameters: Parameters) -> float:
        """Longer by both silences."""
        return duration_s + float(parameters["lead_s"]) + float(parameters["tail_s"])

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """Pad with zeros."""
        margins = [round(parameters[name] * SAMPLE_RATE_HZ) for name in ("lead_s", "tail_s")]
        return np.pad(waveform, margins)


def _fitting(factor: float, clip: ClipInfo, materials: Materials) -> float:
    """The factor, or the smallest larger one (up to 1) that keeps the clip within the longest length."""
    if clip.duration_s / factor <= materials.max_duration_s:
        return factor
    return max(factor, min(1.0, -_floor(-clip.duration_s / materials.max_duration_s)))


def _floor(value: float) -> float:
    return max(np.floor(value * 1000) / 1000, 0.0) if value >= 0 else float(np.floor(value * 1000) / 1000)
