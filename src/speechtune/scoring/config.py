"""The ``evaluation`` part of a recipe: how transcripts are scored."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class ScoringConfig(BaseModel):
    """How transcripts are compared with the reference texts."""

    model_config = ConfigDict(extra="forbid")

    normaliser: str = Field(
        default="auto",
        description="Text normaliser: auto (by language), or a name that speechtune normalise --list prints.",
    )
    variants: dict[str, list[str]] = Field(
        default_factory=dict,
        description="Other spellings that count as a word: {form: [spelling, ...]}; applied after the normaliser.",
    )
    metrics: list[str] = Field(
        default_factory=list,
        description="Metrics beside WER and CER: names that speechtune score --metrics list prints, or all.",
    )
    tokenizer: str | None = Field(
        default=None, description="Directory of a model whose tokenizer counts the token error rate."
    )
    workers: int = Field(
        default=1, ge=1, description="Processes that normalise and count; more than one from 50,000 utterances on."
    )
    phones: Literal["spelling", "espeak"] = Field(
        default="spelling",
        description="What says how words sound, for causes and phonetic-wer: spelling (letters, read roughly), or "
        "espeak (espeak-ng, in the language of the corpus; speechtune[demo]).",
    )
    slice_by: list[str] = Field(
        default_factory=list,
        description="Corpus columns to report one by one, such as age, gender, duration_s, reference_words.",
    )
    resamples: int = Field(
        default=1000,
        ge=0,
        description="Bootstrap resamples behind every interval (Bisani & Ney 2004); 0: no intervals.",
    )
    confidence_level: float = Field(default=0.95, gt=0, lt=1, description="Coverage that the intervals aim at.")
    seed: int = Field(default=0, ge=0, description="Seed of the bootstrap.")
    resample_by: str = Field(
        default="speaker_id",
        description="Column whose utterances are resampled together where it has 5 values or more, such as session_id.",
    )
    terms: list[str] = Field(
        default_factory=list, description="Words or phrases whose recall and precision are reported."
    )
    term_variants: dict[str, list[str]] = Field(
        default_factory=dict, description="Other spellings that count as a term: {term: [spelling, ...]}."
    )
