"""``speechtune export``: write, check in the target's own runtime, and only then call it done."""

from __future__ import annotations

import shutil
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, sha256, write_json, write_text
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.export import to_adapter, to_ctranslate2, to_ggml, to_onnx, to_openai, to_transformers
from speechtune.export.card import model_card
from speechtune.export.clips import Clips, gather_clips
from speechtune.export.gate import Leg, SourceTexts, check_runtimes, judge
from speechtune.export.limits import limits_of
from speechtune.export.source import Source, open_source, recorded_contexts
from speechtune.export.upload import check_repository, upload_artefact
from speechtune.models.config import Context

MANIFEST = "manifest.json"
REJECTED = ".rejected"
"""Appended to the name of a directory whose artefact the gate refused."""


@dataclass(frozen=True, slots=True)
class Format:
    """One target: how it is written, what must be in it, which runtimes read it, and what it is good for."""

    write: Callable[..., None]
    check: Callable[[Source, Path], list[str]]
    legs: Callable[[Source, list[Context], str], list[Leg]]
    dtypes: tuple[str, ...]
    default: str
    ladder: tuple[str, ...]


FORMATS = {
    "transformers": Format(
        to_transformers.write_transformers,
        to_transformers.check_files,
        to_transformers.legs,
        to_transformers.DTYPES,
        "float32",
        ("float32", "float16", "bfloat16"),
    ),
    "adapter": Format(
        to_adapter.write_adapter,
        to_adapter.check_files,
        to_adapter.legs,
        to_adapter.DTYPES,
        "float32",
        ("float32", "float16"),
    ),
    "ctranslate2": Format(
        to_ctranslate2.write_ctranslate2,
        to_ctranslate2.check_files,
        to_ctranslate2.legs,
        to_ctranslate2.DTYPES,
        "float16",
        ("float32", "float16", "int8_float32"),
    ),
    "ggml": Format(
        to_ggml.write_ggml,
        to_ggml.check_files,
        to_ggml.legs,
        to_ggml.DTYPES,
        "f16",
        ("f16", "q8_0", "q5_1", "q5_0", "q4_0"),
    ),
    "onnx": Format(
        to_onnx.write_onnx, to_onnx.check_files, to_onnx.legs, to_onnx.DTYPES, "float32", ("float32", "int8")
    ),
    "openai": Format(
        to_openai.write_openai,
        to_openai.check_files,
        to_openai.legs,
        to_openai.DTYPES,
        "float16",
        ("float32", "float16"),
    ),
}

ELSEWHERE = {
    "gguf": "llama.cpp's GGUF has no Whisper, and whisper.cpp reads GGML: use --to ggml",
    "coreml": "Core ML Whisper models are made on a Mac from a Transformers directory by whisperkittools "
    "(WhisperKit) or whisper.cpp's generate-coreml-model.sh: use --to transformers (or ggml) and convert there",
    "tflite": "no maintained runtime loads a tuned Whisper from TFLite; on Android whisper.cpp and sherpa-onnx do: "
    "use --to ggml or --to onnx",
}


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """What ``speechtune export`` is told.

    ``contexts``: audio contexts to check; those the model was trained for when empty. ``python``: the interpreter that
    holds the runtime. ``shard``: the largest weight file of a Transformers export. ``upload``: owner/name on the hub,
    and ``private`` for a repository that is made there. ``data_licence``: of the training data, for the card.
    """

    to: str
    dtype: str | None = None
    corpus: Path | None = None
    split: str | None = "dev"
    clips: int = 48
    contexts: tuple[str, ...] = ()
    language: str | None = None
    max_wer_rise: float | None = None
    shard: str = to_transformers.SHARD
    upload: str | None = None
    private: bool = True
    data_licence: str | None = None
    python: str = sys.executable
    threads: int = 2
    seed: int = 0
    overwrite: bool = False


def export_model(model: str, out: Path, options: ExportOptions, api: Any = None) -> dict[str, Any]:
    """Write an artefact, check it, and put it at ``out`` if it passed, else at ``out`` + ``.rejected``.

    What passed is uploaded where ``options.upload`` names a repository; ``api`` stands in for the hub's.

    Returns:
        The manifest with ``path``; ``exit_code`` 1 is in it where the gate refused the artefact.

    Raises:
        InputError: an unknown target or type, no such model, a runtime that is not installed, ``out`` exists.
        SpeechtuneError: the upload failed; the artefact stays.
    """
    form, dtype = choose_format(options.to, options.dtype)
    refuse_existing(out, options.overwrite)
    check_repository(options.upload)
    source = open_source(model, options.language)
    contexts = choose_contexts(source, options.contexts)
    check_runtimes(form.legs(source, contexts, dtype), options.python)
    texts = SourceTexts(source, clips_for(source, options))
    found = make_one(texts, out, options, dtype)
    if options.upload and found["gate"]["passed"]:
        found["upload"] = upload_artefact(out, options.upload, options.private, api)
    return found


def clips_for(source: Source, options: ExportOptions) -> Clips:
    """The clips of the gate."""
    return gather_clips(source, options.corpus, options.split, options.clips, options.seed)


def make_one(texts: SourceTexts, out: Path, options: ExportOptions, dtype: str) -> dict[str, Any]:
    """Write and check one artefact of an opened source (see `export_model`)."""
    source, form = texts.source, FORMATS[options.to]
    contexts = choose_contexts(source, options.contexts)
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=f".{out.name}.export-", ignore_cleanup_errors=True) as name:
        draft = Path(name) / out.name
        note(f"writing {options.to} {dtype}")
        extra = {"shard": options.shard} if options.to == "transformers" else {}
        form.write(source, draft, dtype, **extra)
        if not (draft / "speechtune.json").is_file():  # an adapter's names its base too
            write_json(draft / "speechtune.json", recorded_contexts(source))
        verdict = check(texts, draft, form, contexts, dtype, options)
        manifest = {
            "format": options.to,
            "dtype": dtype,
            "bytes": sum(path.stat().st_size for path in weight_files(draft)),
            "source": describe(source),
            "audio_contexts": source.contexts,
            "gate": verdict,
            "provenance": provenance(options.seed),
        }
        write_text(draft / "README.md", model_card(source, manifest, options.data_licence))
        manifest["files"] = {
            str(path.relative_to(draft)): {"bytes": path.stat().st_size, "sha256": sha256(path)}
            for path in sorted(draft.rglob("*"))
            if path.is_file()
        }
        write_json(draft / MANIFEST, manifest)
        target = out if verdict["passed"] else out.with_name(out.name + REJECTED)
        with new_directory(target, options.overwrite or not verdict["passed"]) as final:
            for path in draft.iterdir():
                shutil.move(str(path), final / path.name)
    clips = texts.clips.clips
    counts = {"kept": len(clips), "dropped_by_reason": {}, "seconds_of_audio": sum(clip.seconds for clip in clips)}
    found = {"path": str(target), **counts, **manifest}
    return found if verdict["passed"] else {**found, "exit_code": 1}


def check(
    texts: SourceTexts, artefact: Path, form: Format, contexts: list[Context], dtype: str, options: ExportOptions
) -> dict[str, Any]:
    """The gate: first what must be there, then the runtimes."""
    limits = limits_of(dtype, options.max_wer_rise)
    wrong = form.check(texts.source, artefact)
    if wrong:
        return {"passed": False, "reasons": wrong, "legs": [], "judged_on": {"kind": "files"}}
    return judge(texts, artefact, form.legs(texts.source, contexts, dtype), limits, options.python, options.threads)


def choose_format(to: str, dtype: str | None) -> tuple[Format, str]:
    """The target and the type to write.

    Raises:
        InputError: either is unknown; for GGUF, Core ML and TFLite the sentence says what to use.
    """
    name = to.lower().replace("-", "").replace("_", "")
    if name in ELSEWHERE:
        raise InputError(f"speechtune does not write {to}: {ELSEWHERE[name]}")
    if to not in FORMATS:
        raise InputError(f"there is no export format {to!r}: use one of {', '.join(FORMATS)}")
    form = FORMATS[to]
    chosen = dtype or form.default
    if chosen not in form.dtypes:
        raise InputError(f"{to} is not written as {chosen!r}: use one of {', '.join(form.dtypes)}")
    return form, chosen


def choose_contexts(source: Source, wanted: tuple[str, ...]) -> list[Context]:
    """The audio contexts the gate runs at.

    Raises:
        InputError: one is neither ``fit`` nor ``full``.
    """
    wrong = [one for one in wanted if one not in ("fit", "full")]
    if wrong:
        raise InputError(f"--context {wrong[0]!r} is unknown: use fit or full")
    chosen = wanted or tuple(source.contexts)
    contexts: list[Context] = [one for one in ("full", "fit") if one in chosen]
    return contexts


def refuse_existing(out: Path, overwrite: bool) -> None:
    """Say before the work what `new_directory` would say after it.

    Raises:
        InputError: ``out`` is a file, or a directory that is not empty and may not be replaced.
    """
    if out.is_file():
        raise InputError(f"{out} is a file: choose another --out")
    if out.is_dir() and any(out.iterdir()) and not overwrite:
        raise InputError(f"{out} exists and is not empty: choose another --out or add --overwrite")


def weight_files(folder: Path) -> list[Path]:
    """The files that make an artefact large: weights, not tokenizers."""
    return [path for path in folder.rglob("*") if path.suffix in (".bin", ".safetensors", ".onnx", ".pt", ".data")]


def describe(source: Source) -> dict[str, Any]:
    """What was exported."""
    return {
        "name": source.name,
        "path": str(source.path),
        "run": str(source.run) if source.run else None,
        "language": source.family.language,
        "weights_sha256": {path.name: sha256(path) for path in sorted(source.path.glob("*.safetensors"))},
    }


def export_text(found: dict[str, Any]) -> str:
    """What a person reads of one export."""
    gate = found["gate"]
    lines = []
    for leg in gate["legs"]:
        if "distance" not in leg:
            lines.append(f"{leg['runtime']:16} {leg['context']:5} failed")
            continue
        wer = ""
        if leg["wer_target"] is not None:
            wer = f", WER {_percent(leg['wer_source'])} -> {_percent(leg['wer_target'])}"
        lines.append(
            f"{leg['runtime']:16} {leg['context']:5} {leg['equal']}/{leg['clips']} texts equal, "
            f"{_percent(leg['divergence']['rate'])} of tokens diverge{_habit(leg)}{wer}"
        )
    judged = gate["judged_on"]
    lines.append(f"judged on {judged['kind']}" + (f": {judged['origin']}" if judged.get("origin") else ""))
    lines += [f"note: {one}" for one in gate.get("notes", [])]
    size = f"{found['format']} {found['dtype']}, {found['bytes'] / 1e6:.1f} MB"
    if gate["passed"]:
        verdict = "passed, and proven" if gate.get("proven") else "passed"
        sent = [f"uploaded to {found['upload']['url']}"] if "upload" in found else []
        return "\n".join([*lines, f"{verdict}: {size}: {found['path']}", *sent])
    refused = [f"refused: {reason}" for reason in gate["reasons"]]
    return "\n".join([*lines, *refused, f"kept for inspection: {found['path']}"])


def _habit(leg: dict[str, Any]) -> str:
    return " (the runtime's defaults)" if leg["habit"] else ""


def _percent(rate: float) -> str:
    return f"{100 * rate:.1f} %"
