"""What a person names as a system (a run, transcripts, a model), as transcripts of one set of utterances."""

from __future__ import annotations

import json
import struct
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_json
from speechtune.core.progress import note
from speechtune.corpus.table import METADATA, Corpus
from speechtune.decoding.kept import transcribe_kept
from speechtune.decoding.sources import open_model
from speechtune.decoding.transcript import read_transcripts
from speechtune.report.reading import MeasurementRecord, RunRecord, read_run
from speechtune.scoring.comparison import Cost, SystemInput, cost_of
from speechtune.scoring.inputs import load_input, read_references

KINDS = ("run", "transcripts", "model")


@dataclass(frozen=True, slots=True, kw_only=True)
class DecodeOptions:
    """How a model among the systems is decoded; ``keep`` is where its transcripts stay (``None``: nowhere)."""

    language: str | None = None
    context: str | None = None
    batch_size: int = 16
    beams: int = 1
    keep: Path | None = None

    def spoken(self, corpus: Corpus) -> str | None:
        """The language that was asked for, else the one that all utterances have."""
        languages = {one.language for one in corpus}
        return self.language or (languages.pop() if len(languages) == 1 else None)

    def key(self, spec: str, corpus: Corpus) -> dict[str, Any]:
        """What the transcripts depend on."""
        settings = {"language": self.spoken(corpus), "context": self.context, "beams": self.beams}
        return {"model": spec, **settings, "fingerprint": corpus.fingerprint()}


@dataclass(slots=True)
class Named:
    """One system as it was named: ``which`` is ``before`` or ``after`` for a run."""

    name: str
    spec: str
    kind: str
    path: Path
    which: str = "after"
    record: RunRecord | None = None
    notes: list[str] = field(default_factory=list)


def open_systems(
    specs: Sequence[str], corpus: Path | None, split: str | None, options: DecodeOptions
) -> tuple[Corpus, str | None, list[SystemInput]]:
    """The utterances to compare on, their split, and the systems with their transcripts.

    A spec is a run directory (``RUN@before`` means the model it began with), the output directory of ``speechtune
    evaluate``, a JSONL or text file of transcripts, or a model; ``NAME=SPEC`` gives it a name. Without ``corpus``
    the set is that of the first run or evaluation. A run that measured this set brings its transcripts; else its model
    is decoded.

    Raises:
        InputError: nothing of that name, no set to compare on, or ids missing on either side (they are named).
    """
    named = [_named(spec) for spec in specs]
    _rename_equals(named)
    where, split = (corpus, split) if corpus else _set_of(named, split)
    utterances = _load(where, split)
    return utterances, split, [_input(one, where, split, utterances, options) for one in named]


def _named(spec: str) -> Named:
    name, _, rest = spec.partition("=")
    given = rest if rest and name and not Path(spec).exists() else ""
    target = given or spec
    path, which = Path(target), "after"
    before, at, last = target.rpartition("@")
    if at and last in ("before", "after") and not path.exists():
        path, which = Path(before), last
    label = name if given else _short(path, which)
    if path.is_file():
        return Named(label, spec, "transcripts", path)
    if (path / "recipe.yaml").is_file() and (path / "scores.json").is_file():
        return Named(label, spec, "run", path, which, read_run(path))
    if at and last in ("before", "after") and path.is_dir():
        raise InputError(f"{path} is not a finished run, so it has no @{which}: give the directory without it")
    if (path / "transcripts.jsonl").is_file():
        return Named(label, spec, "transcripts", path)
    return Named(label, spec, "model", Path(target))


def _short(path: Path, which: str) -> str:
    stem = path.stem if path.is_file() else path.resolve().name if path.is_dir() else str(path)
    return f"{stem} (before)" if which == "before" else stem


def _rename_equals(named: list[Named]) -> None:
    """Systems with one name get their folder's before it, where that tells them apart."""
    names = [one.name for one in named]
    for one in named:
        if names.count(one.name) > 1 and "=" not in one.spec:
            one.name = f"{one.path.resolve().parent.name}/{one.name}"


def _set_of(named: list[Named], split: str | None) -> tuple[Path, str | None]:
    for one in named:
        if one.record:
            found = [row.set_name for row in one.record.headline() if row.role != "guard"]
            sets = [row for row in one.record.measurements if row.set_name in found and row.system == "after"]
            chosen = next((row for row in sets if split in (None, row.split)), None)
            if chosen:
                return Path(chosen.corpus), chosen.split
        score = one.path / "score.json"
        if one.kind == "transcripts" and one.path.is_dir() and score.is_file():
            facts = read_json(score).get("provenance", {})
            if facts.get("corpus"):
                return Path(facts["corpus"]), split or facts.get("split")
    raise InputError("none of these says which utterances it is about: add --corpus DIR (and --split)")


def _load(where: Path, split: str | None) -> Corpus:
    if where.is_file():
        if split:
            raise InputError(f"{where} is a file and has no split {split!r}: leave --split out")
        return read_references(where)[0]
    if not (where / METADATA).is_file():
        raise InputError(
            f"{where} is not a speechtune corpus (no {METADATA}): give --corpus with the set to compare on"
        )
    whole = Corpus.load(where)
    return whole.split(split) if split else whole


def _input(one: Named, where: Path, split: str | None, utterances: Corpus, options: DecodeOptions) -> SystemInput:
    if one.kind == "transcripts":
        return _from_file(one, where, split)
    if one.record:
        found = _measured(one, where, split, utterances)
        if found:
            weights = one.path / "model" if one.which == "after" else Path()
            return SystemInput(
                name=one.name,
                source=one.spec,
                transcripts=read_transcripts(one.path / found.transcripts),
                cost=Cost(parameters=parameters_of(weights)),
                notes=[*one.notes, f"{found.context} audio context, as the run measured it"],
            )
        if one.which == "before":
            raise InputError(f"{one.path} has not measured {where} before training: give its base model instead")
    return _decoded(one, utterances, options)


def _from_file(one: Named, where: Path, split: str | None) -> SystemInput:
    path = one.path / "transcripts.jsonl" if one.path.is_dir() else one.path
    try:
        loaded = load_input(where, path, split)
    except InputError as error:
        raise InputError(f"{one.name}: {error}") from error
    left = [f"{loaded.aside} transcripts of other splits were left aside"] if loaded.aside else []
    notes = [*one.notes, *left]
    given = [loaded.rows.get(utterance.utterance_id, {}).get("decode_s") for utterance in loaded.corpus]
    times_s = [float(value) for value in given if isinstance(value, int | float)]
    cost = Cost()
    if times_s and len(times_s) == len(given):
        cost = Cost(decode_s=sum(times_s), audio_s=loaded.corpus.seconds_of_audio)
    return SystemInput(
        name=one.name, source=one.spec, transcripts=loaded.transcripts, rows=loaded.rows, cost=cost, notes=notes
    )


def _measured(one: Named, where: Path, split: str | None, utterances: Corpus) -> MeasurementRecord | None:
    """The run's measurement of this set at its decoding context (``before``: at full context where it was taken)."""
    assert one.record
    rows = [row for row in one.record.measurements if row.system == one.which and row.split == split]
    same = [row for row in rows if Path(row.corpus).resolve() == where.resolve()]
    if not same:  # a relative path of another working directory: the ids tell
        ids = {utterance.utterance_id for utterance in utterances}
        gone = [row for row in rows if not Path(row.corpus).exists()]
        same = [
            row for row in gone if {text.utterance_id for text in read_transcripts(one.path / row.transcripts)} == ids
        ]
        if same:
            one.notes.append(f"the run's corpus {same[0].corpus} is not there; its utterance ids are those of {where}")
    if not same:
        return None
    wanted = {row.set_name: row for row in one.record.headline()}.get(same[0].set_name)
    context = (wanted.context_before if one.which == "before" else wanted.context_after) if wanted else ""
    return next((row for row in same if row.context == context), same[0])


def _decoded(one: Named, utterances: Corpus, options: DecodeOptions) -> SystemInput:
    if any(not utterance.file_name for utterance in utterances):
        raise InputError(f"{one.name} is a model, and {utterances.root} has no audio: give --corpus with a corpus")
    spec = str(one.path)

    def open_it() -> Any:
        note(f"decoding with {one.name}")
        return open_model(
            spec,
            language=options.spoken(utterances),
            context=options.context,
            batch_size=options.batch_size,
            beams=options.beams,
        )

    with tempfile.TemporaryDirectory(prefix="speechtune-compare-") as scratch:
        folder = (options.keep or Path(scratch)) / "decoded" / one.name.replace("/", "--")
        kept = transcribe_kept(
            open_it, utterances, utterances.utterances, folder, options.key(spec, utterances), one.name
        )
    return SystemInput(
        name=one.name,
        source=one.spec,
        transcripts=kept.of(utterances),
        cost=cost_of(kept, utterances),
        notes=[f"decoded here at {kept.context} audio context on {kept.device}"],
    )


def parameters_of(directory: Path) -> int | None:
    """The number of weights in the safetensors files of a model directory, from their headers; ``None`` without any.

    The header is a length of 8 bytes and a JSON object of tensors with their shapes
    (github.com/huggingface/safetensors, "Format").
    """
    if not (directory / "config.json").is_file():
        return None
    total = 0
    for path in sorted(directory.glob("*.safetensors")):
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                size = 1
                for axis in tensor["shape"]:
                    size *= axis
                total += size
    return total or None
