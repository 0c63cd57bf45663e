"""A recipe: everything that decides a run, in one file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.config import load_config
from speechtune.core.errors import InputError
from speechtune.corpus.config import DataConfig
from speechtune.decoding.config import DecodingConfig
from speechtune.models.config import AdapterConfig, Context, ModelConfig
from speechtune.scoring.config import ScoringConfig
from speechtune.training.config import TrainingConfig
from speechtune.training.stages import StageConfig, stages_of
from speechtune.training.upload import UploadConfig


class TestSet(BaseModel):
    """One set the finished model is measured on, before and after."""

    model_config = ConfigDict(extra="forbid")
    __test__ = False

    name: str = Field(pattern=r"^[\w-]+$", description="Its name in scores and reports.")
    corpus: str | None = Field(None, description="Directory of its corpus; the training corpus when not given.")
    split: str | None = Field(None, description="Which split of it; every utterance when not given.")
    role: str = Field(
        "target", pattern="^(target|guard)$", description="target: should improve; guard: should not worsen."
    )


class EvaluationConfig(BaseModel):
    """The proof: what is measured before and after training."""

    model_config = ConfigDict(extra="forbid")

    sets: list[TestSet] = Field(
        default_factory=list, description="Sets to measure; the dev split of the training corpus when empty."
    )
    contexts: list[Context] = Field(
        ["fit", "full"], min_length=1, description="Audio contexts to decode the tuned model at."
    )
    baseline_contexts: list[Context] | None = Field(
        None, description="Audio contexts for the base model; the same ones when not given."
    )
    guard_each: int | None = Field(
        None,
        ge=1,
        description="At every evaluation of the run also decode this many utterances of the guard sets (a fixed draw, "
        "shared among them): guard_wer and forgetting in metrics.jsonl; none: guards are measured at the end only.",
    )
    scoring: ScoringConfig = Field(default_factory=ScoringConfig)


class Recipe(BaseModel):
    """One YAML file that decides a run."""

    model_config = ConfigDict(extra="forbid")

    data: DataConfig
    model: ModelConfig = Field(default_factory=ModelConfig)
    adapter: AdapterConfig = Field(default_factory=AdapterConfig)
    training: TrainingConfig = Field(default_factory=TrainingConfig)
    decoding: DecodingConfig = Field(default_factory=DecodingConfig)
    evaluation: EvaluationConfig = Field(default_factory=EvaluationConfig)
    upload: UploadConfig = Field(default_factory=UploadConfig)

    stages: list[StageConfig] = Field(
        default_factory=list,
        description="Trainings one after another, each {name, and the keys of data, model, adapter and training that "
        "differ in it}, starting from the weights the one before kept; none: one training.",
    )

    def test_sets(self) -> list[TestSet]:
        """The sets to measure, with the default filled in."""
        return self.evaluation.sets or [TestSet(name="dev", split=self.data.dev_split)]


def load_recipe(path: Path | None, overrides: Sequence[str] = ()) -> Recipe:
    """Read a recipe with ``key=value`` overrides.

    Raises:
        InputError: see `speechtune.core.config.load_config` and `speechtune.training.stages.stages_of`.
    """
    recipe = load_config(Recipe, path, overrides)
    stages_of(recipe, Path())
    if recipe.decoding.engine != "torch":
        raise InputError(
            f"decoding.engine is {recipe.decoding.engine!r} and a run decodes with torch, because the weights change: "
            "remove it, and give it to speechtune transcribe or evaluate"
        )
    return recipe
