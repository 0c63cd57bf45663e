"""Where the logits and hidden states of a CTC network come out (`speechtune.models.observe`)."""

from __future__ import annotations

from typing import Any

import torch

from speechtune.models.family import Family
from speechtune.models.observe import Batch, Taps


def ctc_taps(family: Family) -> Taps:
    """The taps of a `speechtune.models.ctc` family: logits by frame, one stack of blocks, clips of any length.

    There is no audio context to widen; blocks are skipped by ``model.ctc.layerdrop`` and hidden states masked by
    ``training.spec_augment``, which Transformers' own networks do inside.
    """
    model: Any = family.model
    stack = next(part for part in family.parts() if part.stack)
    blocks = [model.get_submodule(name) for name in stack.modules]
    above = next((part for part in family.parts() if part.name == "encoder.final_norm"), None)

    def frames(batch: Batch) -> torch.Tensor:
        return model.frames_of(batch["attention_mask"].sum(-1))

    return Taps(
        logits=model,
        framewise=True,
        blocks={"encoder": blocks},
        last={"encoder": model.get_submodule(above.modules[0]) if above else blocks[-1]},
        frames=frames,
        droppable=False,
    )
