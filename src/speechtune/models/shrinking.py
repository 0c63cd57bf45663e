"""Students: a model with some of its layers, each copied bit for bit, to be distilled from the whole one.

The choice of layers is Distil-Whisper's (Gandhi et al. 2023, arXiv 2311.00430): as far apart as can be, the last one
always. A student hears almost nothing before it is trained (`training.objectives.distil`).
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, write_json
from speechtune.models.capabilities import require
from speechtune.models.family import family_of, load_family
from speechtune.models.observe import spaced
from speechtune.models.obtaining import resolve_model

RECORD = "shrunk.json"
"""In the student's directory: what it was made of."""


@dataclass(slots=True, kw_only=True)
class Student:
    """A student: where it is, its layers' places in the source, and its size."""

    model: Path
    source: str
    encoder_layers: list[int]
    decoder_layers: list[int]
    parameters: int
    source_parameters: int

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready record."""
        return {**asdict(self), "model": str(self.model)}

    def __str__(self) -> str:
        share = self.parameters / self.source_parameters
        return (
            f"{self.model}: encoder layers {self.encoder_layers} and decoder layers {self.decoder_layers} of "
            f"{self.source}, {self.parameters / 1e6:.1f} M parameters ({100 * share:.0f} %); train it before use "
            f"(objectives.distil.teacher={self.source})"
        )


def shrink(
    source: str,
    out: Path,
    *,
    encoder_layers: int | None = None,
    decoder_layers: int | None = None,
    encoder_keep: Sequence[int] | None = None,
    decoder_keep: Sequence[int] | None = None,
    overwrite: bool = False,
) -> Student:
    """Write a student of a Whisper-shaped model.

    Args:
        source: a catalogue name, ``hf:owner/name``, a run or a model directory.
        out: the student's directory; it appears only when it is complete.
        encoder_layers: how many to keep, as far apart as can be; ``None``: all.
        decoder_layers: the same for the decoder.
        encoder_keep: instead, which ones, from 0.
        decoder_keep: the same for the decoder.
        overwrite: replace ``out``.

    Raises:
        InputError: another architecture, a number of layers that the source does not have, or ``out`` exists.
    """
    path = Path(source) / "model" if (Path(source) / "recipe.yaml").is_file() else resolve_model(source)
    name = family_of(path)
    require(name, "shrinks", f"{source} is of family {name!r}: layers can be left out of Whisper models only")
    language = None if _is_english(path) else "en"  # only the prompt depends on it, which is not saved
    family = load_family(path, language=language, device="cpu")
    model: Any = family.model
    before = sum(one.numel() for one in model.parameters())
    wanted = {"encoder": (encoder_layers, encoder_keep), "decoder": (decoder_layers, decoder_keep)}
    kept = {}
    for part, (count, keep) in wanted.items():
        stack: Any = family.part(part)
        kept[part] = _chosen(part, len(stack.layers), count, keep)
        stack.layers = torch.nn.ModuleList([stack.layers[place] for place in kept[part]])
        setattr(model.config, f"{part}_layers", len(kept[part]))
    model.config.num_hidden_layers = len(kept["encoder"])
    _renumber(model, kept["decoder"])
    with new_directory(out, overwrite) as draft:
        family.save(draft)
        if (path / "speechtune.json").is_file():
            shutil.copy(path / "speechtune.json", draft / "speechtune.json")
        student = Student(
            model=out,
            source=source,
            encoder_layers=kept["encoder"],
            decoder_layers=kept["decoder"],
            parameters=sum(one.numel() for one in model.parameters()),
            source_parameters=before,
        )
        write_json(draft / RECORD, student.to_json())
    return student


def numbers(option: str, text: str | None) -> list[int] | None:
    """``0,3`` as numbers.

    Raises:
        InputError: it is something else.
    """
    try:
        return None if text is None else [int(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"{option} takes layer numbers with commas, as in 0,3, not {text!r}") from error


def _chosen(part: str, there: int, count: int | None, keep: Sequence[int] | None) -> list[int]:
    if keep is not None:
        if count is not None:
            raise InputError(f"--{part}-layers and --{part}-keep both say which layers stay: give one of them")
        if not keep or list(keep) != sorted(set(keep)) or keep[0] < 0 or keep[-1] >= there:
            raise InputError(f"--{part}-keep must be rising numbers from 0 to {there - 1}, not {list(keep)}")
        return list(keep)
    if count is None:
        return list(range(there))
    if not 1 <= count <= there:
        raise InputError(f"--{part}-layers must be 1 to {there}, the layers of the source, not {count}")
    return spaced(there, count)


def _renumber(model: Any, kept: list[int]) -> None:
    """Give the decoder's layers their new places, also where alignment heads name them."""
    for place, layer in enumerate(model.model.decoder.layers):
        layer.self_attn.layer_idx = layer.encoder_attn.layer_idx = place
    heads = getattr(model.generation_config, "alignment_heads", None)
    if heads:
        left = [[kept.index(layer), head] for layer, head in heads if layer in kept]
        model.generation_config.alignment_heads = left or None


def _is_english(path: Path) -> bool:
    from speechtune.core.files import read_json

    file = path / "generation_config.json"
    return not (file.is_file() and read_json(file).get("is_multilingual"))
