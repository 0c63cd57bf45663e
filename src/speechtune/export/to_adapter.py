"""An adapter by itself, as PEFT reads it: small, and of use only with the base model that it names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json
from speechtune.export.gate import Leg
from speechtune.export.source import Source, missing_or_wrong, preprocessor_settings, recorded_contexts
from speechtune.models.adapters import ADAPTER_CONFIG, base_of, is_adapter
from speechtune.models.bottleneck import is_bottleneck
from speechtune.models.checking import MARK
from speechtune.models.config import Context
from speechtune.models.importers.whisper_tokens import write_tokenizer_files

DTYPES = ("float32", "float16", "bfloat16")
WEIGHTS = "adapter_model.safetensors"


def adapter_of(source: Source) -> Path:
    """The adapter's directory: the source itself, or the one that its run keeps.

    Raises:
        InputError: the model has no adapter, or one that PEFT does not know.
    """
    places = [source.path, *([source.run / "adapter"] if source.run else [])]
    found = next((one for one in places if one.is_dir() and is_adapter(one)), None)
    if found is None:
        raise InputError(f"{source.name} has no adapter, all of its weights were trained: use --to transformers")
    if is_bottleneck(found):
        raise InputError(f"{found} is a bottleneck adapter, which PEFT does not read: use --to transformers")
    return found


def write_adapter(source: Source, out: Path, dtype: str) -> None:
    """Write the adapter's weights in a type, its configuration, and tokenizer and feature settings.

    ``base_model_name_or_path`` names the base on the hub where speechtune knows that it has the same weights.

    Raises:
        InputError: there is no adapter, its base is not on this machine, or float16 cannot hold a weight.
    """
    import torch
    from safetensors.torch import load_file, save_file

    folder = adapter_of(source)
    if not (folder / WEIGHTS).is_file():
        raise InputError(f"{folder} has no {WEIGHTS}: obtain it again")
    weights = load_file(folder / WEIGHTS)
    largest = max((float(one.abs().max()) for one in weights.values() if one.numel()), default=0.0)
    if dtype == "float16" and not largest <= torch.finfo(torch.float16).max:
        raise InputError(f"{folder} has a weight of {largest:.3g}, beyond what float16 holds: export float32")
    kind = getattr(torch, dtype)
    out.mkdir(parents=True, exist_ok=True)
    save_file({name: one.to(kind) for name, one in weights.items()}, out / WEIGHTS, metadata={"format": "pt"})
    named = base_name(folder)
    write_json(out / ADAPTER_CONFIG, {**read_json(folder / ADAPTER_CONFIG), "base_model_name_or_path": named})
    own = read_json(folder / "speechtune.json") if (folder / "speechtune.json").is_file() else {"base": named}
    write_json(out / "speechtune.json", {**recorded_contexts(source), **own})
    write_tokenizer_files(out, source.tokens())
    write_json(out / "preprocessor_config.json", preprocessor_settings(source))


def base_name(folder: Path) -> str:
    """The base of an adapter by its name on the hub, else by its path."""
    base = base_of(folder)
    known = read_json(base / MARK) if (base / MARK).is_file() else {}
    same = str(known.get("same_weights_as") or "")
    return same.removeprefix("hf:") if same.startswith("hf:") else str(base.resolve())


def check_files(source: Source, out: Path) -> list[str]:
    """What is missing or contradicts the weights."""
    return missing_or_wrong(source, out, (WEIGHTS, ADAPTER_CONFIG, "tokenizer.json", "preprocessor_config.json"))


def legs(source: Source, contexts: list[Context], dtype: str) -> list[Leg]:
    """Transformers and PEFT, on the base that is on this machine; at full context, the only one that it knows."""
    options: dict[str, Any] = {"base": str(base_of(adapter_of(source)).resolve())}
    return [Leg("transformers", "full", own_front_end=True, options=options)]
