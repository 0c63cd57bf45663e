"""Strict configuration files: OmegaConf reads and merges them, pydantic checks them.

An unknown key is an error that names the nearest valid ones; every field carries its help text.
"""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

from pydantic import BaseModel, ValidationError

from speechtune.core.errors import InputError

Config = TypeVar("Config", bound=BaseModel)


def load_config(kind: type[Config], path: Path | None, overrides: Sequence[str] = ()) -> Config:
    """Read a YAML file, apply dotted ``key=value`` overrides, and validate.

    Raises:
        InputError: the file is missing or not YAML, an override is malformed, a key is unknown, or a
            value is wrong. The sentence names the file and the key.
    """
    from omegaconf import DictConfig, ListConfig, OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for item in overrides:
        if "=" not in item.lstrip("="):
            raise InputError(f"{item!r} is not key=value: write for example training.epochs=3")
    where = str(path) if path else "the settings given"
    try:
        loaded = OmegaConf.load(path) if path else OmegaConf.create()
        if not isinstance(loaded, DictConfig):
            raise InputError(f"{where} must be a mapping of sections: begin with data: and model:")
        for key, text in (one.split("=", 1) for one in overrides):
            other = {"{": ListConfig, "[": DictConfig}.get(text[:1])  # a list and a mapping do not merge
            if other and isinstance(OmegaConf.select(loaded, key), other):
                OmegaConf.update(loaded, key, None, merge=False)
        in_list = [one for one in overrides if any(part.isdigit() for part in one.split("=", 1)[0].split("."))]
        merged = OmegaConf.merge(loaded, OmegaConf.from_dotlist([one for one in overrides if one not in in_list]))
        for one in in_list:  # merging would replace the list by a mapping
            key, value = one.split("=", 1)
            OmegaConf.update(merged, key, OmegaConf.from_dotlist([f"value={value}"]).value)
        values = OmegaConf.to_container(merged, resolve=True)
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the recipe's path") from error
    except (OmegaConfBaseException, TypeError, ValueError) as error:
        raise InputError(f"{where} cannot be read ({str(error).splitlines()[0]}): repair it") from error
    except Exception as error:
        if type(error).__module__.startswith("yaml"):
            first = " ".join(str(error).split())
            raise InputError(f"{where} is not valid YAML ({first}): repair it") from error
        raise
    assert isinstance(values, dict)
    return validate(kind, values, where)


def validate(kind: type[Config], values: dict[Any, Any], where: str) -> Config:
    """Check plain values against a pydantic model; the first problem becomes one sentence.

    Raises:
        InputError: an unknown key or a wrong value.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        problems = error.errors()
        unknown = [problem for problem in problems if problem["type"] == "extra_forbidden"]
        first = (unknown or problems)[0]
        key = ".".join(str(part) for part in first["loc"])
        if unknown:
            raise InputError(f"{where}: unknown key {key!r}; {_nearest(kind, key)}") from error
        given = first["input"]
        got = "" if first["type"] == "missing" or isinstance(given, dict | list) else f", not {given!r}"
        raise InputError(f"{where}: {key}: {first['msg'].lower()}{got}") from error


def _nearest(kind: type[BaseModel], key: str) -> str:
    valid = _valid_keys(kind, key)
    close = difflib.get_close_matches(key, valid, n=3, cutoff=0.6)
    leaf = key.rsplit(".", 1)[-1]
    close += [name for name in valid if difflib.SequenceMatcher(None, leaf, name.rsplit(".", 1)[-1]).ratio() > 0.75]
    names = list(dict.fromkeys(close))[:3]
    if names:
        return f"did you mean {' or '.join(names)}?"
    section = key.rpartition(".")[0]
    inside = [name for name in valid if name.rpartition(".")[0] == section]
    return f"valid keys here are {', '.join(inside or valid)}"


def _valid_keys(kind: type[BaseModel], key: str) -> list[str]:
    """The keys that may stand where ``key`` does: those of the list item it is in, else every leaf."""
    parts, model, item = key.split("."), kind, 0
    for place, part in enumerate(parts[:-1]):
        if part.isdigit():
            item = place + 1
            continue
        field = model.model_fields.get(part)
        nested = _model_in(field.annotation, inside_lists=True) if field else None
        if nested is None:
            break
        model = nested
    if not item:
        return [name for name, _ in fields_of(kind)]
    prefix = ".".join(parts[:item])
    return [f"{prefix}.{name}" for name, _ in fields_of(model)]


def fields_of(kind: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Every leaf key of a config in dotted form, with its pydantic field."""
    for name, field in kind.model_fields.items():
        nested = _model_in(field.annotation)
        if nested is not None:
            yield from fields_of(nested, f"{prefix}{name}.")
        else:
            yield prefix + name, field


def _model_in(annotation: Any, inside_lists: bool = False) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if inside_lists and typing.get_origin(annotation) is list:
        return _model_in(typing.get_args(annotation)[0])
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        models = [model for model in map(_model_in, typing.get_args(annotation)) if model]
        return models[0] if models else None
    return None


def explain(kind: type[BaseModel]) -> list[dict[str, Any]]:
    """Key, type, default and help text of every setting, in order."""
    rows = []
    for name, field in fields_of(kind):
        default = "(required)" if field.is_required() else field.get_default(call_default_factory=True)
        annotation = field.annotation
        shown = annotation.__name__ if isinstance(annotation, type) else str(annotation).replace("typing.", "")
        rows.append({"key": name, "type": shown, "default": default, "help": field.description or ""})
    return rows
