"""The page about a comparison of systems: one HTML file that needs nothing else, offline, on a phone and on paper."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from speechtune.core.files import write_text
from speechtune.report import compare_sections as sections
from speechtune.report.audio_clips import ClipShelf
from speechtune.report.compare_calibration import confidences
from speechtune.report.compare_utterances import win_lists
from speechtune.report.run_report import page_environment
from speechtune.scoring.comparison import SystemComparison


@dataclass(frozen=True, slots=True, kw_only=True)
class Extra:
    """A section of the page beside those of every comparison: a table of texts, the first column its row names."""

    anchor: str
    title: str
    text: str
    head: list[str]
    rows: list[list[str]]


def write_compare_report(
    found: SystemComparison,
    out: Path,
    *,
    title: str = "",
    lead: Sequence[str] = (),
    extras: Sequence[Extra] = (),
    max_audio_bytes: int | None = None,
) -> Path:
    """Write one self-contained HTML page about a comparison.

    Every count covers all utterances; the utterances shown are those that ``found.wins`` lists, so that the page stays
    small however large the set is. Where audio is gone or there is too much of it, the page says so.

    Args:
        found: the comparison.
        out: the page.
        title: heading; the systems' names when empty.
        lead: sentences before the result.
        extras: further tables.
        max_audio_bytes: base64 characters of all clips; ``None``: the house's limit.

    Raises:
        InputError: ``out`` cannot be written.
    """
    shelf = ClipShelf() if max_audio_bytes is None else ClipShelf(max_audio_bytes)
    page = render(found, title, lead, extras, shelf)
    # A lone surrogate may stand in JSON but not in UTF-8.
    write_text(out, page.encode("utf-8", "replace").decode("utf-8"))
    return out


def render(found: SystemComparison, title: str, lead: Sequence[str], extras: Sequence[Extra], shelf: ClipShelf) -> str:
    """The page as text."""
    wins = win_lists(found, shelf)
    return (
        page_environment()
        .get_template("compare.html.j2")
        .render(
            title=title or sections.title(found),
            subtitle=sections.subtitle(found),
            lead=list(lead),
            extras=list(extras),
            headline=sections.headline(found),
            reference=found.names[found.reference],
            names=found.names,
            chart=sections.score_chart(found),
            rows=sections.score_rows(found),
            many=len(found.systems) > 2,
            matrix=sections.matrix(found),
            slices=sections.slice_tables(found),
            slice_tests=sections.slice_test_count(found),
            confidences=confidences(found),
            costs=sections.cost_rows(found),
            wins=wins,
            clips=shelf,
            notes=sections.notes(found),
            interval_note=sections.interval_note(found),
            significance_note=sections.significance_note(found),
            facts=sections.facts(found),
        )
    )
