"""Transformers: safetensors in a chosen type, in shards of a chosen size, with what older programs look for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechtune.core.files import read_json, write_json
from speechtune.export.gate import Leg
from speechtune.export.source import Source, missing_or_wrong, preprocessor_settings
from speechtune.models.checking import is_transformers
from speechtune.models.config import Context
from speechtune.models.importers.whisper_tokens import write_tokenizer_files

DTYPES = ("float32", "float16", "bfloat16")
SHARD = "5GB"
"""The largest file, as ``save_pretrained`` has it by default."""


def write_transformers(source: Source, out: Path, dtype: str, shard: str = SHARD) -> None:
    """Write weights (an adapter merged), configuration, tokenizer in every form, and the feature extractor.

    Raises:
        InputError: float16 cannot hold the weights.
    """
    import copy

    import torch

    if dtype == "float16":
        source.check_float16(dtype)
    tokens = source.tokens()
    model: Any = copy.deepcopy(source.family.model).to(getattr(torch, dtype))
    model.save_pretrained(out, max_shard_size=shard)
    config = read_json(out / "config.json")
    config |= {"architectures": ["WhisperForConditionalGeneration"], "dtype": dtype, "use_cache": True}
    write_json(out / "config.json", config)
    write_tokenizer_files(out, tokens)
    write_json(out / "preprocessor_config.json", preprocessor_settings(source))
    for file in out.glob("*.safetensors"):
        file.chmod(0o644)


def check_files(source: Source, out: Path) -> list[str]:
    """What is missing or contradicts the weights."""
    if not is_transformers(out):
        return ["config.json or a weight file is missing"]
    names = ("tokenizer.json", "tokenizer_config.json", "preprocessor_config.json", "generation_config.json")
    return missing_or_wrong(source, out, names)


def legs(source: Source, contexts: list[Context], dtype: str) -> list[Leg]:
    """Transformers, which knows the full context only."""
    return [Leg("transformers", "full", own_front_end=True)]
