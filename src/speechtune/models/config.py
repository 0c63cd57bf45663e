"""The ``model`` and ``adapter`` parts of a recipe."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from speechtune.corpus.conditions import Condition
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.qwen3_asr_config import Qwen3AsrConfig

Context = Literal["fit", "full"]
"""How much audio a model sees for a clip: as long as the clip needs, or the whole padded window."""


def depth_range(value: Any) -> list[float]:
    """A range of depth as two fractions.

    Raises:
        ValueError: not two numbers between 0 and 1 in rising order.
    """
    try:
        low, high = (float(end) for end in value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"a range of depth is two fractions as in [0.5, 1.0], not {value!r}") from error
    if not 0 <= low < high <= 1:
        raise ValueError(f"a range of depth rises within 0 and 1 as in [0.5, 1.0], not {[low, high]}")
    return [low, high]


def _selection(value: Any) -> Any:
    if isinstance(value, str):
        return value
    if isinstance(value, list) and value and all(isinstance(word, str) for word in value):
        return value
    if isinstance(value, dict) and value and all(isinstance(word, str) for word in value):
        return {word: one if isinstance(one, bool) else depth_range(one) for word, one in value.items()}
    raise ValueError("give a word, a list of words, or words with ranges of depth as in {encoder: [0.5, 1.0]}")


Selection = Annotated[str | list[str] | dict[str, bool | list[float]], BeforeValidator(_selection)]
"""Parts of a model: a word, several, or words with a range of depth (`speechtune.models.trainable`)."""


class ModelConfig(BaseModel):
    """Which model is fine-tuned."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field("whisper-tiny.en", description="A catalogue name, hf:owner/name, or a model directory.")
    family: str | None = Field(None, description="The architecture family; read from the model when not given.")
    language: str | None = Field(
        None, description="Language of the transcripts (ISO 639-1); not needed for English-only models."
    )
    train: Selection = Field(
        "all",
        description="Which weights a full fine-tune changes; the rest is frozen. A part (encoder, decoder, "
        "encoder.front_end, decoder.embeddings, head, ...), norms (LayerNorms), biases (BitFit, arXiv 2106.10199), "
        "a role (attention, encoder_mlp, ...), a pattern of parameter names with *, several of them in a list, or each "
        "with a range of depth, as in {encoder: [0.5, 1.0]} for the upper half of the encoder.",
    )
    ctc: CtcConfig = Field(default_factory=CtcConfig, description="Only for CTC models.")
    qwen3_asr: Qwen3AsrConfig = Field(default_factory=Qwen3AsrConfig, description="Only for Qwen3-ASR models.")


class AdaLoraConfig(BaseModel):
    """How AdaLoRA gives ranks to the layers that need them (Zhang et al. 2023, arXiv 2303.10512)."""

    model_config = ConfigDict(extra="forbid")

    initial_rank: int | None = Field(
        None, ge=2, description="Rank of every layer at the start; none: 1.5 x adapter.rank (the paper's choice)."
    )
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of the steps before ranks begin to fall.")
    final_share: float = Field(0.3, gt=0, lt=1, description="Share of the steps at the end with the ranks fixed.")
    every_steps: int = Field(1, ge=1, description="Ranks are allocated anew every so many optimiser steps.")
    orthogonality: float = Field(
        0.1, ge=0, description="Weight of the penalty that keeps both factors orthogonal (the paper's gamma: 0.1-0.5)."
    )

    @model_validator(mode="after")
    def _leaves_time(self) -> AdaLoraConfig:
        if self.warmup_share + self.final_share >= 1:
            raise ValueError("warmup_share and final_share leave no steps to allocate ranks in: lower one of them")
        return self


class NamedAdapter(BaseModel):
    """One of several adapters: its name and the utterances it learns from."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[\w-]+$", description="Its folder in run/adapters.")
    where: list[Condition] = Field(min_length=1, description="Conditions on the utterances, as in data.where.")


class AdapterConfig(BaseModel):
    """A low-rank adapter instead of a full fine-tune."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["none", "lora", "rslora", "dora", "adalora", "bottleneck"] = Field(
        "none",
        description="none: train the weights themselves. lora: Hu et al. 2021 (arXiv 2106.09685). rslora: scaled by "
        "alpha / sqrt(rank) (arXiv 2312.03732). dora: direction and magnitude apart (arXiv 2402.09353). adalora: "
        "ranks allocated during training (arXiv 2303.10512). bottleneck: rank more hidden units beside each "
        "feed-forward layer among the targets (parallel adapters, arXiv 2110.04366); merged, those layers are wider.",
    )
    rank: int = Field(
        32, ge=1, description="Rank of the update; adalora: mean rank at the end; bottleneck: its hidden units."
    )
    alpha: float = Field(64.0, gt=0, description="Scale of the update; it is multiplied by alpha / rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the adapter's input.")
    targets: Selection = Field(
        ["attention", "mlp"],
        description="Layers that get an adapter: roles (attention, mlp, encoder_attention, decoder_mlp, "
        "cross_attention, ...), parts (encoder, decoder), or either with a range of depth.",
    )
    also_train: Selection | None = Field(
        None, description="Whole modules trained beside the adapter, as in norms or encoder.front_end."
    )
    bits: Literal[4, 8] | None = Field(
        None,
        description="QLoRA: keep the frozen layers in 4 bits (NF4, arXiv 2305.14314) or 8 (arXiv 2208.07339), with "
        "bitsandbytes. The adapter is merged into the full-precision base at the end.",
    )
    adalora: AdaLoraConfig = Field(default_factory=AdaLoraConfig)
    per: str | list[NamedAdapter] | None = Field(
        None,
        description="Several adapters on one base: a column (language: one adapter a language, each trained on its "
        "own utterances), or a list of {name, where}. They are kept in run/adapters.",
    )

    @model_validator(mode="after")
    def _fits_together(self) -> AdapterConfig:
        if self.kind == "none" and (self.bits or self.per or self.also_train):
            given = "bits" if self.bits else "per" if self.per else "also_train"
            raise ValueError(f"adapter.{given} needs an adapter: set adapter.kind, as in lora")
        if self.kind == "bottleneck" and self.bits:
            raise ValueError("a bottleneck is not put on a quantised base: leave out bits, or use lora")
        if self.kind == "dora" and self.bits == 8:
            raise ValueError("dora reads the base's weights, and PEFT 0.21 cannot read them at 8 bits: use bits=4")
        return self
