"""Which parameter is trained at which rate, with which decay, by which optimiser: decided once, shown, then obeyed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch

from speechtune.core.errors import InputError
from speechtune.models.trainable import Layout, Place, bare_name, within
from speechtune.training.optimiser_config import OptimiserConfig, RatesConfig

EIGHT_BIT_SMALLEST = 4096
"""bitsandbytes keeps 32-bit moments for tensors with fewer elements (its ``min_8bit_size``)."""

EIGHT_BIT_BLOCK = 256
"""Elements that share one scale in bitsandbytes' 8-bit optimisers."""


@dataclass(frozen=True, slots=True)
class Group:
    """What the parameters of one optimiser group have in common."""

    rate: float
    weight_decay: float
    muon: bool


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table: a part, or neighbouring layers of a stack that are treated alike."""

    part: str
    layers: tuple[int, int] | None
    parameters: int
    trained: int
    rates: tuple[float, ...]
    optimisers: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready record; ``layers`` are first and last, counted from 0 at the sound."""
        return {
            "part": self.part,
            "layers": list(self.layers) if self.layers else None,
            "parameters": self.parameters,
            "trained": self.trained,
            "rates": list(self.rates),
            "optimisers": list(self.optimisers),
        }


@dataclass(slots=True)
class ParameterPlan:
    """The groups of a training: ``group_of`` maps a parameter's name in the trained module to its group.

    ``plain``: one rate, AdamW and its defaults, so that the Hugging Face Trainer's own optimiser is what is asked for.
    ``state_bytes``: memory that the optimiser's state will take. ``notes``: sentences on tied weights and the like.
    """

    group_of: dict[str, Group]
    rows: list[Row]
    state_bytes: int
    plain: bool
    optimiser: OptimiserConfig
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """What ``parameters.json`` of a run holds."""
        return {
            "optimiser": self.optimiser.kind,
            "parameters": sum(row.parameters for row in self.rows),
            "trained": sum(row.trained for row in self.rows),
            "optimiser_state_bytes": self.state_bytes,
            "table": [row.to_json() for row in self.rows],
            "notes": self.notes,
        }

    def summary(self) -> str:
        """One line: how much is trained, at which rates, and what the optimiser keeps."""
        rates = sorted({group.rate for group in self.group_of.values()})
        span = f"{rates[0]:.3g}" if len(rates) == 1 else f"{rates[0]:.3g} to {rates[-1]:.3g} in {len(rates)} steps"
        trained = sum(row.trained for row in self.rows)
        return (
            f"{self.optimiser.kind} at {span} on {trained:,} of {sum(row.parameters for row in self.rows):,} "
            f"parameters, its state {self.state_bytes / 2**20:.1f} MiB"
        )

    def __str__(self) -> str:
        lines = [f"{'part':20} {'layers':>7} {'parameters':>12} {'trained':>12}  {'rate':22} optimiser"]
        for row in self.rows:
            layers = f"{row.layers[0]}-{row.layers[1]}" if row.layers else ""
            rates = ", ".join(f"{rate:.3g}" for rate in row.rates) or "frozen"
            lines.append(
                f"{row.part:20} {layers:>7} {row.parameters:>12,} {row.trained:>12,}  {rates:22} "
                f"{', '.join(row.optimisers)}".rstrip()
            )
        return "\n".join([*lines, self.summary(), *self.notes])


def plan_parameters(
    layout: Layout,
    trained: torch.nn.Module,
    learning_rate: float,
    weight_decay: float,
    rates: RatesConfig,
    optimiser: OptimiserConfig,
) -> ParameterPlan:
    """Decide every trainable parameter's group.

    Args:
        layout: the family's parts, made before adapters were added.
        trained: what is trained: the model, or the model with its adapter.
        learning_rate: the rate of what no rule names.
        weight_decay: of what `OptimiserConfig.no_weight_decay` does not exempt.

    Raises:
        InputError: a rule or decay names nothing that is trained, or Muon finds no matrix.
    """
    named = [(name, parameter) for name, parameter in trained.named_parameters() if parameter.requires_grad]
    rate_of = _rates(layout, [name for name, _ in named], learning_rate, rates)
    exempt = _exempt(layout, optimiser)
    group_of = {
        name: Group(
            rate_of[name],
            0.0 if exempt(name) else weight_decay,
            optimiser.kind == "muon" and _is_hidden_matrix(parameter, layout.place(name)),
        )
        for name, parameter in named
    }
    if optimiser.kind == "muon" and not any(group.muon for group in group_of.values()):
        raise InputError(
            "training.optimiser.kind: muon needs matrices inside the layers and none is trained: use adamw, or train "
            "more with model.train"
        )
    embeddings = {id(module.weight) for module in trained.modules() if isinstance(module, torch.nn.Embedding)}
    state = sum(
        state_bytes(optimiser.kind, parameter, group_of[name].muon, id(parameter) in embeddings)
        for name, parameter in named
    )
    default = OptimiserConfig()
    plain = rates.uniform and optimiser == default.model_copy(
        update={name: getattr(optimiser, name) for name in ("muon_momentum", "muon_scale")}
    )
    return ParameterPlan(group_of, list(_rows(layout, trained, group_of, optimiser.kind)), state, plain, optimiser)


def _rates(layout: Layout, names: list[str], learning_rate: float, rates: RatesConfig) -> dict[str, float]:
    found = {}
    sides = {layout.place(name).part.split(".")[0] for name in names}
    known = {part.side for part in layout.parts}
    for side in rates.decay if isinstance(rates.decay, dict) else ():
        if side not in known:
            raise InputError(f"training.rates.decay: {side!r} is no side of this model: use {', '.join(sorted(known))}")
    used = [False] * len(rates.rules)
    for name in names:
        place, rate = layout.place(name), learning_rate
        for number, rule in enumerate(rates.rules):
            if layout.matches(rule.part, name) and within(place, (rule.range[0], rule.range[1])):
                rate = rule.rate if rule.rate is not None else rate * (rule.factor or 1.0)
                used[number] = True
        found[name] = rate * _decay(layout, place, rates.decay)
    for number, rule in enumerate(rates.rules):
        if not used[number]:
            layout.select_one(rule.part, (rule.range[0], rule.range[1]), f"training.rates.rules.{number}")
            raise InputError(
                f"training.rates.rules.{number}: nothing of {rule.part!r} is trained (trained are parts of "
                f"{', '.join(sorted(sides))}): leave the rule out or train it with model.train"
            )
    return found


def _decay(layout: Layout, place: Place, decay: float | dict[str, float]) -> float:
    side = place.part.split(".")[0]
    factor = decay.get(side, 1.0) if isinstance(decay, dict) else decay
    if place.layer is not None:
        return factor ** (place.layers - 1 - place.layer)
    if place.depth_frac == 1:
        return 1.0
    heights = [len(part.modules) for part in layout.parts if part.stack and part.side == side]
    return factor ** sum(heights)


def _exempt(layout: Layout, optimiser: OptimiserConfig) -> Any:
    """Whether a parameter, by its name in the trained module, is left alone by weight decay.

    Biases are what has ``bias`` in its name, as in the Hugging Face Trainer.
    """
    wanted = set(optimiser.no_weight_decay)

    def exempt(name: str) -> bool:
        bare = bare_name(name)
        return (
            ("norms" in wanted and bare in layout.norms)
            or ("biases" in wanted and "bias" in name)
            or ("embeddings" in wanted and layout.place(name).part.endswith("embeddings"))
        )

    return exempt


def _is_hidden_matrix(parameter: torch.nn.Parameter, place: Place) -> bool:
    return place.layer is not None and parameter.ndim == 2 and min(parameter.shape) > 1


def state_bytes(kind: str, parameter: torch.nn.Parameter, muon: bool, embedding: bool) -> int:
    """What an optimiser keeps for one parameter, in bytes; steps counted and shared tables are left out.

    ``adamw``: two moments. ``adamw_8bit``: two bytes an element and two scales a block, except for small tensors and
    embeddings. ``adafactor``: one number a row and a column. ``muon``: one momentum.
    """
    size, shape = parameter.numel(), parameter.shape
    if muon:
        return 4 * size
    if kind == "adafactor":
        return 4 * (size // shape[-1] + size // shape[-2]) if len(shape) >= 2 else 4 * size
    if kind == "adamw_8bit" and size >= EIGHT_BIT_SMALLEST and not embedding:
        return 2 * size + 2 * 4 * math.ceil(size / EIGHT_BIT_BLOCK)
    return 8 * size


def _rows(layout: Layout, trained: torch.nn.Module, group_of: dict[str, Group], kind: str) -> Iterator[Row]:
    order = {part.name: number for number, part in enumerate(layout.parts)}
    cells: dict[tuple[int, int], list[tuple[str, torch.nn.Parameter]]] = {}
    for name, parameter in trained.named_parameters():
        if ".original_module." in name:
            continue
        place = layout.place(name)
        cells.setdefault((order[place.part], -1 if place.layer is None else place.layer), []).append((name, parameter))
    last: Row | None = None
    for (part, layer), members in sorted(cells.items()):
        row = _row(layout.parts[part].name, layer, members, group_of, kind)
        if (
            last
            and last.layers
            and row.layers
            and (last.part, last.rates, last.optimisers)
            == (
                row.part,
                row.rates,
                row.optimisers,
            )
        ):
            totals = (last.parameters + row.parameters, last.trained + row.trained)
            last = Row(row.part, (last.layers[0], row.layers[1]), *totals, row.rates, row.optimisers)
            continue
        if last:
            yield last
        last = row
    if last:
        yield last


def _row(
    part: str, layer: int, members: Iterable[tuple[str, torch.nn.Parameter]], group_of: dict[str, Group], kind: str
) -> Row:
    members = list(members)
    groups = [group_of[name] for name, _ in members if name in group_of]
    return Row(
        part,
        None if layer < 0 else (layer, layer),
        sum(_elements(parameter) for _, parameter in members),
        sum(_elements(parameter) for name, parameter in members if name in group_of),
        tuple(sorted({group.rate for group in groups})),
        tuple(sorted({"muon" if group.muon else "adamw" if kind == "muon" else kind for group in groups})),
    )


def _elements(parameter: torch.nn.Parameter) -> int:
    """Elements of a parameter; of a quantised one, those of the matrix that it stands for."""
    state = getattr(parameter, "quant_state", None)
    return math.prod(state.shape) if state is not None else parameter.numel()
