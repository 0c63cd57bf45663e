"""AdaLoRA's two duties beside the forward pass: its orthogonality penalty, and giving up ranks step by step.

PEFT's own ``update_and_allocate`` keeps its rank pattern in the adapter's configuration, where saving a checkpoint cuts
the matrices to it; a run resumed from there would have an optimiser of other shapes. Here the pattern and the
importances are kept by `RankAllocation`, matrices keep their size with zeros where a rank was given up, and a
checkpoint holds everything.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

STATE = "rank_allocation.pt"
"""File in a checkpoint with the importances and the pattern."""

RANKS = "ranks.json"
"""File of an adapter with the rank each layer ended at."""


def add_penalty(trained: Any) -> None:
    """Add the orthogonality penalty to the loss, once an optimiser step, however the step is split into micro-batches.

    PEFT 0.21 adds it in ``AdaLoraModel.forward``, which a ``PeftModel`` without a task type (Whisper wants none) goes
    past, so that there would be no penalty at all; and it would add the whole of it to every micro-batch, N times as
    strong under accumulation over N. Here a micro-batch carries the share of it that it has of the step's labels.
    """

    class WithPenalty(type(trained)):  # type: ignore[misc]
        def forward(self, *args: Any, **kwargs: Any) -> Any:
            outputs = super().forward(*args, **kwargs)
            loss, labels, items = getattr(outputs, "loss", None), kwargs.get("labels"), kwargs.get("num_items_in_batch")
            if isinstance(loss, torch.Tensor):
                share = 1.0 if items is None or labels is None else (labels != -100).sum() / items
                adapter = self.base_model.trainable_adapter_name
                weight = self.peft_config[adapter].orth_reg_weight
                outputs.loss = loss + weight * share * orthogonality(self, adapter)
            return outputs

    trained.__class__ = WithPenalty


def orthogonality(model: torch.nn.Module, adapter: str) -> torch.Tensor:
    """Mean over the factors of how far each is from orthonormal: the Frobenius norm of A A' - I (or B' B - I).

    The paper (arXiv 2303.10512, equation 4) squares the norms; PEFT, whose weights people use, does not.
    """
    distances = []
    for name, factor in model.named_parameters():
        if f"lora_A.{adapter}" in name or f"lora_B.{adapter}" in name:
            gram = factor @ factor.T if "lora_A" in name else factor.T @ factor
            distances.append(
                torch.linalg.matrix_norm(gram - torch.eye(len(gram), device=gram.device, dtype=gram.dtype))
            )
    return torch.stack(distances).mean()


class RankAllocation:
    """Gives up the least important ranks after every optimiser step, by PEFT's ``RankAllocator``."""

    def __init__(self, trained: Any) -> None:
        self.model = trained.base_model.model
        self.adapter: str = trained.base_model.trainable_adapter_name
        self.config = trained.peft_config[self.adapter]
        self.allocator = trained.base_model.rankallocator
        self.pattern: dict[str, list[bool]] | None = None

    def step(self, step: int) -> None:
        """Account for optimiser step ``step`` (from 0): after the weights moved, before gradients are cleared."""
        last = self.config.total_step - self.config.tfinal
        if step < last:
            _, pattern = self.allocator.update_and_allocate(self.model, step)
            self.pattern = pattern or self.pattern
        elif step == last or (self.pattern is None and self.allocator.ipt):
            _, self.pattern = self.allocator.update_and_allocate(self.model, last, force_mask=True)
            self.allocator.reset_ipt()
        elif self.pattern is not None:
            self.allocator.mask_using_rank_pattern(self.model, self.pattern)

    def save(self, checkpoint: Path) -> None:
        """Write what a resumed run needs to go on exactly."""
        allocator = self.allocator
        moments = {name: getattr(allocator, name) for name in ("ipt", "exp_avg_ipt", "exp_avg_unc")}
        torch.save({"pattern": self.pattern, **moments}, checkpoint / STATE)

    def load(self, checkpoint: Path) -> None:
        """Go on from a checkpoint."""
        device = next(self.model.parameters()).device
        state = torch.load(checkpoint / STATE, weights_only=True, map_location=device)
        self.pattern = state.pop("pattern")
        for name, values in state.items():
            setattr(self.allocator, name, values)


def ranks_of(trained: torch.nn.Module) -> dict[str, int]:
    """The rank of every AdaLoRA layer: how many of its singular values are not zero; empty for other adapters."""
    return {
        name.removeprefix("base_model.model.").split(".lora_E")[0]: int(values.count_nonzero())
        for name, values in trained.named_parameters()
        if ".lora_E." in name
    }
