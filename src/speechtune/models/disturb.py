"""Noise inside the encoder and decoder while training: skipped blocks, and masks behind the front end.

Draws come from torch's global generator, whose state a checkpoint keeps, so that a resumed run draws the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from speechtune.audio.augment import MaskDraw, draw_masks_by_count
from speechtune.core.errors import InputError
from speechtune.models.observe import Taps


def linear_rates(count: int, deepest: float) -> list[float]:
    """How often each of ``count`` blocks is skipped: rising linearly to ``deepest`` at the last one.

    The rule of stochastic depth (Huang et al. 2016, arXiv 1603.09382): block l of L is dropped with l / L of the
    deepest one's rate, l from 1.
    """
    return [deepest * (place + 1) / count for place in range(count)]


@cache
def _skipping(block: type[Any]) -> type[Any]:
    """The class of a block, with a forward that returns its input in a drawn share of the training passes."""

    class Skipping(block):
        def forward(self, hidden: torch.Tensor, *args: Any, **kwargs: Any) -> Any:
            if self.training and self.layerdrop > 0 and float(torch.rand([])) < self.layerdrop:
                return hidden + _nothing_of(self) if torch.is_grad_enabled() else hidden
            return super().forward(hidden, *args, **kwargs)

    Skipping.__name__, Skipping.__qualname__ = block.__name__, block.__qualname__
    Skipping.__module__ = block.__module__
    return Skipping


def _nothing_of(module: torch.nn.Module) -> Any:
    """Zero, with a gradient of zero for every weight: DistributedDataParallel waits for each of them."""
    return sum(0.0 * weight.flatten()[0] for weight in module.parameters() if weight.requires_grad)


def set_layer_drop(taps: Taps, deepest: dict[str, float]) -> None:
    """Skip blocks in training with rates that rise linearly with depth to ``deepest[part]``; 0 ends it.

    Nothing is rescaled when all blocks run (as in LayerDrop, Fan et al. 2019, arXiv 1909.11556).

    Raises:
        InputError: the model has no such part, or its blocks cannot be skipped from outside.
    """
    for part, rate in deepest.items():
        blocks: Sequence[Any] = taps.blocks.get(part, ())
        if rate > 0 and (not blocks or not taps.droppable):
            raise InputError(
                f"blocks of the {part} cannot be skipped in this model: set layer_drop.{part}=0 (CTC models have "
                "model.ctc.layerdrop)"
            )
        for block, own in zip(blocks, linear_rates(len(blocks), rate), strict=True):
            known = "layerdrop" in block.__dict__
            if rate > 0 and not known:
                kind: Any = type(block)
                block.__class__ = _skipping(kind)
            if rate > 0 or known:
                block.layerdrop = own


class HiddenMask(torch.nn.Module):
    """Zeroes stripes of the front end's output in training: SpecAugment (Park et al. 2019) on hidden states.

    ``p`` 0 switches it off (`speechtune.training.preflight` does, for its proofs).
    """

    def __init__(self) -> None:
        super().__init__()
        self.p = 0.0
        self.frames_last = True
        self.masks: dict[str, int] = {}

    def draw(self, clips: int, frames: int, channels: int) -> list[MaskDraw]:
        """The stripes of a batch; ``bins`` are channels."""
        rng = np.random.default_rng(int(torch.randint(2**62, ())))
        return [draw_masks_by_count(rng, frames, channels, **self.masks) for _ in range(clips)]

    def masked(self, hidden: torch.Tensor, draws: Sequence[MaskDraw]) -> torch.Tensor:
        """``hidden`` (batch, channels, frames), or (batch, frames, channels), times 0 in the stripes."""
        keep = torch.ones_like(hidden, requires_grad=False)
        view = keep if self.frames_last else keep.transpose(1, 2)
        for row, draw in enumerate(draws):
            for first, width in draw.time:
                view[row, :, first : first + width] = 0
            for first, width in draw.bins:
                view[row, first : first + width, :] = 0
        return hidden * keep

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """The masked batch in training, the batch itself otherwise."""
        if not self.training or self.p == 0:
            return hidden
        clips, first, second = hidden.shape
        channels, frames = (first, second) if self.frames_last else (second, first)
        return self.masked(hidden, self.draw(clips, frames, channels))

    def _hook(self, module: torch.nn.Module, inputs: Any, output: torch.Tensor) -> torch.Tensor:
        return self(output)


def set_hidden_masks(model: torch.nn.Module, taps: Taps, masks: dict[str, int]) -> None:
    """Mask the front end's output in training; ``masks`` are the counts and widths of `draw_masks_by_count`.

    Counts of 0 end it. Whisper's front end is two convolutions, GELU and positions: a masked frame keeps its position.

    Raises:
        InputError: the family does not say where its front end ends.
    """
    wanted = masks["time_masks"] > 0 or masks["bin_masks"] > 0
    found = next((one for one in model.modules() if isinstance(one, HiddenMask)), None)
    if wanted and taps.front_end is None:
        raise InputError(
            "encoder_masks are not for this model: use training.spec_augment.time_prob and feature_prob, which mask "
            "hidden states in CTC models over waveforms"
        )
    if wanted and found is None and taps.front_end is not None:
        found = HiddenMask().train(model.training)
        taps.blocks["encoder"][0].register_module("hidden_mask", found)
        taps.front_end.register_forward_hook(found._hook)
    if found is not None:
        found.p, found.masks, found.frames_last = float(wanted), masks, taps.frames_last
