"""A search for the best starting model as lines for a person."""

from __future__ import annotations

from collections.abc import Iterator

from speechtune.scoring.baseline import BaselineResult
from speechtune.scoring.comparison import SystemComparison
from speechtune.scoring.comparison_text import bounds, costs, p_value, percent, signed, table


def baseline_as_text(found: BaselineResult) -> str:
    """The three phases as tables, then the recommendation and the next command."""
    lines = [_head("phase 1, screening", found.screening), *_models(found.screening)]
    lines += [f"left out: {name} ({reason})" for name, reason in found.eliminated.items()]
    lines += ["", _head("phase 2, the best on everything", found.full), *_models(found.full)]
    if found.edges:
        lines += ["", "phase 3, edge cases (WER %)", *table(edge_rows(found))]
    advice = found.advice
    confidence = "" if advice.confidence is None else f" (confidence {100 * advice.confidence:.0f} %)"
    lines += ["", f"recommended: {advice.model}{confidence}", *advice.sentences, f"next: {advice.next_command}"]
    return "\n".join(lines)


def edge_rows(found: BaselineResult) -> list[list[str]]:
    """A row for each hard part: what it is, and each finalist's rate with its distance from its own whole."""
    rows = [["edge case", "what", *found.full.names]]
    for edge in found.edges:
        cells = []
        for one, whole in zip(edge.comparison.systems, found.full.systems, strict=True):
            rate, usual = one.score.wer, whole.score.wer
            worse = None if rate is None or usual is None else rate - usual
            cells.append(f"{percent(rate)} {bounds(one.score.interval)} {signed(worse)}")
        rows.append([edge.name, edge.about, *cells])
    return rows


def _head(title: str, part: SystemComparison) -> str:
    minutes = part.corpus.seconds_of_audio / 60
    return f"{title}: {len(part.corpus)} utterances, {minutes:.1f} minutes"


def _models(part: SystemComparison) -> Iterator[str]:
    rows = [["model", "WER %", "interval", "CER %", "difference", "p", "best", "RTF", "memory", "parameters"]]
    order = part.best()
    for place in order:
        one = part.systems[place]
        test = None if place == order[0] else part.pair(order[0], place)
        rows.append(
            [
                one.name,
                percent(one.score.wer),
                bounds(one.score.interval),
                percent(one.score.cer),
                signed(test.difference.difference) if test else "-",
                p_value(test),
                "-" if one.best_probability is None else f"{100 * one.best_probability:.0f} %",
                *costs(one.cost),
            ]
        )
    yield from table(rows)
