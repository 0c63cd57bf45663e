"""ACFT: hidden states at a fitted audio context match those of the frozen start at the full one."""

from __future__ import annotations

import torch

from speechtune.models.observe import Needs, taps_of
from speechtune.training.objectives.base import Objective, Scope, Setup, Step
from speechtune.training.objectives.config import AcftConfig
from speechtune.training.objectives.frozen import Frozen, widened


def hidden_distance(student: list[torch.Tensor], other: list[torch.Tensor], weights: torch.Tensor) -> torch.Tensor:
    """Mean over layers and width of the squared difference, then the weighted sum over positions.

    Args:
        student: hidden states by depth, each (positions, width).
        other: as many of the same shapes.
        weights: of the positions, shape (positions,).
    """
    rows = sum(((one - two) ** 2).mean(-1) for one, two in zip(student, other, strict=True))
    return (rows * weights).sum() / len(student)


class Acft:
    """The mean squared difference of hidden states, summed over the chosen parts.

    FUTO's own script (futo-org/whisper-acft) takes the mean over all decoder states of one clip, embeddings and prompt
    included, and its fitted context may be shorter than the clip. Here the positions are those of the labels, clips
    weigh by their labels, and the context is the recipe's (the clip and up to ``jitter_s`` of silence).
    """

    name = "acft"
    scope: Scope = "labels"
    views = 1

    def __init__(self, config: AcftConfig, frozen: Frozen) -> None:
        self.config = config
        self.frozen = frozen
        self.needs = Needs(parts=frozenset(config.parts))

    def weight_at(self, progress: float) -> float:
        """The weight after this share of the run."""
        return self.config.weight_at(progress)

    def __call__(self, step: Step) -> torch.Tensor:
        """The distance between the batch as the student saw it and the frozen start at the full window."""
        other = step.observe(self.frozen, self.needs, "full")
        terms = [
            hidden_distance(step.hidden(step.seen, part), step.hidden(other, part), step.hidden_weights(part))
            for part in self.config.parts
        ]
        return torch.stack(terms).sum()


def build(setup: Setup) -> list[Objective]:
    """The term, with the start of the run kept.

    Raises:
        InputError: the family has one audio context only.
    """
    taps = taps_of(setup.family, "objectives.acft")
    if taps.widen is None:
        widened(taps, setup.family, {})
    setup.frozen.keep()
    return [Acft(setup.config.acft, setup.frozen)]
