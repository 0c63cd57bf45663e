"""The ``model.qwen3_asr`` part of a recipe: what stands around a transcript in Qwen3-ASR's chat."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LanguageTag = Literal["answer", "prompt"]


class Qwen3AsrConfig(BaseModel):
    """Prompt and answer of a Qwen3-ASR model; both are recorded in ``speechtune.json`` and used again at inference."""

    model_config = ConfigDict(extra="forbid")

    context: str | None = Field(
        None,
        description="Text of the system turn: an instruction, names, terms. None: what the model directory records, "
        "else empty as in Qwen's own inference.",
    )
    language_tag: LanguageTag | None = Field(
        None,
        description="Where 'language NAME<asr_text>' stands in training. answer (the default, Qwen's own fine-tuning "
        "format): the model learns to write it, so it also works where no language can be given; prompt: it is "
        "given, and the text and its end alone are learnt. With model.language it is given at inference either way. "
        "None: what the model directory records, else answer.",
    )
