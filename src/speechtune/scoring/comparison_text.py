"""A comparison of systems as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from speechtune.scoring.calibration import KINDS
from speechtune.scoring.comparison import Cost, SystemComparison, Test

MARKS = {"better": "v", "worse": "^", "unclear": " "}
"""Fewer errors than the reference system, more, or no difference shown."""


def comparison_as_text(found: SystemComparison) -> str:
    """The table of systems, the table of every slice, and what the marks mean."""
    return "\n".join([*_overall(found), *_slices(found), *_confidences(found), "", *_explain(found)])


def _overall(found: SystemComparison) -> Iterator[str]:
    name = found.names[found.reference]
    size = f"{len(found.corpus)} utterances, {found.systems[0].score.words.reference_length} words"
    yield f"{found.corpus.root}{f' split {found.split}' if found.split else ''}: {size}; compared with {name}"
    rows = [["system", "WER %", "interval", "CER %", "difference", "p", "", "best", "RTF", "memory", "parameters"]]
    for place, one in enumerate(found.systems):
        test = None if place == found.reference else found.pair(found.reference, place)
        rows.append(
            [
                one.name,
                percent(one.score.wer),
                bounds(one.score.interval),
                percent(one.score.cer),
                signed(test.difference.difference) if test else "-",
                p_value(test),
                MARKS[test.verdict] if test else " ",
                "-" if one.best_probability is None else f"{100 * one.best_probability:.0f} %",
                *costs(one.cost),
            ]
        )
    yield from table(rows)
    for one in found.systems:
        yield from (f"note: {one.name}: {note}" for note in one.notes)
    yield from (f"note: {note}" for note in found.notes)


def _slices(found: SystemComparison) -> Iterator[str]:
    for column, values in found.slices.items():
        rows = [[column, "utterances", "words", *(head for name in found.names for head in (name, ""))]]
        for value, where in values.items():
            tests = {one.b: one for one in found.slice_tests[column][value]}
            cells = []
            for place, one in enumerate(found.systems):
                part = one.score.slices[column][value]
                cells += [
                    f"{percent(part.wer)} {bounds(part.interval)}",
                    MARKS[tests[place].verdict] if place in tests else "",
                ]
            words = found.systems[0].score.slices[column][value].counts.reference_length
            rows.append([value, str(len(where)), str(words), *cells])
        yield ""
        yield from table(rows)


def _confidences(found: SystemComparison) -> Iterator[str]:
    kinds = [kind for kind in KINDS if any(kind in one.calibration for one in found.systems)]
    for kind in kinds:
        rows = [[f"confidence, {kind}", "utterances", "came true", "promised", "ECE %", "interval", "NLL", "AUROC"]]
        for one in found.systems:
            sure = one.calibration.get(kind)
            if sure is not None:
                ends, apart = bounds(sure.ece_interval), "-" if sure.auroc is None else f"{sure.auroc:.3f}"
                rates = [f"{100 * rate:.1f} %" for rate in (sure.accuracy, sure.mean_confidence)]
                error = f"{100 * sure.ece_corrected:.1f}"
                rows.append([one.name, str(sure.pairs), *rates, error, ends, f"{sure.nll:.3f}", apart])
        yield ""
        yield from table(rows)


def _explain(found: SystemComparison) -> Iterator[str]:
    name = found.names[found.reference]
    yield (
        f"v: fewer errors than {name}, ^: more, at p < {found.alpha:.3g} after Holm's correction (all pairs are one "
        "family of tests, all slices another); intervals are not corrected"
    )
    for one in found.wins:
        yield (
            f"{found.names[one.b]} against {found.names[one.a]}: fewer errors in {one.fewer} utterances, "
            f"as many in {one.same}, more in {one.more}"
        )


def costs(one: Cost) -> list[str]:
    """Real-time factor, memory and parameters, as short as they are readable."""
    return [
        "-" if one.rtf is None else f"{one.rtf:.3g}",
        "-" if one.memory_bytes is None else f"{one.memory_bytes / 2**20:.0f} MiB",
        "-" if one.parameters is None else f"{one.parameters / 1e6:.1f} M",
    ]


def p_value(test: Test | None) -> str:
    """The corrected p-value."""
    return "-" if test is None or test.p_adjusted is None else f"{test.p_adjusted:.2g}"


def percent(rate: float | None) -> str:
    """A rate in per cent without the unit."""
    return "-" if rate is None else f"{100 * rate:.2f}"


def signed(rate: float | None) -> str:
    """A difference in points."""
    return "-" if rate is None else f"{100 * rate:+.2f}"


def bounds(one: object) -> str:
    """An interval in per cent."""
    low, high = getattr(one, "low", None), getattr(one, "high", None)
    return "-" if low is None or high is None else f"[{100 * low:.1f}, {100 * high:.1f}]"


def table(rows: Sequence[Sequence[str]]) -> Iterator[str]:
    """Rows as columns, the first flush left, the others flush right."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows:
        cells = [
            cell.ljust(width) if not place else cell.rjust(width)
            for place, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        yield "  ".join(cells).rstrip()
