"""What an objective is, what it is given, and the table of those that exist."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Protocol

import torch

from speechtune.core.errors import InputError
from speechtune.models.config import Context
from speechtune.models.family import Family
from speechtune.models.observe import Batch, Needs, Seen, Taps, frame_weights
from speechtune.training.objectives.config import ObjectivesConfig
from speechtune.training.objectives.frozen import Frozen

IGNORED = -100
Scope = Literal["labels", "step"]


@dataclass(slots=True)
class Step:
    """One micro-batch, seen by the student.

    With two ``views`` everything of the student has twice the rows: first all clips, then all clips again.
    """

    batch: Batch
    seen: Seen
    taps: Taps
    views: int
    observe: Callable[[Frozen, Needs, Context], Seen]
    """What a frozen model shows on the same batch at an audio context, with as many views."""
    autocast: Callable[[], AbstractContextManager[Any]] = nullcontext
    """The Trainer's arithmetic, for terms that compute something of their own."""
    number: int = 0
    """The optimiser step, counted from 0."""
    training: bool = True
    """Whether this is a step of the run and not a try before it."""
    beside: torch.Tensor | None = None
    """Labels of another column, (clips, tokens), padded with -100; a clip without any has none."""

    def logits(self, seen: Seen) -> torch.Tensor:
        """Its logits in float32, (positions, vocabulary); the positions are those of `weights`."""
        assert seen.logits is not None
        found = seen.logits.float()
        return found[:, : self._frames].flatten(0, 1) if self.taps.framewise else found

    def hidden(self, seen: Seen, part: str) -> list[torch.Tensor]:
        """Its hidden states of a part in float32, each (positions, width); see `hidden_weights`."""
        if part == "encoder":
            return [layer[:, : self._frames].float().flatten(0, 1) for layer in seen.hidden[part]]
        counted = self.batch["labels"] != IGNORED
        return [layer[counted].float() for layer in seen.hidden[part]]

    @property
    def _frames(self) -> int:
        """Encoder frames of the student's batch; a frozen model at a longer context shows more."""
        seen = self.seen.hidden["encoder"][0] if "encoder" in self.seen.hidden else self.seen.logits
        assert seen is not None
        return int(seen.shape[1])

    @property
    def label_weights(self) -> torch.Tensor:
        """Weight of every row of `logits`; they sum to the labels of the batch that count."""
        return self._weights("encoder" if self.taps.framewise else "decoder")

    def hidden_weights(self, part: str) -> torch.Tensor:
        """Weight of every row of `hidden`; they sum to the labels of the batch that count."""
        return self._weights(part)

    def _weights(self, part: str) -> torch.Tensor:
        if part == "encoder":
            return frame_weights(self.taps, self.batch, self._frames).flatten() / self.views
        labels = self.batch["labels"]
        return torch.ones(int((labels != IGNORED).sum()), device=labels.device) / self.views


class Objective(Protocol):
    """A term of the loss. A new one is a file with such a class, a block in `config` and a line in `OBJECTIVES`.

    ``scope`` says what its value is: ``labels``, a sum over positions weighted by `Step.label_weights` or
    `Step.hidden_weights` (it is divided by the labels of the whole optimiser step); ``step``, a number that belongs to
    the optimiser step and not to its data (a penalty on the weights).
    """

    name: str
    scope: Scope
    needs: Needs
    views: int

    def weight_at(self, progress: float) -> float:
        """The weight after this share of the run."""

    def __call__(self, step: Step) -> torch.Tensor:
        """The term without its weight, a scalar in float32 with a graph to the student."""


@dataclass(slots=True)
class Setup:
    """What objectives are built from.

    ``trained`` is what the Trainer trains: the family's model, or an adapter around it. ``run`` is the run's directory.
    """

    config: ObjectivesConfig
    family: Family
    trained: torch.nn.Module
    frozen: Frozen
    run: Path
    seed: int
    writes: bool
    """Whether this process writes files: the only one, or rank 0."""
    views_differ: bool
    """Whether two passes over one batch differ by dropout or masks."""

    def weights_by_name(self, parts: list[str], term: str) -> dict[str, torch.nn.Parameter]:
        """The trained weights, all or those of some parts.

        Raises:
            InputError: they are those of an adapter, or sharded, or there are none.
        """
        if self.trained is not self.family.model:
            raise InputError(
                f"objectives.{term} holds weights near their start and an adapter leaves them there: use objectives.kl"
            )
        named = {name: one for name, one in self.family.model.named_parameters() if one.requires_grad}
        if parts:
            chosen = {id(one) for part in parts for one in self.family.part(part).parameters()}
            named = {name: one for name, one in named.items() if id(one) in chosen}
        if not named:
            raise InputError(f"objectives.{term}: no weight of {' and '.join(parts) or 'the model'} is trained")
        return named


OBJECTIVES = {
    "kl": "speechtune.training.objectives.kl:build",
    "acft": "speechtune.training.objectives.acft:build",
    "distil": "speechtune.training.objectives.distil:build",
    "consistency": "speechtune.training.objectives.consistency:build",
    "l2sp": "speechtune.training.objectives.l2sp:build",
    "ewc": "speechtune.training.objectives.ewc:build",
    "inter_ctc": "speechtune.training.objectives.ctc_terms:build_inter",
    "second_ctc": "speechtune.training.objectives.ctc_terms:build_second",
    "grpo": "speechtune.training.objectives.grpo:build",
}
"""Key in `ObjectivesConfig` -> what builds its terms: ``build(setup) -> list[Objective]``.

Those that may copy the whole model stand before those that can do with its trained weights."""
