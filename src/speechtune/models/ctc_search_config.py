"""The ``decoding.ctc`` part of a recipe: beam search over CTC probabilities, and the words it may find."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field, model_validator


class CtcSearchConfig(BaseModel):
    """Beam search of CTC models (``decoding.beams`` above 1). The numbers' defaults are pyctcdecode 0.5's."""

    model_config = ConfigDict(extra="forbid")

    token_log_prob: float = Field(
        -5.0, lt=0, description="Tokens of a frame below this natural log-probability are left out, save the best one."
    )
    beam_log_prob: float = Field(
        -10.0, lt=0, description="Beams so far behind the best one are dropped at every frame."
    )
    lexicon: str | None = Field(
        None,
        description="A text file of words, one a line (what follows white space is passed over): the words that may "
        "be said. Null: those of decoding.lm.model, where it lists them.",
    )
    lexicon_only: bool = Field(False, description="Words outside the lexicon are impossible, not only unlikely.")
    unknown_word: float = Field(
        -10.0,
        le=0,
        description="What a word outside the lexicon costs. Within the word: this, times letters / 6 where it has more "
        "than 6. Finished: this in log10 units added to the language model's, or once as it is without one.",
    )

    @model_validator(mode="after")
    def _only_needs_words(self) -> CtcSearchConfig:
        if self.lexicon_only and self.lexicon is None:
            raise ValueError("lexicon_only needs the words: set lexicon to a file with one word a line")
        return self

    def is_default(self) -> bool:
        """Whether nothing was set."""
        return self == type(self)()
