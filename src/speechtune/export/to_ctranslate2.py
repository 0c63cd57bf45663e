"""CTranslate2 by its own converter, with everything faster-whisper looks for beside ``model.bin``."""

from __future__ import annotations

from pathlib import Path

from speechtune.core.errors import missing_extra
from speechtune.core.files import read_json, write_json
from speechtune.export.gate import Leg
from speechtune.export.source import (
    Source,
    alignment_heads,
    missing_or_wrong,
    plain_directory,
    preprocessor_settings,
)
from speechtune.models.config import Context
from speechtune.models.importers.whisper_tokens import write_tokenizer_files

DTYPES = ("float32", "float16", "bfloat16", "int8", "int8_float32", "int8_float16", "int8_bfloat16")
FILES = ("model.bin", "config.json", "tokenizer.json", "preprocessor_config.json")


def write_ctranslate2(source: Source, out: Path, dtype: str) -> None:
    """Write ``model.bin``, ``config.json``, ``vocabulary.json``, the tokenizer and ``preprocessor_config.json``.

    ``preprocessor_config.json`` is never left out: without it faster-whisper takes any model for one of 80 mel bins.

    Raises:
        InputError: ctranslate2 is not installed, or float16 cannot hold the weights.
    """
    try:
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise missing_extra("ctranslate2", "export") from error
    if "float16" in dtype:
        source.check_float16(dtype)
    tokens = source.tokens()
    with plain_directory(source, out.parent / "scratch") as plain:
        TransformersConverter(str(plain)).convert(str(out), quantization=dtype, force=True)
    config = read_json(out / "config.json")
    generation = source.family.generation_config
    config.update(
        suppress_ids=list(generation.suppress_tokens or []),
        suppress_ids_begin=list(generation.begin_suppress_tokens or []),
        alignment_heads=alignment_heads(source),
        lang_ids=sorted(tokens.languages.values()),
    )
    write_json(out / "config.json", config)
    write_tokenizer_files(out, tokens)
    write_json(out / "preprocessor_config.json", preprocessor_settings(source))


def check_files(source: Source, out: Path) -> list[str]:
    """What a CTranslate2 directory lacks or contradicts, in sentences; empty for a complete one."""
    return missing_or_wrong(source, out, FILES)


def legs(source: Source, contexts: list[Context], dtype: str) -> list[Leg]:
    """CTranslate2 on the same features at every context, and faster-whisper as people call it (30 s windows only)."""
    found = [Leg("ctranslate2", context) for context in contexts]
    if source.family.window_frames == 3000:
        found.append(Leg("faster-whisper", "full", own_front_end=True, habit=True))
    return found
