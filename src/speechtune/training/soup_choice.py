"""How a soup's weights are chosen: greedily on dev WER, or learned on dev loss."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from speechtune.core.errors import InputError
from speechtune.core.progress import note, track
from speechtune.corpus.table import Corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.models.family import Family
from speechtune.training.dev_loss import dev_loss, label_batches
from speechtune.training.monitor.measures import layer_group
from speechtune.training.soups import Member, Weights

Vector = tuple[float, ...]
"""One weight a member, summing to 1."""


def mean_of(vectors: Sequence[Vector]) -> Vector:
    """The soup of soups: the mean of weight vectors over the same members."""
    return tuple(sum(column) / len(vectors) for column in zip(*vectors, strict=True))


def greedy(ingredients: Sequence[Vector], scores: Sequence[float], score_of: Callable[[Vector], float]) -> list[int]:
    """Which ingredients stay, best first: each is tried in the order of its own score and kept if it does no harm.

    The greedy soup of Wortsman et al. 2022 (recipe 1). The lower the score the better; equal scores are tried in the
    order given.

    Args:
        ingredients: a weight vector each, over the members.
        scores: of each alone.
        score_of: the score of a weight vector.
    """
    order = sorted(range(len(ingredients)), key=lambda place: scores[place])
    kept, best = [order[0]], scores[order[0]]
    for place in order[1:]:
        score = score_of(mean_of([ingredients[one] for one in [*kept, place]]))
        note(f"greedy: with ingredient {place + 1}: {100 * score:.2f} %, without {100 * best:.2f} %")
        if score <= best:
            kept, best = [*kept, place], score
    return kept


@dataclass(slots=True)
class Learned:
    """Learned weights by group of layers, and the dev loss (nats a token) at the start and with them."""

    weights: dict[str, list[float]]
    loss_uniform: float
    loss: float
    passes: int


class SoupLearner:
    """Few scalars, one a member (and group of layers), under a softmax, fitted to a labelled set's loss.

    The gradient of a member's weight is the inner product of the loss's gradient at the soup with the member's own
    weights, so one backward pass a batch serves every member. Adam, from equal weights; the best by the loss on the
    whole set is kept, and it is never worse than equal weights.
    """

    def __init__(
        self, family: Family, members: Sequence[Member], ingredients: Sequence[Vector], per_layer: bool
    ) -> None:
        self.family = family
        self.group = layer_group if per_layer else lambda name: ""
        self.parameters = dict(family.model.named_parameters())
        missing = set(self.parameters) - set(members[0].files)
        if missing:
            raise InputError(f"{members[0].name} stores no weight {min(missing)}: it cannot be learned")
        self.values = {name: self._mixes(name, members, ingredients) for name in self.parameters}
        groups = sorted({self.group(name) for name in self.parameters})
        self.theta = {group: torch.zeros(len(ingredients), dtype=torch.float64) for group in groups}
        for parameter in self.parameters.values():
            parameter.requires_grad_(True)

    def _mixes(self, name: str, members: Sequence[Member], ingredients: Sequence[Vector]) -> torch.Tensor:
        stack = torch.stack([member.tensor(name).float() for member in members])
        flat = torch.tensor(ingredients, dtype=torch.float32) @ stack.flatten(1)
        return flat.view(len(ingredients), *stack.shape[1:]).to(self.parameters[name].device)

    @torch.no_grad()
    def put(self) -> None:
        """Write the soup of the present weights into the model."""
        for name, parameter in self.parameters.items():
            share = self.theta[self.group(name)].softmax(0).to(parameter)
            parameter.copy_(torch.tensordot(share, self.values[name], dims=1))

    def gradient(self, batch: Mapping[str, torch.Tensor], labels: int) -> dict[str, torch.Tensor]:
        """The gradient of a batch's mean loss by the scalars before the softmax."""
        self.put()
        self.family.model.zero_grad()
        self.family.model(**batch, num_items_in_batch=labels).loss.backward()
        by_weight = {group: torch.zeros_like(theta) for group, theta in self.theta.items()}
        for name, parameter in self.parameters.items():
            if parameter.grad is not None:
                own = (self.values[name] * parameter.grad).flatten(1).double().sum(1)
                by_weight[self.group(name)] += own.cpu()
        found = {}
        for group, theta in self.theta.items():
            share = theta.softmax(0)
            found[group] = share * (by_weight[group] - (share * by_weight[group]).sum())
        return found

    def learn(self, corpus: Corpus, config: DecodingConfig, passes: int, rate: float, lower: bool) -> Learned:
        """Fit the scalars with ``passes`` over a corpus, and leave the best in the model."""
        self.family.model.eval()
        optimiser = torch.optim.Adam(list(self.theta.values()), lr=rate)
        batches: list[Any] = list(label_batches(self.family, corpus, config, lower))
        first = self._loss(corpus, config, lower)
        best, kept = first, {group: theta.clone() for group, theta in self.theta.items()}
        for _ in track(range(passes), "learn the soup's weights"):
            for batch, labels in batches:
                for group, gradient in self.gradient(batch, labels).items():
                    self.theta[group].grad = gradient
                optimiser.step()
            loss = self._loss(corpus, config, lower)
            if loss < best:
                best, kept = loss, {group: theta.clone() for group, theta in self.theta.items()}
        self.theta = kept
        self.put()
        weights = {group: theta.softmax(0).tolist() for group, theta in kept.items()}
        return Learned(weights, first, best, passes)

    def _loss(self, corpus: Corpus, config: DecodingConfig, lower: bool) -> float:
        self.put()
        loss = dev_loss(self.family, corpus, config, lower)
        if loss is None:
            raise InputError(f"{corpus.root} has no labels that the model can be given: choose another --split")
        return loss


def over_members(weights: Mapping[str, Sequence[float]], ingredients: Sequence[Vector]) -> Weights:
    """Weights of ingredients, by group, as weights of the members."""
    return {
        group: [
            sum(w * one[place] for w, one in zip(values, ingredients, strict=True))
            for place in range(len(ingredients[0]))
        ]
        for group, values in weights.items()
    }
