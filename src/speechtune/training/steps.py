"""Optimiser steps of a fixed size: the same utterances in every step, whatever the micro-batch and the processes.

With ``batch.effective`` an epoch's utterances are first dealt into steps, then cut into micro-batches, and these
are dealt to the processes. The loss is a sum over labels divided by their number in the whole step, so every way of
cutting gives the same gradient.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from speechtune.core.errors import InputError
from speechtune.training.data import BucketSampler, Collator, Pick, TrainingSet, repeated


class StepSampler(BucketSampler):
    """A `BucketSampler` whose items are optimiser steps: each a list of this process's micro-batches."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.steps = lru_cache(maxsize=2)(self._steps)

    def _steps(self, epoch: int) -> list[list[list[Pick]]]:
        """The steps of one epoch, each the micro-batches of all processes.

        An epoch has the number of steps that comes nearest to the size asked for, and they share it evenly. The
        utterances of a step are drawn at random (with a curriculum, in its order) and sorted by context within it.

        Raises:
            InputError: a step has fewer utterances than there are processes.
        """
        contexts_s = self.contexts_s(epoch)
        picks = [self._pick(epoch, number, float(context_s)) for number, context_s in enumerate(contexts_s)]
        order = np.random.default_rng((self.seed, epoch, 1)).permutation(len(picks))
        if self.draw is not None and self.draw.difficulty is not None and self.draw.is_sorted(epoch):
            difficulty = self.draw.difficulty
            hardness = np.array([np.mean([difficulty[one] for one in pick.indices]) for pick in picks])
            order = order[np.argsort(hardness[order], kind="stable")]
        utterances = np.array([float(len(pick.indices)) for pick in picks])
        sizes = (utterances if self.batch.effective else self.lengths_s(epoch))[order]
        target = float(self.batch.effective or self.batch.effective_seconds or 1)
        count = max(1, round(sizes.sum() / target))
        middles = (np.cumsum(sizes) - sizes / 2) / sizes.sum()
        step_of = np.minimum((middles * count).astype(int), count - 1)
        steps = []
        for number in np.unique(step_of):
            own = sorted((picks[place] for place in order[step_of == number]), key=lambda p: (p.context_s, p.place))
            if len(own) < self.world:
                raise InputError(
                    f"an optimiser step has {len(own)} examples and there are {self.world} processes: raise "
                    "training.batch.effective, or use fewer processes"
                )
            steps.append(self._dealt(own))
        return repeated(steps, 1, self.updates)

    def _dealt(self, picks: list[Pick]) -> list[list[Pick]]:
        """Micro-batches within the bounds; the largest are halved until processes have equally many."""
        batches: list[list[Pick]] = []
        for pick in picks:
            if batches and self._fits(batches[-1], pick):
                batches[-1].append(pick)
            else:
                batches.append([pick])
        while len(batches) % self.world:
            largest = max(range(len(batches)), key=lambda place: len(batches[place]) * batches[place][-1].context_s)
            sizes = [len(batch) for batch in batches]
            if sizes[largest] == 1:
                largest = int(np.argmax(sizes))
            if sizes[largest] == 1:
                break
            half = -(-sizes[largest] // 2)
            batches[largest : largest + 1] = [batches[largest][:half], batches[largest][half:]]
        return batches

    def _plan(self, epoch: int) -> list[list[Pick]]:
        return [batch for step in self._steps(epoch) for batch in step]

    def epoch_ends(self) -> list[int]:
        """Optimiser steps at the end of each epoch, counted from the start of the training."""
        return np.cumsum([len(self.steps(epoch)) for epoch in range(self.epochs)]).tolist()

    def __iter__(self) -> Iterator[list[list[Pick]]]:  # type: ignore[override]
        for epoch in range(self.epochs):
            for step in self.steps(epoch):
                yield step[self.rank :: self.world]


class StepSet(Dataset[list[Any]]):
    """A `TrainingSet` that is asked for a whole micro-batch at a time."""

    def __init__(self, data: TrainingSet) -> None:
        self.data = data

    def __getitem__(self, picks: list[Pick]) -> list[Any]:
        return [self.data[pick] for pick in picks]


class StepCollator:
    """The micro-batches of a step, each collated by itself."""

    def __init__(self, collate: Collator) -> None:
        self.collate = collate

    def __call__(self, batches: list[list[Any]]) -> list[dict[str, torch.Tensor]]:
        return [self.collate(batch) for batch in batches]
