"""``speechtune submit``: build, rehearse, judge."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import write_json
from speechtune.core.progress import note
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.batched import transcribe
from speechtune.decoding.sources import OpenedModel, open_model
from speechtune.decoding.submission.building import build_package
from speechtune.decoding.submission.config import PackageSettings
from speechtune.decoding.submission.rehearsal import Limits, Verdict, rehearse
from speechtune.decoding.submission.sample import Sample, write_sample


@dataclass(slots=True)
class SubmitOptions:
    """What the verb was given beside the model and its decoding: see its options."""

    out: Path
    settings: PackageSettings
    limits: Limits
    corpus: Path | None = None
    split: str | None = None
    clips: int = 48
    seed: int = 0
    wheels: Path | None = None
    rehearse: bool = True
    overwrite: bool = False
    opening: dict[str, Any] = field(default_factory=dict)


def submit(model: str, options: SubmitOptions) -> tuple[dict[str, Any], str]:
    """Build the package, run it on a sample as the runtime does, and say whether it is fit to be handed in.

    The verdict is also written beside the zip, as ``NAME.verdict.json``.

    Raises:
        InputError: the model cannot be packed, or ``out`` exists.
    """
    if options.out.exists() and not options.overwrite:
        raise InputError(f"{options.out} exists: choose another --out or add --overwrite")
    if options.wheels is not None and not any(options.wheels.glob("*.whl")):
        raise InputError(
            f"{options.wheels} holds no wheels (*.whl): fill it with pip download -d {options.wheels} NAME"
        )
    overrides = [*options.opening.get("overrides", []), f"decoding.engine={options.settings.engine}"]
    if options.settings.engine == "ctranslate2":
        overrides.append(f"decoding.compute_type={options.settings.compute_type}")
    opened = open_model(model, **{**options.opening, "overrides": overrides})
    corpus = None
    if options.corpus is not None:
        whole = Corpus.load(options.corpus)
        corpus = whole.split(options.split) if options.split else whole
    note(f"packing {opened.path}")
    size_bytes = build_package(opened, options.out, options.settings, options.wheels)
    facts = {
        "model": str(opened.path),
        "out": str(options.out),
        "engine": options.settings.engine,
        "context": opened.decoding.context,
        "size_bytes": size_bytes,
    }
    if not options.rehearse:
        return {**facts, "rehearsed": False}, f"{options.out} ({size_bytes / 2**20:.1f} MiB), not rehearsed"
    verdict = _rehearse(opened, options, corpus)
    result = {**facts, "rehearsed": True, **verdict.to_json(), "exit_code": 0 if verdict.passed else 1}
    write_json(options.out.with_name(options.out.name + ".verdict.json"), result)
    return result, _told(options, verdict)


def _rehearse(opened: OpenedModel, options: SubmitOptions, corpus: Corpus | None) -> Verdict:
    with tempfile.TemporaryDirectory(prefix="speechtune-sample-") as folder:
        key = options.settings.text_key
        window_s = opened.family.limits.max_audio_s
        sample = write_sample(Path(folder) / "data", corpus, options.clips, options.seed, key, window_s)
        source = _source_texts(opened, sample, options.settings)
        note(f"rehearsing on {len(sample.waveforms)} clips in a process of its own, without network")
        return rehearse(options.out, sample, options.limits, key, source)


def _source_texts(opened: OpenedModel, sample: Sample, settings: PackageSettings) -> dict[str, str]:
    """What the model says of the sample in speechtune itself, in batches as large as the package's."""
    sizes = {"batch_size": settings.batch_size, "batch_seconds": settings.batch_seconds}
    utterances = [
        Utterance(utterance_id=name, file_name=name, text="", duration_s=len(waveform) / 16_000)
        for name, waveform in sample.waveforms.items()
    ]
    said = transcribe(
        opened.family,
        utterances,
        lambda one: sample.waveforms[one.utterance_id],
        opened.decoding.model_copy(update=sizes),
        "compare",
    )
    return {one.utterance_id: one.text for one in said}


def _told(options: SubmitOptions, verdict: Verdict) -> str:
    limits, measured = options.limits, verdict.measured
    lines = [
        f"{options.out}: {verdict.size_bytes / 2**20:.1f} MiB, {'fit to be handed in' if verdict.passed else 'NOT fit'}"
    ]
    lines += [f"  {'ok  ' if good else 'FAIL'} {name}" for name, good in verdict.checks.items()]
    lines += [f"  - {one}" for one in verdict.problems]
    if verdict.projected_hours is not None:
        lines.append(
            f"  {measured['engine']}: RTFx {measured['rtfx']:.1f} here; {limits.utterances} utterances in about "
            f"{verdict.projected_hours:.2f} h"
            + (f" on a machine {limits.speedup:g} x as fast" if limits.speedup != 1 else "")
        )
    return "\n".join(lines)
