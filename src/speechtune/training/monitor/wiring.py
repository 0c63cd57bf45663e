"""What a training gets beside the loop: the monitor, running averages, changes of the schedule, the live view."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from transformers import TrainerCallback

from speechtune.training.data import BucketSampler, TrainingSet
from speechtune.training.ema import RateChange, running_averages
from speechtune.training.monitor.batches import BatchBook
from speechtune.training.monitor.callback import Monitor
from speechtune.training.monitor.live import LiveView, live_is_wanted

if TYPE_CHECKING:
    from speechtune.training.recipe import Recipe


def watched(
    recipe: Recipe, directory: Path, data: TrainingSet, sampler: BucketSampler, model: torch.nn.Module
) -> tuple[Monitor, list[TrainerCallback]]:
    """The monitor of a training that has not begun, and every callback of this package for it, in their order.

    ``model`` must hold the weights the training starts from. The live view, if it is wanted, stands first: it silences
    the progress bar.
    """
    config = recipe.training
    monitor = Monitor(recipe, directory, BatchBook(data, sampler), model)
    averages = running_averages(config.averages)
    rate = RateChange(config.averages, config.learning_rate, monitor.actions.rate)
    view = [LiveView(monitor)] if live_is_wanted() else []
    return monitor, [*view, *averages, rate, monitor]
