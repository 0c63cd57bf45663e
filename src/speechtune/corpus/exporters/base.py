"""What every exporter gets and gives."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.corpus.table import Utterance


@dataclass(slots=True, kw_only=True)
class ExportRow:
    """An utterance and its audio as the layout names it.

    ``file`` is a file that exists now; ``place`` is where it will be: absolute, or relative to the export for a copy.
    ``utterance`` holds the span, if there is still one, and is otherwise the corpus's own.
    """

    utterance: Utterance
    file: Path
    place: Path

    def absolute(self, out: Path) -> str:
        """The audio's absolute path once the export stands at ``out``."""
        return str(self.place if self.place.is_absolute() else out.resolve() / self.place)

    @property
    def span_s(self) -> tuple[float, float] | None:
        """Start and end of the span in seconds; ``None`` where the whole file is the utterance."""
        row = self.utterance
        if row.start_s is None and row.end_s is None:
            return None
        start_s = row.start_s or 0.0
        return start_s, row.end_s if row.end_s is not None else round(start_s + row.duration_s, 6)


@dataclass(frozen=True, slots=True)
class Exporter:
    """A layout that is written.

    ``write(rows, draft, out)`` writes the layout's files below ``draft``, which becomes ``out``, and returns notes for
    the user. ``check(row)`` says why the layout cannot carry a row (``None``: it can). ``carries`` are the standard
    columns it has a place for, ``extra`` whether it carries others too, ``spans`` whether it can name a part of a file,
    ``cuts`` whether a copy holds such parts as files of their own, ``copies`` whether audio is copied when nothing is
    said, ``reserved`` the names of other columns that mean something else in the layout, so that they are not carried.
    """

    name: str
    write: Callable[[Sequence[ExportRow], Path, Path], list[str]]
    check: Callable[[Utterance], str | None]
    carries: frozenset[str]
    extra: bool
    spans: bool
    cuts: bool
    copies: bool
    reserved: frozenset[str] = frozenset()


def always(row: Utterance) -> str | None:
    """The check of a layout that carries any text: JSON has a way to write everything."""
    return None


def by_split(rows: Sequence[ExportRow]) -> dict[str | None, list[ExportRow]]:
    """The rows of each split, in the order in which the splits appear."""
    parts: dict[str | None, list[ExportRow]] = {}
    for row in rows:
        parts.setdefault(row.utterance.split, []).append(row)
    return parts


def part_names(splits: Sequence[str | None]) -> dict[str | None, str]:
    """A file name part for each split, safe on any file system (``""``: no split).

    Raises:
        InputError: two splits would share one.
    """
    names: dict[str | None, str] = {}
    for split in splits:
        name = re.sub(r"[^\w-]", "_", split) if split else ""
        twin = next((one for one, other in names.items() if other.casefold() == name.casefold()), split)
        if twin != split:
            raise InputError(f"the splits {twin!r} and {split!r} would share a file name: rename one of them")
        names[split] = name
    return names
