"""KL divergence to the frozen start of the run."""

from __future__ import annotations

from typing import Literal

import torch
from torch.nn import functional

from speechtune.models.config import Context
from speechtune.models.observe import Needs
from speechtune.training.objectives.base import Objective, Scope, Setup, Step
from speechtune.training.objectives.config import KlConfig
from speechtune.training.objectives.frozen import Frozen


def divergence(
    student: torch.Tensor, other: torch.Tensor, direction: Literal["forward", "reverse"], temperature: float = 1.0
) -> torch.Tensor:
    """KL of every row, shape (positions,), from logits (positions, vocabulary), times the temperature's square.

    forward: KL(other || student); reverse: KL(student || other).
    """
    log_student = functional.log_softmax(student / temperature, -1)
    log_other = functional.log_softmax(other / temperature, -1)
    target, given = (log_other, log_student) if direction == "forward" else (log_student, log_other)
    return functional.kl_div(given, target, reduction="none", log_target=True).sum(-1) * temperature**2


class Divergence:
    """The KL term against a frozen model: the run's start, or a teacher."""

    scope: Scope = "labels"
    needs = Needs(logits=True)
    views = 1

    def __init__(self, name: str, config: KlConfig, frozen: Frozen, context: Context) -> None:
        self.name = name
        self.config = config
        self.frozen = frozen
        self.context = context

    def weight_at(self, progress: float) -> float:
        """The weight after this share of the run."""
        return self.config.weight_at(progress)

    def __call__(self, step: Step) -> torch.Tensor:
        """The weighted sum of the divergences over the positions of the batch."""
        other = step.logits(step.observe(self.frozen, self.needs, self.context))
        rows = divergence(step.logits(step.seen), other, self.config.direction, self.config.temperature)
        return (rows * step.label_weights).sum()


def build(setup: Setup) -> list[Objective]:
    """The term, with the start of the run kept; both see the batch at the student's audio context."""
    setup.frozen.keep()
    return [Divergence("kl", setup.config.kl, setup.frozen, "fit")]
