"""Soups: one model whose weights are a weighted mean of other models' weights.

Wortsman et al. 2022, "Model soups" (arXiv 2203.05482). Low-rank adapters are merged into their base first: the mean of
the products ``B A`` is not the product of the means of ``B`` and ``A``.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json
from speechtune.models.obtaining import resolve_model

WEIGHTS = "model.safetensors"
Weights = Mapping[str, Sequence[float]]
"""Weights of the members for each group of layers; the group ``""`` is every other."""


@dataclass(slots=True)
class Member:
    """One ingredient: what the user named it, and the model directory its weights are in."""

    name: str
    path: Path
    files: dict[str, Path] = field(default_factory=dict)
    """Which file holds each tensor."""

    def tensor(self, name: str) -> torch.Tensor:
        """One tensor, on the CPU."""
        from safetensors import safe_open

        with safe_open(self.files[name], framework="pt") as stored:
            return stored.get_tensor(name)


def open_members(names: Sequence[str], scratch: Path, base: str | None = None) -> list[Member]:
    """The members that the names stand for: runs, model directories, catalogue names, and adapter directories.

    Args:
        names: what the user gave.
        scratch: where adapters are merged into their base.
        base: the base model of adapters; as their ``adapter_config.json`` says when not given.

    Raises:
        InputError: no such model, or members that cannot be averaged (see `check_same_shape`).
    """
    members = []
    for number, name in enumerate(names):
        path = Path(name)
        if (path / "adapter_config.json").is_file():
            path = merge_adapter(path, scratch / f"merged-{number}", base)
        elif (path / "recipe.yaml").is_file():
            path = path / "model"
            if not (path / "config.json").is_file():
                raise InputError(f"{name} holds no finished model: wait for the run, or continue it with --resume")
        else:
            path = resolve_model(name)
        files = {tensor: file for file in sorted(path.glob("*.safetensors")) for tensor in _names(file)}
        if not files:
            raise InputError(f"{path} holds no *.safetensors weights: save the model with Transformers 5 first")
        members.append(Member(name, path, files))
    check_same_shape(members)
    return members


def _names(file: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(file, framework="pt") as stored:
        return list(stored.keys())


def merge_adapter(adapter: Path, into: Path, base: str | None) -> Path:
    """Write the plain model that an adapter (LoRA, rsLoRA, DoRA, …) and its base are together.

    Raises:
        InputError: the base is not said or not there, or the adapter does not fit it.
    """
    from peft import PeftModel

    from speechtune.models.family import load_family

    named = base or read_json(adapter / "adapter_config.json").get("base_model_name_or_path")
    if not named:
        raise InputError(f"{adapter} does not say its base model: name it with --base")
    source = Path(named) if Path(named).is_dir() else resolve_model(named)
    beside = adapter.parent / "model" / "speechtune.json"
    language = read_json(beside).get("language") if beside.is_file() else None
    family = load_family(source, language=language or _any_language(source), device="cpu")
    from speechtune.models.bottleneck import is_bottleneck, put_bottlenecks

    wrapped: Any
    try:
        if is_bottleneck(adapter):
            wrapped = put_bottlenecks(family, adapter)
        else:
            wrapped = PeftModel.from_pretrained(family.model, str(adapter))
    except (ValueError, RuntimeError, OSError) as error:
        raise InputError(f"{adapter} does not fit the base {named} ({str(error).splitlines()[0]})") from error
    family.model = wrapped.merge_and_unload()
    into.mkdir(parents=True)
    family.save(into)
    if beside.is_file():
        shutil.copy(beside, into / "speechtune.json")
    return into


def _any_language(path: Path) -> str | None:
    """A language to load a multilingual model with, where only its weights matter."""
    config = path / "generation_config.json"
    known = read_json(config).get("lang_to_id") if config.is_file() else None
    return next(iter(known))[2:-2] if known else None


def check_same_shape(members: Sequence[Member]) -> None:
    """Refuse members of other architectures, shapes or tokenizers; the sentence names the first difference.

    Raises:
        InputError: they differ.
    """
    from safetensors import safe_open

    first = members[0]
    for other in members[1:]:
        types = [read_json(one.path / "config.json").get("model_type") for one in (first, other)]
        if types[0] != types[1]:
            raise InputError(f"{first.name} is of type {types[0]} and {other.name} of type {types[1]}: no common soup")
        odd = sorted(set(first.files) ^ set(other.files))
        if odd:
            raise InputError(
                f"{first.name} and {other.name} differ in architecture (only one has {odd[0]}): no common soup"
            )
        for name, file in first.files.items():
            with safe_open(file, framework="pt") as a, safe_open(other.files[name], framework="pt") as b:
                shapes = [one.get_slice(name).get_shape() for one in (a, b)]
            if shapes[0] != shapes[1]:
                raise InputError(
                    f"{first.name} and {other.name} differ in architecture ({name} has shape {shapes[0]} and "
                    f"{shapes[1]}): no common soup"
                )
        if _vocabulary(first.path) != _vocabulary(other.path):
            raise InputError(f"{first.name} and {other.name} have different tokenizers: no common soup")


def _vocabulary(path: Path) -> Any:
    if (path / "tokenizer.json").is_file():
        document = read_json(path / "tokenizer.json")
        added = {token["content"]: token["id"] for token in document.get("added_tokens", [])}
        return document.get("model", {}).get("vocab"), added
    return read_json(path / "vocab.json") if (path / "vocab.json").is_file() else None


def mixed(
    members: Sequence[Member], weights: Weights, group: Callable[[str], str] = lambda name: ""
) -> Iterator[tuple[str, torch.Tensor]]:
    """Every tensor of the soup, name by name; only one tensor of each member is in memory.

    Sums are float64, taken in the order of the members' paths, so that neither their order nor the rounding shows: a
    soup of identical models is the model, bit for bit. A tensor has the members' own dtype where they agree, else
    float32. What is not floating point must be the same in all.

    Raises:
        InputError: a whole-number tensor differs between members, or the weights do not sum to 1.
    """
    for values in weights.values():
        if len(values) != len(members) or abs(sum(values) - 1) > 1e-6:
            raise InputError(f"the weights {list(values)} are not {len(members)} numbers that sum to 1")
    order = sorted(range(len(members)), key=lambda place: (str(members[place].path), place))
    for name in members[0].files:
        values = weights.get(group(name), weights.get("", []))
        tensors = [members[place].tensor(name) for place in order]
        if not tensors[0].is_floating_point():
            if any(not torch.equal(tensors[0], other) for other in tensors[1:]):
                raise InputError(f"the whole-number tensor {name} differs between the members: no common soup")
            yield name, tensors[0]
            continue
        kinds = {tensor.dtype for tensor in tensors}
        total = torch.zeros(tensors[0].shape, dtype=torch.float64)
        for place, tensor in zip(order, tensors, strict=True):
            if values[place]:
                total += tensor.double() * values[place]
        yield name, total.to(kinds.pop() if len(kinds) == 1 else torch.float32)


def write_soup(directory: Path, members: Sequence[Member], tensors: Mapping[str, torch.Tensor]) -> None:
    """Write a model directory: the soup's weights and, beside them, what the first member has beside its own.

    ``speechtune.json`` keeps the audio contexts that every member was trained for.
    """
    from safetensors.torch import save_file

    left_out = {"speechtune.json", "training_args.bin", "README.md"}
    for file in members[0].path.iterdir():
        if file.is_file() and "safetensors" not in file.name and file.name not in left_out:
            shutil.copy(file, directory / file.name)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, directory / WEIGHTS, {"format": "pt"})
    trained = [read_json(one.path / "speechtune.json") for one in members if (one.path / "speechtune.json").is_file()]
    if len(trained) == len(members):
        for one, facts in zip(members, trained, strict=True):
            if facts.get("prompt") != trained[0].get("prompt"):
                raise InputError(f"{one.path} was trained with another prompt than {members[0].path}: leave it out")
        contexts = [one for one in trained[0]["audio_contexts"] if all(one in t["audio_contexts"] for t in trained)]
        languages = {one.get("language") for one in trained}
        language = languages.pop() if len(languages) == 1 else None
        write_json(directory / "speechtune.json", {**trained[0], "audio_contexts": contexts, "language": language})


def refactor(
    members: Sequence[Member], tensors: Mapping[str, torch.Tensor], base: Path, rank: int, directory: Path
) -> dict[str, Any]:
    """Write a soup of adapters as one adapter of a given rank: the SVD of how far each linear layer moved.

    Truncating the singular values is the closest matrix of that rank (Eckart & Young 1936). The result says the
    relative error ``|W - W0 - B A| / |W - W0|`` of each layer and over all, and which tensors moved that are no
    matrices of the adapter (they are lost).

    Args:
        members: only for the base's name in the configuration.
        tensors: of the soup.
        base: directory of the base model.
        rank: of every layer.
        directory: the adapter's new directory.
    """
    from peft import LoraConfig
    from safetensors.torch import save_file

    source = Member(str(base), base, {n: file for file in sorted(base.glob("*.safetensors")) for n in _names(file)})
    factors: dict[str, torch.Tensor] = {}
    errors: dict[str, float] = {}
    lost_square = total_square = 0.0
    not_covered = []
    for name, tensor in tensors.items():
        change = tensor.double() - source.tensor(name).double()
        square = float((change**2).sum())
        if square == 0:
            continue
        linear = tensor.dim() == 2 and name.endswith(".weight") and "embed" not in name
        if not linear:
            not_covered.append(name)
            continue
        u, s, v = torch.linalg.svd(change, full_matrices=False)
        kept = min(rank, len(s))
        root = s[:kept].sqrt()
        key = f"base_model.model.{name.removesuffix('.weight')}"
        padded = rank - kept
        a, b = root[:, None] * v[:kept], u[:, :kept] * root
        factors[f"{key}.lora_A.weight"] = torch.nn.functional.pad(a, (0, 0, 0, padded)).float().contiguous()
        factors[f"{key}.lora_B.weight"] = torch.nn.functional.pad(b, (0, padded)).float().contiguous()
        left = float((s[kept:] ** 2).sum())
        errors[name] = (left / square) ** 0.5
        lost_square, total_square = lost_square + left, total_square + square
    if not factors:
        raise InputError(f"no linear layer of the soup differs from {base}: there is no adapter to write")
    directory.mkdir(parents=True)
    targets = sorted(
        key.removeprefix("base_model.model.").removesuffix(".lora_A.weight") for key in factors if "_A" in key
    )
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=targets, base_model_name_or_path=str(base))
    config.save_pretrained(str(directory))
    save_file(factors, directory / "adapter_model.safetensors", {"format": "pt"})
    error = (lost_square / total_square) ** 0.5
    return {"rank": rank, "relative_error": error, "layers": errors, "not_covered": not_covered}
