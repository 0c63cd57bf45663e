"""How a package decodes and what it must keep to."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class PackageSettings(BaseModel):
    """Choices of ``speechtune submit``; the decoding itself is that of the ``decoding`` block."""

    model_config = ConfigDict(extra="forbid")

    engine: Literal["torch", "ctranslate2"] = Field(
        "torch",
        description="What the package needs beside numpy and soundfile: torch and transformers, or ctranslate2.",
    )
    dtype: Literal["float32", "float16", "bfloat16"] = Field(
        "float16", description="How torch computes on a GPU (on a CPU: float32), and how the weights are stored."
    )
    compute_type: str = Field("float32", description="How CTranslate2 stores and computes, as in int8 or float16.")
    batch_size: int = Field(64, ge=1, description="Clips decoded together.")
    batch_seconds: float = Field(480.0, gt=0, description="Upper bound of clips x audio context in one batch, in s.")
    silence_dbfs: float = Field(
        -65.0, le=0, description="A clip whose loudest 20 ms are below this gets an empty text without decoding."
    )
    tokens_at_least: int = Field(
        16,
        ge=1,
        description="Token limit of a clip: so many, and tokens_per_s a second (within max_new_tokens).",
    )
    tokens_per_s: float = Field(
        25.0,
        gt=0,
        description="About three times fast speech: only loops reach it, and one delays its whole batch.",
    )
    text_key: str = Field("orthographic_text", description="Name of the prediction in the format file.")
    stop_after_hours: float | None = Field(
        None, gt=0, description="Decoding stops then, and what is left gets empty texts, so that there is a submission."
    )


class SubmitFile(BaseModel):
    """What overrides of ``speechtune submit`` may name beside ``decoding``."""

    model_config = ConfigDict(extra="forbid")

    package: PackageSettings = Field(default_factory=PackageSettings)
