"""Level: gain, clipping, dynamic-range compression."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt
from pydantic import Field

from speechtune.audio.augment.draws import ClipInfo
from speechtune.audio.augment.effects.base import Effect, Parameters, Range, Samples, uniform
from speechtune.audio.augment.materials import Materials
from speechtune.audio.augment.measure import amplitude, power, speech_active, speech_level_db
from speechtune.audio.io import SAMPLE_RATE_HZ

_BLOCK_SAMPLES = SAMPLE_RATE_HZ // 200
_FLOOR_DB = -120.0


class Gain(Effect):
    """Louder or softer, exactly by what was drawn. Nothing is clipped: samples may leave [-1, 1]."""

    kind: Literal["gain"] = "gain"
    gain_db: Range = Field((-6.0, 6.0), description="Change of level in dB, drawn uniformly.")

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters:
        """``gain_db``."""
        return {"gain_db": uniform(rng, self.gain_db)}

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """Multiply every sample."""
        return waveform * np.float32(amplitude(parameters["gain_db"]))


class Clip(Effect):
    """Overdriven input: the loudest share of the samples is cut off flat, as audiomentations' ClippingDistortion."""

    kind: Literal["clip"] = "clip"
    clipped_frac: Range = Field((0.0, 0.05), description="Share of the speech-active samples that are cut off.")

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters:
        """``clipped_frac``."""
        return {"clipped_frac": uniform(rng, self.clipped_frac, 4)}

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """Cut at the quantile that leaves the drawn share beyond it."""
        active = waveform[speech_active(waveform)]
        if not len(active):
            return waveform.copy()
        limit = np.float32(np.quantile(np.abs(active), 1.0 - parameters["clipped_frac"]))
        return np.clip(waveform, -limit, limit)


class Compress(Effect):
    """Dynamic-range compression as phones and meeting software do; the speech level is the same afterwards."""

    kind: Literal["compress"] = "compress"
    ratio: Range = Field((2.0, 6.0), description="How many dB above the threshold become one.")
    threshold_db: Range = Field((-15.0, -3.0), description="Threshold in dB relative to the clip's speech level.")
    attack_ms: float = Field(5.0, gt=0, description="Time constant of a rising level.")
    release_ms: float = Field(80.0, gt=0, description="Time constant of a falling level.")

    def draw(self, rng: np.random.Generator, clip: ClipInfo, materials: Materials) -> Parameters:
        """``ratio``, ``threshold_db``, ``attack_ms``, ``release_ms``."""
        return {
            "ratio": uniform(rng, self.ratio, 2),
            "threshold_db": uniform(rng, self.threshold_db, 2),
            "attack_ms": self.attack_ms,
            "release_ms": self.release_ms,
        }

    @classmethod
    def apply(cls, waveform: Samples, parameters: Parameters, materials: Materials) -> Samples:
        """Turn down what is above the threshold, then bring the speech back to its level."""
        level_db = speech_level_db(waveform)
        if not np.isfinite(level_db):
            return waveform.copy()
        followed_db = _follow(_block_levels_db(waveform), parameters["attack_ms"], parameters["release_ms"])
        over_db = np.maximum(followed_db - (level_db + parameters["threshold_db"]), 0.0)
        gain_db = -over_db * (1.0 - 1.0 / parameters["ratio"])
        centres = (np.arange(len(gain_db)) + 0.5) * _BLOCK_SAMPLES
        gains = 10 ** (np.interp(np.arange(len(waveform)), centres, gain_db) / 20)
        return same_speech_level(waveform, waveform * gains.astype(np.float32))


def _block_levels_db(waveform: Samples) -> npt.NDArray[np.float64]:
    blocks = -(-len(waveform) // _BLOCK_SAMPLES)
    padded = np.zeros(blocks * _BLOCK_SAMPLES)
    padded[: len(waveform)] = waveform
    return 10 * np.log10(np.square(padded).reshape(blocks, -1).mean(axis=1) + 10 ** (_FLOOR_DB / 10))


def _follow(levels_db: npt.NDArray[np.float64], attack_ms: float, release_ms: float) -> npt.NDArray[np.float64]:
    """One-pole smoothing with one time constant upwards and another downwards."""
    block_ms = 1000 * _BLOCK_SAMPLES / SAMPLE_RATE_HZ
    rise, fall = np.exp(-block_ms / attack_ms), np.exp(-block_ms / release_ms)
    followed = np.empty_like(levels_db)
    state = _FLOOR_DB
    for index, level in enumerate(levels_db.tolist()):
        keep = rise if level > state else fall
        state = keep * state + (1 - keep) * level
        followed[index] = state
    return followed


def same_speech_level(before: Samples, after: Samples) -> Samples:
    """``after`` (same length), scaled so that where ``before`` has speech both are equally loud."""
    active = speech_active(before)
    now = power(after, active)
    return after * np.float32(np.sqrt(power(before, active) / now)) if now > 0 else after
