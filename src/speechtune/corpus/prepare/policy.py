"""The policy file of ``speechtune prepare``: every step, its default and the reason for it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator

from speechtune.core.config import load_config
from speechtune.core.errors import InputError
from speechtune.corpus.conditions import Condition
from speechtune.corpus.conventions import TextConventions
from speechtune.corpus.segmentation.pieces import SegmentationConfig


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid")


class TrimPolicy(_Block):
    """Silence at both ends. Recordings that are segmented are not trimmed as well: their pieces have margins."""

    mode: Literal["off", "vad", "energy"] = Field(
        "off",
        description="vad: what lies outside the detected speech. energy: what is quieter than energy_below_db. Off by "
        "default: a model that never heard silence invents words in it.",
    )
    margin_s: float = Field(
        0.2,
        ge=0,
        description="Kept before the first and behind the last speech; first sounds are soft and easily lost.",
    )
    energy_below_db: float = Field(
        40.0, gt=0, description="energy: how far below the loudest 25 ms of the clip silence begins."
    )
    no_speech: Literal["keep", "drop"] = Field(
        "keep",
        description="A transcribed clip in which no speech is found: keep it whole, or leave it out and count it.",
    )


class LevelPolicy(_Block):
    """One gain per recording; it never clips."""

    mode: Literal["off", "lufs", "peak"] = Field(
        "off",
        description="Off by default: Whisper's features are scaled to each clip's own maximum, so gain hardly reaches "
        "the model, and unchanged samples can be compared with their source. Use lufs or peak for listening, for "
        "mixing with noise, and for models without such scaling.",
    )
    target_lufs: float = Field(-23.0, lt=0, description="lufs: integrated loudness (EBU R 128).")
    target_peak_dbfs: float = Field(
        -3.0, le=0, description="peak: highest sample (notebook DP-2 gives -3 to -1; the careful end)."
    )
    peak_ceiling_dbfs: float = Field(-1.0, le=0, description="lufs: the gain is reduced until no sample exceeds this.")
    max_gain_db: float = Field(
        30.0, ge=0, description="Never amplify more; a clip that would need it is mostly noise. Lowering has no limit."
    )


class AudioPolicy(_Block):
    """From any file to 16 kHz mono, 16 bit."""

    channels: Literal["auto", "mean"] = Field(
        "auto",
        description="auto: the mean of the channels, or the loudest channel where they cancel each other out (their "
        "mean has less than half the power that unrelated channels would leave). mean: always the mean.",
    )
    trim: TrimPolicy = TrimPolicy()
    level: LevelPolicy = LevelPolicy()


class OutputPolicy(_Block):
    """How the result is stored."""

    format: Literal["flac", "parquet", "arrow", "webdataset"] = Field(
        "flac",
        description="flac: one file per utterance and metadata.jsonl (a speechtune corpus, audiofolder). parquet: "
        "shards with the audio inside, as Hugging Face stores it. arrow: the same as Arrow streams, which datasets "
        "maps into memory without a copy. webdataset: tar shards. All can be imported again.",
    )
    shard_minutes: float = Field(
        60.0, gt=0, description="Audio per Parquet, Arrow or tar shard; an hour of 16 kHz FLAC is about 60 MB."
    )
    title: str = Field("", description="Name of the data set in its card.")
    license: str = Field("unknown", description="Licence for the card: an SPDX name such as cc-by-4.0.")
    description: str = Field("", description="A paragraph for the card.")


class PreparePolicy(_Block):
    """Everything that ``speechtune prepare`` does to a corpus."""

    audio: AudioPolicy = AudioPolicy()
    segmentation: SegmentationConfig = SegmentationConfig()
    drop_pieces: list[Literal["low_confidence", "untranscribed_speech", "cut_word", "word_over_limit"]] = Field(
        default_factory=list, description="Pieces of segmented recordings with one of these marks are left out."
    )
    where: list[Condition] = Field(
        default_factory=list,
        description="Rows to keep, by any column of the table or of the audit (--audit); every condition must hold. "
        "[duration_s<=30, {column: snr_db, min: 5, unknown: keep}]",
    )
    text: TextConventions = TextConventions()
    languages: dict[str, TextConventions] = Field(
        default_factory=dict,
        description="Conventions of single languages: {he: {hebrew_niqqud: remove}}. Other keys follow text.",
    )
    output: OutputPolicy = OutputPolicy()

    @field_validator("languages", mode="before")
    @classmethod
    def _norwegian(cls, value: Any) -> Any:
        if isinstance(value, dict) and any(isinstance(name, bool) for name in value):
            raise ValueError('no is a truth value in YAML: write "no" for Norwegian')
        return value

    def conventions_for(self, language: str | None) -> TextConventions:
        """The conventions of a language tag: those of ``en-US``, else of ``en``, over those of ``text``."""
        wanted = [language or "", (language or "").replace("_", "-").split("-")[0]]
        known = {name.lower(): one for name, one in self.languages.items()}
        for name in wanted:
            if name.lower() in known:
                return self.text.merged(known[name.lower()])
        return self.text


def load_policy(path: Path | None, overrides: Sequence[str] = ()) -> PreparePolicy:
    """Read a policy file; ``overrides`` are dotted ``key=value`` settings.

    Raises:
        InputError: it cannot be read, a key is unknown or a value is wrong.
    """
    try:
        return load_config(PreparePolicy, path, overrides)
    except InputError as error:
        raise InputError(str(error).replace("check the recipe's path", "check the policy's path")) from error


def show_policy() -> str:
    """The default policy as YAML, every key under its description."""
    return "\n".join(_lines(PreparePolicy, PreparePolicy(), 0)) + "\n"


def _lines(kind: type[BaseModel], values: BaseModel, depth: int) -> Iterator[str]:
    import textwrap

    indent = "  " * depth
    for name, field in kind.model_fields.items():
        value = getattr(values, name)
        if isinstance(value, BaseModel):
            if depth == 0:
                yield ""
            yield from (f"{indent}# {line}" for line in textwrap.wrap(_first(value), 110 - len(indent)))
            yield f"{indent}{name}:"
            yield from _lines(type(value), value, depth + 1)
            continue
        yield from (f"{indent}# {line}" for line in textwrap.wrap(field.description or "", 110 - len(indent)))
        yield f"{indent}{name}: {json.dumps(value, ensure_ascii=False)}"


def _first(value: BaseModel) -> str:
    return " ".join((type(value).__doc__ or "").split("\n\n")[0].split())
