"""A model that is only looked at: the frozen start of a run, or a teacher."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from speechtune.core.errors import InputError
from speechtune.models.config import Context
from speechtune.models.family import Family
from speechtune.models.observe import Batch, Needs, Seen, Taps, taps_of, watch


class Frozen:
    """The weights a run starts from (or a teacher's), as a model that never changes.

    The start is held once, whatever asks for it, and only when something does: as a copy, or, where adapters are all
    that is trained, as the model itself with its adapters switched off.
    """

    def __init__(self, family: Family, trained: torch.nn.Module | None = None) -> None:
        """``trained``: what a run trains, if this is its start; ``None``: ``family`` itself is the frozen model."""
        self._family = family
        self._trained = trained
        self._copy: Family | None = family if trained is None else None
        if trained is None:
            family.model.eval().requires_grad_(False)

    @property
    def by_switching(self) -> bool:
        """Whether the start is the trained model without its adapters."""
        if self._trained is None or self._trained is self._family.model:
            return False
        trained = [name for name, one in self._trained.named_parameters() if one.requires_grad]
        return all("lora_" in name for name in trained)

    def keep(self) -> None:
        """Hold the present weights; must be called before the first step."""
        if self._copy is None and not self.by_switching:
            self._copy = copy.copy(self._family)
            self._copy.model = copy.deepcopy(self._family.model).eval().requires_grad_(False)

    def held_weights(self) -> dict[str, torch.Tensor] | None:
        """The weights of the copy by name, if there is a copy."""
        return dict(self._copy.model.named_parameters()) if self._copy is not None else None

    @property
    def family(self) -> Family:
        """The family whose model is looked at."""
        return self._copy or self._family

    @contextmanager
    def looked_at(self) -> Iterator[Family]:
        """The family, its model in evaluation mode, without its adapters, and without a graph."""
        adapted = self._trained if self.by_switching else None
        with torch.no_grad(), _switched_off(adapted, self.family.model):
            yield self.family

    @torch.no_grad()
    def observe(
        self, batch: Batch, needs: Needs, context: Context, autocast: Callable[[], AbstractContextManager[Any]]
    ) -> Seen:
        """What the frozen model shows on a batch at its own audio context (``fit``) or at the full window.

        Raises:
            InputError: the full window is wanted of a family that has none.
        """
        family = self.family
        taps = taps_of(family, "a frozen model")
        shown = widened(taps, family, batch) if context == "full" else dict(batch)
        adapted = self._trained if self.by_switching else None
        with _switched_off(adapted, family.model), autocast(), watch(taps, needs) as seen:
            family.model(**shown)
        return seen


def widened(taps: Taps, family: Family, batch: Batch) -> dict[str, torch.Tensor]:
    """The batch at the full audio context.

    Raises:
        InputError: the family has one audio context only.
    """
    if taps.widen is None:
        raise InputError(f"models of family {family.name!r} have no full window: set the term's context to fit")
    return taps.widen(batch, family.context_frames(family.limits.max_audio_s, "full"))


@contextmanager
def _switched_off(trained: Any, model: torch.nn.Module) -> Iterator[None]:
    """Evaluation mode, and no adapter where there are some; afterwards all is as it was."""
    was_training = model.training
    model.eval()
    try:
        if trained is None:
            yield
        else:
            with trained.disable_adapter():
                yield
    finally:
        model.train(was_training)
