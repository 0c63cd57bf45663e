"""Mozilla Common Voice: a language folder with clips/ and train.tsv, dev.tsv, test.tsv (or validated.tsv), or one TSV.

The tables are written without quoting (CorporaCreator uses ``csv.QUOTE_NONE``), so a quotation mark is just a
character.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import (
    SPLIT_NAMES,
    Importer,
    RawRow,
    find_audio,
    read_csv_rows,
    read_lenient,
    standard_columns,
)

NAME = "common_voice"
_SPLITS = ("train.tsv", "dev.tsv", "test.tsv")
_NEEDED = {"client_id", "path", "sentence"}


def recognises(source: str) -> bool:
    """A TSV file with Common Voice's header, or a folder with clips/ and such tables."""
    path = Path(source)
    if path.is_file():
        return path.suffix.lower() == ".tsv" and _has_header(path)
    return (path / "clips").is_dir() and bool(_tables(path))


def _has_header(path: Path) -> bool:
    return set(read_lenient(path).split("\n", 1)[0].rstrip("\r").split("\t")) >= _NEEDED


def _tables(folder: Path) -> list[Path]:
    found = [folder / name for name in _SPLITS if (folder / name).is_file()]
    whole = folder / "validated.tsv"
    return [one for one in found or ([whole] if whole.is_file() else []) if _has_header(one)]


def read(source: str) -> Iterator[RawRow]:
    """One row per line of train, dev and test (or of validated, where there are no splits; or of the given table)."""
    path = Path(source)
    tables = [path] if path.is_file() else _tables(path)
    if not tables or not all(_has_header(one) for one in tables):
        raise InputError(f"{source} holds no Common Voice table (columns {', '.join(sorted(_NEEDED))}): check the path")
    for table in tables:
        split = SPLIT_NAMES.get(table.stem.lower())
        for where, row, problem in read_csv_rows(table, delimiter="\t", quoting=csv.QUOTE_NONE):
            columns = standard_columns(row, ignore=("path",))
            if split:
                columns.setdefault("split", split)
            raw = RawRow(where=where, columns=columns, problem=problem)
            if row.get("path"):
                raw.name = f"clips/{row['path']}"
                raw.audio = _clip(table.parent, row["path"])
            yield raw


def _clip(folder: Path, name: str) -> Path:
    """The clip's file; the first releases name it without its .mp3."""
    found = find_audio(name, folder / "clips", folder)
    bare = found.with_name(found.name + ".mp3")
    return bare if not found.is_file() and bare.is_file() else found


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The clips folder, less what the release's other tables (validated, invalidated, other, ...) name."""
    path = Path(source)
    if path.is_file():
        return [], set()
    named = set()
    for table in sorted(path.glob("*.tsv")):
        if _has_header(table):
            for _, row, _ in read_csv_rows(table, delimiter="\t", quoting=csv.QUOTE_NONE):
                named.add(_clip(path, row.get("path") or ""))
    return [path / "clips"], named


IMPORTER = Importer(NAME, recognises, read, folders)
