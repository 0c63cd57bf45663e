"""Low-rank adapters and freezing: which weights a run changes."""

from __future__ import annotations

from pathlib import Path

import torch

from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.family import Family


def choose_trainable(family: Family, model: ModelConfig, adapter: AdapterConfig) -> torch.nn.Module:
    """Freeze and wrap ``family.model`` as a recipe asks, and return what is to be trained.

    A parameter that the architecture itself freezes (Whisper's sinusoidal positions) stays frozen.
    """
    if adapter.kind == "lora":
        return _add_lora(family, adapter)
    if model.train != "all":
        chosen = {id(parameter) for parameter in family.part(model.train).parameters()}
        for parameter in family.model.parameters():
            parameter.requires_grad_(parameter.requires_grad and id(parameter) in chosen)
    return family.model


def _add_lora(family: Family, adapter: AdapterConfig) -> torch.nn.Module:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        r=adapter.rank,
        lora_alpha=adapter.alpha,
        lora_dropout=adapter.dropout,
        target_modules=family.adapter_targets(adapter.targets),
    )
    return get_peft_model(family.model, config)


def save_trained(family: Family, trained: torch.nn.Module, run: Path) -> None:
    """Write ``run/model`` as plain weights; an adapter is also kept by itself in ``run/adapter``."""
    from speechtune.core.files import new_directory

    if trained is not family.model:
        with new_directory(run / "adapter", overwrite=True) as draft:
            trained.save_pretrained(draft)  # type: ignore[operator]
        family.model = trained.merge_and_unload()  # type: ignore[operator]
    with new_directory(run / "model", overwrite=True) as draft:
        family.save(draft)


def count_parameters(module: torch.nn.Module) -> tuple[int, int]:
    """How many parameters a module trains, and how many it has."""
    trainable = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return trainable, sum(parameter.numel() for parameter in module.parameters())
