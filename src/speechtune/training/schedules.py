"""How the learning rate rises and falls over the optimiser steps of a training."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

ScheduleName = Literal["linear", "cosine", "constant", "inverse_sqrt", "tri_stage", "wsd"]

TIMESCALE_STEPS = 10_000
"""The inverse square root's scale where there is no warm-up to take it from (Transformers' number)."""


class ScheduleShape(BaseModel):
    """What the name of a schedule leaves open."""

    model_config = ConfigDict(extra="forbid")

    start_share: float = Field(0.0, ge=0, lt=1, description="Share of the peak rate that the warm-up begins at.")
    floor_share: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Share of the peak rate that linear, cosine, tri_stage and wsd end at; none: 0, and 0.05 for "
        "tri_stage, whose exponential decay needs one (fairseq's final_lr_scale for wav2vec 2.0).",
    )
    hold_share: float = Field(
        0.4,
        ge=0,
        lt=1,
        description="tri_stage: share of the steps at the peak (0.4: wav2vec 2.0).",
    )
    decay_share: float = Field(
        0.1, gt=0, le=1, description="wsd: share of the steps that fall, at the end (0.1: MiniCPM, arXiv 2404.06395)."
    )
    momentum: tuple[float, float] | None = Field(
        None,
        description="Lowest and highest momentum (Adam's first beta), which then moves against the rate: the lowest at "
        "the peak (one-cycle, Smith 2018, arXiv 1803.09820; PyTorch's OneCycleLR: 0.85 and 0.95). None: as it is.",
    )

    @model_validator(mode="after")
    def _ordered(self) -> ScheduleShape:
        if self.momentum is not None and not 0 <= self.momentum[0] < self.momentum[1] < 1:
            raise ValueError("momentum is a lower and a higher number, both from 0 to below 1")
        return self


def rate_factor(step: int, *, name: ScheduleName, shape: ScheduleShape, steps: int, warmup: int) -> float:
    """The learning rate of optimiser step ``step`` (from 0) as a share of the peak.

    Args:
        step: how many steps were taken before.
        name: the schedule.
        shape: its open parameters.
        steps: all steps of the training.
        warmup: the first steps, over which the rate rises linearly.
    """
    if step < warmup:
        return shape.start_share + (1 - shape.start_share) * (float(step) / float(max(1, warmup)))
    after, left = float(step - warmup), float(max(1, steps - warmup))
    if name == "constant":
        return 1.0
    if name == "inverse_sqrt":  # Vaswani et al. 2017, section 5.3
        scale = warmup or TIMESCALE_STEPS
        return math.sqrt(scale / (after + scale))
    floor = shape.floor_share or 0.0
    if name == "linear":
        return floor + (1 - floor) * max(0.0, float(steps - step) / left)
    if name == "cosine":  # Loshchilov & Hutter 2017, without restarts
        return floor + (1 - floor) * max(0.0, 0.5 * (1.0 + math.cos(math.pi * min(1.0, after / left))))
    if name == "wsd":
        falling = max(1, round(shape.decay_share * steps))
        return floor + (1 - floor) * min(1.0, max(0.0, (steps - step) / falling))
    hold = round(shape.hold_share * steps)  # tri_stage: fairseq's, the decay exponential
    last = 0.05 if not shape.floor_share else shape.floor_share
    return last ** min(1.0, max(0.0, after - hold) / max(1, steps - warmup - hold))


def rates(
    name: ScheduleName, shape: ScheduleShape, steps: int, warmup_share: float, warmup_steps: int | None
) -> Callable[[int], float]:
    """The factor of every step of a training; the warm-up is counted in steps where they are given, else by share."""
    warmup = round(warmup_share * steps) if warmup_steps is None else min(warmup_steps, steps)
    return partial(rate_factor, name=name, shape=shape, steps=steps, warmup=warmup)
