"""Stages: several trainings one after another in one run, each from the weights that the one before kept.

A stage is the recipe with some keys changed. It has its own optimiser, schedule, draws, checkpoints, dev curve and best
model below ``RUN/stages/NN-name``; the base model is measured once before the first and the result once after the last.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.config import validate
from speechtune.core.errors import InputError

if TYPE_CHECKING:
    from speechtune.training.recipe import Recipe

SECTIONS = ("data", "model", "adapter", "training")
INHERITED = ("base", "family")
"""Keys of ``model`` that a stage cannot change: it starts from the weights of the one before."""


class StageConfig(BaseModel):
    """One stage: its name, and the keys of the recipe that are different in it."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(pattern=r"^[\w-]+$", description="Its name; the directory is stages/NN-name.")
    data: dict[str, Any] = Field(default_factory=dict, description="Keys of data that differ in this stage.")
    model: dict[str, Any] = Field(default_factory=dict, description="Keys of model that differ (not base).")
    adapter: dict[str, Any] = Field(default_factory=dict, description="Keys of adapter that differ.")
    training: dict[str, Any] = Field(default_factory=dict, description="Keys of training that differ.")


@dataclass(frozen=True, slots=True)
class Stage:
    """One training of a run: what to do and where; ``name`` is empty where the run has no stages."""

    name: str
    recipe: Recipe
    directory: Path

    @property
    def model(self) -> Path:
        """The weights it keeps, an adapter merged."""
        return self.directory / "model"

    @property
    def is_done(self) -> bool:
        """Whether its weights stand (they appear whole or not at all)."""
        return (self.model / "config.json").is_file()


def stages_of(recipe: Recipe, run: Path) -> list[Stage]:
    """The trainings of a run in order; a recipe without stages is one training in the run's own directory.

    Raises:
        InputError: a stage changes what it cannot, has a name twice, or makes no valid recipe.
    """
    if not recipe.stages:
        return [Stage("", recipe, run)]
    names = [stage.name for stage in recipe.stages]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"stages: two stages are called {twice!r}: give each its own name")
    return [
        Stage(config.name, _resolve(recipe, number), run / "stages" / f"{number + 1:02d}-{config.name}")
        for number, config in enumerate(recipe.stages)
    ]


def _resolve(recipe: Recipe, number: int) -> Recipe:
    stage = recipe.stages[number]
    where = f"stages.{number} ({stage.name})"
    for key in INHERITED:
        if key in stage.model:
            raise InputError(
                f"{where}: model.{key} cannot change between stages, which go on with the weights they have: "
                f"set model.{key} of the recipe"
            )
    values = recipe.model_dump(exclude_unset=True, exclude={"stages"})
    for section in SECTIONS:
        values[section] = _merged(values.get(section, {}), getattr(stage, section))
    if "seed" not in stage.training:
        values["training"]["seed"] = stage_seed(recipe.training.seed, number)
    resolved = validate(type(recipe), values, where)
    assert isinstance(resolved, type(recipe))
    return resolved


def stage_seed(seed: int, number: int) -> int:
    """The seed of stage ``number`` (from 0): the run's own for the first, others hashed from both.

    Every draw of a stage (order, contexts, augmentation, masks, dropout) depends on it, so that a second stage on the
    same data does not repeat the first one's draws.
    """
    if number == 0:
        return seed
    return int(np.random.SeedSequence((seed, number)).generate_state(1)[0] >> 1)


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """``base`` with ``changes``: mappings are merged key by key, anything else is replaced."""
    merged = dict(base)
    for key, value in changes.items():
        old = merged.get(key)
        merged[key] = _merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return merged
