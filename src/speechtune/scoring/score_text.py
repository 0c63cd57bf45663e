"""A score as lines for a person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from speechtune.scoring.alignment import Counts
from speechtune.scoring.bootstrap import Difference, Interval
from speechtune.scoring.metrics import metrics_as_lines

if TYPE_CHECKING:
    from speechtune.scoring.score import Comparison, Score, SliceScore


def score_as_text(score: Score, comparison: Comparison | None) -> str:
    """Rates in per cent with their counts, notes, metrics, and a table for each sliced column."""
    lines = [
        _rate_line("WER", score.words, score.interval),
        _rate_line("CER", score.chars, score.cer_interval),
        f"{len(score.utterances)} utterances, {score.seconds_of_audio:.0f} s of audio, "
        f"{score.empty_references} empty references with {score.insertions_on_empty} words inserted",
    ]
    lines += [f"note: {note}" for note in score.notes]
    lines += metrics_as_lines(score.metrics)
    if comparison:
        lines += [_difference_line("WER", comparison.wer), _difference_line("CER", comparison.cer)]
    for column, parts in score.slices.items():
        lines += ["", *_table(column, parts, comparison)]
    if any(one.small for parts in score.slices.values() for one in parts.values()):
        lines += ["", "(small): too few utterances, words or speakers for the rate to say much"]
    if score.slices:
        lines += ["p: corrected for the number of slices (Holm)"]
    if comparison and comparison.tests:
        lines += ["", comparison.tests.to_text()]
    return "\n".join(lines)


def _rate_line(name: str, counts: Counts, interval: Interval | None) -> str:
    sure = f" [{_percent(interval.low)}, {_percent(interval.high)}]" if interval else ""
    how = f", {interval.level:g} interval over {interval.units} {interval.unit}s" if interval else ""
    return (
        f"{name} {_percent(counts.rate)} %{sure} = {counts.errors} errors / {counts.reference_length} "
        f"({counts.substitutions} sub, {counts.deletions} del, {counts.insertions} ins){how}"
    )


def _difference_line(name: str, one: Difference) -> str:
    sure = f" [{_signed(one.interval.low)}, {_signed(one.interval.high)}]" if one.interval else ""
    chance = "" if one.p_value is None else f", p = {one.p_value:.3g}"
    return f"{name} difference from the baseline {_signed(one.difference)} points{sure}{chance} (negative: better)"


def _table(column: str, parts: dict[str, SliceScore], comparison: Comparison | None) -> Iterable[str]:
    differences = (comparison.slices.get(column) if comparison else None) or {}
    adjusted = (comparison.adjusted.get(column) if comparison else None) or {}
    width = max(len(column), *(len(value) for value in parts))
    head = f"{column:<{width}}  utterances   words   WER %          interval   against the rest       p"
    yield head + ("   difference       p" if differences else "")
    for value, one in parts.items():
        sure = f"[{_percent(one.interval.low)}, {_percent(one.interval.high)}]" if one.interval else "-"
        rest = one.against_rest.difference if one.against_rest else None
        line = (
            f"{value:<{width}}  {one.utterances:>10}  {one.counts.reference_length:>6}  {_percent(one.wer):>6}  "
            f"{sure:>16}   {_signed(rest):>16}  {_chance(one.adjusted_p_value):>6}"
        )
        change = differences.get(value)
        if change:
            line += f"   {_signed(change.difference):>10}  {_chance(adjusted.get(value)):>6}"
        yield line + ("  (small)" if one.small else "")


def _chance(p_value: float | None) -> str:
    return "-" if p_value is None else f"{p_value:.2g}"


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f}"


def _signed(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:+.2f}"
