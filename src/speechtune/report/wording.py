"""Numbers as words: rates in per cent with one decimal, differences in points, and the sentences of the headline."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

from speechtune.report.reading import Bounds, ComparisonRecord, RunRecord, section

NONE = "\u2013"
"""What stands where there is no number (an en dash)."""

_MINUS = "\u2212"


def percent(rate: float | None) -> str:
    """A fraction in per cent: ``0.2049`` is ``20.5 %``."""
    return NONE if rate is None else f"{_fixed(100 * rate)}\u00a0%"


def points(difference: float | None) -> str:
    """A signed difference of two rates in percentage points, without the unit."""
    if difference is None:
        return NONE
    text = _fixed(100 * abs(difference))
    return text if text == "0.0" else f"{'+' if difference > 0 else _MINUS}{text}"


def percent_range(bounds: Bounds | None) -> str:
    """An interval of a rate, its ends joined by an en dash."""
    return NONE if bounds is None else percent_span(bounds.low, bounds.high)


def percent_span(low: float, high: float) -> str:
    """Two fractions as a span in per cent."""
    return f"{_fixed(100 * low)}\u2013{_fixed(100 * high)}\u00a0%"


def points_range(bounds: Bounds | None) -> str:
    """An interval of a difference, in points, without the unit."""
    return NONE if bounds is None else f"{points(bounds.low)} to {points(bounds.high)}"


def number(value: int) -> str:
    """A count with thin spaces between thousands."""
    return f"{value:,}".replace(",", "\u202f")


def count(value: int, noun: str) -> str:
    """A count with its noun: ``1 word``, ``2 words``."""
    return f"{number(value)} {noun}{'' if value == 1 else 's'}"


def duration(seconds: float | None) -> str:
    """Seconds, minutes or hours, whichever is readable."""
    if seconds is None:
        return NONE
    if seconds < 100:
        return f"{seconds:.1f}\u00a0s"
    return f"{seconds / 60:.1f}\u00a0min" if seconds < 6000 else f"{seconds / 3600:.1f}\u00a0h"


def level(bounds: Bounds) -> str:
    """The coverage an interval aims at: ``95 %``."""
    return f"{100 * bounds.level:g}\u00a0%"


def relative(before: float | None, after: float | None) -> str | None:
    """The relative change of the errors: ``52.3 % fewer errors``; ``None`` where there were none before."""
    if not before or after is None:
        return None
    share = (before - after) / before
    if _fixed(100 * abs(share)) == "0.0":
        return "as many errors as before"
    return f"{percent(abs(share))} {'fewer' if share > 0 else 'more'} errors"


def _fixed(value: float) -> str:
    if not math.isfinite(value):
        return "not a number"
    text = f"{value:.1f}"
    return text[1:] if text == "-0.0" else text.replace("-", _MINUS)


@dataclass(frozen=True, slots=True)
class Headline:
    """What happened to one set: the two rates, the verdict in one sentence, and what it rests on."""

    set_name: str
    role: str
    verdict: str
    before: str
    after: str
    sentence: str
    basis: str
    measurable: bool


def headline(run: RunRecord, one: ComparisonRecord, speakers: int | None) -> Headline:
    """The plain sentence about one comparison.

    Args:
        run: where it comes from.
        one: the comparison.
        speakers: known speakers of the set, where the corpus could be read.
    """
    better, worse = _direction(one)
    sure = f" ({level(one.interval)} interval {points_range(one.interval)})" if one.interval else ""
    change = f"{points(one.difference)} points{sure}"
    if one.difference is None:
        verdict, said = "not measurable", "no reference words, so there is no word error rate"
    elif one.role == "guard":
        verdict, said = _guard(one, change, better, worse)
    else:
        verdict = "better" if better else "worse" if worse else "no clear change"
        said = change
        ratio = relative(one.wer_before, one.wer_after)
        said += f", {ratio}" if ratio else ""
        if not better and not worse:
            said += "; " + (
                "the interval includes zero, so this set does not show a change"
                if one.interval
                else "there is no interval, so chance cannot be told from change"
            )
    contexts = f"before at {one.context_before}, after at {one.context_after} audio context"
    return Headline(
        one.set_name,
        one.role,
        verdict,
        percent(one.wer_before),
        percent(one.wer_after),
        f"{_opening(one)}{said}.",
        f"{_basis(run, one, speakers)}; {contexts}.{_caution(run, one)}",
        one.difference is not None,
    )


def _opening(one: ComparisonRecord) -> str:
    if one.difference is None:
        return f"{one.set_name}: "
    return f"On {one.set_name} the word error rate went from {percent(one.wer_before)} to {percent(one.wer_after)}: "


def _caution(run: RunRecord, one: ComparisonRecord) -> str:
    """What makes a set flatter the result: the same utterances were learnt from, or chose the weights."""
    measured, data = run.measurement(one.set_name, "after", one.context_after), section(run.recipe, "data")
    trained_on = section(run.provenance, "data").get("corpus") or data.get("corpus")
    if measured is None or not trained_on or Path(measured.corpus).resolve() != Path(str(trained_on)).resolve():
        return ""
    if measured.split in (None, data.get("train_split")):
        return " This set holds utterances that were trained on: its rate after training says little."
    if measured.split == data.get("dev_split"):
        return " This set also chose which weights were kept, so its rate after training is a little flattering."
    return ""


def _direction(one: ComparisonRecord) -> tuple[bool, bool]:
    """Whether the whole interval lies below zero, or above it."""
    if one.interval is None:
        return False, False
    return one.interval.high < 0, one.interval.low > 0


def _guard(one: ComparisonRecord, change: str, better: bool, worse: bool) -> tuple[str, str]:
    if worse:
        return "worse", f"this guard set got worse: {change}"
    if better:
        return "better", f"this guard set did not get worse, it improved: {change}"
    if one.interval is None:
        return "no interval", f"{change}; there is no interval, so chance cannot be told from change"
    limit = f"a worsening of up to {_fixed(100 * one.interval.high)} points is not excluded"
    return "not shown to be worse", f"{change}; the interval includes zero, {limit}"


def _basis(run: RunRecord, one: ComparisonRecord, speakers: int | None) -> str:
    measured = run.measurement(one.set_name, "after", one.context_after)
    parts = []
    if measured:
        parts = [count(measured.score.utterances, "utterance"), count(measured.score.words.reference_length, "word")]
    if speakers is not None:
        parts.append(count(speakers, "known speaker") if speakers else "speakers unknown")
    if one.interval:
        parts.append(f"the interval resamples {number(one.interval.units)} {one.interval.unit}s")
    return ", ".join(parts)
