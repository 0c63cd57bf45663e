"""What a training changes, decided before its first step: the trainable module, its parameter groups, and a record."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speechtune.core.files import write_json
from speechtune.core.progress import note
from speechtune.models.adapters import choose_trainable
from speechtune.models.family import Family
from speechtune.models.rank_allocation import STATE, RankAllocation
from speechtune.models.trainable import Layout, tied_note
from speechtune.training.parameter_groups import ParameterPlan, plan_parameters

if TYPE_CHECKING:
    from speechtune.training.recipe import Recipe

PREVIEW_STEPS = 100
"""Optimiser steps that a preview assumes; only AdaLoRA's schedule depends on it."""

PARAMETERS = "parameters.json"
"""File of a run: part by part, how many parameters are trained, at which rate, by which optimiser."""


@dataclass(slots=True)
class Trained:
    """The module to train, its plan, and what has to happen at every step (AdaLoRA)."""

    model: torch.nn.Module
    plan: ParameterPlan
    callbacks: list[TrainerCallback] = field(default_factory=list)


def what_is_trained(family: Family, recipe: Recipe, steps: int) -> Trained:
    """Freeze, adapt and group as a recipe says; ``family.model`` is changed in place.

    Args:
        family: a freshly loaded model.
        recipe: its ``model``, ``adapter`` and ``training`` sections decide.
        steps: optimiser steps of the training.

    Raises:
        InputError: a word of the recipe names nothing in this model, or a package is missing.
    """
    training = recipe.training
    layout = Layout(family)
    model = choose_trainable(family, recipe.model, recipe.adapter, steps, layout)
    plan = plan_parameters(
        layout, model, training.learning_rate, training.weight_decay, training.rates, training.optimiser
    )
    shared = tied_note(layout, recipe.model.train) if recipe.adapter.kind == "none" else None
    if shared:
        plan.notes.append(shared)
    callbacks: list[TrainerCallback] = []
    if recipe.adapter.kind == "adalora":
        callbacks.append(AllocateRanks(RankAllocation(model)))
    return Trained(model, plan, callbacks)


def preview(recipe: Recipe) -> ParameterPlan:
    """What a recipe would train: its model is loaded, changed as a training would, and let go.

    Where the recipe has stages, the first one's is meant.

    Raises:
        InputError: the model is not on this machine, or a word of the recipe names nothing in it.
    """
    from speechtune.models.family import load_family
    from speechtune.models.obtaining import resolve_model
    from speechtune.training.stages import stages_of

    first = stages_of(recipe, Path("."))[0].recipe
    family = load_family(
        resolve_model(first.model.base), family=first.model.family, language=first.model.language, device="cpu"
    )
    return what_is_trained(family, first, PREVIEW_STEPS).plan


def record(plan: ParameterPlan, directory: Path) -> None:
    """Write ``parameters.json`` and say the plan in one line."""
    write_json(directory / PARAMETERS, plan.to_json())
    note(plan.summary())


class AllocateRanks(TrainerCallback):
    """Lets AdaLoRA give up ranks after every optimiser step that was taken, and go on exactly after a resume."""

    def __init__(self, allocation: RankAllocation) -> None:
        self.allocation = allocation

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Read the importances of the checkpoint that the training continues from."""
        checkpoint = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}"
        if state.global_step > 0 and (checkpoint / STATE).is_file():
            self.allocation.load(checkpoint)

    def on_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """After the weights moved and before gradients are cleared; a step that overflowed (fp16) is passed over."""
        if not getattr(kwargs.get("optimizer"), "step_was_skipped", False):
            self.allocation.step(state.global_step)

    def keep(self, checkpoint: Path) -> None:
        """Called by the trainer before a checkpoint is marked complete."""
        self.allocation.save(checkpoint)
