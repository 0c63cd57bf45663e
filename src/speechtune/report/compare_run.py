"""What ``speechtune compare`` does: find the systems, compare them, write what was asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import write_json
from speechtune.core.provenance import provenance
from speechtune.report.compare_report import write_compare_report
from speechtune.report.compare_systems import DecodeOptions, open_systems
from speechtune.scoring.comparison import MAX_SYSTEMS, compare_systems
from speechtune.scoring.comparison_text import comparison_as_text
from speechtune.scoring.config import ScoringConfig

RESULT, PAGE = "comparison.json", "report.html"
DEFAULT_SLICES = ("split", "age", "gender", "language", "duration_s", "snr_db", "reference_words")
_MOST_VALUES = 30


@dataclass(frozen=True, slots=True)
class CompareOptions:
    """The options of the command."""

    corpus: Path | None
    split: str | None
    against: str | None
    html: Path | None
    out: Path | None
    examples: int
    overwrite: bool
    scoring: ScoringConfig
    decoding: DecodeOptions


def compare(specs: Sequence[str], options: CompareOptions) -> tuple[dict[str, Any], str]:
    """Compare systems; the JSON object and the text of it.

    Raises:
        InputError: too few or too many systems, one that cannot be opened, or an existing file without ``overwrite``.
    """
    if not 2 <= len(specs) <= MAX_SYSTEMS:
        raise InputError(f"{len(specs)} system{'s' * (len(specs) != 1)} cannot be compared: give 2 to {MAX_SYSTEMS}")
    page = options.html or (options.out / PAGE if options.out else None)
    for path in (page, options.out / RESULT if options.out else None):
        if path and path.exists() and not options.overwrite:
            raise InputError(f"{path} exists already: choose another place or add --overwrite")
    corpus, split, systems = open_systems(specs, options.corpus, options.split, options.decoding)
    names = [one.name for one in systems]
    if options.against and options.against not in names:
        raise InputError(f"--against {options.against}: no system has that name, they are {', '.join(names)}")
    scoring = options.scoring
    if not scoring.slice_by:
        scoring = scoring.model_copy(update={"slice_by": default_slices(corpus)})
    found = compare_systems(
        corpus,
        systems,
        scoring,
        split=split,
        reference=names.index(options.against) if options.against else 0,
        examples=options.examples,
    )
    result = found.to_json()
    lines = [comparison_as_text(found)]
    if page:
        write_compare_report(found, page)
        result["report"] = str(page)
        lines.append(f"report: {page}")
    if options.out:
        write_json(options.out / RESULT, {**result, "provenance": provenance(scoring.seed)})
    return result, "\n".join(lines)


def default_slices(corpus: Any) -> list[str]:
    """The usual columns in which the utterances differ, with at most 30 values; lengths and words are banded."""
    chosen = []
    for column in DEFAULT_SLICES:
        if column == "reference_words":
            chosen.append(column)
            continue
        values = {one.column(column) for one in corpus}
        banded = column in ("duration_s", "snr_db")
        if len(values - {None}) > 1 and (banded or len(values) <= _MOST_VALUES):
            chosen.append(column)
    return chosen
