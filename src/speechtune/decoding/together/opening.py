"""Models named together, as in ``runs/a+runs/b`` or ``runs/a:0.6+runs/b:0.4``, opened as an ensemble."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from speechtune.core.errors import InputError

if TYPE_CHECKING:
    from speechtune.decoding.sources import OpenedModel


def names_several(name: str) -> bool:
    """Whether a model's name is that of several joined by ``+`` (and not of something that exists)."""
    return "+" in name and not Path(name).exists()


def parse_members(name: str) -> tuple[list[str], list[float] | None]:
    """The models of a joined name, and their weights if they have any.

    Raises:
        InputError: an empty name, a weight that is no number, or weights for some of the models only.
    """
    names, weights = [], []
    for part in name.split("+"):
        member, colon, weight = part.rpartition(":")
        if not colon or Path(part).exists():
            names.append(part)
            continue
        try:
            weights.append(float(weight))
        except ValueError as error:
            raise InputError(f"the weight {weight!r} in {name} is no number: write A:0.6+B:0.4") from error
        names.append(member)
    if not all(names):
        raise InputError(f"{name!r} names an empty model: write A+B, or A:0.6+B:0.4")
    if weights and len(weights) != len(names):
        raise InputError(f"{name} has {len(weights)} weights for {len(names)} models: give one to each, or none")
    return names, weights or None


def open_ensemble(name: str, open_one: Callable[[str], OpenedModel]) -> OpenedModel:
    """Open every model of a joined name and make an `Ensemble` of them.

    It decodes as the first would; at the full audio context if that is what one of them was trained for.

    Raises:
        InputError: a model cannot be opened, or they do not fit together.
    """
    from dataclasses import replace

    from speechtune.decoding.together.ensemble import Ensemble

    names, weights = parse_members(name)
    opened = [open_one(member) for member in names]
    joint = Ensemble([one.family for one in opened], weights)
    contexts = {one.decoding.context for one in opened}
    decoding = opened[0].decoding
    if len(contexts) > 1:
        decoding = decoding.model_copy(update={"context": "full"})
    return replace(opened[0], path=Path(name), family=joint, decoding=decoding)
