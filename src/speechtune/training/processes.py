"""Several processes of one run, started by torchrun: how they find each other and agree."""

from __future__ import annotations

import os
from collections.abc import Callable
from datetime import timedelta
from typing import Any, TypeVar

import torch
from torch import distributed

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""How long a process waits for another: the main one measures the base model alone before the first step."""


def world_size() -> int:
    """How many processes train together."""
    return int(os.environ.get("WORLD_SIZE", 1))


def is_main_process() -> bool:
    """Whether this process measures, writes and speaks: the only one, or rank 0 under torchrun."""
    return int(os.environ.get("RANK", 0)) == 0


def join_processes() -> None:
    """Meet the other processes; nothing to do for a process alone."""
    if world_size() == 1 or distributed.is_initialized():
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)))
    distributed.init_process_group("cuda:nccl,cpu:gloo" if torch.cuda.is_available() else "gloo", timeout=PATIENCE)


def main_says(value: T) -> T:
    """The main process's ``value`` in every process; waits until the main process comes here."""
    if world_size() == 1:
        return value
    said: list[Any] = [value]
    distributed.broadcast_object_list(said, src=0, device=torch.device("cpu"))
    return said[0]


def wait_for_all() -> None:
    """Go on when every process has come here."""
    if world_size() > 1:
        distributed.barrier()


def main_computes(compute: Callable[[], T]) -> T:
    """What ``compute`` gives in the main process, for every process: they cannot disagree about when to stop."""
    return main_says(compute() if is_main_process() else None)  # type: ignore[return-value]
