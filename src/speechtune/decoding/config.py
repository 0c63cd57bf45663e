"""The ``decoding`` part of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from speechtune.decoding.guards_config import GuardsConfig
from speechtune.decoding.long_config import LongFormConfig, LongMode
from speechtune.decoding.search_blocks import BoostConfig, FallbackConfig, LmConfig
from speechtune.decoding.streaming.streaming_config import StreamingConfig
from speechtune.models.config import Context
from speechtune.models.ctc_search_config import CtcSearchConfig
from speechtune.models.search_config import SearchConfig

ComputeType = Literal[
    "float32", "float16", "bfloat16", "int8", "int8_float32", "int8_float16", "int8_bfloat16", "int16", "auto"
]
"""CTranslate2's names of how it computes."""


class DecodingConfig(BaseModel):
    """How text is generated from audio."""

    model_config = ConfigDict(extra="forbid")

    engine: Literal["torch", "ctranslate2"] = Field(
        "torch",
        description="What computes: torch, or ctranslate2 (Whisper only, in transcribe and evaluate; converted once "
        "and kept below SPEECHTUNE_HOME). A CTranslate2 directory is always decoded by ctranslate2.",
    )
    compute_type: ComputeType = Field(
        "float32", description="How ctranslate2 computes; int8 is fast on a CPU, float16 and int8_float16 on a GPU."
    )
    intra_threads: int = Field(0, ge=0, description="Threads of ctranslate2 within a batch on a CPU; 0: measured once.")
    inter_threads: int = Field(0, ge=0, description="Pieces of a batch that ctranslate2 decodes at once; 0: measured.")
    context: Context = Field(
        "fit",
        description="Audio context: fit gives the model as many frames as the batch's longest clip needs, "
        "full its whole padded window (30 s for Whisper). fit needs a model trained for it.",
    )
    beams: int = Field(
        1, ge=1, description="Hypotheses kept by beam search; 1 is greedy. Five cost about two to three times the time."
    )
    batch_size: int = Field(16, ge=1, description="Clips decoded together, of similar length.")
    batch_seconds: float = Field(
        240.0,
        gt=0,
        description="Upper bound of clips x audio context in one batch, in seconds; guards memory. CTranslate2 on a "
        "CPU encodes long windows one by one and takes twice as much.",
    )
    margin_s: float = Field(
        0.2, ge=0, description="Silence added behind the longest clip of a batch at fit context, in seconds."
    )
    max_new_tokens: int = Field(
        224, ge=1, description="Token limit of one clip (Whisper's own limit: half its text context)."
    )
    tokens_per_s: float | None = Field(
        None,
        gt=0,
        description="Token limit by length: tokens_at_least and so many a second, within max_new_tokens, so that a "
        "loop on a short clip ends early; 25 is about three times fast speech. None: max_new_tokens alone.",
    )
    tokens_at_least: int = Field(16, ge=1, description="With tokens_per_s: the limit of the shortest clip.")
    search: SearchConfig = Field(
        default_factory=SearchConfig, description="N-best, penalties, sampling, prompt, prefix, suppressed tokens."
    )
    fallback: FallbackConfig = Field(
        default_factory=FallbackConfig, description="Decoding again, hotter, what looks wrong."
    )
    boost: BoostConfig = Field(default_factory=BoostConfig, description="Terms that the search prefers.")
    lm: LmConfig = Field(default_factory=LmConfig, description="A language model in the search or over its N-best.")
    ctc: CtcSearchConfig = Field(
        default_factory=CtcSearchConfig, description="Only for CTC models: their beam search, and a lexicon."
    )
    long: LongMode = Field(
        "vad",
        description="Recordings longer than the window: vad cuts in pauses, chunks decodes overlapping windows and "
        "merges them, sequential is Whisper's own way (timestamps, previous text).",
    )
    long_form: LongFormConfig = Field(default_factory=LongFormConfig, description="Details of decoding.long.")
    guards: GuardsConfig = Field(default_factory=GuardsConfig, description="What is done about invented text.")
    streaming: StreamingConfig = Field(default_factory=StreamingConfig, description="Live transcription.")
