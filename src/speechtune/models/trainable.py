"""Which weights: words of a recipe, resolved once to parameter names.

A family lists its parts from the sound to the text (`speechtune.models.family.Family.parts`). Every parameter has one
place in them: its part, the layer of a stack, and its depth. Freezing, learning rates and adapter targets all ask
this file, so that `encoder: [0.5, 1.0]` means the same layers everywhere.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any

import torch

from speechtune.core.errors import InputError
from speechtune.models.config import Selection

NORMS, BIASES, ALL = "norms", "biases", "all"
_WRAPPERS = frozenset(
    {"module", "_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module", "base_layer", "original_module"}
)


def linear_layers(model: torch.nn.Module, wanted: Iterable[tuple[str, str]]) -> list[str]:
    """Full names of the linear layers that lie inside a module and end with a name.

    Args:
        model: where they are looked for.
        wanted: pairs such as ``(".encoder.", "fc1")``.
    """
    pairs = set(wanted)
    return [
        name
        for name, module in model.named_modules()
        if isinstance(module, torch.nn.Linear)
        and any(inside in f".{name}" and name.endswith(f".{layer}") for inside, layer in pairs)
    ]


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a model: ``name`` (dotted, its first word is the side) and the modules it is made of.

    A ``stack`` is a list of layers from the sound to the text, each of the ``modules`` one layer. ``tied_to``: the
    part has no weights of its own but shares this parameter (Whisper's output layer is its token embedding).
    """

    name: str
    modules: tuple[str, ...]
    stack: bool = False
    tied_to: str | None = None

    @property
    def side(self) -> str:
        """Its first word, such as ``encoder``, ``decoder`` or ``head``."""
        return self.name.split(".")[0]


@dataclass(frozen=True, slots=True)
class Place:
    """Where a parameter stands: its part, its layer of how many, and its depth (0 at the sound, 1 at the text)."""

    part: str
    layer: int | None
    layers: int
    depth_frac: float


class Layout:
    """A family's parts, with every parameter of its model at one place.

    Made before adapters are added; `place` also understands the names that PEFT and torch's wrappers make of them.
    """

    def __init__(self, family: Any) -> None:
        self.family = family
        self.parts: list[Part] = list(family.parts())
        self.parameters: dict[str, torch.nn.Parameter] = dict(family.model.named_parameters())
        self.norms = frozenset(_norm_parameters(family.model))
        self._modules = [(module, part) for part in self.parts for module in part.modules]
        self._roles: dict[str, frozenset[str]] = {}

    def place(self, name: str) -> Place:
        """The place of a parameter, wrapped or not.

        Raises:
            InputError: no part of the family covers it (a defect of the family).
        """
        bare = bare_name(name)
        found = max(
            ((module, part) for module, part in self._modules if bare == module or bare.startswith(module + ".")),
            key=lambda pair: len(pair[0]),
            default=None,
        )
        if found is None:
            raise InputError(f"no part of the {self.family.name} family covers {bare}: report this as a defect")
        module, part = found
        if part.stack:
            layer, layers = part.modules.index(module), len(part.modules)
            return Place(part.name, layer, layers, (layer + 0.5) / layers)
        return Place(part.name, None, 0, self._end(part))

    def _end(self, part: Part) -> float:
        """Parts below their side's layers are at depth 0, those above at depth 1."""
        stacks = [place for place, one in enumerate(self.parts) if one.stack and one.side == part.side]
        return 1.0 if not stacks or self.parts.index(part) > stacks[0] else 0.0

    def select(self, selection: Selection, key: str) -> list[str]:
        """The parameters of the bare model that a selection names, in the model's order.

        Raises:
            InputError: a word of it names nothing; ``key`` is the recipe's key it stands at.
        """
        chosen: set[str] = set()
        for word, limits in selection_items(selection):
            chosen |= self.select_one(word, limits, key)
        return [name for name in self.parameters if name in chosen]

    def select_one(self, word: str, limits: tuple[float, float], key: str) -> set[str]:
        """As `select` for one word within a range of depth."""
        word = self.own_word(word)
        named = {name for name in self.parameters if self.matches(word, name)}
        shared = {part.tied_to for part in self.parts if part.tied_to and _is_part(word, part.name)}
        named |= {name for name in shared if name is not None}
        if not named:
            raise InputError(f"{key}: {word!r} names nothing in this {self.family.name} model: {self._offer(word)}")
        inside = {name for name in named if within(self.place(name), limits) or name in shared}
        if not inside:
            heights = sorted({self.place(name).layers for name in named} - {0})
            raise InputError(
                f"{key}: no layer of {word!r} lies in {list(limits)}, a stack here has {heights[0] if heights else 0} "
                "layers and a layer counts where its middle is: widen the range"
            )
        return inside

    def own_word(self, word: str) -> str:
        """A word with the family's other name of a side (``audio_tower``) replaced by ours (``encoder``)."""
        side, dot, rest = word.partition(".")
        return getattr(self.family, "aliases", {}).get(side, side) + dot + rest

    def matches(self, word: str, name: str) -> bool:
        """Whether a word (part, ``norms``, ``biases``, role, or a pattern with ``*``) names a parameter."""
        word = self.own_word(word)
        if "*" in word:
            return fnmatchcase(name, word) or fnmatchcase(bare_name(name), word)
        place, bare = self.place(name), bare_name(name)
        if word == ALL or _is_part(word, place.part):
            return True
        if any(part.tied_to == bare and _is_part(word, part.name) for part in self.parts):
            return True
        side, _, kind = word.rpartition(".")
        if kind in (NORMS, BIASES):
            fits = bare in self.norms if kind == NORMS else bare.endswith("bias")
            return fits and (not side or _is_part(side, place.part))
        return _module_of(bare) in self._role(word)

    def linear_layers(self, selection: Selection, key: str) -> list[str]:
        """The names of the linear layers that a selection of adapter targets means.

        A role is the family's (`adapter_targets`); of a part, the attention and feed-forward layers are meant.

        Raises:
            InputError: a word names no linear layer.
        """
        linear = {name for name, module in self.family.model.named_modules() if isinstance(module, torch.nn.Linear)}
        usual = {name for role in ("attention", "mlp") for name in self._role(role)}
        chosen: set[str] = set()
        for word, limits in selection_items(selection):
            parameters = self.select_one(word, limits, key)
            modules = {_module_of(name) for name in parameters} & linear
            if not self._role(word) and "*" not in word:
                modules &= usual
            if not modules:
                raise InputError(f"{key}: {word!r} has no linear layers that can be adapted: {self._offer(word)}")
            chosen |= modules
        return [name for name, _ in self.family.model.named_modules() if name in chosen]

    def words(self) -> list[str]:
        """Parts and groups a selection may name (roles and patterns come beside them)."""
        sides = dict.fromkeys(part.side for part in self.parts)
        return list(dict.fromkeys([ALL, *sides, *(part.name for part in self.parts), NORMS, BIASES]))

    def _role(self, word: str) -> frozenset[str]:
        if word not in self._roles:
            try:
                self._roles[word] = frozenset(self.family.adapter_targets([word]))
            except (InputError, KeyError):
                self._roles[word] = frozenset()
        return self._roles[word]

    def _offer(self, word: str) -> str:
        roles = list(getattr(self.family, "roles", ()))
        near = difflib.get_close_matches(word, [*self.words(), *roles], n=2, cutoff=0.6)
        hint = f"did you mean {' or '.join(near)}? There are " if near else "there are "
        return hint + ", ".join([*self.words(), *roles]) + ", and patterns of parameter names with *"


def selection_items(selection: Selection) -> list[tuple[str, tuple[float, float]]]:
    """A selection as words with their range of depth."""
    if isinstance(selection, str):
        return [(selection, (0.0, 1.0))]
    if isinstance(selection, dict):
        return [
            (word, (0.0, 1.0) if isinstance(limits, bool) else (limits[0], limits[1]))
            for word, limits in selection.items()
            if limits is not False
        ]
    return [(word, (0.0, 1.0)) for word in selection]


def within(place: Place, limits: tuple[float, float]) -> bool:
    """Whether a place is in a range of depth: a layer by its middle, what is below the stack at 0, above it at 1."""
    low, high = limits
    if place.layer is None:
        return low <= 0 if place.depth_frac == 0 else high >= 1
    return low <= place.depth_frac < high or (high == 1 and place.depth_frac == 1)


def bare_name(name: str) -> str:
    """A parameter's name in the bare model: without what DDP, FSDP, compile and PEFT put around and inside it.

    The factors of an adapter have the name of the weight they change.
    """
    words: list[str] = []
    parts = iter(name.removeprefix("base_model.model.").split("."))
    for word in parts:
        if word.startswith("lora_") or word == "ranknum":
            return ".".join([*words, "weight"])
        if word == "modules_to_save":
            next(parts, None)  # the adapter's name
        elif word not in _WRAPPERS:
            words.append(word)
    return ".".join(words)


def freeze_except(layout: Layout, names: Iterable[str]) -> None:
    """Freeze all other parameters; one that the architecture itself freezes (fixed positions) stays frozen."""
    kept = set(names)
    for name, parameter in layout.parameters.items():
        parameter.requires_grad_(parameter.requires_grad and name in kept)


def check_selection(family: Any, selection: Selection) -> None:
    """Refuse a selection that names nothing in a model, before anything is done with it.

    Raises:
        InputError: a word names nothing.
    """
    if selection != ALL:
        Layout(family).select(selection, "model.train")


def train_only(layout: Layout, selection: Selection) -> None:
    """Make exactly the selected parameters trainable.

    Raises:
        InputError: a word names nothing, or everything selected is fixed by the architecture.
    """
    if selection == ALL:
        return
    names = layout.select(selection, "model.train")
    if not any(layout.parameters[name].requires_grad for name in names):
        raise InputError(
            f"model.train: {names[0]} is fixed by the architecture and nothing else is selected: choose another part"
        )
    freeze_except(layout, names)


def tied_note(layout: Layout, selection: Selection) -> str | None:
    """One sentence where a selection names a part that shares another's weights, else nothing."""
    words = [word for word, _ in selection_items(selection)]
    for part in layout.parts:
        if part.tied_to and any(_is_part(word, part.name) for word in words):
            owner = layout.place(part.tied_to).part
            return f"{part.name} shares its matrix with {owner} in this model ({part.tied_to}): both are trained as one"
    return None


def whole_modules(layout: Layout, names: Sequence[str], key: str) -> list[str]:
    """The modules whose parameters are all among ``names``: what PEFT can train beside an adapter.

    Raises:
        InputError: only some parameters of a module are selected, or a selected matrix is shared.
    """
    wanted, modules = set(names), dict.fromkeys(_module_of(name) for name in names)
    shared = {part.tied_to for part in layout.parts if part.tied_to}
    for module in modules:
        own = [name for name in layout.parameters if _module_of(name) == module]
        if not wanted.issuperset(own):
            raise InputError(f"{key}: only a part of {module} is selected; beside an adapter whole modules are trained")
        if shared.intersection(own):
            raise InputError(
                f"{key}: {own[0]} is input embedding and output layer in one and cannot be copied beside an adapter: "
                "leave it out, or fine-tune it with adapter.kind=none"
            )
    return list(modules)


def _is_part(word: str, part: str) -> bool:
    return part == word or part.startswith(word + ".") or part.endswith("." + word)


def _module_of(name: str) -> str:
    return bare_name(name).rpartition(".")[0]


def _norm_parameters(model: torch.nn.Module) -> Iterable[str]:
    for prefix, module in model.named_modules():
        if "norm" in type(module).__name__.lower():
            yield from (f"{prefix}.{name}" for name, _ in module.named_parameters(recurse=False))
