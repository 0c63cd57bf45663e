"""The ``decoding.guards`` block: what is done about text that nobody said."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

GuardName = Literal["silence", "phrase", "loop", "rate"]
Remedy = Literal["no-repeat", "sample", "context"]


class GuardsConfig(BaseModel):
    """Detectors of invented text, and what they may do; every intervention is recorded in the transcript."""

    model_config = ConfigDict(extra="forbid")

    use: Literal["auto", "off", "flag", "safe", "on"] = Field(
        "auto",
        description="safe: repair what cannot have been said: faster than anybody speaks, or a loop up to the token "
        "limit. on: everything below. flag: name what is found, change nothing. off: nothing. auto: safe in "
        "transcribe, off in evaluate and training, which measure the model as it is.",
    )
    which: list[GuardName] = Field(
        default=["silence", "phrase", "loop", "rate"],
        description="The guards that act with on, safe or flag.",
    )
    speech_probability: float = Field(
        0.5,
        gt=0,
        lt=1,
        description="silence: a frame of 32 ms with this probability by Silero's detector is speech (its own default).",
    )
    min_speech_s: float = Field(
        0.1, ge=0, description="silence: a clip with less speech than this counts as silent, if the model agrees."
    )
    silent_probability: float = Field(
        0.25,
        ge=0,
        lt=1,
        description="silence: a clip whose every frame is below this is silent whatever the model says. The surest "
        "frame of each of 1160 children's clips has 0.89 or more, that of most noise 0.3 or less (docs/guards.md).",
    )
    no_speech: float = Field(
        0.6,
        ge=0,
        le=1,
        description="silence: the model agrees where <|nospeech|> is likelier than this (openai/whisper).",
    )
    log_prob: float = Field(
        -1.0,
        le=0,
        description="Mean log-probability below which the model itself doubts its text (openai/whisper's threshold); "
        "also lets silence, phrase and rate act.",
    )
    phrases: list[str] = Field(
        default_factory=list, description="phrase: more phrases that the model writes where nobody speaks."
    )
    known_phrases: bool = Field(
        True,
        description="phrase: use the lists of decoding/hallucinated_phrases.py (video endings, credits, bare thanks).",
    )
    compression_ratio: float = Field(
        2.4, gt=0, description="loop: zlib makes the text smaller by more than this (openai/whisper)."
    )
    max_chars_per_s: float | None = Field(
        None,
        gt=0,
        description="rate: letters a second of the clip that nobody can say. Null: by the script, 25 for alphabets "
        "(corpus/speaking_rates.py).",
    )
    remedies: list[Remedy] = Field(
        default=["no-repeat", "sample", "context"],
        description="Ways to decode anew, in turn until nothing is wrong: no-repeat (no n-gram of no_repeat_ngram "
        "tokens twice), sample (the temperatures below), context (full instead of fit or the reverse). Then the loop "
        "is cut or the text emptied.",
    )
    no_repeat_ngram: int = Field(5, ge=2, description="Of the remedy no-repeat.")
    temperatures: list[float] = Field(
        default_factory=lambda: [0.4, 0.8], description="Of the remedy sample, in turn, five samples each."
    )

    @field_validator("use", mode="before")
    @classmethod
    def _yaml_words(cls, value: Any) -> Any:
        return {True: "on", False: "off"}.get(value, value) if isinstance(value, bool) else value  # YAML 1.1: on, off
