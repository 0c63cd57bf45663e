"""The ``training.objectives.grpo`` part of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator


class RewardConfig(BaseModel):
    """What a sampled transcript is worth: a sum of weighted parts, after the scoring room's normaliser."""

    model_config = ConfigDict(extra="forbid")

    wer: float = Field(1.0, ge=0, description="Minus this times the word error rate.")
    cer: float = Field(0.0, ge=0, description="Minus this times the character error rate.")
    exact: float = Field(0.0, ge=0, description="Plus this where the transcript is exactly the reference.")
    length: float = Field(0.0, ge=0, description="Minus this times |words - reference words| / reference words.")
    repetition: float = Field(
        0.0, ge=0, description="Minus this times the share of words that only repeat (loops, doubled words)."
    )
    normaliser: str = Field("auto", description="Normaliser of both texts; auto: by the model's language.")

    @model_validator(mode="after")
    def _something(self) -> RewardConfig:
        if not (self.wer or self.cer or self.exact or self.length or self.repetition):
            raise ValueError("every part of the reward is 0: nothing would be preferred")
        return self


class GrpoConfig(BaseModel):
    """Transcripts sampled from the model itself, those with a better reward than their group made likelier.

    Group relative policy optimisation (Shao et al. 2024, arXiv 2402.03300; for speech recognition Shivakumar et al.
    2025, arXiv 2509.01939), or minimum word error rate training (Prabhavalkar et al. 2018, arXiv 1712.01818).
    """

    model_config = ConfigDict(extra="forbid")

    weight: float = Field(0.0, ge=0, allow_inf_nan=False, description="Weight of the term; 0: off.")
    method: Literal["grpo", "mwer"] = Field(
        "grpo",
        description="grpo: token-level policy gradient with clipping and KL. mwer: expected errors over the "
        "group, each transcript weighted by its probability within it.",
    )
    candidates: Literal["sampled", "beam"] = Field(
        "sampled", description="mwer: where the group comes from, samples or the best of a beam search."
    )
    samples: int = Field(8, ge=2, description="Transcripts of one utterance, its group (64 in Shao et al.).")
    temperature: float = Field(1.0, gt=0, description="Of the policy that is sampled and trained.")
    max_new_tokens: int = Field(96, ge=2, description="Token limit of a sampled transcript, its end included.")
    divide_by_std: bool = Field(
        True,
        description="The advantage is the reward minus the group's mean, divided by its standard deviation; false: "
        "not divided (Dr. GRPO, Liu et al. 2025, arXiv 2503.20783).",
    )
    mean_over_tokens: bool = Field(
        True,
        description="A transcript's tokens share its weight, so long ones are not favoured or punished more; false: "
        "their sum divided by max_new_tokens (Dr. GRPO).",
    )
    clip: float = Field(0.2, gt=0, lt=1, description="Probability ratios count down to 1 - clip (PPO's 0.2).")
    clip_high: float | None = Field(None, gt=0, description="And up to 1 + this (0.28 in DAPO); none: clip.")
    kl: float = Field(
        0.04, ge=0, description="Weight of the KL divergence to the frozen start (0.04 in Shao et al.); 0: no copy."
    )
    updates: int = Field(
        1, ge=1, description="Optimiser steps on one set of samples; above 1 the ratios leave 1 and are clipped."
    )
    reward: RewardConfig = Field(default_factory=RewardConfig)

    @property
    def enabled(self) -> bool:
        """Whether the term has any weight."""
        return self.weight > 0

    @model_validator(mode="after")
    def _fits(self) -> GrpoConfig:
        if self.method == "grpo" and self.candidates == "beam":
            raise ValueError("grpo needs samples of the policy: set candidates: sampled, or method: mwer")
        if self.method == "mwer" and self.updates > 1:
            raise ValueError("updates above 1 are for method grpo, whose ratios correct for them")
        if self.updates > 1 and not self.enabled:
            raise ValueError("updates above 1 without a weight would only repeat every step: set grpo.weight")
        return self
