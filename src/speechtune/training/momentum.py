"""The scheduler of an optimiser: its rate by a law, and momentum that moves against it (one-cycle)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR


class CyclingSchedule(LambdaLR):
    """A schedule of the rate that also moves the momentum of every group against it."""

    def __init__(self, optimiser: Optimizer, rate: Callable[[int], float], momentum: tuple[float, float]) -> None:
        self.rate = rate
        self.momentum = momentum
        super().__init__(optimiser, rate)

    def step(self, epoch: int | None = None) -> None:
        """As the parent, for the momentum too."""
        super().step(epoch)
        low, high = self.momentum
        value = high - (high - low) * self.rate(self.last_epoch)
        for group in self.optimizer.param_groups:
            if "betas" in group:
                group["betas"] = (value, *group["betas"][1:])
            if "momentum" in group:
                group["momentum"] = value

    def state_dict(self) -> dict[str, Any]:
        """As the parent, without the function, which the recipe knows."""
        return {name: value for name, value in super().state_dict().items() if name != "rate"}


def schedule_of(optimiser: Optimizer, rate: Callable[[int], float]) -> LambdaLR:
    """The schedule of an optimiser by a law of `rates`, with that law's momentum."""
    shape = getattr(rate, "keywords", {}).get("shape")
    momentum = None if shape is None else shape.momentum
    return LambdaLR(optimiser, rate) if momentum is None else CyclingSchedule(optimiser, rate, momentum)
