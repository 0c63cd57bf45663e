"""Arithmetic and kernels of a training: precision, attention, torch.compile, Liger."""

from __future__ import annotations

import os
import shutil
from importlib.util import find_spec
from typing import Any, Literal

import torch

from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.models.family import Family
from speechtune.training.config import TrainingConfig

Precision = Literal["fp32", "bf16", "fp16"]


def has_bf16(device: str) -> bool:
    """Whether the device computes bf16 in hardware; a processor without it emulates it, slower than fp32.

    Processors: x86 with AVX512-BF16 (AMD since Zen 4, Intel since Cooper Lake) or AMX.
    """
    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    able = torch.cpu.get_capabilities()
    return any(able.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


def precision_of(config: TrainingConfig, device: str) -> Precision:
    """The arithmetic of a training on ``cuda`` or ``cpu``.

    Raises:
        InputError: fp16 on a CPU, whose gradients cannot be scaled there.
    """
    if config.precision == "auto":
        if device != "cuda":
            return "fp32"
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    if config.precision == "bf16_or_fp32":
        return "bf16" if has_bf16(device) else "fp32"
    if config.precision == "fp16" and device != "cuda":
        raise InputError("training.precision=fp16 needs a GPU and there is none: use auto, fp32 or bf16")
    return config.precision


def check_master_weights(model: torch.nn.Module, precision: str) -> str:
    """Every trained weight is float32: autocast rounds copies of them, never the weights that the optimiser changes.

    Raises:
        InputError: a trained weight has another dtype.
    """
    for name, parameter in model.named_parameters():
        if parameter.requires_grad and parameter.dtype != torch.float32:
            raise InputError(
                f"the trained weight {name} is {str(parameter.dtype).removeprefix('torch.')}: small updates would be "
                "rounded away; load the model in float32 (training.precision sets the arithmetic)"
            )
    return f"trained weights are float32, arithmetic {precision}"


def attention_of(model: Any) -> str | None:
    """The attention implementation that Transformers chose (sdpa unless the architecture has none)."""
    found = getattr(getattr(model, "config", None), "_attn_implementation", None)
    return str(found) if found else None


def prepare_compilation(device: str) -> None:
    """Make torch.compile take batches of any length without compiling anew for each.

    Raises:
        InputError: what it needs to build its kernels is not installed.
    """
    if device == "cuda" and find_spec("triton") is None:
        raise InputError("training.compile needs Triton on a GPU: pip install triton, or set training.compile=false")
    if device != "cuda" and not any(map(shutil.which, (os.environ.get("CXX", "g++"), "g++", "clang++"))):
        raise InputError("training.compile needs a C++ compiler: install g++, or set training.compile=false")
    os.environ["ACCELERATE_DYNAMO_USE_DYNAMIC"] = "true"


def apply_liger(family: Family) -> None:
    """Replace the model's layers by Liger's fused kernels (Hsu et al. 2024, arXiv 2410.10989).

    Raises:
        InputError: there is no NVIDIA GPU, no package, or Liger does not cover the architecture.
    """
    if not torch.cuda.is_available():
        raise InputError("training.liger needs an NVIDIA GPU and there is none: set training.liger=false")
    if find_spec("liger_kernel") is None:
        raise InputError("training.liger needs a package: pip install liger-kernel, or set training.liger=false")
    from liger_kernel.transformers.monkey_patch import MODEL_TYPE_TO_APPLY_LIGER_FN

    kind = str(getattr(family.model.config, "model_type", family.name))
    if kind not in MODEL_TYPE_TO_APPLY_LIGER_FN:
        raise InputError(
            f"Liger has no kernels for {kind} (it covers {', '.join(sorted(MODEL_TYPE_TO_APPLY_LIGER_FN))}): set "
            "training.liger=false"
        )
    from liger_kernel.transformers import _apply_liger_kernel_to_instance

    _apply_liger_kernel_to_instance(model=family.model)
    note(f"Liger's kernels are used for {kind}")
