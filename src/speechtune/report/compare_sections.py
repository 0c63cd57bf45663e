"""The tables, charts and sentences of a comparison's page, as plain values for its template."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from speechtune.report.charts import DotRow, dot_whisker
from speechtune.report.reading import Bounds
from speechtune.report.sections import dot
from speechtune.report.wording import (
    count,
    duration,
    level,
    number,
    percent,
    percent_range,
    points,
    points_range,
    relative,
)
from speechtune.scoring.bootstrap import Interval
from speechtune.scoring.comparison import MAX_ALIGNED, SystemComparison, SystemResult, Test

_SHORT = 28


@dataclass(frozen=True, slots=True)
class Headline:
    """The system with the lowest rate, how it compares with the next and with the reference, and what that rests on."""

    name: str
    rate: str
    interval: str
    sentences: list[str]
    basis: str


def title(found: SystemComparison) -> str:
    """The systems' names, or their number where that would be long."""
    joined = " and ".join(found.names) if len(found.names) == 2 else ", ".join(found.names)
    return joined if len(joined) <= 60 else f"{len(found.names)} systems"


def subtitle(found: SystemComparison) -> str:
    """The set."""
    split = f", split {found.split}" if found.split else ""
    audio = f", {duration(found.corpus.seconds_of_audio)}" if found.corpus.seconds_of_audio else ""
    return f"{found.corpus.root}{split}: {count(len(found.corpus), 'utterance')}{audio}"


def headline(found: SystemComparison) -> Headline:
    """What the comparison says in a few sentences."""
    order = found.best()
    best = found.systems[order[0]]
    sentences = [_against(found, order[0], order[1])]
    if found.reference not in order[:2]:
        sentences.append(_against(found, order[0], found.reference))
    if best.best_probability is not None:
        sentences.append(
            f"It has the lowest rate in {_share(best.best_probability)} of the resamples of this set"
            + (f"; {_runner_up(found, order[0])}." if best.best_probability < 0.95 else ".")
        )
    words, speakers = best.score.words.reference_length, len({one.speaker_id for one in found.corpus} - {None})
    basis = [count(len(found.corpus), "utterance"), count(words, "word")]
    basis.append(count(speakers, "known speaker") if speakers else "speakers unknown")
    if best.score.interval:
        basis.append(f"intervals resample {number(best.score.interval.units)} {best.score.interval.unit}s")
    interval = percent_range(bounds_of(best.score.interval)) if best.score.interval else ""
    return Headline(best.name, percent(best.score.wer), interval, sentences, ", ".join(basis) + ".")


def _against(found: SystemComparison, best: int, other: int) -> str:
    test = found.pair(other, best)
    change = test.difference
    if change.difference is None:
        return "No reference holds a word, so there is no word error rate to compare."
    if change.difference == 0:
        return f"{found.names[other]} makes exactly as many errors."
    said = f"{points(change.difference)} points from {found.names[other]} ({percent(found.systems[other].score.wer)})"
    ends = bounds_of(change.interval)
    if ends:
        said += f", {level(ends)} interval {points_range(ends)}"
    p = "" if test.p_adjusted is None else f", p = {test.p_adjusted:.2g}"
    if test.verdict != "unclear":
        sure = f"That is a significant difference{p}."
    elif ends and (ends.high < 0 or ends.low > 0):
        many = f" for {count(len(found.pairs), 'pair')}" if len(found.pairs) > 1 else ""
        sure = f"It is not significant after correction{many}{p}: {count(ends.units, ends.unit)} cannot show it."
    else:
        sure = f"This set does not show that they differ{p}."
    return f"{said}. {sure}"


def _runner_up(found: SystemComparison, best: int) -> str:
    rest = [(one.best_probability or 0.0, one.name) for place, one in enumerate(found.systems) if place != best]
    chance, name = max(rest)
    return f"{name} has it in {_share(chance)}"


def _share(chance: float) -> str:
    return f"{100 * chance:.0f}\u00a0%" if 0.005 <= chance <= 0.995 else "nearly all" if chance > 0.5 else "almost none"


def bounds_of(interval: Interval | None) -> Bounds | None:
    """An interval in the form that this room's pages use."""
    if interval is None:
        return None
    return Bounds(interval.low, interval.high, interval.level, interval.unit, interval.units)


def score_rows(found: SystemComparison) -> list[dict[str, Any]]:
    """One row for each system, in the order in which they were given."""
    rows = []
    base = found.systems[found.reference].score
    for place, one in enumerate(found.systems):
        test = None if place == found.reference else found.pair(found.reference, place)
        rows.append(
            {
                "name": one.name,
                "is_reference": test is None,
                "wer": one.score.wer,
                "interval": one.score.interval,
                "cer": one.score.cer,
                "words": one.score.words,
                "chance": one.best_probability,
                "difference": test.difference.difference if test else None,
                "bounds": test.difference.interval if test else None,
                "p": test.p_adjusted if test else None,
                "verdict": test.verdict if test else "",
                "relative": relative(base.wer, one.score.wer) if test else None,
            }
        )
    return rows


def score_chart(found: SystemComparison) -> Markup:
    """Every system as a dot with its interval."""
    rows = []
    for place, one in enumerate(found.systems):
        bounds = bounds_of(one.score.interval)
        detail = f"{percent(one.score.wer)} ({percent_range(bounds)})" if bounds else percent(one.score.wer)
        rows.append(DotRow(short(one.name), detail, (dot(one.score.wer, bounds, place != found.reference),)))
    return Markup(dot_whisker(rows, "Word error rate of every system; the table below has the same numbers."))


def short(name: str) -> str:
    """A name that leaves room beside it on a phone; the tables have it whole."""
    return name if len(name) <= _SHORT else f"{name[: _SHORT - 1]}…"


def matrix(found: SystemComparison) -> list[dict[str, Any]]:
    """Row minus column for every pair of systems."""
    rows = []
    for a, name in enumerate(found.names):
        cells = [None if a == b else _cell(found.pair(b, a)) for b in range(len(found.names))]
        rows.append({"name": name, "cells": cells})
    return rows


def _cell(test: Test) -> dict[str, Any]:
    return {"difference": test.difference.difference, "p": test.p_adjusted, "verdict": test.verdict}


def slice_tables(found: SystemComparison) -> list[dict[str, Any]]:
    """Every sliced column: a row for each value, a cell for each system."""
    tables = []
    for column, values in found.slices.items():
        rows = []
        for value, where in values.items():
            tests = {one.b: one for one in found.slice_tests[column][value]}
            parts = [one.score.slices[column][value] for one in found.systems]
            rates = [part.wer for part in parts if part.wer is not None]
            lowest = min(rates) if rates and len(set(rates)) > 1 else None
            cells = [
                {
                    "wer": part.wer,
                    "interval": part.interval,
                    "verdict": tests[place].verdict if place in tests else "",
                    "lowest": part.wer is not None and part.wer == lowest,
                }
                for place, part in enumerate(parts)
            ]
            rows.append(
                {"value": value, "utterances": len(where), "words": parts[0].counts.reference_length, "cells": cells}
            )
        tables.append({"column": column, "rows": rows})
    return tables


def slice_test_count(found: SystemComparison) -> int:
    """How many tests the slices hold."""
    return sum(len(tests) for values in found.slice_tests.values() for tests in values.values())


def cost_rows(found: SystemComparison) -> list[dict[str, Any]]:
    """The cost of every system; empty where nothing is known of any."""
    if not any(one.cost.known for one in found.systems):
        return []
    return [
        {"name": one.name, "wer": one.score.wer, "cost": one.cost, "time": duration(one.cost.decode_s)}
        for one in found.systems
    ]


def notes(found: SystemComparison) -> list[str]:
    """What the scoring and the systems had to say."""
    own = [f"{one.name}: {note}" for one in found.systems for note in one.notes]
    empty = found.systems[0].score.empty_references
    if empty:
        added = ", ".join(f"{number(one.score.insertions_on_empty)} {one.name}" for one in found.systems)
        own.append(f"{count(empty, 'reference')} without any word; words recognised there count as errors ({added})")
    return [f"{note.removesuffix('.')}." for note in [*found.notes, *own]]


def interval_note(found: SystemComparison) -> str:
    """What the intervals are."""
    interval = found.systems[0].score.interval
    bounds = bounds_of(interval)
    if not bounds or not interval:
        return "There are no intervals: how much the rates vary by chance is not known."
    return (
        f"Intervals aim to cover the true value in {level(bounds)} of such measurements. They come from drawing "
        f"{bounds.unit}s of the set anew, with replacement, {number(interval.resamples)} times (bootstrap; Bisani & "
        "Ney 2004, Liu & Peng 2020). Where utterances are drawn, the interval does not cover how other speakers differ."
    )


def significance_note(found: SystemComparison) -> str:
    """How the marks come about."""
    if not found.resamples:
        return "There are no resamples, so nothing was tested."
    return (
        f"Both systems of a pair are drawn together ({number(found.resamples)} resamples). The p-values of all pairs, "
        "and of all slices, are corrected for their number by Holm's method, and a mark means that the corrected value "
        f"is at most {found.alpha:.3g}: the chance of even one false mark among them is then at most that. No mark "
        "does not mean no difference: with few speakers and many slices few differences can be shown. Where no "
        "resample crosses zero, the p-value is that of the matched-pairs test over the same units, though not below "
        "the least that a sign-flip test could give."
    )


def facts(found: SystemComparison) -> list[tuple[str, str]]:
    """Second opinions on the differences from the reference, what data would show more, and where the systems are."""
    lines = [(f"{one.name}", one.source) for one in found.systems]
    for test in found.pairs:
        if not test.others:
            continue
        pair = f"{found.names[test.b]} minus {found.names[test.a]}"
        for one in test.others:
            p = "not testable" if one.p_value is None else f"p = {one.p_value:.2g} (not corrected)"
            lines.append((pair, f"{one.name}: {p} over {count(one.units, one.unit)}"))
        if test.power:
            lines.append((pair, test.power.to_text()))
    if len(found.corpus) > MAX_ALIGNED:
        lines.append(("MAPSSWE", f"left out above {number(MAX_ALIGNED)} utterances"))
    lines.append(("normaliser", found.systems[0].score.normaliser))
    return lines


def errors_of(one: SystemResult, place: int) -> str:
    """``3 errors in 8 words`` of one utterance."""
    words = one.words[place]
    return f"{count(int(words[1:].sum()), 'error')} in {count(int(words[:3].sum()), 'word')}"
