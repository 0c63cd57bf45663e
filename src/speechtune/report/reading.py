"""A run directory as typed records: what the report is made of, and nothing that is not on the disk.

The files are those that `speechtune.training.run` leaves. They are read by name, so that a report needs neither torch
nor a recipe that today's version still accepts.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, read_jsonl
from speechtune.scoring.alignment import Counts


class Bounds(NamedTuple):
    """A confidence interval: rates or differences of rates as fractions, and what was resampled."""

    low: float
    high: float
    level: float
    unit: str
    units: int


@dataclass(frozen=True, slots=True)
class SliceRecord:
    """One value of a sliced column for one system."""

    utterances: int
    words: Counts
    interval: Bounds | None


@dataclass(frozen=True, slots=True)
class ScoreRecord:
    """What ``scores.json`` keeps of a `speechtune.scoring.score.Score`."""

    words: Counts
    chars: Counts
    interval: Bounds | None
    cer_interval: Bounds | None
    utterances: int
    seconds_of_audio: float
    normaliser: str
    empty_references: int
    insertions_on_empty: int
    missing: int
    slices: dict[str, dict[str, SliceRecord]]
    notes: list[str]


@dataclass(frozen=True, slots=True)
class MeasurementRecord:
    """One set, one system (``before`` or ``after``), one audio context."""

    set_name: str
    role: str
    corpus: str
    split: str | None
    system: str
    context: str
    transcripts: str
    score: ScoreRecord
    terms: dict[str, Any] | None


@dataclass(frozen=True, slots=True)
class ComparisonRecord:
    """One set at one context after training, against the base model."""

    set_name: str
    role: str
    context_before: str
    context_after: str
    wer_before: float | None
    wer_after: float | None
    difference: float | None
    interval: Bounds | None
    p_value: float | None
    term_recall_before: float | None
    term_recall_after: float | None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """A finished run. Parts that a run may lack are empty."""

    directory: Path
    recipe_text: str
    recipe: dict[str, Any]
    measurements: list[MeasurementRecord]
    comparisons: list[ComparisonRecord]
    metrics: list[dict[str, Any]] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    preflight: dict[str, Any] = field(default_factory=dict)
    summary: dict[str, Any] = field(default_factory=dict)

    def measurement(self, set_name: str, system: str, context: str) -> MeasurementRecord | None:
        """The measurement of a set by a system at a context, if there is one."""
        wanted = (set_name, system, context)
        found = (one for one in self.measurements if (one.set_name, one.system, one.context) == wanted)
        return next(found, None)

    def headline(self) -> list[ComparisonRecord]:
        """One comparison for each set, in order: at the recipe's decoding context where that was measured."""
        context = section(self.recipe, "decoding").get("context", "fit")
        chosen: dict[str, ComparisonRecord] = {}
        for one in self.comparisons:
            if one.set_name not in chosen or one.context_after == context:
                chosen[one.set_name] = one
        return list(chosen.values())

    def rows(self, kind: str) -> list[dict[str, Any]]:
        """The rows of ``metrics.jsonl`` of one kind: ``train``, ``dev`` or ``summary``."""
        return [row for row in self.metrics if row.get("kind") == kind]


def section(values: dict[str, Any], *keys: str) -> dict[str, Any]:
    """A nested mapping, empty where it is missing or something else."""
    for key in keys:
        inner = values.get(key)
        values = inner if isinstance(inner, dict) else {}
    return values


def read_run(directory: Path) -> RunRecord:
    """Read a run.

    Raises:
        InputError: it is not a run, it is not finished, or one of its files is damaged.
    """
    recipe_path, scores_path = directory / "recipe.yaml", directory / "scores.json"
    if not recipe_path.is_file():
        raise InputError(f"{directory} is not a run (no recipe.yaml): give the directory that speechtune train made")
    if not scores_path.is_file():
        raise InputError(
            f"{directory} is not finished (no scores.json): continue it with speechtune train --resume, then report it"
        )
    scores = read_json(scores_path)
    try:
        measurements = [_measurement(row) for row in scores["measurements"]]
        comparisons = [_comparison(row) for row in scores["comparisons"]]
    except (KeyError, TypeError, AttributeError) as error:
        raise InputError(
            f"{scores_path} is damaged ({type(error).__name__}: {error}): remove it and run speechtune train --resume"
        ) from error
    recipe_text, recipe = _recipe(recipe_path)
    return RunRecord(
        directory,
        recipe_text,
        recipe,
        measurements,
        comparisons,
        metrics=_curve_rows(directory / "metrics.jsonl"),
        provenance=_mapping(directory / "provenance.json"),
        preflight=_mapping(directory / "preflight.json"),
        summary=_mapping(directory / "run.json"),
    )


def _recipe(path: Path) -> tuple[str, dict[str, Any]]:
    import yaml

    try:
        text = path.read_text(encoding="utf-8")
        values = yaml.safe_load(text)
    except (UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"{path} is not valid YAML ({' '.join(str(error).split())}): restore it") from error
    return text, values if isinstance(values, dict) else {}


def _mapping(path: Path) -> dict[str, Any]:
    value = read_json(path) if path.is_file() else {}
    return value if isinstance(value, dict) else {}


def _curve_rows(path: Path) -> list[dict[str, Any]]:
    rows: Iterable[dict[str, Any]] = read_jsonl(path) if path.is_file() else ()
    return [row for row in rows if all(isinstance(row.get(key), int | float) for key in ("step", "epoch"))]


def _measurement(row: dict[str, Any]) -> MeasurementRecord:
    return MeasurementRecord(
        row["set"],
        row["role"],
        row["corpus"],
        row.get("split"),
        row["system"],
        row["context"],
        row["transcripts"],
        _score(row["score"]),
        row.get("terms"),
    )


def _score(row: dict[str, Any]) -> ScoreRecord:
    return ScoreRecord(
        words=_counts(row["words"]),
        chars=_counts(row["chars"]),
        interval=_bounds(row.get("interval")),
        cer_interval=_bounds(row.get("cer_interval")),
        utterances=row["utterances"],
        seconds_of_audio=row["seconds_of_audio"],
        normaliser=row["normaliser"],
        empty_references=row.get("empty_references", 0),
        insertions_on_empty=row.get("insertions_on_empty", 0),
        missing=row.get("missing", 0),
        slices={
            column: {
                str(value): SliceRecord(one["utterances"], _counts(one["words"]), _bounds(one.get("interval")))
                for value, one in parts.items()
            }
            for column, parts in row.get("slices", {}).items()
        },
        notes=list(row.get("notes", [])),
    )


def _comparison(row: dict[str, Any]) -> ComparisonRecord:
    difference = row["difference"]
    return ComparisonRecord(
        row["set"],
        row["role"],
        row["context_before"],
        row["context_after"],
        row["wer_before"],
        row["wer_after"],
        difference["difference"],
        _bounds(difference["interval"]),
        difference["p_value"],
        row.get("term_recall_before"),
        row.get("term_recall_after"),
    )


def _counts(row: dict[str, Any]) -> Counts:
    return Counts(row["hits"], row["substitutions"], row["deletions"], row["insertions"])


def _bounds(row: dict[str, Any] | None) -> Bounds | None:
    return Bounds(row["low"], row["high"], row["level"], row["unit"], row["units"]) if row else None
