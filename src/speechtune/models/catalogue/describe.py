"""What is to be known of one model: an entry of the catalogue, or a model on this machine."""

from __future__ import annotations

import json
import struct
from collections import Counter
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.models.catalogue.entries import CatalogueModel, catalogue
from speechtune.models.catalogue.memory import (
    BYTES,
    Batch,
    Need,
    Shape,
    Stack,
    inference_gib,
    training_needs,
)

RANK = 32
"""Rank of the adapter whose memory is estimated: the default of ``adapter.rank``."""


@dataclass(slots=True, kw_only=True)
class Description:
    """One model. ``parts``: parameters of each, empty for one that is only in the catalogue.

    ``inference_gib`` by precision and ``training`` are estimates (`speechtune.models.catalogue.memory`).
    """

    name: str
    family: str
    parameters: int
    path: str | None = None
    facts: dict[str, Any] = field(default_factory=dict)
    parts: dict[str, int] = field(default_factory=dict)
    stored_as: dict[str, int] = field(default_factory=dict)
    languages: list[str] = field(default_factory=list)
    limits: dict[str, Any] = field(default_factory=dict)
    inference_gib: dict[str, float] = field(default_factory=dict)
    training: list[Need] = field(default_factory=list)
    batch: Batch = field(default_factory=Batch)
    adapter_parameters: int | None = None
    can: dict[str, Any] | None = None
    published: list[dict[str, Any]] = field(default_factory=list)
    errata: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        return asdict(self)


def describe(name: str, batch: Batch | None = None) -> Description:
    """A catalogue entry, or a model directory or run, with what it takes to decode and train it.

    Raises:
        InputError: neither a name of the catalogue nor a model on this machine.
    """
    if Path(name).expanduser().exists():
        from speechtune.models.obtaining import resolve_model

        return describe_directory(resolve_model(name), batch)
    model = catalogue().get(name)
    found = describe_entry(model)
    path = _at_hand(name, model)
    if path is None:
        return found
    local = describe_directory(path, batch)
    local.name, local.facts = found.name, {**found.facts, **local.facts}
    local.published, local.errata = found.published, found.errata
    return local


def _at_hand(name: str, model: CatalogueModel) -> Path | None:
    from speechtune.models.obtaining import resolve_model

    for spec in (name, model.name):
        try:
            return resolve_model(spec)
        except InputError:
            continue
    return None


def describe_entry(model: CatalogueModel) -> Description:
    """A model of the catalogue as its sources describe it; nothing of it need be on this machine."""
    known = catalogue()
    family, parameters = known.families[model.family], round(model.parameters_m.value * 1e6)
    facts = {
        "title": family.title,
        "architecture": family.architecture,
        "about": model.about or family.about,
        "hub": model.hub,
        "licence": model.licence.value,
        "commercial_use": model.commercial,
        "languages": known.language_text(model),
        "languages_kind": model.languages.kind,
        "punctuation": family.punctuation,
        "runs_with": known.runs_with(model),
        "parameters_source": known.sources[model.parameters_m.source].what,
        "licence_source": known.sources[model.licence.source].what,
        "languages_source": known.sources[model.languages.source].what,
    }
    published: list[dict[str, Any]] = [{"kind": "memory", **one.model_dump()} for one in model.memory]
    published += [{"kind": "speed", **one.model_dump()} for one in model.speed]
    if model.wer_percent:
        published.append({"kind": "wer_percent", **model.wer_percent.model_dump()})
    for one in published:
        one["source"] = known.sources[one["source"]].what
    return Description(
        name=model.name,
        family=model.family,
        parameters=parameters,
        facts=facts,
        languages=list(known.languages_of(model)),
        inference_gib={precision: inference_gib(parameters, precision) for precision in BYTES},
        training=training_needs(parameters),
        can=_declared(model.model_type or model.family),
        published=published,
        errata=list(model.errata),
    )


def describe_directory(path: Path, batch: Batch | None = None) -> Description:
    """A model on this machine: loaded once (in float32, on the CPU) and counted.

    Raises:
        InputError: no family loads it, or it is incomplete.
    """
    from speechtune.models.family import load_family
    from speechtune.models.trainable import Layout

    batch = batch or Batch()
    try:
        family: Any = load_family(path, device="cpu", language=_trained_for(path).get("language"))
    except InputError:
        family = load_family(path, device="cpu", language="en")  # some must be told a language; none counts otherwise
    layout = Layout(family)
    parts: Counter[str] = Counter()
    for name, parameter in layout.parameters.items():
        parts[layout.place(name).part] += parameter.numel()
    total = sum(parts.values())
    adapter = _adapter_parameters(family, layout)
    shape = shape_of(family, layout)
    trained = _trained_for(path)
    limits = {
        "max_audio_s": family.limits.max_audio_s,
        "max_label_tokens": family.limits.max_label_tokens,
        "mel_bins": family.mel_bins or None,
        "audio_contexts": list(family.contexts),
        "trained_at": trained.get("audio_contexts"),
    }
    return Description(
        name=path.parent.name if path.name == "model" else path.name,
        family=family.name,
        parameters=total,
        path=str(path),
        facts={
            "trained_for_language": trained.get("language"),
            "tied": [one.name for one in layout.parts if one.tied_to],
        },
        parts=dict(parts),
        stored_as=stored_types(path),
        languages=_languages_of(family),
        limits=limits,
        inference_gib={precision: inference_gib(total, precision) for precision in BYTES},
        training=training_needs(total, adapter, shape, batch),
        batch=batch,
        adapter_parameters=adapter,
        can=_declared(str(getattr(family.model.config, "model_type", ""))),
    )


def stored_types(path: Path) -> dict[str, int]:
    """How many parameters the files hold in each dtype, read from the headers of the safetensors files."""
    found: Counter[str] = Counter()
    for file in sorted(path.glob("*.safetensors")):
        with file.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for side in tensor["shape"]:
                    size *= side
                found[tensor["dtype"]] += size
    return dict(found)


def shape_of(family: Any, layout: Any) -> Shape:
    """The stacks of a loaded model: layers, width (the commonest input width of their matrices) and positions."""
    capabilities = getattr(family, "capabilities", None)
    per_second = capabilities.frames_per_second if capabilities else 50.0
    if hasattr(family, "logit_frames"):
        per_second = family.logit_frames(160_000) / 10
    inside = bool(capabilities and capabilities.audio_in_decoder)
    stacks = []
    for part in layout.parts:
        if not part.stack:
            continue
        first = part.modules[0] + "."
        widths = Counter(p.shape[1] for name, p in layout.parameters.items() if name.startswith(first) and p.ndim == 2)
        text = part.side == "decoder"
        stacks.append(
            Stack(
                part.name,
                len(part.modules),
                widths.most_common(1)[0][0] if widths else 0,
                per_second=per_second if not text or inside else 0.0,
                per_token=1.0 if text else 0.0,
            )
        )
    has_decoder = any(one.per_token for one in stacks)
    return Shape(tuple(stacks), _vocabulary(family), 0.0 if has_decoder else per_second)


def _vocabulary(family: Any) -> int:
    config = family.model.config
    return int(getattr(config, "vocab_size", None) or getattr(config.get_text_config(), "vocab_size", 0) or 0)


def _adapter_parameters(family: Any, layout: Any) -> int:
    modules = dict(family.model.named_modules())
    names = layout.linear_layers(["attention", "mlp"], "adapter.targets")
    return sum(RANK * (modules[name].in_features + modules[name].out_features) for name in names)


def _languages_of(family: Any) -> list[str]:
    known = getattr(getattr(family, "generation_config", None), "lang_to_id", None)
    if known:
        return [token.strip("<|>") for token in known]
    return [family.language] if family.language else []


def _trained_for(path: Path) -> dict[str, Any]:
    record = path / "speechtune.json"
    return json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}


def _declared(model_type: str) -> dict[str, Any] | None:
    from speechtune.models.capabilities import capabilities_of

    found = capabilities_of(model_type)
    return asdict(found) if found else None
