"""The page about a search for the best starting model: its finalists compared, and the recommendation before them."""

from __future__ import annotations

from pathlib import Path

from speechtune.report.compare_report import Extra, write_compare_report
from speechtune.report.compare_sections import bounds_of
from speechtune.report.wording import NONE, percent, percent_range
from speechtune.scoring.baseline import BaselineResult
from speechtune.scoring.baseline_text import edge_rows


def write_baseline_report(found: BaselineResult, out: Path) -> Path:
    """Write one self-contained HTML page about a search.

    Raises:
        InputError: ``out`` cannot be written.
    """
    advice = found.advice
    confidence = "" if advice.confidence is None else f" (confidence {100 * advice.confidence:.0f} %)"
    lead = [f"Recommended: {advice.model}{confidence}.", *(f"{_upper(one)}." for one in advice.sentences)]
    lead.append(f"Next: {advice.next_command}")
    extras = [_screening(found)]
    if found.edges:
        head, *rows = edge_rows(found)
        text = "WER in per cent with its interval, and how far it is from the same model's rate on everything (points)."
        extras.append(Extra(anchor="edges", title="Edge cases", text=text, head=head, rows=rows))
    title = f"Starting model for {found.corpus.root.resolve().name}"
    return write_compare_report(found.full, out, title=title, lead=lead, extras=extras)


def _screening(found: BaselineResult) -> Extra:
    part = found.screening
    rows = []
    for place in part.best():
        one = part.systems[place]
        chance = NONE if one.best_probability is None else f"{100 * one.best_probability:.0f} %"
        rate = NONE if one.cost.rtf is None else f"{one.cost.rtf:.3g}"
        fate = found.eliminated.get(one.name, "goes on")
        rows.append(
            [one.name, percent(one.score.wer), percent_range(bounds_of(one.score.interval)), chance, rate, fate]
        )
    minutes = part.corpus.seconds_of_audio / 60
    text = f"All candidates on {len(part.corpus)} utterances ({minutes:.1f} minutes), every speaker in proportion."
    head = ["Model", "WER", "interval", "best in", "RTF", "outcome"]
    return Extra(anchor="screening", title="Screening", text=text, head=head, rows=rows)


def _upper(sentence: str) -> str:
    """A sentence with its first letter raised, unless it begins with a name."""
    return sentence if ":" in sentence.split(" ")[0] else sentence[:1].upper() + sentence[1:]
