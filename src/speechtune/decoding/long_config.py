"""The ``decoding.long_form`` block: how recordings longer than the model's window are transcribed."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

LongMode = Literal["vad", "chunks", "sequential"]


class LongFormConfig(BaseModel):
    """Settings of the three ways to transcribe a long recording; the lengths are in seconds."""

    model_config = ConfigDict(extra="forbid")

    piece_s: float | None = Field(
        None,
        gt=0,
        description="vad: speech is packed into pieces of at most this length where its pauses allow it. Null: 15 at "
        "fit context, the model's window less 2 at full, where every piece costs a whole window.",
    )
    max_pause_s: float | None = Field(
        None,
        gt=0,
        description="vad: a pause of this length always ends a piece. Null: 2 (faster-whisper's min_silence); where "
        "leave_out_pauses is in force, every pause may.",
    )
    leave_out_pauses: bool | None = Field(
        None,
        description="vad: pieces are heard one right after the other, what is between them left out, while they fit "
        "into a window. Null: at full context, where every piece costs a whole window; not for subtitles of a model "
        "that has no times of words.",
    )
    margin_s: float = Field(
        0.35, ge=0, description="vad: kept before and after a piece's speech, at most half of the pause."
    )
    chunk_s: float | None = Field(
        None, gt=0, description="chunks: length of a chunk. Null: the model's window, 30 at most."
    )
    overlap_s: float | None = Field(
        None,
        gt=0,
        description="chunks: what two chunks share; must be twice as long as the longest word. Null: a sixth of the "
        "chunk (5 s of 30 s, the stride of Transformers' chunked pipeline).",
    )
    condition_on_previous_text: bool = Field(
        True, description="sequential: each window is given the text before it as its prompt."
    )
    temperatures: list[float] = Field(
        default_factory=lambda: [0.0, 0.2, 0.4, 0.6, 0.8, 1.0],
        min_length=1,
        description="sequential: a window whose text looks wrong by decoding.fallback's thresholds is decoded again at "
        "the next temperature (openai/whisper).",
    )
    max_initial_timestamp_s: float = Field(
        1.0, ge=0, description="sequential: the first timestamp of a window is no later (openai/whisper)."
    )
    words: bool = Field(
        False,
        description="Times and confidences of every word, in short recordings too, by a second pass over the text.",
    )
