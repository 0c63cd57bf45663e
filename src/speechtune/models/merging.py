"""Adapters merged into their base: one plain model directory that needs neither PEFT nor speechtune."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.core.files import new_directory, read_json, write_json
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.models.adapters import base_of, is_adapter, put_on
from speechtune.models.family import Example, Family, load_family
from speechtune.models.obtaining import resolve_model

TOLERANCE = 1e-3
"""Largest relative difference of the probe's loss, merged and not merged, that is still rounding."""


@dataclass(frozen=True, slots=True)
class Merged:
    """What `merge_adapters` made: ``loss_difference`` is the probe's, merged against not merged (one adapter only)."""

    path: str
    base: str
    adapters: dict[str, float]
    changed_parameters: int
    loss_difference: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return asdict(self)


def merge_adapters(
    base: str, adapters: Sequence[Path], out: Path, weights: Sequence[float] = (), overwrite: bool = False
) -> Merged:
    """Add the updates of one or more adapters to a base and save a plain model directory.

    Each adapter's update is the difference it makes to the base's weights, so any kind (LoRA, DoRA, AdaLoRA, with
    modules trained beside it) can be mixed with any other. Averaging the factors A and B instead would be wrong: the
    product of two means is not the mean of two products.

    Args:
        base: a catalogue name, a run, or a model directory.
        adapters: adapter directories (``run/adapter``, ``run/adapters/NAME``).
        out: the directory to make.
        weights: factor on each adapter's update; 1 each when empty. For a mean of N adapters give 1/N each.
        overwrite: replace ``out``.

    Raises:
        InputError: a directory is no adapter or does not fit the base.
        SpeechtuneError: the merged model does not compute what base and adapter do.
    """
    factors = list(weights) or [1.0] * len(adapters)
    if len(factors) != len(adapters):
        raise InputError(f"{len(factors)} weights are given for {len(adapters)} adapters: give one --weight for each")
    path = resolve_model(base)
    settings = [_settings(adapter) for adapter in adapters]
    trained_for = _common(settings)
    language = settings[0].get("language")  # weights do not depend on it, but a multilingual model wants one
    difference = None
    total: dict[str, torch.Tensor] = {}
    original: dict[str, torch.Tensor] = {}
    more = 0
    for adapter, factor in zip(adapters, factors, strict=True):
        _check_base(adapter, path)
        family = load_family(path, language=language, device="cpu")
        if hasattr(family, "recall"):
            family.recall(adapter)
        if not total:
            original = {name: value.detach().clone() for name, value in family.model.state_dict().items()}
            total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in original.items()}
        unmerged = put_on(family, adapter)
        before = _probe_loss(family, unmerged)
        family.model = unmerged.merge_and_unload()
        difference = abs(_probe_loss(family, family.model) - before) / max(abs(before), 1e-6)
        if not difference < TOLERANCE:
            raise SpeechtuneError(
                f"merging {adapter} changes what the model computes (the probe's loss by {100 * difference:.2g} %): "
                "use the adapter unmerged"
            )
        widened = family.model.state_dict()
        if any(value.shape != original[name].shape for name, value in widened.items()):
            if len(adapters) > 1 or factor != 1.0:
                raise InputError(
                    f"{adapter} is a bottleneck, whose merged model has wider layers: merge it alone, with weight 1"
                )
            more = sum(value.numel() - original[name].numel() for name, value in widened.items())
            total = {name: torch.zeros_like(value, dtype=torch.float64) for name, value in widened.items()}
            original = {name: value.detach().clone() for name, value in widened.items()}
            continue
        for name, value in family.model.state_dict().items():
            total[name] += factor * (value.detach().double() - original[name].double())
    with torch.no_grad():
        for name, value in family.model.state_dict().items():
            value.copy_((original[name].double() + total[name]).to(value.dtype))
    changed = more + sum(int((change != 0).sum()) for name, change in total.items())
    named = {str(adapter): factor for adapter, factor in zip(adapters, factors, strict=True)}
    with new_directory(out, overwrite) as draft:
        family.save(draft)
        own = read_json(draft / "speechtune.json") if (draft / "speechtune.json").is_file() else {}
        write_json(draft / "speechtune.json", {**own, **trained_for, "merged": {"base": base, "adapters": named}})
        write_json(draft / "provenance.json", provenance(base=str(path), adapters=named))
    return Merged(str(out), str(path), named, changed, difference if len(adapters) == 1 else None)


def _settings(adapter: Path) -> dict[str, Any]:
    if not is_adapter(adapter):
        raise InputError(f"{adapter} is not an adapter directory (no adapter_config.json): check the path")
    file = adapter / "speechtune.json"
    return read_json(file) if file.is_file() else {}


def _common(settings: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """The audio contexts all adapters were trained for, and their language if it is one."""
    contexts = [one["audio_contexts"] for one in settings if "audio_contexts" in one]
    languages = {one.get("language") for one in settings}
    found: dict[str, Any] = {"language": languages.pop() if len(languages) == 1 else None}
    if len(contexts) == len(settings):
        shared = [context for context in contexts[0] if all(context in other for other in contexts)]
        found["audio_contexts"] = shared or contexts[0]
    if len(languages) > 1:
        note("the adapters were trained for different languages: name one with --language when transcribing")
    return found


def _check_base(adapter: Path, base: Path) -> None:
    try:
        own = base_of(adapter)
    except InputError:
        return  # the base it names is not here, which is why one is given
    if own.resolve() != base.resolve():
        note(f"warning: {adapter} was trained on {own}, not on {base}; merged all the same")


def _probe_loss(family: Family, model: torch.nn.Module) -> float:
    """The loss of two fixed noises with a fixed label: any difference between two models shows in it."""
    noise = np.random.default_rng(0).normal(0, 0.1, (2, 16_000)).astype(np.float32)
    tokens, prompt_tokens = family.tokens("a")
    batch = family.collate([Example(wave, tokens, prompt_tokens) for wave in noise], family.context_frames(1.0))
    device = next(model.parameters()).device
    model.eval()
    with torch.inference_mode():
        return float(model(**{name: value.to(device) for name, value in batch.items()}).loss)
