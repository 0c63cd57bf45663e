"""Numbers of a training step: gradient norms and drift by group of layers, memory, throughput."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from typing import Any

import torch

_LAYER = re.compile(r"^(.*?\b(?:layers?|h|blocks?)\.\d+)\.")
_WRAPPERS = re.compile(r"^(?:(?:base_model|model|module|_orig_mod)\.)+")


def layer_group(name: str) -> str:
    """The group of a parameter: its numbered layer (``encoder.layers.3``), else its first two names."""
    plain = _WRAPPERS.sub("", name)
    found = _LAYER.match(plain)
    if found:
        return found.group(1)
    parts = plain.split(".")
    return ".".join(parts[: min(2, max(1, len(parts) - 1))])


def gradient_norms(model: torch.nn.Module) -> dict[str, float]:
    """The L2 norm of the present gradients of each group of layers; trainable weights without one count as zero."""
    names, grads = [], []
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            names.append(layer_group(name))
            grads.append(torch.zeros(1, device=parameter.device) if parameter.grad is None else parameter.grad)
    if not grads:
        return {}
    norms = torch.stack([_whole(norm).float() for norm in torch._foreach_norm(grads)]).cpu().tolist()
    squares: dict[str, float] = {}
    for group, norm in zip(names, norms, strict=True):
        squares[group] = squares.get(group, 0.0) + norm**2
    return {group: square**0.5 for group, square in squares.items()}


def _whole(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor itself; one that is divided among processes (FSDP) is brought together, so all of them must ask."""
    gather = getattr(tensor, "full_tensor", None)
    return tensor if gather is None else gather()


def start_weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    """A copy of the trainable weights in main memory; those of LoRA are left out (see `drift`)."""
    return {
        name: parameter.detach().to("cpu", copy=True)
        for name, parameter in model.named_parameters()
        if parameter.requires_grad and "lora_" not in name
    }


@torch.no_grad()
def drift(model: torch.nn.Module, start: Mapping[str, torch.Tensor]) -> dict[str, float]:
    """How far each group of layers has moved: ``|W - W0| / |W0|`` over the group's weights, L2.

    A LoRA layer has moved by ``scaling * B A`` from its base weight; the norm of the product comes from the two small
    Gram matrices, so it is never formed (for DoRA the rescaling of the columns is left out).
    """
    moved: dict[str, float] = {}
    length: dict[str, float] = {}

    def add(group: str, square: float, base: float) -> None:
        moved[group] = moved.get(group, 0.0) + square
        length[group] = length.get(group, 0.0) + base

    own = dict(model.named_parameters())
    for name, before in start.items():
        before = before.to(own[name].device)
        change = torch.linalg.vector_norm(_whole(own[name]).float() - before.float())
        add(layer_group(name), float(change) ** 2, float(torch.linalg.vector_norm(before.float())) ** 2)
    for name, module in model.named_modules():
        adapters: Any = getattr(module, "lora_A", None)
        if isinstance(adapters, torch.nn.ModuleDict) and len(adapters):
            layer: Any = module
            for key in adapters:
                a, b = layer.lora_A[key].weight.double(), layer.lora_B[key].weight.double()
                square = float(((b.T @ b) * (a @ a.T)).sum()) * float(layer.scaling[key]) ** 2
                base = float(torch.linalg.vector_norm(layer.get_base_layer().weight.float())) ** 2
                add(layer_group(name + ".weight"), square, base)
    return {group: (moved[group] / length[group]) ** 0.5 for group in moved if length[group] > 0}


def memory_gib() -> dict[str, float]:
    """Resident memory of this process now, and the accelerator's peak since the last call, in GiB."""
    found = {}
    try:
        with open("/proc/self/status", encoding="ascii") as stream:
            resident = next(int(line.split()[1]) for line in stream if line.startswith("VmRSS"))
        found["memory_gib"] = round(resident / 2**20, 3)
    except (OSError, StopIteration):
        import resource

        unit = 2**30 if sys.platform == "darwin" else 2**20
        found["memory_gib"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit, 3)
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        found["cuda_peak_gib"] = round(torch.cuda.max_memory_allocated() / 2**30, 3)
        torch.cuda.reset_peak_memory_stats()
    return found
