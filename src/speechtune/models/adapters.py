"""Low-rank adapters and freezing: which weights a run changes, and how they are kept."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch

from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.family import Family
from speechtune.models.trainable import Layout, tied_note, train_only, whole_modules

ADAPTER_CONFIG = "adapter_config.json"
"""PEFT's name of the file that makes a directory an adapter."""


def choose_trainable(
    family: Family, model: ModelConfig, adapter: AdapterConfig, steps: int = 100, layout: Layout | None = None
) -> torch.nn.Module:
    """Freeze and wrap ``family.model`` as a recipe asks, and return what is to be trained.

    A parameter that the architecture itself freezes (Whisper's sinusoidal positions) stays frozen.

    Args:
        family: its model is changed in place.
        model: what a full fine-tune trains.
        adapter: the adapter, if one is trained instead.
        steps: optimiser steps of the whole training; AdaLoRA's ranks are allocated over them.
        layout: of ``family``, where the caller has it already.

    Raises:
        InputError: a word of the recipe names nothing in this model, or a package is missing.
    """
    layout = layout or Layout(family)
    if adapter.kind != "none":
        return add_adapter(family, adapter, steps, layout)
    shared = tied_note(layout, model.train)
    if shared:
        note(shared)
    train_only(layout, model.train)
    return family.model


def add_adapter(family: Family, adapter: AdapterConfig, steps: int, layout: Layout) -> torch.nn.Module:
    """Put a new adapter on ``family.model`` (quantised first, where asked): it starts as the identity.

    Raises:
        InputError: see `choose_trainable`.
    """
    from peft import get_peft_model

    targets = layout.linear_layers(adapter.targets, "adapter.targets")
    beside: list[str] = []
    if adapter.also_train is not None:
        names = layout.select(adapter.also_train, "adapter.also_train")
        beside = whole_modules(layout, [name for name in names if layout.parameters[name].requires_grad], "also_train")
        both = sorted(set(beside) & set(targets))
        if both:
            raise InputError(
                f"adapter.also_train: {both[0]} has an adapter already: leave it out of targets or of here"
            )
    beside += [name for name in getattr(family, "fresh", ()) if name not in beside]  # a random head is trained always
    if adapter.kind == "bottleneck":
        from speechtune.models.bottleneck import add_bottlenecks

        return add_bottlenecks(family, adapter, targets, beside)
    config = _peft_config(adapter, targets, beside, steps)
    if adapter.bits:
        from speechtune.models.quantised import quantise

        quantise(family.model, layout, adapter.bits, keep=beside)
    with _quiet_libraries():
        trained: Any = get_peft_model(family.model, config)
    if adapter.kind == "adalora":
        from speechtune.models.rank_allocation import add_penalty

        add_penalty(trained)
    return trained


def _peft_config(adapter: AdapterConfig, targets: list[str], beside: list[str], steps: int) -> Any:
    from peft import AdaLoraConfig, LoraConfig

    common: dict[str, Any] = {
        "lora_alpha": adapter.alpha,
        "lora_dropout": adapter.dropout,
        "target_modules": targets,
        "modules_to_save": beside or None,
    }
    if adapter.kind != "adalora":
        extra = {"use_rslora": adapter.kind == "rslora", "use_dora": adapter.kind == "dora"}
        return LoraConfig(r=adapter.rank, **common, **extra)
    ranks = adapter.adalora
    initial = ranks.initial_rank or max(adapter.rank + 1, round(1.5 * adapter.rank))
    if initial <= adapter.rank:
        raise InputError(
            f"adapter.adalora.initial_rank: {initial} is no more than adapter.rank={adapter.rank}, so no rank could be "
            "given up: raise it"
        )
    warmup, final = round(ranks.warmup_share * steps), max(1, round(ranks.final_share * steps))
    if warmup >= steps - final:
        raise InputError(
            f"adapter.kind: adalora cannot allocate ranks in {steps} optimiser steps: train longer or use lora"
        )
    return AdaLoraConfig(
        target_r=adapter.rank,
        init_r=initial,
        tinit=warmup,
        tfinal=final,
        deltaT=ranks.every_steps,
        total_step=steps,
        orth_reg_weight=ranks.orthogonality,
        **common,
    )


def save_trained(family: Family, trained: torch.nn.Module, run: Path) -> None:
    """Write ``run/model`` as plain weights; an adapter is also kept by itself in ``run/adapter``.

    An adapter on a quantised base is merged into the base in full precision, read again from its directory.
    """
    from speechtune.core.files import new_directory
    from speechtune.models.bottleneck import has_bottlenecks, merge_bottlenecks, save_bottlenecks

    if has_bottlenecks(family.model):
        with new_directory(run / "adapter", overwrite=True) as draft:
            save_bottlenecks(family, draft)
        merge_bottlenecks(family)
    elif trained is not family.model:
        with new_directory(run / "adapter", overwrite=True) as draft:
            save_adapter(trained, draft)
        if is_quantised(family.model):
            family = load_adapted(run / "adapter", language=family.language)
        else:
            family.model = trained.merge_and_unload()  # type: ignore[operator]
    with new_directory(run / "model", overwrite=True) as draft:
        family.save(draft)


def save_adapter(trained: torch.nn.Module, directory: Path) -> None:
    """Write an adapter as PEFT does, without the model card PEFT makes up; AdaLoRA's ranks go to ``ranks.json``."""
    from speechtune.core.files import write_json
    from speechtune.models.rank_allocation import RANKS, ranks_of

    trained.save_pretrained(directory)  # type: ignore[operator]
    (directory / "README.md").unlink(missing_ok=True)
    ranks = ranks_of(trained)
    if ranks:
        write_json(directory / RANKS, ranks)


def describe_adapter(run: Path, trained_for: dict[str, Any], base: str | None) -> None:
    """Write beside a run's adapter, if it has one, what it was trained for and the name of its base."""
    from speechtune.core.files import write_json

    if (run / "adapter").is_dir():
        if base and Path(base).exists():  # a path means the same from everywhere; a catalogue name stays one
            base = str(Path(base).resolve())
        write_json(run / "adapter" / "speechtune.json", {**trained_for, **({"base": base} if base else {})})


def is_quantised(model: torch.nn.Module) -> bool:
    """Whether a model's frozen layers are held in 4 or 8 bits."""
    return bool(getattr(model, "is_loaded_in_4bit", False) or getattr(model, "is_loaded_in_8bit", False))


def is_adapter(directory: Path) -> bool:
    """Whether a directory holds an adapter and no whole model."""
    return (directory / ADAPTER_CONFIG).is_file() and not (directory / "config.json").is_file()


def base_of(directory: Path) -> Path:
    """The model directory that an adapter belongs to: what its ``speechtune.json`` or PEFT's own file names.

    Raises:
        InputError: neither names a model that is on this machine.
    """
    from speechtune.core.files import read_json
    from speechtune.models.obtaining import resolve_model

    named = [read_json(directory / ADAPTER_CONFIG).get("base_model_name_or_path")]
    if (directory / "speechtune.json").is_file():
        named.insert(0, read_json(directory / "speechtune.json").get("base"))
    problems = []
    for name in dict.fromkeys(filter(None, named)):
        try:
            return resolve_model(str(name))
        except InputError as error:
            problems.append(str(error))
    why = problems[-1] if problems else "its configuration names none"
    raise InputError(
        f"the base model of the adapter {directory} is not here ({why}): merge it with speechtune models merge "
        f"BASE {directory} --out DIR"
    )


def put_on(family: Family, directory: Path) -> Any:
    """The family's model with the adapter of a directory, not merged.

    Raises:
        InputError: the directory is no adapter, or one of another architecture.
    """
    from peft import PeftModel

    if not is_adapter(directory):
        raise InputError(f"{directory} is not an adapter directory (no {ADAPTER_CONFIG}): check the path")
    from speechtune.models.bottleneck import is_bottleneck, put_bottlenecks

    try:
        if is_bottleneck(directory):
            return put_bottlenecks(family, directory)
        with _quiet_libraries():
            return PeftModel.from_pretrained(family.model, str(directory), low_cpu_mem_usage=False).eval()
    except (ValueError, RuntimeError, KeyError, OSError, TypeError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"the adapter {directory} does not fit this model ({reason}): name the base it was made for"
        ) from error


def load_adapted(
    directory: Path, *, language: str | None = None, device: str | None = None, base: Path | None = None
) -> Family:
    """A family with an adapter merged into its base; the base is found from the adapter unless it is given.

    Raises:
        InputError: no adapter there, no base on this machine, or they do not fit.
    """
    from speechtune.models.family import load_family

    family = load_family(base or base_of(directory), language=language, device=device)
    family.model = put_on(family, directory).merge_and_unload()
    family.model.requires_grad_(True)
    if hasattr(family, "recall"):
        family.recall(directory)
    config: Any = getattr(family.model, "config", None)
    if config is not None:  # an adapter trained on top of this one names this directory as its base
        config._name_or_path = str(directory.resolve())
        family.model.name_or_path = str(directory.resolve())  # type: ignore[assignment]
    return family


@contextmanager
def _quiet_libraries() -> Iterator[None]:
    """No deprecations that PEFT and Transformers have between themselves."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        yield


def count_parameters(module: torch.nn.Module) -> tuple[int, int]:
    """How many parameters a module trains, and how many it has."""
    trainable = sum(parameter.numel() for parameter in module.parameters() if parameter.requires_grad)
    return trainable, sum(parameter.numel() for parameter in module.parameters())
