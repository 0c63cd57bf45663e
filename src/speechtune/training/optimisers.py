"""Optimisers built from a `ParameterPlan`."""

from __future__ import annotations

from typing import Any

import torch

from speechtune.core.errors import InputError, missing_extra
from speechtune.training.optimiser_config import OptimiserConfig
from speechtune.training.parameter_groups import Group, ParameterPlan


def build_optimiser(model: torch.nn.Module, plan: ParameterPlan) -> torch.optim.Optimizer:
    """The optimiser of a plan over a model's trainable parameters, in groups named after nothing but their settings.

    Raises:
        InputError: a trainable parameter has no group (the plan is of another model), or a package is missing.
    """
    groups: dict[Group, list[torch.nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = _planned(name, plan)
            groups.setdefault(plan.group_of[key], []).append(parameter)
    settings = [
        {"params": parameters, "lr": group.rate, "weight_decay": group.weight_decay, "muon": group.muon}
        for group, parameters in groups.items()
    ]
    config = plan.optimiser
    if config.kind == "adamw_8bit":
        return _adamw_8bit(model, settings, config)
    if config.kind == "adafactor":
        from transformers.optimization import Adafactor

        return Adafactor(settings, scale_parameter=False, relative_step=False, warmup_init=False)
    if config.kind == "muon":
        return MuonWithAdamW(settings, config)
    return _adamw(settings, config)


def _planned(name: str, plan: ParameterPlan) -> str:
    for wrapper in ("module.", "_orig_mod.", "_fsdp_wrapped_module."):
        if name not in plan.group_of:
            name = name.replace(wrapper, "")
    if name not in plan.group_of:
        raise InputError(f"the parameter {name} is trained but no group was planned for it: report this as a defect")
    return name


def _adamw(settings: list[dict[str, Any]], config: OptimiserConfig) -> torch.optim.AdamW:
    """PyTorch's AdamW in its fused form (CPU and CUDA have it)."""
    return torch.optim.AdamW(settings, betas=(config.betas[0], config.betas[1]), eps=config.eps, fused=True)


def _adamw_8bit(
    model: torch.nn.Module, settings: list[dict[str, Any]], config: OptimiserConfig
) -> torch.optim.Optimizer:
    """AdamW of bitsandbytes; embeddings keep 32-bit moments, as its authors advise and Transformers does."""
    try:
        import bitsandbytes
    except ImportError as error:
        raise missing_extra("bitsandbytes", "quantised") from error
    optimiser = bitsandbytes.optim.AdamW8bit(settings, betas=(config.betas[0], config.betas[1]), eps=config.eps)
    manager = bitsandbytes.optim.GlobalOptimManager.get_instance()
    for module in model.modules():
        if isinstance(module, torch.nn.Embedding):
            manager.register_module_override(module, "weight", {"optim_bits": 32})
    return optimiser


class MuonWithAdamW(torch.optim.Optimizer):
    """Muon for the groups marked so, AdamW for the others, as one optimiser for schedulers and checkpoints.

    Both work on this object's own groups and state, so that a learning rate set here is the one they use and
    ``state_dict`` holds everything.
    """

    def __init__(self, settings: list[dict[str, Any]], config: OptimiserConfig) -> None:
        own: list[dict[str, Any]] = [group for group in settings if group["muon"]]
        rest: list[dict[str, Any]] = [group for group in settings if not group["muon"]]
        scale: dict[str, Any] = {"momentum": config.muon_momentum, "adjust_lr_fn": config.muon_scale}
        self._parts: list[torch.optim.Optimizer] = [torch.optim.Muon(own, **scale)] if own else []
        if rest:
            self._parts.append(_adamw(rest, config))
        super().__init__([group for part in self._parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Give both optimisers this object's groups and state."""
        start = 0
        for part in self._parts:
            count = len(part.param_groups)
            part.param_groups = self.param_groups[start : start + count]
            part.state = self.state
            start += count

    def step(self, closure: Any = None) -> Any:
        """One step of both."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self._parts:
            part.step()
        return loss

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """As the parent; the optimisers inside then work on what was loaded."""
        super().load_state_dict(state_dict)
        self._share()


def measured_state_bytes(optimiser: torch.optim.Optimizer) -> int:
    """Memory of an optimiser's state in bytes, each tensor once; scalars (steps) and bitsandbytes' tables left out."""
    sizes: dict[int, int] = {}
    for state in optimiser.state.values():
        for name, value in state.items():
            if torch.is_tensor(value) and value.ndim > 0 and not name.startswith("qmap"):
                sizes[value.data_ptr()] = value.untyped_storage().nbytes()
    return sum(sizes.values())
