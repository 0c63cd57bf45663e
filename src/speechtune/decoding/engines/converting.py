"""A Transformers Whisper turned into a CTranslate2 one, and the place where such conversions are kept."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from speechtune.core.errors import InputError, missing_extra
from speechtune.core.files import new_directory, read_json, write_json
from speechtune.core.progress import note
from speechtune.models.family import family_of, load_family
from speechtune.models.obtaining import models_home

SOURCE = "source.json"
"""Written last into a kept conversion: what it was made from."""

COPIED = (
    "tokenizer.json",
    "tokenizer_config.json",
    "preprocessor_config.json",
    "generation_config.json",
    "speechtune.json",
)


def conversions_home() -> Path:
    """The directory that holds conversions, one folder for each model and way of storing it."""
    return models_home().parent / "ctranslate2"


def converted(path: Path, compute_type: str) -> Path:
    """The CTranslate2 directory of a Transformers one, made at the first call and again when the source changes.

    It is stored as ``compute_type`` computes (``default`` and ``auto``: as float32). Other processes that ask for the
    same one meanwhile wait.

    Raises:
        InputError: ctranslate2 is not installed, or the model cannot be converted.
    """
    stored = "float32" if compute_type in ("auto", "default") else compute_type
    name = hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]
    target = conversions_home() / f"{path.parent.name}-{path.name}-{name}-{stored}"
    wanted = {"path": str(path.resolve()), "files": _fingerprint(path), "stored_as": stored}
    with _only_one(target):
        if (target / SOURCE).is_file() and read_json(target / SOURCE) == wanted:
            return target
        note(f"converting {path} to CTranslate2 ({stored}), once")
        with new_directory(target, overwrite=True) as draft:
            convert(path, draft, stored)
            write_json(draft / SOURCE, wanted)
    return target


def convert(path: Path, directory: Path, quantization: str) -> None:
    """Write ``model.bin`` and everything that decoding needs into an existing ``directory``.

    Args:
        path: a Transformers Whisper directory, or an adapter for one (it is merged first).
        directory: where to write.
        quantization: CTranslate2's name of how weights are stored, as in float32 or int8.

    Raises:
        InputError: ctranslate2 is not installed, the model is no Whisper, or lacks its ``tokenizer.json``.
    """
    try:
        from ctranslate2.converters import TransformersConverter
    except ImportError as error:
        raise missing_extra("ctranslate2", "ctranslate2") from error
    if not (path / "config.json").is_file() and (path / "adapter_config.json").is_file():
        with tempfile.TemporaryDirectory(dir=directory, prefix=".merged-") as merged:
            load_family(path, device="cpu").save(Path(merged))
            convert(Path(merged), directory, quantization)
        return
    if family_of(path) != "whisper":
        raise InputError(f"{path} is a {family_of(path)} model and CTranslate2 decodes Whisper only: use engine torch")
    if not (path / "tokenizer.json").is_file():
        raise InputError(f"{path} has no tokenizer.json: copy it there from the original model")
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        TransformersConverter(str(path)).convert(str(directory), quantization=quantization, force=True)
    except (ValueError, RuntimeError, OSError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"CTranslate2 cannot convert {path} ({reason}): use decoding.engine=torch") from error
    for name in COPIED:
        if (path / name).is_file():
            shutil.copyfile(path / name, directory / name)


def _fingerprint(path: Path) -> dict[str, list[int]]:
    """Size and time of change of every file: enough to see that a model was trained again."""
    files = sorted(one for one in path.iterdir() if one.is_file())
    return {one.name: [one.stat().st_size, one.stat().st_mtime_ns] for one in files}


@contextmanager
def _only_one(target: Path) -> Iterator[None]:
    """No other process is in here for the same target."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with (target.parent / f".{target.name}.lock").open("w") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield
