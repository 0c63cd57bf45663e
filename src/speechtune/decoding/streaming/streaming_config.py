"""The ``decoding.streaming`` block: how speech is transcribed while it is spoken."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class RefineConfig(BaseModel):
    """Draft, then refine: drafts are only shown; what is committed comes from a second pass over finished speech."""

    model_config = ConfigDict(extra="forbid")

    use: bool = Field(
        False,
        description="Commit nothing before a pause (or a full buffer); then decode the finished speech anew and commit "
        "that. Later than local agreement, with the second pass's errors. A refine.model or refine.beams turns it on.",
    )
    model: str | None = Field(
        None, description="The model of the second pass: a run, a directory or a catalogue name. Null: the same one."
    )
    beams: int | None = Field(
        None, ge=1, description="Beams of the second pass. Null: decoding.beams, and 5 at least with the same model."
    )

    @property
    def active(self) -> bool:
        """Whether there is a second pass."""
        return self.use or self.model is not None or self.beams is not None


class StreamingConfig(BaseModel):
    """Live transcription by local agreement (Liu et al. 2020; Macháček et al. 2023, arXiv 2307.14743).

    The audio since the last pause is decoded again and again; words on which successive drafts agree are committed.
    """

    model_config = ConfigDict(extra="forbid")

    step_s: float = Field(
        1.0,
        gt=0,
        description="New audio between two drafts; more where computing takes longer. 1 s is whisper_streaming's.",
    )
    listen_s: float = Field(
        0.25, ge=0.05, description="New audio between two looks at whether somebody speaks and whether a pause began."
    )
    agreement: int = Field(
        2,
        ge=1,
        description="Successive drafts that must begin alike for a word to be committed (LocalAgreement-n); 1 commits "
        "every draft whole. More than a segment has drafts: it is committed at its end.",
    )
    pause_s: float = Field(
        0.6, gt=0, description="A pause of this length ends a segment: all of it is decoded once more and committed."
    )
    max_buffer_s: float = Field(
        15.0,
        ge=2,
        description="Audio held at most. Without a pause for so long, it is cut where it is most silent. 15 s is "
        "whisper_streaming's; at most the model's window.",
    )
    margin_s: float = Field(0.35, ge=0, description="Decoded before and after a segment's speech, in seconds.")
    force_committed: bool = Field(
        True,
        description="Whisper: a draft continues the committed words of its segment. Without it every draft is free, "
        "and what follows the committed words is found by aligning.",
    )
    prompt_words: int = Field(
        0,
        ge=0,
        description="Whisper: so many committed words of earlier segments are given as previous text; 0: none. Helps "
        "models trained with previous text (Whisper's own), and spreads errors.",
    )
    draft_tokens_per_s: float = Field(
        12.0, gt=0, description="Token limit of a draft per second of audio; a draft that meets it is a loop: not used."
    )
    words: bool = Field(False, description="Times of every word of a finished segment, by a second pass over its text.")
    refine: RefineConfig = Field(default_factory=RefineConfig, description="Draft-then-refine.")
