"""Bottleneck adapters beside the feed-forward layers, which merge into wider ones exactly.

A feed-forward layer computes B f(A x + a) + b. The adapter adds s U f(D x + d), with D down to a few units and U back
up: the parallel adapter of He et al. 2022 (arXiv 2110.04366), with the layer's own f. Both together are a feed-forward
layer with so many more hidden units (A and D above one another, B and s U side by side), so a merged model is a plain
one of its architecture, only wider. U starts at zero: a new adapter is the identity.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json
from speechtune.models.config import AdapterConfig
from speechtune.models.trainable import Layout

KIND = "SPEECHTUNE_BOTTLENECK"
"""Stands as ``peft_type`` in the adapter's configuration, so that PEFT itself refuses the directory."""

WEIGHTS = "adapter_model.safetensors"
LAYERS = ((("fc1",), "fc2"), (("intermediate_dense",), "output_dense"), (("gate_proj", "up_proj"), "down_proj"))
"""Names of the layers into and out of the hidden units; two into them: one gates the other."""

WIDTHS = {
    "whisper": {"encoder": "encoder_ffn_dim", "decoder": "decoder_ffn_dim"},
    "ctc": {"encoder": "intermediate_size"},
    "qwen3_asr": {"encoder": "audio_config.encoder_ffn_dim", "decoder": "text_config.intermediate_size"},
}
"""By family and side: where the configuration says how many hidden units there are."""


class _Beside(torch.nn.Linear):
    """A linear layer that keeps its own weights, and their names, and holds some of the adapter's."""

    adapter_weight: torch.nn.Parameter

    def __init__(self, old: torch.nn.Linear) -> None:
        torch.nn.Module.__init__(self)
        self.in_features, self.out_features = old.in_features, old.out_features
        self.weight = old.weight
        self.register_parameter("bias", old.bias)
        self.train(old.training)

    def _like(self, *shape: int) -> torch.nn.Parameter:
        return torch.nn.Parameter(torch.zeros(*shape, dtype=self.weight.dtype, device=self.weight.device))


class WiderIn(_Beside):
    """The layer into the hidden units, with ``units`` more of them."""

    adapter_bias: torch.nn.Parameter | None

    def __init__(self, old: torch.nn.Linear, units: int, dropout: float) -> None:
        super().__init__(old)
        self.dropout = dropout
        self.adapter_weight = self._like(units, self.in_features)
        torch.nn.init.kaiming_uniform_(self.adapter_weight, a=5**0.5)
        self.register_parameter("adapter_bias", None if old.bias is None else self._like(units))

    def of_adapter(self) -> list[torch.nn.Parameter]:
        """The adapter's parameters here; at the start they have no gradient, because what hears them is zero."""
        return [one for one in (self.adapter_weight, self.adapter_bias) if one is not None]

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The layer's own units and the adapter's, side by side."""
        heard = functional.dropout(input, self.dropout, self.training)
        more = functional.linear(heard, self.adapter_weight, self.adapter_bias)
        return torch.cat([functional.linear(input, self.weight, self.bias), more], -1)


class WiderOut(_Beside):
    """The layer out of the hidden units, with ``units`` more of them."""

    def __init__(self, old: torch.nn.Linear, units: int, scale: float) -> None:
        super().__init__(old)
        self.scale = scale
        self.adapter_weight = self._like(self.out_features, units)

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        """The sum of what both kinds of units say."""
        own, more = input[..., : self.in_features], input[..., self.in_features :]
        return functional.linear(own, self.weight, self.bias) + self.scale * functional.linear(
            more, self.adapter_weight
        )


@dataclass(frozen=True, slots=True)
class Block:
    """One feed-forward layer of a model: names of its linear layers, and its side."""

    into: tuple[str, ...]
    out: str
    side: str


class Unmerged(torch.nn.Module):
    """A model with its adapter, in the form in which PEFT hands out its own."""

    def __init__(self, family: Any) -> None:
        super().__init__()
        self.family = family
        self.model = family.model

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the model says."""
        return self.model(*args, **kwargs)

    def merge_and_unload(self) -> Any:
        """The plain, wider model."""
        merge_bottlenecks(self.family)
        return self.family.model


def blocks_of(family: Any) -> list[Block]:
    """The feed-forward layers of a family's model.

    Raises:
        InputError: the family's are of another form, or its configuration does not say their width.
    """
    widths = WIDTHS.get(family.name, {})
    modules = dict(family.model.named_modules())
    layout = Layout(family)
    found = []
    for name, module in modules.items():
        for into, out in LAYERS:
            if not all(isinstance(getattr(module, one, None), torch.nn.Linear) for one in (*into, out)):
                continue
            block = Block(tuple(f"{name}.{one}" for one in into), f"{name}.{out}", "")
            side = layout.place(f"{block.out}.weight").part.split(".")[0]
            holder, key = _width(family, side) if side in widths else (None, "")
            inner: Any = modules[block.out]
            if holder is not None and getattr(holder, key, None) == inner.in_features:
                found.append(Block(block.into, block.out, side))
    if not found:
        raise InputError(
            f"adapter.kind=bottleneck has no place in this {family.name} model, whose feed-forward layers have another "
            "form: use lora"
        )
    return found


def _width(family: Any, side: str) -> tuple[Any, str]:
    holder, *path = [family.model.config, *WIDTHS[family.name][side].split(".")]
    for one in path[:-1]:
        holder = getattr(holder, one)
    return holder, path[-1]


def add_bottlenecks(family: Any, adapter: AdapterConfig, targets: Sequence[str], beside: Sequence[str]) -> Any:
    """Put a bottleneck of ``adapter.rank`` units beside the targeted feed-forward layers; the rest is frozen.

    Args:
        family: its model is changed in place.
        adapter: its rank, alpha and dropout.
        targets: linear layers that ``adapter.targets`` means; only feed-forward ones count.
        beside: modules that are trained as they are.

    Raises:
        InputError: no target is a feed-forward layer, or `blocks_of`.
    """
    wanted = set(targets)
    blocks = [block for block in blocks_of(family) if {*block.into, block.out} & wanted]
    if not blocks:
        raise InputError(
            "adapter.targets names no feed-forward layer, and adapter.kind=bottleneck stands beside those: add mlp"
        )
    free = {name for name, one in family.model.named_parameters() if one.requires_grad}
    family.model.requires_grad_(False)
    _insert(family.model, blocks, adapter.rank, adapter.alpha / adapter.rank, adapter.dropout)
    for module in beside:
        for name, parameter in family.model.get_submodule(module).named_parameters(module):
            parameter.requires_grad_(name in free)
    return family.model


def _insert(model: Any, blocks: Sequence[Block], units: int, scale: float, dropout: float) -> None:
    for block in blocks:
        for name in block.into:
            _replace(model, name, WiderIn(model.get_submodule(name), units, dropout))
        _replace(model, block.out, WiderOut(model.get_submodule(block.out), units, scale))


def _replace(model: Any, name: str, module: torch.nn.Module) -> None:
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)


def has_bottlenecks(model: torch.nn.Module) -> bool:
    """Whether a model holds adapters of this kind that are not merged."""
    return any(isinstance(module, _Beside) for module in model.modules())


def is_bottleneck(directory: Path) -> bool:
    """Whether an adapter directory is of this kind."""
    file = directory / "adapter_config.json"
    return file.is_file() and read_json(file).get("peft_type") == KIND


def save_bottlenecks(family: Any, directory: Path) -> None:
    """Write what is trained of a model (adapter and modules beside it), and how the adapter is made."""
    from safetensors.torch import save_file

    model = family.model
    outs = {name: module for name, module in model.named_modules() if isinstance(module, WiderOut)}
    first = next(iter(outs.values()))
    save_file(dict(_trained(model)), directory / WEIGHTS, metadata={"format": "pt"})
    write_json(
        directory / "adapter_config.json",
        {
            "peft_type": KIND,
            "base_model_name_or_path": str(getattr(model.config, "_name_or_path", "")),
            "units": first.adapter_weight.shape[1],
            "scale": first.scale,
            "layers": list(outs),
        },
    )


def _trained(model: torch.nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for name, parameter in model.named_parameters():
        if parameter.requires_grad or re.search(r"\.adapter_(weight|bias)$", name):
            yield name, parameter.detach().cpu().contiguous().clone()


def put_bottlenecks(family: Any, directory: Path) -> Unmerged:
    """The family's model with the adapter of a directory, not merged.

    Raises:
        ValueError: the adapter is of another architecture.
    """
    from safetensors.torch import load_file

    settings, weights = read_json(directory / "adapter_config.json"), load_file(directory / WEIGHTS)
    wanted = set(settings["layers"])
    blocks = [block for block in blocks_of(family) if block.out in wanted]
    if {block.out for block in blocks} != wanted:
        raise ValueError(f"it has no layer {min(wanted - {block.out for block in blocks})}")
    _insert(family.model, blocks, settings["units"], settings["scale"], 0.0)
    own = family.model.state_dict()
    for name, value in weights.items():
        if name not in own or own[name].shape != value.shape:
            raise ValueError(f"{name} is not in it, or has another shape")
    with torch.no_grad():
        for name, value in weights.items():
            own[name].copy_(value)
    return Unmerged(family).eval()


@torch.no_grad()
def merge_bottlenecks(family: Any) -> None:
    """Make every feed-forward layer of an adapted side wider; layers without an adapter get units that say nothing."""
    model = family.model
    blocks = blocks_of(family)
    outs = {block.out: model.get_submodule(block.out) for block in blocks}
    units = {block.side: outs[block.out].adapter_weight.shape[1] for block in blocks if _is_wider(outs[block.out])}
    for block in [one for one in blocks if one.side in units]:
        for name in block.into:
            _replace(model, name, _merged(model.get_submodule(name), units[block.side], 0))
        _replace(model, block.out, _merged(outs[block.out], units[block.side], 1))
    for side, more in units.items():
        holder, key = _width(family, side)
        setattr(holder, key, getattr(holder, key) + more)


def _is_wider(module: torch.nn.Module) -> bool:
    return isinstance(module, WiderOut)


def _merged(old: Any, units: int, axis: int) -> torch.nn.Linear:
    """A plain layer with ``units`` more outputs (axis 0) or inputs (axis 1)."""
    shape = (units, old.in_features) if axis == 0 else (old.out_features, units)
    more = old.adapter_weight * getattr(old, "scale", 1.0) if isinstance(old, _Beside) else old.weight.new_zeros(shape)
    new = torch.nn.Linear(1, 1, bias=old.bias is not None)
    new.weight = torch.nn.Parameter(torch.cat([old.weight, more], axis))
    new.out_features, new.in_features = new.weight.shape
    if old.bias is not None:
        extra = getattr(old, "adapter_bias", None)
        bias = old.bias if axis == 1 else torch.cat([old.bias, old.bias.new_zeros(units) if extra is None else extra])
        new.bias = torch.nn.Parameter(bias.clone())
    return new.train(old.training)
