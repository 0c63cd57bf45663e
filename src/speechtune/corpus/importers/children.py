"""The children's speech challenge: a JSONL table of utterances with child_id, age_bucket and orthographic_text.

The rows of DrivenData's "On Top of Pasketti" (2026): utterance_id, child_id, session_id, audio_path,
audio_duration_sec, age_bucket, orthographic_text, and others, which are kept as extra columns.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import Importer, RawRow, find_audio, read_jsonl_rows, standard_columns

NAME = "children"
_NEEDED = ("utterance_id", "audio_path", "orthographic_text")


def recognises(source: str) -> bool:
    """A JSONL file whose first row has the challenge's columns, or a folder that holds one."""
    return bool(_tables(Path(source)))


def _tables(source: Path) -> list[Path]:
    if source.is_file():
        candidates = [source] if source.suffix.lower() == ".jsonl" else []
    else:
        candidates = [one for one in sorted(source.glob("*.jsonl")) if not one.name.startswith(".")]
    return [one for one in candidates if _is_table(one)]


def _is_table(path: Path) -> bool:
    try:
        with path.open("rb") as stream:
            row = json.loads(stream.readline().decode("utf-8-sig", "replace"))
    except (OSError, json.JSONDecodeError):
        return False
    return isinstance(row, dict) and all(name in row for name in _NEEDED)


def read(source: str) -> Iterator[RawRow]:
    """One row per line of the table.

    Raises:
        InputError: a folder holds several such tables, or none.
    """
    found = _tables(Path(source))
    if not found:
        raise InputError(f"{source} holds no JSONL table with the columns {', '.join(_NEEDED)}: check the path")
    if len(found) > 1:
        names = ", ".join(path.name for path in found)
        raise InputError(f"{source} holds several tables ({names}): import one of them by its path")
    table = found[0]
    for where, row, problem in read_jsonl_rows(table):
        name = str(row.get("audio_path") or "")
        raw = RawRow(where=where, columns=standard_columns(row, ignore=("audio_path",)), problem=problem, name=name)
        if name:
            raw.audio = find_audio(name, table.parent, table.parent / "audio")
        yield raw


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The folder; nothing when the table was given by itself (its audio folder may serve several tables)."""
    path = Path(source)
    return ([path] if path.is_dir() else []), set()


IMPORTER = Importer(NAME, recognises, read, folders)
