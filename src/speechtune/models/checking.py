"""Is a model directory what it claims to be? Completeness, loadability, exactness."""

from __future__ import annotations

import tempfile
from importlib import metadata
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.core.files import read_json, sha256
from speechtune.models.family import FAMILIES, load_family
from speechtune.models.importers.ctranslate2 import read_ctranslate2

MARK = "speechtune_model.json"
"""Written last into every model directory speechtune makes: name, source, licence, checksums, provenance."""

SINGLE_WEIGHTS = ("model.safetensors", "pytorch_model.bin", "adapter_model.safetensors")
SHARD_INDEXES = ("model.safetensors.index.json", "pytorch_model.bin.index.json")


def is_transformers(directory: Path) -> bool:
    """Whether ``directory`` has a configuration and all of its weight files (every shard, if it is sharded)."""
    if not ((directory / "config.json").is_file() or (directory / "adapter_config.json").is_file()):
        return False
    if any((directory / name).is_file() for name in SINGLE_WEIGHTS):
        return True
    for name in SHARD_INDEXES:
        if (directory / name).is_file():
            shards = set(read_json(directory / name).get("weight_map", {}).values())
            return bool(shards) and all((directory / shard).is_file() for shard in shards)
    return False


def is_ctranslate2(directory: Path) -> bool:
    """Whether ``directory`` has a ``model.bin`` and no Transformers weights."""
    return (directory / "model.bin").is_file() and not is_transformers(directory)


def check_loads(directory: Path) -> str:
    """Load a Whisper directory with Transformers alone, other known ones as their family does; the rest is identified.

    Returns:
        The model type of its configuration (``whisper``, ``wav2vec2``, …).

    Raises:
        InputError: Transformers cannot load it, or a tensor is missing or has a wrong shape.
    """
    model_type = str(read_json(directory / "config.json").get("model_type", ""))
    if model_type != "whisper":
        if model_type in FAMILIES:
            _check_family(directory)
        return model_type
    from transformers import WhisperForConditionalGeneration, WhisperProcessor

    with _Silence():
        try:
            loaded: Any = WhisperForConditionalGeneration.from_pretrained(
                directory, output_loading_info=True, local_files_only=True
            )
            WhisperProcessor.from_pretrained(directory, local_files_only=True)
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"Transformers cannot load {directory} ({reason}): obtain the model again") from error
    report = loaded[1]
    absent = sorted([*report["missing_keys"], *(key[0] for key in report["mismatched_keys"])])
    if absent:
        raise InputError(
            f"{directory} lacks {len(absent)} tensors of a Whisper model ({absent[0]}, …): obtain it again"
        )
    return model_type


def _check_family(directory: Path) -> None:
    with _Silence():
        try:
            load_family(directory, device="cpu")
        except InputError as error:
            if str(directory) in str(error):
                raise
            raise InputError(f"{directory} cannot be used: {error}") from error
        except Exception as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"Transformers cannot load {directory} ({reason}): obtain the model again") from error


def check_exact(original: Path, converted: Path) -> tuple[bool, str]:
    """Convert ``converted`` back with CTranslate2's own converter and compare every variable bit by bit.

    Args:
        original: the ``model.bin`` that ``converted`` was made from.
        converted: the Transformers directory.

    Returns:
        Whether it was compared (false where ctranslate2 is not installed), and one line saying what was.

    Raises:
        SpeechtuneError: a variable differs.
    """
    if find_spec("ctranslate2") is None:
        return False, "loads with Transformers; not compared bit by bit, because ctranslate2 is not installed"
    from ctranslate2.converters import TransformersConverter

    first = read_ctranslate2(original)
    kind = next(dtype for name, dtype in first.dtypes.items() if name.endswith("embeddings/weight"))
    with tempfile.TemporaryDirectory(dir=converted.parent, prefix=".exact-") as folder, _Silence():
        TransformersConverter(str(converted)).convert(folder, quantization=kind, force=True)
        second = read_ctranslate2(Path(folder) / "model.bin")
        for name, array in first.arrays.items():
            other = second.arrays.get(name)
            if other is None or other.shape != array.shape or other.tobytes() != array.tobytes():
                raise SpeechtuneError(f"{converted} is not an exact conversion of {original}: {name} differs")
        del second, other
    version = metadata.version("ctranslate2")
    return True, f"ctranslate2 {version} round trip: {len(first.arrays)} variables bit-identical"


def checksums(directory: Path) -> dict[str, dict[str, Any]]:
    """Size in bytes and SHA-256 of every file of ``directory`` except the mark."""
    return {
        path.name: {"bytes": path.stat().st_size, "sha256": sha256(path)}
        for path in sorted(directory.iterdir())
        if path.is_file() and path.name != MARK
    }


def is_intact(directory: Path, thorough: bool) -> bool:
    """Whether ``directory`` has the finish mark and the files it lists (``thorough``: with their checksums)."""
    if not (directory / MARK).is_file():
        return False
    listed = read_json(directory / MARK).get("files", {})
    present = {name: directory / name for name in listed}
    if not listed or not all(
        path.is_file() and path.stat().st_size == listed[n]["bytes"] for n, path in present.items()
    ):
        return False
    return not thorough or all(sha256(path) == listed[name]["sha256"] for name, path in present.items())


class _Silence:
    """No progress bars and no warnings of Transformers inside the block."""

    def __enter__(self) -> None:
        from transformers.utils import logging

        self.verbosity, self.bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()

    def __exit__(self, *error: object) -> None:
        from transformers.utils import logging

        logging.set_verbosity(self.verbosity)
        if self.bars:
            logging.enable_progress_bar()
