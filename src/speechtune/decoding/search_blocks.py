"""The parts of ``decoding`` beside the search itself: fallback, terms to prefer, and a language model."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class FallbackConfig(BaseModel):
    """Whisper's ladder: a clip whose text looks wrong is decoded again by sampling, hotter each time.

    Thresholds: Radford et al. 2022 (arXiv 2212.04356, section 4.5), openai/whisper ``transcribe.py``.
    """

    model_config = ConfigDict(extra="forbid")

    temperatures: list[float] = Field(
        default_factory=list,
        description="Tried in turn after the search itself for the clips that fail; Whisper's are "
        "[0.2, 0.4, 0.6, 0.8, 1.0]. Empty: no fallback.",
    )
    compression_ratio: float | None = Field(
        2.4, gt=0, description="A text that zlib makes smaller than by this factor is a loop; null: not tested."
    )
    log_prob: float | None = Field(
        -1.0, le=0, description="A mean log-probability below this is a failure; null: not tested."
    )
    no_speech: float | None = Field(
        0.6,
        ge=0,
        le=1,
        description="Where <|nospeech|> is likelier than this and the log-probability test fails, the text is empty; "
        "null: not tested.",
    )
    best_of: int = Field(5, ge=1, description="Samples drawn at each temperature, the most probable one is taken.")

    @property
    def active(self) -> bool:
        """Whether there is anything to fall back to."""
        return bool(self.temperatures)


class BoostConfig(BaseModel):
    """Terms that the search prefers: a bonus for each of their tokens, taken back when the term is not finished."""

    model_config = ConfigDict(extra="forbid")

    terms: list[str] = Field(default_factory=list, description="Words or phrases, in any case.")
    weight: float = Field(
        1.5, description="Natural log-probability added for each token of a term; CTC models: for each letter."
    )
    weights: dict[str, float] = Field(default_factory=dict, description="Terms with weights of their own.")

    def all_terms(self) -> dict[str, float]:
        """Every term with its weight."""
        return {**dict.fromkeys(self.terms, self.weight), **self.weights}


class LmConfig(BaseModel):
    """An n-gram language model in the search, or over its N-best list."""

    model_config = ConfigDict(extra="forbid")

    model: str | None = Field(
        None,
        description="A file (.arpa, .arpa.gz, .npz, KenLM's .bin), english, or several with weights as in "
        "child.arpa:0.6+english:0.4. Null: none.",
    )
    use: Literal["rescore", "fuse", "fuse-tokens"] = Field(
        "rescore",
        description="rescore: choose among the N-best; fuse: within the search, word by word; fuse-tokens: token by "
        "token, with a model trained with --tokens.",
    )
    causal: str | None = Field(
        None, description="Rescore with a Transformers causal language model too: its directory; needs use: rescore."
    )
    words: Literal["spoken", "none"] = Field(
        "spoken",
        description="How text is cut into the model's words: spoken: case folded, no punctuation; none: as is.",
    )
    alpha: float = Field(0.3, description="Weight of the model's log-probability.")
    beta: float = Field(0.0, description="Added for every word: language models favour short texts.")
    length_power: float = Field(
        0.0, ge=0, description="Totals are divided by tokens ** this when rescoring; 0: not at all."
    )
