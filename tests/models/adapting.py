"""A tiny Whisper family, a batch for it, and real optimiser steps: what the tests of adapters and freezing share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechtune.models.family import Example, load_family


def tiny_family(directory: Path) -> Any:
    return load_family(directory, device="cpu")


def batch_of(family: Any, texts: tuple[str, ...] = ("the thing", "sing")) -> dict[str, torch.Tensor]:
    rng = np.random.default_rng(0)
    waves = [rng.normal(0, 0.1, 8_000).astype(np.float32) for _ in texts]
    return family.collate([Example(wave, *family.tokens(text)) for wave, text in zip(waves, texts, strict=True)], 60)


def logits(family: Any, model: torch.nn.Module | None = None) -> torch.Tensor:
    batch = batch_of(family)
    del batch["labels"]
    module: Any = family.model if model is None else model
    module.eval()
    with torch.no_grad():
        return module(**batch).logits


def steps(family: Any, module: Any, optimiser: torch.optim.Optimizer, count: int = 3) -> None:
    module.train()
    batch = batch_of(family)
    for _ in range(count):
        module(**batch).loss.backward()
        optimiser.step()
        module.zero_grad()


def snapshot(module: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
