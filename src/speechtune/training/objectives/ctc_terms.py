"""CTC losses beside the main one: on intermediate layers, and over a second vocabulary."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from speechtune.core.errors import InputError
from speechtune.models.ctc_loading import SECOND_HEAD
from speechtune.models.ctc_network import summed_ctc_loss
from speechtune.models.observe import IGNORED, Needs
from speechtune.training.objectives.base import Objective, Scope, Setup, Step
from speechtune.training.objectives.config import InterCtcConfig, SecondCtcConfig


class _OnHidden:
    """What both terms have: the encoder's hidden states, and how many frames of each clip count."""

    scope: Scope = "labels"
    needs = Needs(parts=frozenset({"encoder"}))
    views = 1

    def __init__(self, family: Any) -> None:
        self.family = family

    def _hidden(self, step: Step, depth: float) -> torch.Tensor:
        """Hidden states behind the first ``depth`` of the blocks, through the final norm, (batch, frames, width)."""
        seen = step.seen.hidden["encoder"]
        block = max(1, round(depth * len(seen)))
        hidden = seen[block - 1].float()
        last = step.taps.last["encoder"]
        if block < len(seen) and last is not step.taps.blocks["encoder"][-1]:
            hidden = last(hidden)
        return hidden

    def _frames(self, step: Step) -> torch.Tensor:
        assert step.taps.frames is not None
        return step.taps.frames(step.batch)


class InterCtc(_OnHidden):
    """The labels' CTC loss of intermediate layers through the model's own output layer, the mean over the layers."""

    name = "inter_ctc"

    def __init__(self, config: InterCtcConfig, family: Any) -> None:
        super().__init__(family)
        self.config = config

    def weight_at(self, progress: float) -> float:
        """The weight after this share of the run."""
        return self.config.weight_at(progress)

    def __call__(self, step: Step) -> torch.Tensor:
        """The sum over the clips of the batch."""
        head, blank = self.family.part("head"), int(self.family.config.pad_token_id)
        total = torch.zeros((), device=step.batch["labels"].device)
        for depth in self.config.layers:
            logits = head(self._hidden(step, depth))
            total = total + summed_ctc_loss(logits, self._frames(step), step.batch["labels"], blank)[0]
        return total / (len(self.config.layers) * step.views)


class SecondCtc(_OnHidden):
    """The CTC loss of the same texts in a second vocabulary, through an output layer of its own."""

    name = "second_ctc"

    def __init__(self, config: SecondCtcConfig, family: Any) -> None:
        super().__init__(family)
        self.config = config

    def weight_at(self, progress: float) -> float:
        """The weight after this share of the run."""
        return self.config.weight_at(progress)

    def __call__(self, step: Step) -> torch.Tensor:
        """The sum over the clips of the batch."""
        head = self.family.model.get_submodule(SECOND_HEAD)
        logits, frames = head(self._hidden(step, self.config.depth)), self._frames(step)
        if self.config.column is None or step.beside is None:  # the preflight's batches hold no other column
            labels = self.labels(step.batch["labels"])
        else:
            labels = step.beside.repeat(step.views, 1)
            known = (labels != IGNORED).any(1)
            if not bool(known.any()):
                return logits.sum() * 0.0
            logits, frames, labels = logits[known], frames[known], labels[known]
        return summed_ctc_loss(logits, frames, labels, self.family.second.blank)[0] / step.views

    def labels(self, labels: torch.Tensor) -> torch.Tensor:
        """The second vocabulary's labels for those of the first, (batch, tokens), padded with -100."""
        rows: list[Sequence[int]] = []
        for row in labels:
            rows.append(self.family.second.encode(self.family.text(row[row != IGNORED].tolist())))
        longest = max(1, *(len(row) for row in rows)) if rows else 1
        padded = torch.full((len(rows), longest), IGNORED, device=labels.device)
        for place, row in enumerate(rows):
            padded[place, : len(row)] = torch.tensor(row, dtype=torch.long)
        return padded


def _check(setup: Setup, term: str) -> None:
    family: Any = setup.family
    if family.name != "ctc":
        raise InputError(f"objectives.{term} is a CTC loss and this is a {family.name} model: leave it out")
    dropped = any(float(getattr(one, "layerdrop", 0.0) or 0.0) > 0 for one in (family.config, *family.model.modules()))
    if dropped:
        raise InputError(f"objectives.{term} needs every layer in every step: set model.ctc.layerdrop=0")
    if getattr(family.config, "add_adapter", False):
        raise InputError(
            f"objectives.{term} needs as many frames behind every layer: this model has convolutions after them"
        )


def build_inter(setup: Setup) -> list[Objective]:
    """The term over intermediate layers.

    Raises:
        InputError: the model has no CTC head, or leaves layers out at random.
    """
    _check(setup, "inter_ctc")
    return [InterCtc(setup.config.inter_ctc, setup.family)]


def build_second(setup: Setup) -> list[Objective]:
    """The term over the second vocabulary; its output layer was made with the family's texts.

    Raises:
        InputError: the model has no CTC head, leaves layers out at random, or an adapter is trained.
    """
    _check(setup, "second_ctc")
    if setup.trained is not setup.family.model:
        raise InputError(
            "objectives.second_ctc trains an output layer of its own, which an adapter cannot hold: use "
            "objectives.inter_ctc"
        )
    return [SecondCtc(setup.config.second_ctc, setup.family)]
