"""The ``data`` part of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class DataConfig(BaseModel):
    """Which utterances are learnt from and which ones choose the model."""

    model_config = ConfigDict(extra="forbid")

    corpus: str = Field(description="Directory of a speechtune corpus (see speechtune import).")
    train_split: str = Field("train", description="Split that is learnt from.")
    dev_split: str = Field("dev", description="Split whose generated WER chooses the best model.")
    case: Literal["keep", "lower"] = Field(
        "keep", description="Letter case of the training text; lower suits transcripts that are all capitals."
    )
    unusable: Literal["error", "drop"] = Field(
        "error",
        description="What to do with training utterances the model cannot take (too long, too many tokens, no text): "
        "stop and name them, or leave them out and count them.",
    )
    max_utterances: int | None = Field(
        None, ge=1, description="Use only this many training utterances (a seeded draw); for quick trials."
    )
