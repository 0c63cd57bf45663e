"""The loss of a run: the labels' cross-entropy and the terms of ``training.objectives``, weighted and added."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from functools import reduce
from importlib import import_module
from operator import or_
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback

from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.models.config import Context
from speechtune.models.disturb import HiddenMask, set_hidden_masks, set_layer_drop
from speechtune.models.family import Family
from speechtune.models.observe import IGNORED, Needs, Observable, Seen, Taps, taps_of, watch
from speechtune.training.asides import apart
from speechtune.training.config import TrainingConfig
from speechtune.training.objectives.base import OBJECTIVES, Objective, Setup, Step
from speechtune.training.objectives.frozen import Frozen

Items = torch.Tensor | int | None


@dataclass(frozen=True, slots=True)
class Call:
    """One micro-batch as the Trainer hands it over.

    Attributes:
        inputs: the model's keyword arguments.
        items: labels of the whole optimiser step over all processes; ``None``: this micro-batch stands for itself.
        forward: the Trainer's own loss of a batch and a number of items (scaled by the number of processes).
        autocast: what the Trainer's arithmetic is; a frozen model computes in the same.
        progress: share of the run that is over.
        processes: how many take part in the step.
        training: whether this is a step of the run, whose terms are logged (the preflight's are not).
    """

    inputs: Mapping[str, Any]
    items: Items
    forward: Callable[[dict[str, Any], Items], torch.Tensor]
    autocast: Callable[[], AbstractContextManager[Any]]
    progress: float
    processes: int
    training: bool
    step: int = 0
    """The optimiser step, counted from 0."""


class Objectives:
    """All terms of a run.

    With N labels in the optimiser step (all micro-batches, all processes), a term over label positions is its weighted
    sum over all of them divided by N, and a term of the step counts once: each micro-batch adds its share of N. So the
    sum of losses, and of gradients, does not depend on how the step is cut.
    """

    def __init__(self, label_weight: float, terms: list[Objective], taps: Taps | None) -> None:
        self.label_weight = label_weight
        self.terms = terms
        self.taps = taps
        self.needs = reduce(or_, (term.needs for term in terms), Needs())
        self.views = max((term.views for term in terms), default=1)
        self._sums: dict[str, torch.Tensor] = {}
        self._weights: dict[str, float] = {}
        self._steps: set[float] = set()

    def loss(self, call: Call) -> torch.Tensor:
        """The loss of one micro-batch, a scalar to call ``backward`` on."""
        batch, second, beside = apart(call.inputs)
        call = replace(call, inputs=batch)
        if self.views > 1:
            batch = {
                name: torch.cat([value, *[second.get(name, value)] * (self.views - 1)]) for name, value in batch.items()
            }
        counted = (call.inputs["labels"] != IGNORED).sum()
        total: Any = counted if call.items is None else call.items / call.processes
        items = call.items if call.items is None else call.items * self.views
        seen = Seen()
        if self.taps is None:
            labels = call.forward(batch, items)
        else:
            with watch(self.taps, self.needs) as seen:
                labels = call.forward(batch, items)
        self._record("label_loss", labels, call)
        result = self.label_weight * labels if self.label_weight > 0 else labels.new_zeros(())
        for term, value in self._values(call, batch, seen, beside).items():
            scaled = value / total if term.scope == "labels" else value * (counted / total)
            weight = term.weight_at(call.progress)
            self._record(term.name, scaled, call)
            self._weights[term.name] = weight
            result = result + weight * scaled
        return result

    def _values(
        self, call: Call, batch: dict[str, Any], seen: Seen, beside: torch.Tensor | None
    ) -> dict[Objective, torch.Tensor]:
        shown: dict[tuple[int, Needs, Context], Seen] = {}
        union: dict[int, Needs] = {}
        for term in self.terms:
            frozen = getattr(term, "frozen", None) or getattr(term, "teacher", None)
            union[id(frozen)] = union.get(id(frozen), Needs()) | term.needs

        def observe(frozen: Frozen, needs: Needs, context: Context) -> Seen:
            # One pass of a frozen model serves all terms that look at it in the same context.
            wanted = union.get(id(frozen), needs) | needs
            key = (id(frozen), wanted, context)
            if key not in shown:
                shown[key] = _doubled(frozen.observe(call.inputs, wanted, context, call.autocast), self.views)
            return shown[key]

        device = call.inputs["labels"].device.type
        with torch.autocast(device, enabled=False):
            how = {"autocast": call.autocast, "number": call.step, "training": call.training, "beside": beside}
            step = Step(batch, seen, self.taps, self.views, observe, **how) if self.taps is not None else None  # type: ignore[arg-type]
            return {term: term(step) for term in self.terms}  # type: ignore[arg-type]

    def _record(self, name: str, value: torch.Tensor, call: Call) -> None:
        if call.training:
            self._steps.add(call.progress)
            known = self._sums.get(name)
            self._sums[name] = value.detach().float() + (0 if known is None else known)

    def columns(self, gather: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """Mean of every term, without its weight, over the optimiser steps since the last call.

        ``gather`` joins the processes' values of a tensor. A weight that changes over the run has a column as well.
        """
        steps = len(self._steps)
        found = {name: _six_digits(float(gather(value).mean()) / steps) for name, value in self._sums.items()}
        self._sums, self._steps = {}, set()
        for term in self.terms:
            if term.weight_at(0) != term.weight_at(1) and term.name in self._weights:
                found[f"{term.name}_weight"] = _six_digits(self._weights[term.name])
            if hasattr(term, "columns"):
                found |= term.columns(gather)
        return found

    @property
    def callbacks(self) -> list[TrainerCallback]:
        """What keeps a term's own state in checkpoints."""
        from speechtune.training.objectives.grpo_samples import KeepSamples

        return [KeepSamples(term) for term in self.terms if getattr(term, "name", "") == "grpo"]  # type: ignore[arg-type]


def _six_digits(value: float) -> float:
    return float(f"{value:.6g}")


def _doubled(seen: Seen, views: int) -> Seen:
    if views == 1:
        return seen
    logits = None if seen.logits is None else torch.cat([seen.logits] * views)
    return Seen(logits, {part: [torch.cat([one] * views) for one in found] for part, found in seen.hidden.items()})


def objectives_for(config: TrainingConfig, family: Family, trained: torch.nn.Module, run: Path) -> Objectives | None:
    """What a recipe's ``training.objectives`` asks for, ``None`` where that is the labels' loss alone.

    Call it once for every fit, with the weights it starts from in ``family.model``, after freezing and adapters and
    before the first step or the load of a checkpoint: the present weights are those that terms hold on to. It also
    sets block skipping and encoder masks.

    Raises:
        InputError: a term cannot be had with this family, adapter, teacher or proxy corpus.
    """
    wanted = config.objectives
    names = [name for name in OBJECTIVES if getattr(wanted, name).enabled]
    if wanted.grpo.enabled:
        from speechtune.training.objectives.grpo import check

        check(config)
    if config.sharding != "none" and (wanted.inter_ctc.enabled or wanted.second_ctc.enabled):
        raise InputError("inter_ctc and second_ctc use an output layer by itself: set training.sharding=none")
    frozen = Frozen(family, trained)
    setup = Setup(
        config=wanted,
        family=family,
        trained=trained,
        frozen=frozen,
        run=run,
        seed=config.seed,
        writes=int(os.environ.get("RANK", 0)) == 0,
        views_differ=_draws_inside(config, family),
    )
    terms: list[Objective] = []
    for name in names:
        module, function = OBJECTIVES[name].split(":")
        terms += getattr(import_module(module), function)(setup)
    _disturb(config, family)
    if terms and not getattr(family.model, "divided", True):
        raise InputError("model.ctc.reduction=sum has no common unit with objectives: set it to tokens")
    if not terms and wanted.label_weight == 1.0:
        return None
    needs_taps = any(term.needs != Needs() or term.scope == "labels" for term in terms)
    if needs_taps and config.compile:
        raise InputError(
            f"training.compile hides what objectives.{names[0]} must see of the model: set training.compile=false"
        )
    taps = taps_of(family, f"objectives.{names[0]}") if needs_taps else None
    if terms:
        note("objectives: " + ", ".join([f"{wanted.label_weight:g} x labels", *(term.name for term in terms)]))
    return Objectives(wanted.label_weight, terms, taps)


def _draws_inside(config: TrainingConfig, family: Family) -> bool:
    masks = config.spec_augment.time_prob > 0 or config.spec_augment.feature_prob > 0
    inner: Any = family.model
    names = ("p", "dropout", "attention_dropout", "activation_dropout")
    dropout = any(
        isinstance(module.__dict__.get(name), float) and module.__dict__[name] > 0
        for module in inner.modules()
        for name in names
        if not isinstance(module, HiddenMask)
    )
    return masks or dropout or config.objectives.encoder_masks.enabled


def _disturb(config: TrainingConfig, family: Family) -> None:
    """Set, or end, block skipping and encoder masks on the family's model."""
    drop, masks = config.objectives.layer_drop, config.objectives.encoder_masks
    asked = drop.encoder > 0 or drop.decoder > 0 or masks.enabled
    if not asked and not isinstance(family, Observable):
        return
    taps = taps_of(family, "layer_drop or encoder_masks in training.objectives")
    set_layer_drop(taps, {"encoder": drop.encoder, "decoder": drop.decoder})
    set_hidden_masks(family.model, taps, masks.as_counts())
