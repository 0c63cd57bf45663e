"""A frozen base in 4 or 8 bits (QLoRA), with bitsandbytes."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any, Literal

import torch

from speechtune.core.errors import SpeechtuneError, missing_extra
from speechtune.models.trainable import Layout


def quantise(model: torch.nn.Module, layout: Layout, bits: Literal[4, 8], keep: Sequence[str] = ()) -> int:
    """Replace the linear layers inside a model's stacks by ones whose weights take 4 (NF4) or 8 bits; returns how many.

    Front end, embeddings, norms, the output layer and the modules of ``keep`` stay as they are. Both kinds run on CPUs
    and GPUs (bitsandbytes 0.50); on a CPU they save memory, not time.

    Raises:
        InputError: bitsandbytes is not installed.
        SpeechtuneError: it does not run on this machine.
    """
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns at every layer that 8 bits compute in float16
    try:
        import bitsandbytes
    except ImportError as error:
        raise missing_extra("bitsandbytes", "quantised") from error
    stacks = tuple(module + "." for part in layout.parts if part.stack for module in part.modules)
    chosen = [
        name
        for name, module in model.named_modules()
        if type(module) is torch.nn.Linear and name.startswith(stacks) and name not in keep
    ]
    try:
        for name in chosen:
            parent, _, child = name.rpartition(".")
            old = model.get_submodule(name)
            assert isinstance(old, torch.nn.Linear)
            setattr(model.get_submodule(parent), child, _in_bits(bitsandbytes, old, bits))
    except (RuntimeError, NotImplementedError) as error:
        reason = " ".join(str(error).split())[:160]
        raise SpeechtuneError(
            f"adapter.bits={bits}: bitsandbytes does not run on this machine ({reason}): leave adapter.bits out"
        ) from error
    setattr(model, f"is_loaded_in_{bits}bit", True)
    return len(chosen)


def _in_bits(bitsandbytes: Any, old: torch.nn.Linear, bits: Literal[4, 8]) -> torch.nn.Module:
    """One layer quantised where it is; moving the weight to a device is what makes bitsandbytes quantise it."""
    shape, bias, device = (old.in_features, old.out_features), old.bias is not None, old.weight.device
    layers, weight = bitsandbytes.nn, old.weight.data
    new: Any
    if bits == 4:
        new = layers.Linear4bit(*shape, bias=bias, compute_dtype=torch.float32, quant_type="nf4")
        new.weight = layers.Params4bit(weight.clone(), requires_grad=False, quant_type="nf4", module=new)
        # Else the first evaluation on a CPU with AVX512-BF16 repacks the base and rounds its scales, for good.
        new.support_avx512bf16_for_cpu = False
    else:
        new = layers.Linear8bitLt(*shape, bias=bias, has_fp16_weights=False, threshold=0.0)
        new.weight = layers.Int8Params(weight.clone(), requires_grad=False, has_fp16_weights=False)
    if bias:
        new.bias = torch.nn.Parameter(old.bias.data, requires_grad=False)
    new = new.to(device)
    if bits == 8 and new.weight.CB is not None:
        new.init_8bit_state()  # where the scales are kept must not depend on who reads the weight first
    return new
