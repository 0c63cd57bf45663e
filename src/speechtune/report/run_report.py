"""The page about a run: one HTML file that needs nothing else, offline, on a phone and on paper."""

from __future__ import annotations

import base64
import hashlib
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from speechtune.core.files import write_text
from speechtune.report import sections, wording
from speechtune.report.audio_clips import ClipShelf
from speechtune.report.reading import RunRecord, read_run
from speechtune.report.utterances import add_clips, changed_utterances, known_speakers, load_set

PAGE = "report.html"


def write_report(run: Path, out: Path | None = None) -> Path:
    """Write one self-contained HTML page about a finished run.

    It loads nothing from anywhere: styles, script, charts and audio are in the file, and its content security policy
    forbids the rest. Where the corpus or its audio is gone, the page says so and does without.

    Args:
        run: directory of the run.
        out: the page; ``report.html`` in the run when ``None``.

    Returns:
        The path of the page.

    Raises:
        InputError: ``run`` is not a finished run, one of its files is damaged, or ``out`` cannot be written.
    """
    page = render(read_run(run))
    target = out or run / PAGE
    # A lone surrogate may stand in JSON but not in UTF-8.
    write_text(target, page.encode("utf-8", "replace").decode("utf-8"))
    return target


def render(run: RunRecord) -> str:
    """The page as text."""
    chosen = run.headline()
    corpora = {}
    for one in chosen:
        measured = run.measurement(one.set_name, "after", one.context_after)
        unmeasured = (None, "this set was not measured after training")
        corpora[one.set_name] = load_set(measured, run.recipe.get("data")) if measured else unmeasured
    changes = [changed_utterances(run, one, *corpora[one.set_name]) for one in chosen if one.role != "guard"]
    shelf = ClipShelf()
    add_clips(changes, shelf)
    terms = sections.term_tables(run)
    return (
        page_environment()
        .get_template("run.html.j2")
        .render(
            run=run,
            name=run.directory.resolve().name,
            subtitle=sections.subtitle(run),
            headlines=[wording.headline(run, one, known_speakers(corpora[one.set_name][0])) for one in chosen],
            rows=sections.score_rows(run),
            score_chart=sections.score_chart(run),
            notes=sections.set_notes(run),
            comparisons=run.comparisons,
            term_tables=[one for one in terms if one.heard_of],
            unsaid=[one.set_name for one in terms if not one.heard_of],
            charts=sections.training_charts(run),
            not_finite=sections.not_finite(run),
            training=sections.training_facts(run),
            slices=sections.slice_tables(run),
            changes=changes,
            clips=shelf,
            data=sections.data_facts(run),
            preflight=sections.preflight_facts(run),
            origin=sections.origin_facts(run),
            interval_note=sections.interval_note(run.measurements),
        )
    )


def page_environment() -> Environment:
    """Templates of this room, escaping what they are given; a name that is missing is an error."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    names = ("percent", "points", "percent_range", "percent_span", "points_range", "number", "relative", "level")
    environment.filters.update({name: getattr(wording, name) for name in names})
    environment.filters["csp_hash"] = _csp_hash
    return environment


def _csp_hash(script: Any) -> str:
    """The source expression that lets exactly this inline script or style through a content security policy."""
    return "'sha256-" + base64.b64encode(hashlib.sha256(str(script).encode()).digest()).decode() + "'"
