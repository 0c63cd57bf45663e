"""Consistency: two passes with dropout and masks of their own must say the same (R-Drop)."""

from __future__ import annotations

import torch

from speechtune.core.errors import InputError
from speechtune.models.observe import Needs
from speechtune.training.objectives.base import Objective, Scope, Setup, Step
from speechtune.training.objectives.config import ConsistencyConfig
from speechtune.training.objectives.kl import divergence


class Consistency:
    """Half the sum of both KL divergences between the views; the batch goes through the model twice in one pass."""

    name = "consistency"
    scope: Scope = "labels"
    needs = Needs(logits=True)
    views = 2

    def __init__(self, config: ConsistencyConfig) -> None:
        self.config = config

    def weight_at(self, progress: float) -> float:
        """The weight after this share of the run."""
        return self.config.weight_at(progress)

    def __call__(self, step: Step) -> torch.Tensor:
        """The weighted sum over the positions of one view."""
        one, two = step.logits(step.seen).chunk(2)
        if self.config.detach:  # each is the student once, and once the target that stands
            rows = (divergence(one, two.detach(), "forward") + divergence(two, one.detach(), "forward")) / 2
        else:
            rows = (divergence(one, two, "forward") + divergence(one, two, "reverse")) / 2
        return (rows * step.label_weights[: len(rows)]).sum() * step.views


def build(setup: Setup) -> list[Objective]:
    """The term.

    Raises:
        InputError: nothing is drawn inside the model, so that both views would be equal.
    """
    if not setup.views_differ and not setup.config.consistency.waveforms:
        raise InputError(
            "objectives.consistency compares two passes that would be equal: set training.dropout, "
            "training.spec_augment.time_prob, objectives.encoder_masks or consistency.waveforms"
        )
    return [Consistency(setup.config.consistency)]
