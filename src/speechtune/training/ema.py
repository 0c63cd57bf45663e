"""Running averages of the weights during training: exponential (EMA) and uniform (SWA), kept in every checkpoint."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speechtune.core.errors import InputError
from speechtune.training.averaging_config import AveragesConfig


class WeightAverage(TrainerCallback):
    """Keeps ``average += share(n) * (weights - average)`` after every step, in float32 on the weights' device.

    Only trainable weights are averaged. The state is ``NAME.safetensors`` in each checkpoint, with the number of
    updates, so a resumed run has the same average bit for bit.

    Args:
        name: of the average and its file.
        share: how much update ``n`` (from 0) takes over from the present weights; update 0 is a copy.
        starts: the first step (from 1) whose weights count, given the run's number of steps.
    """

    def __init__(self, name: str, share: Callable[[int], float], starts: Callable[[int], int]) -> None:
        self.name = name
        self.share = share
        self.starts = starts
        self.updates = 0
        self.average: dict[str, torch.Tensor] = {}

    def on_train_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Begin anew, or continue from the checkpoint the Trainer has loaded."""
        assert model is not None
        self.updates, self.average = 0, {}
        file = Path(str(args.output_dir)) / f"checkpoint-{state.global_step}" / f"{self.name}.safetensors"
        if state.global_step and file.is_file():
            self._read(file, model)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        model: torch.nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        """Take the weights after this step into the average."""
        assert model is not None
        if state.global_step >= self.starts(state.max_steps):
            self.update(model)

    @torch.no_grad()
    def update(self, model: torch.nn.Module) -> None:
        """One update from the model's present weights."""
        own = {name: value.detach() for name, value in model.named_parameters() if value.requires_grad}
        if not self.average:
            self.average = {name: value.float().clone() for name, value in own.items()}
        else:
            present = [value.float() for value in own.values()]
            torch._foreach_lerp_([self.average[name] for name in own], present, self.share(self.updates))
        self.updates += 1

    def keep(self, folder: Path) -> None:
        """Write the state beside a checkpoint's other files; nothing before the first update."""
        from safetensors.torch import save_file

        if self.average:
            tensors = {name: value.cpu().contiguous() for name, value in self.average.items()}
            save_file(tensors, folder / f"{self.name}.safetensors", metadata={"updates": str(self.updates)})

    def _read(self, file: Path, model: torch.nn.Module) -> None:
        from safetensors import safe_open

        with safe_open(file, framework="pt") as stored:
            self.updates = int(stored.metadata()["updates"])
            devices = {name: value.device for name, value in model.named_parameters()}
            self.average = {name: stored.get_tensor(name).to(devices[name]) for name in stored.keys()}  # noqa: SIM118


def ema_share(decay: float, warmup: bool) -> Callable[[int], float]:
    """``1 - decay`` a step; with warm-up the decay of update n is at most ``(1 + n) / (10 + n)``."""
    return lambda n: 1 - (min(decay, (1 + n) / (10 + n)) if warmup else decay)


def swa_start(share: float) -> Callable[[int], int]:
    """The first step that stochastic weight averaging takes in, by the number of steps of the run."""
    return lambda steps: min(steps, math.floor(share * steps) + 1)


def running_averages(config: AveragesConfig) -> list[WeightAverage]:
    """The running averages that a recipe asks for."""
    found = []
    if config.ema_decay is not None:
        found.append(WeightAverage("ema", ema_share(config.ema_decay, config.ema_warmup), lambda steps: 1))
    if config.swa_from is not None:
        found.append(WeightAverage("swa", lambda n: 1 / (n + 1), swa_start(config.swa_from)))
    return found


Multiplier = Callable[[int, float], float]
"""The multiple of the base learning rate at a scheduler step, from that step and the schedule's own multiple."""


def change_rate(scheduler: Any, change: Multiplier) -> None:
    """Replace the multiples of a schedule, the one of the coming step included; doing it again replaces the change.

    Raises:
        InputError: the schedule is not a function of the step.
    """
    scheduler = getattr(scheduler, "scheduler", scheduler)  # accelerate wraps it
    if not isinstance(scheduler, torch.optim.lr_scheduler.LambdaLR):
        raise InputError(
            f"the schedule {type(scheduler).__name__} cannot be changed while it runs: choose another "
            "training.schedule, or leave out training.averages.swa_rate and training.monitor.auto"
        )
    # Not an attribute of the scheduler, which would go into its checkpoints; a plain function does not.
    originals = [getattr(multiple, "original", multiple) for multiple in scheduler.lr_lambdas]

    def changed(original: Callable[[int], float]) -> Callable[[int], float]:
        def multiple(step: int) -> float:
            return change(step, original(step))

        multiple.original = original  # type: ignore[attr-defined]
        return multiple

    scheduler.lr_lambdas = [changed(original) for original in originals]
    rates = [
        base * multiple(scheduler.last_epoch)
        for base, multiple in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    for group, rate in zip(scheduler.optimizer.param_groups, rates, strict=True):
        group["lr"] = rate
    scheduler._last_lr = rates


class RateChange(TrainerCallback):
    """Changes the schedule where SWA wants a constant rate, and by the factor of the monitor's rollbacks.

    Args:
        config: the recipe's averages.
        learning_rate: the recipe's peak rate, which ``swa_rate`` is relative to.
        factor: the present product of the rollbacks' factors.
    """

    def __init__(self, config: AveragesConfig, learning_rate: float, factor: Callable[[], float] = lambda: 1.0) -> None:
        self.config = config
        self.learning_rate = learning_rate
        self.factor = factor

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Put the change into the schedule that the Trainer has made or restored."""
        factor, constant = self.factor(), self.config.swa_rate
        first = swa_start(self.config.swa_from)(state.max_steps) - 1 if self.config.swa_from is not None else None
        if factor == 1.0 and (constant is None or first is None):
            return

        def change(step: int, multiple: float) -> float:
            if constant is not None and first is not None and step >= first:
                multiple = constant / self.learning_rate
            return factor * multiple

        change_rate(kwargs["lr_scheduler"], change)
