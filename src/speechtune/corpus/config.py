"""The ``data`` part of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from speechtune.core.errors import InputError
from speechtune.corpus.conditions import Condition


class MixPart(BaseModel):
    """One corpus of a mixture, and its share of every epoch."""

    model_config = ConfigDict(extra="forbid")

    corpus: str | None = Field(None, description="Directory of its corpus; data.corpus when not given.")
    weight: float = Field(gt=0, allow_inf_nan=False, description="Its share of an epoch, relative to the other parts'.")
    split: str | None = Field(
        None,
        description="Split that is learnt from; not given: data.train_split, or all of a corpus without splits.",
    )
    language: str | None = Field(None, description="Only utterances of this language.")
    where: list[Condition] = Field(default_factory=list, description="Conditions for this part, beside data.where.")
    hours: float | None = Field(None, gt=0, description="Only so many hours of it, like data.hours.")


class BalanceConfig(BaseModel):
    """Showing rare values of a column more often."""

    model_config = ConfigDict(extra="forbid")

    column: str | None = Field(None, description="Column whose values are balanced, such as age; none: no balancing.")
    how: Literal["weighted", "oversample"] = Field(
        "weighted",
        description="weighted: an epoch keeps its size, so utterances of frequent values are shown less than once; "
        "oversample: every utterance is shown at least once, so the epoch grows.",
    )
    temperature: float = Field(
        5.0,
        ge=1,
        description="A value with n utterances gets a share proportional to n^(1/T): 1 leaves the corpus as it is, a "
        "large T makes all values equal (.inf: exactly). T = 5: Arivazhagan et al. 2019, arXiv 1907.05019; XLM-R "
        "(arXiv 1911.02116) uses the exponent 0.3, T = 3.3.",
    )


class CurriculumConfig(BaseModel):
    """Easy utterances first."""

    model_config = ConfigDict(extra="forbid")

    by: str | None = Field(None, description="Numeric column that orders them: duration_s, or a WER; none: no order.")
    ascending: bool = Field(True, description="Small values are easy; false: large ones.")
    epochs: int = Field(
        2, ge=1, description="pools: the easiest e/N in epoch e, everything from epoch N on; sorted: epochs in order."
    )
    how: Literal["pools", "sorted"] = Field(
        "pools",
        description="pools: the set of utterances grows (a step-wise competence, Platanios et al. 2019, arXiv "
        "1903.09848); sorted: all of them, batches in order of difficulty (SortaGrad, Amodei et al. 2015, arXiv "
        "1512.02595, with epochs=1).",
    )


class SplitConfig(BaseModel):
    """Dividing ``data.corpus`` anew, in memory, as ``speechtune split`` with the same options divides it on disk."""

    model_config = ConfigDict(extra="forbid")

    dev: float = Field(0.1, ge=0, lt=1, description="Share of dev.")
    test: float = Field(0.1, ge=0, lt=1, description="Share of test; 0: no such split.")
    by: str = Field("speaker_id", description="Column whose groups stay together; none: split by utterance.")
    stratify: list[str] = Field(default_factory=lambda: ["age"], description="Columns that every split should hold.")
    seed: int = Field(0, description="Seed of the order in which groups are considered.")
    test_list: str | None = Field(None, description="File with utterance ids or speakers: exactly they are test.")
    dev_list: str | None = Field(None, description="The same for dev.")
    allow_speaker_overlap: bool = Field(
        False, description="Learn from what listed speakers also said; otherwise it is held out."
    )
    folds: int | None = Field(None, ge=2, description="Cross-validation: as many folds; needs fold.")
    fold: int | None = Field(None, ge=1, description="The fold, from 1, that is the test split.")


class DataConfig(BaseModel):
    """Which utterances are learnt from and which ones choose the model."""

    model_config = ConfigDict(extra="forbid")

    corpus: str = Field(description="Directory of a speechtune corpus (see speechtune import).")
    train_split: str = Field("train", description="Split that is learnt from.")
    dev_split: str = Field("dev", description="Split whose generated WER chooses the best model.")
    split: SplitConfig | None = Field(
        None, description="Divide the corpus anew for this run, whatever splits it has; none: its own splits."
    )
    deduplicate: bool = Field(
        False,
        description="Learn once from rows with the same samples and text, also of two parts of data.mix, and not at "
        "all from those that are in the dev split too.",
    )
    case: Literal["keep", "lower"] = Field(
        "keep", description="Letter case of the training text; lower suits transcripts that are all capitals."
    )
    unusable: Literal["error", "drop"] = Field(
        "error",
        description="What to do with training utterances the model cannot take (too long, too many tokens, no text): "
        "stop and name them, or leave them out and count them.",
    )
    max_utterances: int | None = Field(
        None, ge=1, description="Use only this many training utterances (a seeded draw); for quick trials."
    )
    hours: float | None = Field(
        None,
        gt=0,
        description="Use only so many hours, the same share of every speaker; a smaller subset lies inside a larger.",
    )
    subset_seed: int = Field(0, description="Seed of the draws of hours and max_utterances.")
    where: list[Condition] = Field(
        default_factory=list,
        description="Conditions on columns that training utterances must meet: {column, min, max, in, not_in, unknown} "
        "or text such as duration_s<=20 or tier=all,0.9.",
    )
    mix: list[MixPart] = Field(
        default_factory=list,
        description="Several corpora by ratio, each {corpus, weight, split, language, where, hours}; the first is the "
        "target, and an epoch ends when it was shown once. None: data.corpus alone.",
    )
    mix_unit: Literal["utterances", "seconds"] = Field(
        "utterances", description="What the weights of data.mix are shares of."
    )
    epoch_utterances: int | None = Field(
        None, ge=1, description="Utterances shown in an epoch, instead of the size that the other options give it."
    )
    balance: BalanceConfig = Field(default_factory=BalanceConfig)
    weight_column: str | None = Field(
        None,
        description="Column with a number of 0 or more: how often an utterance is shown, relative to the others of its "
        "part and balanced value; 0: never.",
    )
    curriculum: CurriculumConfig = Field(default_factory=CurriculumConfig)

    @model_validator(mode="after")
    def _agrees(self) -> DataConfig:
        if self.mix and self.hours is not None:
            raise InputError("data.hours has no meaning beside data.mix: give hours to the parts of data.mix")
        return self

    @property
    def draws(self) -> bool:
        """Whether an epoch is anything but every utterance once."""
        wanted = (self.mix, self.epoch_utterances, self.balance.column, self.weight_column, self.curriculum.by)
        return any(wanted)
