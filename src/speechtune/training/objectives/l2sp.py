"""L2-SP: the squared distance to the starting weights."""

from __future__ import annotations

from collections.abc import Mapping

import torch

from speechtune.core.errors import InputError
from speechtune.models.observe import Needs
from speechtune.training.objectives.base import Objective, Scope, Setup, Step
from speechtune.training.objectives.config import Weighted


class WeightPenalty:
    """Half the sum of importance x (weight - start)^2; without importances each counts 1."""

    scope: Scope = "step"
    needs = Needs()
    views = 1

    def __init__(
        self,
        name: str,
        config: Weighted,
        weights: Mapping[str, torch.nn.Parameter],
        start: Mapping[str, torch.Tensor],
        importance: Mapping[str, torch.Tensor] | None = None,
    ) -> None:
        self.name = name
        self.config = config
        self.weights = weights
        self.start = start
        self.importance = importance

    def weight_at(self, progress: float) -> float:
        """The weight after this share of the run."""
        return self.config.weight_at(progress)

    def __call__(self, step: Step) -> torch.Tensor:
        """The penalty.

        Raises:
            InputError: the weights were sharded after the start was kept.
        """
        terms = []
        for name, weight in self.weights.items():
            start = self.start[name]
            if weight.shape != start.shape or type(weight.data) is not type(start.data):
                raise InputError(f"objectives.{self.name} needs whole weights and FSDP shards them: use objectives.kl")
            squared = (weight.float() - start) ** 2
            terms.append((squared if self.importance is None else self.importance[name] * squared).sum())
        return torch.stack(terms).sum() / 2


def starting_weights(setup: Setup, weights: Mapping[str, torch.nn.Parameter]) -> dict[str, torch.Tensor]:
    """The present values of some weights: those of the frozen copy where there is one, else copies of their own."""
    held = setup.frozen.held_weights()
    if held is not None:
        return {name: held[name] for name in weights}
    return {name: one.detach().clone() for name, one in weights.items()}


def build(setup: Setup) -> list[Objective]:
    """The term.

    Raises:
        InputError: an adapter is trained, or no weight of the chosen parts.
    """
    weights = setup.weights_by_name(list(setup.config.l2sp.parts), "l2sp")
    return [WeightPenalty("l2sp", setup.config.l2sp, weights, starting_weights(setup, weights))]
