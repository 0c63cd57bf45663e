"""From a model directory and ``decoding.engine`` to something that decodes."""

from __future__ import annotations

from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.decoding.config import DecodingConfig
from speechtune.models.checking import is_ctranslate2
from speechtune.models.family import Family, load_family


def engine_of(path: Path, decoding: DecodingConfig) -> str:
    """The engine that decodes ``path``: the configured one, or for a CTranslate2 directory the only one it has.

    Raises:
        InputError: a CTranslate2 directory and ``decoding.engine: torch`` in so many words.
    """
    if not is_ctranslate2(path):
        return decoding.engine
    if "engine" in decoding.model_fields_set and decoding.engine == "torch":
        raise InputError(
            f"{path} is a CTranslate2 model and decoding.engine is torch: use decoding.engine=ctranslate2, or turn it "
            f"back with speechtune models get {path} --out DIR"
        )
    return "ctranslate2"


def open_engine(path: Path, decoding: DecodingConfig, language: str | None = None) -> Family:
    """Load a model directory with the engine that `engine_of` names.

    A Transformers directory is converted once for CTranslate2 (`speechtune.decoding.engines.converting`).

    Raises:
        InputError: ctranslate2 is not installed, the model is not a Whisper one, the language is unknown to it, or
            ``compute_type`` is not what the engine has on this machine.
    """
    if engine_of(path, decoding) == "torch":
        if decoding.compute_type != "float32":
            raise InputError(
                f"decoding.compute_type {decoding.compute_type!r} needs decoding.engine=ctranslate2: set it too"
            )
        return load_family(path, language=language)
    from speechtune.decoding.engines.converting import converted
    from speechtune.decoding.engines.ctranslate2 import Ctranslate2Whisper

    directory = path if is_ctranslate2(path) else converted(path, decoding.compute_type)
    threads = (decoding.intra_threads, decoding.inter_threads)
    return Ctranslate2Whisper.load(directory, language=language, compute_type=decoding.compute_type, threads=threads)
