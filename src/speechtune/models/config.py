"""The ``model`` and ``adapter`` parts of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

Context = Literal["fit", "full"]
"""How much audio a model sees for a clip: as long as the clip needs, or the whole padded window."""

Role = Literal["attention", "mlp", "encoder_attention", "encoder_mlp", "decoder_attention", "decoder_mlp"]


class ModelConfig(BaseModel):
    """Which model is fine-tuned."""

    model_config = ConfigDict(extra="forbid")

    base: str = Field("whisper-tiny.en", description="A catalogue name, hf:owner/name, or a model directory.")
    family: str | None = Field(None, description="The architecture family; read from the model when not given.")
    language: str | None = Field(
        None, description="Language of the transcripts (ISO 639-1); not needed for English-only models."
    )
    train: Literal["all", "encoder", "decoder"] = Field(
        "all", description="Which weights a full fine-tune changes; the rest is frozen."
    )


class AdapterConfig(BaseModel):
    """A low-rank adapter instead of a full fine-tune."""

    model_config = ConfigDict(extra="forbid")

    kind: Literal["none", "lora"] = Field("none", description="none: train the weights themselves.")
    rank: int = Field(32, ge=1, description="Rank of the update (Hu et al. 2021, arXiv 2106.09685).")
    alpha: float = Field(64.0, gt=0, description="Scale of the update; it is multiplied by alpha / rank.")
    dropout: float = Field(0.05, ge=0, lt=1, description="Dropout on the adapter's input.")
    targets: list[Role] = Field(
        ["attention", "mlp"],
        description="Roles of the layers that get an adapter, in the encoder, the decoder or both.",
    )
