"""Changes to a waveform, in two steps: draw the parameters from a seeded generator, then apply the draw.

A draw is small, can be written as JSON and gives the same samples again; applying one draws nothing. `Augmenter` is the
way in; `AugmentConfig` is what a recipe says; ``effects/`` has one file per kind of change.
"""

from __future__ import annotations

from speechtune.audio.augment.augmenter import Augmenter, rng_for
from speechtune.audio.augment.concatenate import ConcatenateDraw, apply_concatenation, draw_concatenations, join_texts
from speechtune.audio.augment.config import AugmentConfig
from speechtune.audio.augment.draws import AugmentDraw, ClipInfo, EffectDraw
from speechtune.audio.augment.effects.tempo import change_speed
from speechtune.audio.augment.spec_augment import MaskDraw, apply_masks, draw_masks_by_count, draw_masks_by_share

__all__ = [
    "AugmentConfig",
    "AugmentDraw",
    "Augmenter",
    "ClipInfo",
    "ConcatenateDraw",
    "EffectDraw",
    "MaskDraw",
    "apply_concatenation",
    "apply_masks",
    "change_speed",
    "draw_concatenations",
    "draw_masks_by_count",
    "draw_masks_by_share",
    "join_texts",
    "rng_for",
]
