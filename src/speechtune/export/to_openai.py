"""A ``.pt`` file for openai-whisper: ``whisper.load_model("model.pt")``."""

from __future__ import annotations

from pathlib import Path

from speechtune.export.gate import Leg
from speechtune.export.source import Source
from speechtune.export.to_ggml import check_layout, check_shapes, openai_sizes, write_companions
from speechtune.models.config import Context
from speechtune.models.importers.whisper_names import openai_name

DTYPES = ("float32", "float16")
FILE = "model.pt"


def write_openai(source: Source, out: Path, dtype: str) -> None:
    """Write ``model.pt`` (``dims`` and ``model_state_dict``) and the tokenizer files that make it importable again.

    Raises:
        InputError: the vocabulary or a shape is not OpenAI's, or float16 cannot hold the weights.
    """
    import torch

    if dtype == "float16":
        source.check_float16(dtype)
    tokens = source.tokens()
    check_layout(source, tokens)
    dims = openai_sizes(source)
    tensors = {openai_name(name): values for name, values in source.tensors().items()}
    check_shapes(source, tensors, dims)
    kind = getattr(torch, dtype)
    state = {name: torch.from_numpy(values.copy()).to(kind) for name, values in tensors.items()}
    out.mkdir(parents=True, exist_ok=True)
    torch.save({"dims": dims, "model_state_dict": state}, out / FILE)
    write_companions(source, tokens, out)


def check_files(source: Source, out: Path) -> list[str]:
    """What is missing."""
    return [] if (out / FILE).is_file() else [f"{FILE} is missing"]


def legs(source: Source, contexts: list[Context], dtype: str) -> list[Leg]:
    """openai-whisper, which knows the full context only."""
    return [Leg("openai-whisper", "full", FILE, own_front_end=True)]
