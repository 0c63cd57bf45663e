"""The ``training.format`` part of a recipe: what a training example looks like to the decoder.

Everything is off by default; docs/whisper_format.md describes each part with its source.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class PackConfig(BaseModel):
    """Several clips in one window; the groups are drawn anew in every epoch."""

    model_config = ConfigDict(extra="forbid")

    seconds: float = Field(
        0.0, ge=0, description="Clips are packed into windows of at most so many seconds (30 for Whisper); 0: off."
    )
    max_clips: int | None = Field(None, ge=2, description="Most clips of a pack (8 in the challenge's concat-mix).")
    max_cost: float | None = Field(
        None,
        gt=0,
        description="Bound of seconds x label tokens of a pack (120 there); a clip above it stays by itself.",
    )
    gap_s: tuple[float, float] = Field(
        (0.0, 0.5), description="Silence between two clips of a pack or a join, drawn uniformly from this range."
    )
    same: str = Field(
        "speaker",
        description="What the clips of a pack or a join share: speaker, session, recording, any (nothing), or the name "
        "of a column. A clip that has no value there stays alone.",
    )

    @model_validator(mode="after")
    def _range(self) -> PackConfig:
        if not 0 <= self.gap_s[0] <= self.gap_s[1]:
            raise ValueError(f"pack.gap_s is {list(self.gap_s)}: give two numbers, the smaller first, from 0 on")
        return self


class EmptyConfig(BaseModel):
    """Clips of silence or noise, whose label is that nobody speaks."""

    model_config = ConfigDict(extra="forbid")

    share: float = Field(0.0, ge=0, le=0.5, description="Share of the examples of an epoch that are such clips.")
    duration_s: tuple[float, float] = Field((1.0, 8.0), description="Their length, drawn uniformly from this range.")
    noise_share: float = Field(
        0.8,
        ge=0,
        le=1,
        description="Share of them with noise, 0 to 40 dB below the level of speech; the others are digital silence.",
    )
    noise_dir: str | None = Field(
        None, description="Directory of noise recordings, used beside white, pink and brown noise and mains hum."
    )

    @model_validator(mode="after")
    def _range(self) -> EmptyConfig:
        if not 0 < self.duration_s[0] <= self.duration_s[1]:
            raise ValueError(f"empty.duration_s is {list(self.duration_s)}: give two numbers, the smaller first")
        return self


class FormatConfig(BaseModel):
    """Whisper's own training format (Radford et al. 2022, arXiv 2212.04356, section 2.3), part by part."""

    model_config = ConfigDict(extra="forbid")

    timestamps_share: float = Field(
        0.0, ge=0, le=1, description="Share of the examples whose label has the times of its segments."
    )
    previous_text_share: float = Field(
        0.0,
        ge=0,
        le=1,
        description="Share of the examples that are given the text before them in the same recording or session; it "
        "is not learnt. The first utterance of a session has none.",
    )
    previous_text_by: str | None = Field(
        None,
        description="Column that says which utterances belong together (session_id, speaker_id, ...). None: the "
        "recording, where rows are spans of one; else session_id.",
    )
    previous_text_order: str | None = Field(
        None, description="Column that orders them. None: start_s where every row has it, else the order of the rows."
    )
    previous_text_utterances: int = Field(
        4, ge=1, description="At most so many previous utterances are given; how many is drawn uniformly."
    )
    pack: PackConfig = Field(default_factory=PackConfig)
    join_share: float = Field(
        0.0, ge=0, le=1, description="Share of the clips that are drawn to be joined with one or two others (no packs)."
    )
    empty: EmptyConfig = Field(default_factory=EmptyConfig)
    keep_empty: bool = Field(
        False, description="Learn from utterances without text, as clips in which nobody speaks, instead of refusing."
    )
    language_column: str | None = Field(
        None,
        description="Column with the language of each utterance (language): its token stands in the prompt. A row "
        "without a value has model.language.",
    )
    task_column: str | None = Field(
        None, description="Column that says transcribe or translate for each utterance; without a value: transcribe."
    )
    bpe_dropout: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Probability that a merge of the tokenizer is left out in a step, which splits words differently "
        "each time (Provilkov et al. 2020, arXiv 1910.13267, use 0.1).",
    )
    decoder_noise: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of the decoder's input tokens of the text that a random token takes the place of; the "
        "labels stay (cf. word dropout, Bowman et al. 2016, arXiv 1511.06349).",
    )

    @model_validator(mode="after")
    def _agrees(self) -> FormatConfig:
        if self.pack.seconds == 0 and (self.pack.max_clips or self.pack.max_cost):
            raise ValueError("pack.max_clips and pack.max_cost bound packs: set pack.seconds")
        if self.pack.seconds > 0 and self.join_share > 0:
            raise ValueError("join_share has no meaning beside pack.seconds: keep one of the two")
        if self.previous_text_share == 0 and (self.previous_text_by or self.previous_text_order):
            raise ValueError("previous_text_by and _order have no meaning while previous_text_share is 0: set it")
        return self

    @property
    def groups(self) -> bool:
        """Whether clips are put together."""
        return self.pack.seconds > 0 or self.join_share > 0

    @property
    def teaches_silence(self) -> bool:
        """Whether some labels say that nobody speaks."""
        return self.empty.share > 0 or self.keep_empty

    @property
    def enabled(self) -> bool:
        """Whether anything differs from a plain label for each clip."""
        return self != FormatConfig()
