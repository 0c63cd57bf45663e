"""Dropout on attention weights alone, whatever a model's own dropout is."""

from __future__ import annotations

import torch

from speechtune.core.errors import InputError


def set_attention_dropout(model: torch.nn.Module, share: float) -> int:
    """Set the dropout on the attention weights of every attention module; it acts in training mode only.

    Args:
        model: a Transformers model; the values are attributes of its modules and are not saved with it.
        share: of the weights that become 0.

    Returns:
        How many modules were set.

    Raises:
        InputError: the model has none that could be set.
    """
    found = 0
    for module in model.modules():
        if "Attention" not in type(module).__name__:
            continue
        for name in ("attention_dropout", "attn_dropout", "dropout"):
            value = getattr(module, name, None)
            if isinstance(value, torch.nn.Dropout):
                value.p = share
            elif isinstance(value, float | int):
                setattr(module, name, share)
            else:
                continue
            found += 1
            break
    if not found:
        raise InputError("this model's attention has no dropout to set: leave out training.attention_dropout")
    return found
