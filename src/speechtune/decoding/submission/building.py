"""A model directory turned into a zip that a code-execution runtime runs."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
import zipfile
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError, explain_write_errors
from speechtune.core.files import write_json
from speechtune.decoding.engines.converting import convert
from speechtune.decoding.sources import OpenedModel
from speechtune.decoding.submission.config import PackageSettings
from speechtune.models.checking import is_ctranslate2
from speechtune.models.whisper import WhisperFamily

RUNTIME = "speechtune.decoding.submission.runtime"
MODULES = ("__init__", "audio", "text", "engines")
_ZIP_TIME = (2020, 1, 1, 0, 0, 0)


def build_package(opened: OpenedModel, out: Path, settings: PackageSettings, wheels: Path | None = None) -> int:
    """Write the archive; it appears only when it is complete.

    Args:
        opened: a Whisper model (a run, a directory, a soup, an adapter) with its decoding settings.
        out: the zip to write.
        settings: of the package.
        wheels: a folder of wheels whose contents are put on the package's import path, for a runtime that lacks a
            library (ctranslate2, as a rule).

    Returns:
        Its size in bytes.

    Raises:
        InputError: the model is not a Whisper one, or decodes in a way that the package does not know.
    """
    _refuse(opened, settings)
    with explain_write_errors(out):
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.") as folder:
            root = Path(folder) / "package"
            root.mkdir()
            write_model(opened, root / "model", settings)
            write_json(root / "settings.json", runtime_settings(opened, settings))
            family: Any = opened.family
            np.save(root / "mel_filters.npy", family.front_end.filters)
            write_runtime(root)
            for wheel in sorted(wheels.glob("*.whl")) if wheels else []:
                with zipfile.ZipFile(wheel) as archive:
                    archive.extractall(root / "vendor")
            draft = Path(folder) / "draft.zip"
            _zip(root, draft)
            size_bytes = draft.stat().st_size
            os.replace(draft, out)
    return size_bytes


def _refuse(opened: OpenedModel, settings: PackageSettings) -> None:
    if not opened.family.name.startswith("whisper"):
        raise InputError(f"{opened.path} is a {opened.family.name} model and submit packs Whisper models only")
    if isinstance(opened.family, WhisperFamily) and type(opened.family) is not WhisperFamily:
        raise InputError("several models together do not fit a package: make one of them with speechtune soup")
    decoding = opened.decoding
    if not decoding.search.is_plain() or decoding.fallback.active or decoding.boost.all_terms() or decoding.lm.model:
        raise InputError(
            "a package decodes greedily or by plain beam search: remove search, fallback, boost and lm from decoding"
        )
    if settings.engine == "torch" and is_ctranslate2(opened.path):
        raise InputError(f"{opened.path} is a CTranslate2 model: add --engine ctranslate2")


def write_model(opened: OpenedModel, folder: Path, settings: PackageSettings) -> None:
    """The model's files: as they are, merged or rounded for torch, converted for CTranslate2."""
    path = opened.path
    if settings.engine == "ctranslate2":
        if is_ctranslate2(path):
            shutil.copytree(path, folder)
            return
        folder.mkdir()
        convert(path, folder, settings.compute_type)
        return
    family: Any = opened.family
    if not isinstance(family, WhisperFamily):
        raise InputError(f"{path} was opened for another engine: remove decoding.engine")
    import torch

    model: Any = family.model
    weights = model.state_dict()
    largest = max(float(one.abs().max()) for one in weights.values())
    if settings.dtype == "float16" and largest > torch.finfo(torch.float16).max:
        raise InputError(f"{path} has weights up to {largest:.3g}, too large for float16: add --dtype float32")
    before = model.dtype
    try:
        model.to(getattr(torch, settings.dtype))
        family.save(folder)
    finally:
        model.to(before)
        if before == torch.float32 and settings.dtype != "float32":
            model.load_state_dict(weights)


def runtime_settings(opened: OpenedModel, settings: PackageSettings) -> dict[str, Any]:
    """Everything the package's code must know, tokens included."""
    family: Any = opened.family
    decoding = opened.decoding
    torch_family = isinstance(family, WhisperFamily)
    generation = family.generation_config if torch_family else None
    stop_s = settings.stop_after_hours * 3600 if settings.stop_after_hours else None
    return {
        **settings.model_dump(exclude={"stop_after_hours"}),
        "stop_after_s": stop_s,
        "context": decoding.context,
        "beams": decoding.beams,
        "margin_s": decoding.margin_s,
        "max_new_tokens": min(decoding.max_new_tokens, family.limits.max_label_tokens - len(family.prompt)),
        "window_frames": family.window_frames,
        "prompt": family.prompt,
        "eot": family.eot,
        "first_timestamp": family.first_timestamp,
        "tokens": int(family.config.vocab_size) if torch_family else family.sizes.vocabulary,
        "suppress": list((generation.suppress_tokens if generation else family.facts["suppress_tokens"]) or []),
        "suppress_first": list((generation.begin_suppress_tokens if generation else []) or []),
    }


def write_runtime(root: Path) -> None:
    """The code: the modules of `speechtune.decoding.submission.runtime`, which import nothing else of speechtune."""
    (root / "runtime").mkdir()
    for name in (*MODULES, "main"):
        text = (resources.files(RUNTIME) / f"{name}.py").read_text(encoding="utf-8").replace(RUNTIME, "runtime")
        target = root / "main.py" if name == "main" else root / "runtime" / f"{name}.py"
        target.write_text(text, encoding="utf-8")


def _zip(root: Path, target: Path) -> None:
    """Files in order of their names with one fixed time, so that the same package has the same bytes."""
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for path in sorted(path for path in root.rglob("*") if path.is_file()):
            entry = zipfile.ZipInfo(path.relative_to(root).as_posix(), _ZIP_TIME)
            entry.external_attr = 0o644 << 16
            heavy = path.suffix in (".safetensors", ".bin", ".so")
            entry.compress_type = zipfile.ZIP_STORED if heavy else zipfile.ZIP_DEFLATED
            with path.open("rb") as stream, archive.open(entry, "w", force_zip64=True) as held:
                shutil.copyfileobj(stream, held, io.DEFAULT_BUFFER_SIZE * 64)
