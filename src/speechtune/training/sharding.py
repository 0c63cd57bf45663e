"""Weights, gradients and optimiser state divided among processes (FSDP2), through Accelerate."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from speechtune.core.errors import InputError
from speechtune.models.family import Family
from speechtune.training.processes import is_main_process, world_size

if TYPE_CHECKING:
    from speechtune.training.recipe import Recipe
    from speechtune.training.trainer import SpeechTrainer


def sharding_options(activation_checkpointing: bool) -> dict[str, Any]:
    """The Trainer's arguments: FSDP2, whole weights in every checkpoint."""
    config = {"version": 2, "state_dict_type": "FULL_STATE_DICT", "activation_checkpointing": activation_checkpointing}
    return {"fsdp": True, "fsdp_config": config, "activation_checkpointing": False}


def shards(recipe: Recipe, family: Family) -> Shards | None:
    """What a divided model needs beside the Trainer; ``None`` where nothing is divided.

    Raises:
        InputError: something in the recipe needs whole weights in every process.
    """
    training = recipe.training
    if training.sharding == "none" or world_size() == 1:
        return None
    whole = {
        f"adapter.kind={recipe.adapter.kind}": recipe.adapter.kind != "none",
        "training.averages.ema_decay": training.averages.ema_decay is not None,
        "training.averages.swa_from": training.averages.swa_from is not None,
        "training.compile": training.compile,
        "training.optimiser.kind=muon": training.optimiser.kind == "muon",
    }
    wrong = next((name for name, wanted in whole.items() if wanted), None)
    if wrong is not None:
        raise InputError(f"training.sharding=fsdp does not go with {wrong}: set training.sharding=none or leave it out")
    return Shards(family)


class Shards:
    """The whole model beside the divided one: the main process decodes and saves with it.

    Args:
        family: holds the model before it is divided; the main process keeps a copy.
    """

    def __init__(self, family: Family) -> None:
        self.whole = copy.copy(family)
        if is_main_process():
            self.whole.model = copy.deepcopy(family.model)

    def gather(self, trainer: SpeechTrainer) -> None:
        """Bring the present weights together; every process must come here."""
        weights = trainer.accelerator.get_state_dict(trainer.model)
        if is_main_process():
            self.whole.model.load_state_dict(weights)

    def leave(self, trainer: SpeechTrainer) -> None:
        """After training: checkpoints, which hold whole weights, are loaded into whole models again."""
        trainer.gather = None
        trainer.is_undivided = True


def switch_on_without_gpu() -> None:
    """Make Accelerate divide the model on processors too, over gloo.

    Accelerate 1.15 turns FSDP on only where the processes are of an accelerator kind and trains on processors with DDP
    in silence; told the kind of processes that GPUs have, the same code runs on gloo (torch 2.13) and gives one
    process's losses. It proves the path here; sharding pays off on GPUs.
    """
    from accelerate.state import PartialState
    from accelerate.utils import DistributedType

    PartialState._shared_state["distributed_type"] = DistributedType.MULTI_GPU
