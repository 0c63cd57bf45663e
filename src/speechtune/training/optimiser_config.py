"""The ``training.optimiser`` and ``training.rates`` parts of a recipe."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from speechtune.models.config import depth_range


class OptimiserConfig(BaseModel):
    """Which optimiser turns gradients into steps."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["adamw", "adamw_8bit", "adafactor", "muon"] = Field(
        "adamw",
        description="adamw: PyTorch's fused one. adamw_8bit: its moments in 8 bits (Dettmers et al. 2021, arXiv "
        "2110.02861), with bitsandbytes. adafactor: factored second moments, none of the first (arXiv 1804.04235), at "
        "the given rates. muon: orthogonalised momentum (Jordan 2024) for the matrices inside the layers, AdamW for "
        "the rest.",
    )
    betas: Annotated[list[float], Field(min_length=2, max_length=2)] = Field(
        [0.9, 0.999], description="AdamW's decay of the first and second moment."
    )
    eps: float = Field(1e-8, gt=0, description="AdamW's term added to the denominator.")
    muon_momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum (Nesterov).")
    muon_scale: Literal["match_rms_adamw", "original"] = Field(
        "match_rms_adamw",
        description="Size of Muon's step: match_rms_adamw: like AdamW's, so that learning rates tuned for AdamW hold "
        "(arXiv 2502.16982); original: sqrt(rows / columns), at least 1, which wants rates around 0.02.",
    )
    no_weight_decay: list[Literal["norms", "biases", "embeddings"]] = Field(
        ["norms", "biases"], description="What weight decay leaves alone (the Hugging Face Trainer's choice)."
    )

    @model_validator(mode="after")
    def _betas_are_shares(self) -> OptimiserConfig:
        if not all(0 <= beta < 1 for beta in self.betas):
            raise ValueError(f"betas must be at least 0 and below 1, not {self.betas}")
        return self


class RateRule(BaseModel):
    """The learning rate of one part, or of some depth of it."""

    model_config = ConfigDict(extra="forbid")

    part: str = Field(description="What it is for: a word that model.train knows, or a pattern such as *lora_B*.")
    range: Annotated[list[float], BeforeValidator(depth_range)] = Field(
        [0.0, 1.0], description="Range of depth within the part, as in [0.5, 1.0] for its upper half."
    )
    rate: float | None = Field(None, gt=0, description="Its peak learning rate.")
    factor: float | None = Field(None, gt=0, description="Or: a factor on the learning rate it would have.")

    @model_validator(mode="after")
    def _one_of_both(self) -> RateRule:
        if (self.rate is None) == (self.factor is None):
            raise ValueError("give rate or factor, one of the two")
        return self


class RatesConfig(BaseModel):
    """Learning rates of parts and layers (discriminative fine-tuning, Howard & Ruder 2018, arXiv 1801.06146)."""

    model_config = ConfigDict(extra="forbid")

    rules: list[RateRule] = Field(
        default_factory=list,
        description="Applied in order, {part, range, rate or factor}; a part that none names has learning_rate.",
    )
    decay: float | dict[str, float] = Field(
        1.0,
        description="Every layer's rate is this factor of the layer above it, within its stack (front end and "
        "embeddings count as one layer below the lowest); or one factor a side, as in {encoder: 0.9}.",
    )

    @model_validator(mode="after")
    def _decays_fall(self) -> RatesConfig:
        values = self.decay.values() if isinstance(self.decay, dict) else [self.decay]
        if not all(0 < value <= 1 for value in values):
            raise ValueError("a decay by depth must be above 0 and at most 1")
        return self

    @property
    def uniform(self) -> bool:
        """Whether every parameter has the same rate."""
        decays = self.decay.values() if isinstance(self.decay, dict) else [self.decay]
        return not self.rules and all(value == 1 for value in decays)
