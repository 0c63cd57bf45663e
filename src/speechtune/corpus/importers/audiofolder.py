"""Hugging Face ``audiofolder``: metadata.jsonl, .csv or .parquet at the root and/or in folders below it.

Also read: one such table by itself (any .jsonl, .json, .csv, .tsv or .parquet file), and a speechtune corpus.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, missing_extra
from speechtune.corpus.importers.raw import (
    ALIASES,
    MALFORMED,
    Importer,
    RawRow,
    find_audio,
    read_csv_rows,
    read_jsonl_rows,
    split_of_folder,
    standard_columns,
)

NAME = "audiofolder"
FILE_COLUMNS = ("file_name", "audio_file_name", "audio_filepath", "audio_path", "path", "audio", "file")
_SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet")
_TABLES = tuple(f"metadata{suffix}" for suffix in (".jsonl", ".csv", ".parquet"))

Rows = Iterator[tuple[str, dict[str, Any], "tuple[str, str] | None"]]


def recognises(source: str) -> bool:
    """A folder with a metadata table in it or up to two folders down, or such a table."""
    path = Path(source)
    return path.suffix.lower() in _SUFFIXES if path.is_file() else bool(tables(path))


def tables(root: Path) -> list[Path]:
    """The metadata tables of a folder, the root's first.

    Raises:
        InputError: one folder holds two of them.
    """
    found = [path for depth in ("", "*/", "*/*/") for name in _TABLES for path in sorted(root.glob(depth + name))]
    found = [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]
    for path in found:
        twins = [other.name for other in found if other.parent == path.parent]
        if len(twins) > 1:
            raise InputError(f"{path.parent} holds {' and '.join(twins)}: remove one, or import the other by its path")
    return found


def read(source: str) -> Iterator[RawRow]:
    """One row per line of every table."""
    path = Path(source)
    root = path if path.is_dir() else path.parent
    for table in tables(path) if path.is_dir() else [path]:
        below = "" if table.parent == root else f"{table.parent.relative_to(root).as_posix()}/"
        named = spoken = False
        for where, row, problem in _rows(table):
            raw = _raw(where, row, problem, table.parent, below)
            named = named or raw.audio is not None
            spoken = spoken or "text" in raw.columns or any(alias in row for alias in ALIASES["text"])
            yield raw
            if not problem and not (named and spoken):
                _explain(table, row, named)


def _explain(table: Path, row: dict[str, Any], named: bool) -> None:
    wanted = ALIASES["text"] if named else FILE_COLUMNS
    what = "transcripts" if named else "audio files"
    raise InputError(
        f"{table} has no column of {what} (it has: {', '.join(map(str, row))}): name one of them {wanted[0]} "
        f"(known names: {', '.join(wanted)})"
    )


def _rows(table: Path) -> Rows:
    suffix = table.suffix.lower()
    if suffix in (".jsonl", ".json"):
        return read_jsonl_rows(table)
    return _parquet_rows(table) if suffix == ".parquet" else read_csv_rows(table)


def _parquet_rows(table: Path) -> Rows:
    try:
        from pyarrow import ArrowInvalid, parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "hub") from error
    try:
        file = parquet.ParquetFile(table)
    except (ArrowInvalid, OSError) as error:
        raise InputError(f"{table} is not a Parquet file ({error}): write it again") from error
    number = 0
    for batch in file.iter_batches():
        for row in batch.to_pylist():
            number += 1
            yield f"{table} row {number}", row, None


def _raw(where: str, row: dict[str, Any], problem: tuple[str, str] | None, folder: Path, below: str) -> RawRow:
    column = next((name for name in FILE_COLUMNS if isinstance(row.get(name), str) and row[name]), None)
    columns = standard_columns(row, ignore=FILE_COLUMNS[:1] if column is None else (column,))
    if column is None:
        return RawRow(where=where, columns=columns, problem=problem)
    name = row[column]
    relative = below + name.replace("\\", "/")
    if "split" not in columns and (split := split_of_folder(relative)):
        columns["split"] = split
    if "\x00" in name:
        return RawRow(where=where, columns=columns, problem=(MALFORMED, "its file name holds a NUL character"))
    return RawRow(where=where, audio=find_audio(name, folder), name=relative, columns=columns, problem=problem)


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The whole folder; nothing when a table was given by itself."""
    path = Path(source)
    return ([path] if path.is_dir() else []), set()


IMPORTER = Importer(NAME, recognises, read, folders)
