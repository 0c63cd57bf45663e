"""The tables, charts and facts of a run's page, as plain values for its template."""

from __future__ import annotations

import math
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from markupsafe import Markup

from speechtune.core.errors import InputError
from speechtune.corpus.reading import redivided
from speechtune.corpus.table import Corpus
from speechtune.report.charts import Curve, Dot, DotRow, dot_whisker, line_chart
from speechtune.report.reading import Bounds, MeasurementRecord, RunRecord, SliceRecord, section
from speechtune.report.wording import count, duration, level, number, percent, percent_range

Facts = list[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class SliceTable:
    """One sliced column of one set: rows of (value, counts, before, after), and their chart."""

    set_name: str
    column: str
    chart: Markup
    rows: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class TermTable:
    """The terms of one set before and after."""

    set_name: str
    overall: dict[str, Any]
    rows: list[dict[str, Any]]
    dropped: list[str]

    @property
    def heard_of(self) -> bool:
        """Whether any term was said, or recognised where it was not."""
        return any(self.overall[system][key] for system in self.overall for key in ("reference", "false_alarms"))


def subtitle(run: RunRecord) -> str:
    """The base model and the date, as far as the run tells."""
    name = section(run.provenance, "base").get("name") or section(run.recipe, "model").get("base")
    date = str(run.provenance.get("created", ""))[:10]
    return ", ".join(
        part for part in (f"fine-tuned from {name}" if name else "", f"started {date}" if date else "") if part
    )


def score_rows(run: RunRecord) -> list[dict[str, Any]]:
    """One row for each set, context and system, before and after next to each other."""
    order = {name: index for index, name in enumerate(dict.fromkeys(one.set_name for one in run.measurements))}
    contexts = list(dict.fromkeys(one.context for one in run.measurements))
    ranked = sorted(
        run.measurements, key=lambda one: (order[one.set_name], contexts.index(one.context), one.system != "before")
    )
    return [
        {
            "set": one.set_name,
            "role": one.role,
            "context": one.context,
            "system": one.system,
            "wer": one.score.words.rate,
            "interval": one.score.interval,
            "cer": one.score.chars.rate,
            "cer_interval": one.score.cer_interval,
            "words": one.score.words,
            "utterances": one.score.utterances,
            "recall": (one.terms or {}).get("recall"),
            "terms": one.terms is not None,
        }
        for one in ranked
    ]


def score_chart(run: RunRecord) -> Markup:
    """Every row of the table as a dot with its interval."""
    rows = [
        DotRow(
            f"{_short(row['set'])} · {row['context']} · {row['system']}",
            f"{percent(row['wer'])} ({percent_range(row['interval'])})" if row["interval"] else percent(row["wer"]),
            (dot(row["wer"], row["interval"], row["system"] == "after"),),
        )
        for row in score_rows(run)
    ]
    return Markup(dot_whisker(rows, "Word error rate of every set before and after; the table has the same numbers."))


def _short(name: str, most: int = 24) -> str:
    """A name that leaves room beside it on a phone; the tables have it whole."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def dot(rate: float | None, bounds: Bounds | None, filled: bool) -> Dot:
    """A rate and its interval as something to draw."""
    return Dot(rate, bounds.low if bounds else None, bounds.high if bounds else None, filled)


def set_notes(run: RunRecord) -> list[str]:
    """What the scoring had to say, each thing once, with the sets it is about."""
    about: dict[str, list[str]] = {}
    for one in run.measurements:
        for note in one.score.notes:
            names = about.setdefault(note, [])
            if one.set_name not in names:
                names.append(one.set_name)
    notes = [f"{', '.join(names)}: {note}" for note, names in about.items()]
    for name in dict.fromkeys(one.set_name for one in run.measurements if one.score.empty_references):
        rows = [one for one in run.measurements if one.set_name == name]
        added = ", ".join(f"{number(one.score.insertions_on_empty)} {one.system} at {one.context}" for one in rows)
        empty = count(rows[0].score.empty_references, "reference")
        notes.append(f"{name}: {empty} without any word; words recognised there count as errors ({added})")
    return [f"{note.removesuffix('.')}." for note in notes]


def slice_tables(run: RunRecord) -> list[SliceTable]:
    """Every sliced column of every set, at the contexts of the headline."""
    tables = []
    for one in run.headline():
        before = run.measurement(one.set_name, "before", one.context_before)
        after = run.measurement(one.set_name, "after", one.context_after)
        if before is None or after is None:
            continue
        for column, parts in after.score.slices.items():
            others = before.score.slices.get(column, {})
            rows = [_slice_row(value, others[value], part) for value, part in parts.items() if value in others]
            tables.append(SliceTable(one.set_name, column, _slice_chart(one.set_name, column, rows), rows))
    return tables


def _slice_row(value: str, before: SliceRecord, after: SliceRecord) -> dict[str, Any]:
    return {
        "value": value,
        "utterances": after.utterances,
        "words": after.words.reference_length,
        "before": before,
        "after": after,
    }


def _slice_chart(set_name: str, column: str, rows: list[dict[str, Any]]) -> Markup:
    drawn = [
        DotRow(
            _short(row["value"]),
            f"{percent(row['before'].words.rate)} → {percent(row['after'].words.rate)} · "
            f"{count(row['utterances'], 'utterance')}, {count(row['words'], 'word')}",
            (
                dot(row["before"].words.rate, row["before"].interval, False),
                dot(row["after"].words.rate, row["after"].interval, True),
            ),
        )
        for row in rows
    ]
    about = f"Word error rate of {set_name} by {column}, before and after; the table has the same numbers."
    return Markup(dot_whisker(drawn, about))


def term_tables(run: RunRecord) -> list[TermTable]:
    """Per-term recall where a set was measured with terms, at the contexts of the headline."""
    tables = []
    for one in run.headline():
        before = (run.measurement(one.set_name, "before", one.context_before) or _NOTHING).terms
        after = (run.measurement(one.set_name, "after", one.context_after) or _NOTHING).terms
        if not before or not after:
            continue
        was = {row["term"]: row for row in before["terms"]}
        rows = [{"term": row["term"], "before": was.get(row["term"], row), "after": row} for row in after["terms"]]
        dropped = [f"{reason}: {', '.join(names)}" for reason, names in after.get("dropped_by_reason", {}).items()]
        tables.append(TermTable(one.set_name, {"before": before, "after": after}, rows, dropped))
    return tables


class _Nothing:
    terms: dict[str, Any] | None = None


_NOTHING = _Nothing()


def best_step(run: RunRecord) -> int | None:
    """The step whose weights were kept: as the run says, else that of the lowest dev WER (the earliest of equals)."""
    stated = run.summary.get("best_step")
    if isinstance(stated, int):
        return stated
    rated = [(row["wer"], row["step"]) for row in run.rows("dev") if _finite(row.get("wer"))]
    return min(rated)[1] if rated else None


def training_charts(run: RunRecord) -> list[tuple[str, Markup]]:
    """Title and chart of each training curve that has values."""
    best = best_step(run)
    chosen = next((row for row in run.rows("dev") if row["step"] == best), None)
    marked = (float(chosen["epoch"]), f"best: step {best}") if chosen else None
    dev = run.rows("dev")
    band = [(row["epoch"], row["wer_low"], row["wer_high"]) for row in dev if "wer_low" in row and "wer_high" in row]
    curves = [
        Curve("Dev word error rate", _series(dev, "wer"), band, marked, in_percent=True, dotted=True),
        Curve("Training loss", _series(run.rows("train"), "loss"), marked=marked),
        Curve("Learning rate", _series(run.rows("train"), "learning_rate"), marked=marked),
        Curve("Gradient norm", _series(run.rows("train"), "grad_norm"), marked=marked),
    ]
    drawn = [(curve.title, line_chart(curve, _describe(curve))) for curve in curves]
    return [(title, Markup(svg)) for title, svg in drawn if svg]


def _series(rows: list[dict[str, Any]], key: str) -> list[tuple[float, float]]:
    numbers = [(row["epoch"], row.get(key)) for row in rows]
    return [(float(epoch), float(value)) for epoch, value in numbers if isinstance(value, int | float)]


def _finite(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def _describe(curve: Curve) -> str:
    finite = [(x, y) for x, y in curve.points if math.isfinite(y)]
    if not finite:
        return curve.title
    show = percent if curve.in_percent else (lambda value: f"{value:.3g}")
    (first_x, first), (last_x, last) = finite[0], finite[-1]
    lowest = min(y for _, y in finite)
    return (
        f"{curve.title}: {show(first)} at epoch {first_x:g}, {show(last)} at epoch {last_x:g}, "
        f"lowest {show(lowest)}, {count(len(finite), 'value')}."
    )


def not_finite(run: RunRecord) -> int:
    """How many logged training values are infinite or not a number."""
    values = [row.get(key) for row in run.metrics for key in ("loss", "grad_norm", "wer")]
    return sum(isinstance(value, float) and not math.isfinite(value) for value in values)


def training_facts(run: RunRecord) -> Facts:
    """What was trained on what, and how long it took."""
    facts: Facts = []
    train, dev = run.rows("train"), run.rows("dev")
    if train or dev:
        facts.append(("optimiser steps", number(max(int(row["step"]) for row in [*train, *dev]))))
    best = best_step(run)
    averaged = run.summary.get("averaged_steps")
    if averaged:
        steps = ", ".join(number(step) for step in averaged)
        facts.append(
            ("weights kept", f"the average of those of steps {steps}: no worse on dev than the best single one")
        )
    elif best is not None:
        facts.append(("weights kept", f"those of step {number(best)}, the lowest dev WER"))
    for row in run.rows("summary"):
        if _finite(row.get("train_runtime")):
            facts.append(("training time", duration(row["train_runtime"])))
    context = section(run.recipe, "training", "audio_context")
    if context:
        facts.append(("audio context", ", ".join(f"{name} {value}" for name, value in context.items())))
    return facts


def data_facts(run: RunRecord) -> Facts:
    """Where the training data came from, how much of it was used, and what was dropped at every stage."""
    data, recipe = section(run.provenance, "data"), section(run.recipe, "data")
    where = str(data.get("corpus") or recipe.get("corpus") or "")
    facts: Facts = [("corpus", where)]
    if data.get("fingerprint"):
        facts.append(("fingerprint", str(data["fingerprint"])))
    facts.append(("left out of training", _drops(data.get("dropped_by_reason"))))
    if "kept" in data:
        facts.append(("trained on", _amount(data["kept"], data.get("seconds_of_audio"), None)))
    try:
        corpus = redivided(Corpus.load(Path(where)), recipe)
    except (InputError, OSError) as error:
        return [*facts, ("splits", f"not known: {error}")]
    if data.get("fingerprint") not in (None, corpus.fingerprint()):
        return [*facts, ("splits", "not shown: the corpus has changed since the run was started")]
    for kind in ("train_split", "dev_split"):
        name = recipe.get(kind)
        part = corpus.subset(lambda utterance, name=name: utterance.split == name)  # type: ignore[misc]
        speakers = len({one.speaker_id for one in part} - {None})
        facts.append((f"split {name}", _amount(len(part), part.seconds_of_audio, speakers)))
    if "dropped_by_reason" in corpus.card:
        facts.append(("dropped at import", _drops(corpus.card["dropped_by_reason"])))
    return facts


def _drops(reasons: Any) -> str:
    if not isinstance(reasons, dict) or not reasons:
        return "nothing"
    return "; ".join(f"{count(amount, 'utterance')}: {reason}" for reason, amount in reasons.items())


def _amount(utterances: int, seconds: float | None, speakers: int | None) -> str:
    parts = [count(utterances, "utterance")]
    if seconds is not None:
        parts.append(duration(seconds))
    if speakers is not None:
        parts.append(count(speakers, "known speaker"))
    return ", ".join(parts)


def origin_facts(run: RunRecord) -> list[tuple[str, Facts]]:
    """Groups of facts: the run and its versions, the machine."""
    record = run.provenance
    command = record.get("command")
    base = section(record, "base")
    about: Facts = [
        ("started", str(record.get("created", ""))),
        ("command", shlex.join(map(str, command)) if isinstance(command, Sequence) else str(command or "")),
        ("seed", str(record.get("seed", ""))),
        ("base model", str(base.get("name", ""))),
        ("base model's directory", str(base.get("path", ""))),
        ("normaliser", ", ".join(dict.fromkeys(one.score.normaliser for one in run.measurements))),
        ("versions", ", ".join(f"{name} {value}" for name, value in section(record, "versions").items())),
    ]
    hardware = section(record, "hardware").items()
    machine = [(name.replace("_gib", " (GiB)").replace("_", " "), _flat(value)) for name, value in hardware]
    groups = [("Run", about), ("Machine", machine)]
    return [(title, [fact for fact in facts if fact[1]]) for title, facts in groups if facts]


def _flat(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def preflight_facts(run: RunRecord) -> Facts:
    """The proofs before the first step; empty where they were switched off."""
    return [(str(name), str(text)) for name, text in section(run.preflight, "checks").items()]


def interval_note(measurements: list[MeasurementRecord]) -> str:
    """What the intervals of this run are."""
    found = [bounds for one in measurements if (bounds := one.score.interval)]
    if not found:
        return "This run was scored without intervals: how much the rates vary by chance is not known."
    units = " or ".join(dict.fromkeys(f"{one.unit}s" for one in found))
    return (
        f"Intervals aim to cover the true value in {level(found[0])} of such measurements. They come from drawing "
        f"{units} of the set anew, with replacement, many times (bootstrap; Bisani & Ney 2004, Liu & Peng 2020). "
        "Speakers are drawn where at least five are known, because utterances of one speaker resemble each other; "
        "where utterances are drawn, the interval does not cover how other speakers differ. An interval says nothing "
        "about other kinds of speech than this set holds, nor about another training seed."
    )
