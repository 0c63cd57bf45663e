"""Watching a model from inside: its logits and hidden states during an ordinary forward pass.

Objectives (KL, ACFT, distillation, ...) need more than the loss. They read it through forward hooks on the modules
that a family names, so that the pass itself (DistributedDataParallel, autocast, adapters) stays what it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import torch

from speechtune.core.errors import InputError
from speechtune.models.family import Family

IGNORED = -100
Batch = Mapping[str, torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Taps:
    """Where a model's inner values come out.

    Attributes:
        logits: its output, or that output's ``logits``, is (labels that count, vocabulary), in the order of
            ``labels[labels != -100]``; or, if ``framewise``, (batch, frames, vocabulary).
        framewise: whether logits belong to frames (CTC) and not to labels.
        blocks: the blocks of each part (``encoder``, ``decoder``), first to last; outputs (batch, positions, width).
        last: what follows the last block of each part (its LayerNorm).
        front_end: the last layer before the encoder's blocks, with an output of shape (batch, channels, frames), or
            (batch, frames, channels) if not ``frames_last``; ``None``: it cannot be masked here.
        frames_last: see ``front_end``.
        frames: from a batch to the encoder frames of each clip that are not padding, shape (batch,); ``None``: all
            frames count (Whisper knows no padding).
        widen: from a batch and a number of feature frames to the same clips at that longer audio context; ``None``:
            the family has one context only.
        droppable: whether a block may be skipped by returning its input (see `speechtune.models.disturb`).
    """

    logits: torch.nn.Module
    framewise: bool = False
    blocks: Mapping[str, Sequence[torch.nn.Module]]
    last: Mapping[str, torch.nn.Module]
    front_end: torch.nn.Module | None = None
    frames_last: bool = True
    frames: Callable[[Batch], torch.Tensor] | None = None
    widen: Callable[[Batch, int], dict[str, torch.Tensor]] | None = None
    droppable: bool = True


@runtime_checkable
class Observable(Protocol):
    """A family that shows its logits and hidden states."""

    def taps(self) -> Taps:
        """Where they come out, for the modules that ``model`` has at present."""


def taps_of(family: Family, purpose: str) -> Taps:
    """The taps of a family.

    Raises:
        InputError: it has none; ``purpose`` says in the message what they were wanted for.
    """
    if not isinstance(family, Observable):
        raise InputError(f"models of family {family.name!r} do not show their hidden states: {purpose} is not for them")
    return family.taps()


@dataclass(frozen=True, slots=True)
class Needs:
    """What is to be watched: the logits, and the hidden states of some parts."""

    logits: bool = False
    parts: frozenset[str] = frozenset()

    def __or__(self, other: Needs) -> Needs:
        return Needs(self.logits or other.logits, self.parts | other.parts)


@dataclass(slots=True)
class Seen:
    """What a forward pass showed, as the model computed it (its dtype, its graph).

    ``hidden[part]`` is a list by depth: the output of every block but the last, then that of the part's final
    LayerNorm (Transformers' ``hidden_states`` without the embeddings); each (batch, positions, width).
    """

    logits: torch.Tensor | None = None
    hidden: dict[str, list[torch.Tensor]] = field(default_factory=dict)


@contextmanager
def watch(taps: Taps, needs: Needs) -> Iterator[Seen]:
    """Collect what one forward pass inside the ``with`` shows.

    Raises:
        InputError: a part is wanted that the model does not have.
    """
    seen = Seen()
    handles = []

    def keep_logits(module: torch.nn.Module, inputs: Any, output: Any) -> None:
        seen.logits = getattr(output, "logits", output)

    def keep(part: str) -> Callable[..., None]:
        def hook(module: torch.nn.Module, inputs: Any, output: Any) -> None:
            seen.hidden.setdefault(part, []).append(output[0] if isinstance(output, tuple) else output)

        return hook

    try:
        if needs.logits:
            handles.append(taps.logits.register_forward_hook(keep_logits))
        for part in sorted(needs.parts):
            if part not in taps.blocks:
                raise InputError(f"the model has no {part}: it has {' and '.join(sorted(taps.blocks))}")
            modules = [*taps.blocks[part][:-1], taps.last[part]]
            handles += [module.register_forward_hook(keep(part)) for module in modules]
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def label_counts(labels: torch.Tensor) -> torch.Tensor:
    """How many labels of each clip count, shape (batch,)."""
    return (labels != IGNORED).sum(1)


def frame_weights(taps: Taps, batch: Batch, frames: int) -> torch.Tensor:
    """Weight of every encoder frame, shape (batch, frames): a clip's frames share the weight of its labels.

    So a mean over frames is taken per clip, and clips weigh as they do in the labels' cross-entropy; the sum over a
    batch is its number of labels, however the batch is split.
    """
    counts = label_counts(batch["labels"]).float()
    if taps.frames is None:
        return (counts / frames)[:, None].expand(-1, frames)
    valid = taps.frames(batch).to(counts.device)
    inside = torch.arange(frames, device=counts.device)[None, :] < valid[:, None]
    return inside * (counts / valid.clamp(min=1))[:, None]


def spaced(count: int, chosen: int) -> list[int]:
    """``chosen`` of ``count`` layers, as far apart as can be, the last always among them.

    Distil-Whisper's rule (``create_student_model.py``; Gandhi et al. 2023, arXiv 2311.00430): 2 of 4 are the first and
    the last.
    """
    import numpy as np

    places = np.linspace(0, count - 1, chosen, dtype=int).tolist()
    places[-1] = count - 1
    return places
