"""Shards that hold the audio inside: Parquet with an audio column ``{bytes, path}``, and WebDataset tar files.

Both are what ``speechtune prepare`` writes and what the Hugging Face hub stores. A folder is read with the shards in it
and in its ``data`` folder; a shard by itself is read too.
"""

from __future__ import annotations

import re
import tarfile
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from threading import Lock
from typing import Any

from speechtune.core.errors import InputError, missing_extra
from speechtune.corpus.importers.raw import ALIASES, SPLIT_NAMES, Importer, RawRow, standard_columns
from speechtune.corpus.storage import read_webdataset

NAME = "shards"
_SPLIT = re.compile(r"(?P<split>[A-Za-z]+)[-_.]\d")
_lock = Lock()


def recognises(source: str) -> bool:
    """A tar file, a Parquet file with an audio column, or a folder of such (without a metadata table)."""
    path = Path(source)
    if path.is_dir() and any(path.glob("metadata.*")):
        return False
    files = _files(path)
    return bool(files) and (files[0].suffix == ".tar" or _audio_column(files[0]) is not None)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in (".parquet", ".tar") else []
    for suffix in ("parquet", "tar"):
        found = sorted([*path.glob(f"*.{suffix}"), *path.glob(f"data/*.{suffix}")])
        if found:
            return found
    return []


def _audio_column(file: Path) -> str | None:
    """The column of a Parquet file whose values have bytes and a path."""
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError:
        return None
    try:
        schema = parquet.read_schema(file)
    except (ArrowException, OSError):
        return None
    for field in schema:
        if types.is_struct(field.type) and field.type.get_field_index("bytes") >= 0:
            return str(field.name)
    return None


def read(source: str) -> Iterator[RawRow]:
    """One row per sample of every shard, in the order of the shards' names."""
    path = Path(source)
    for file in _files(path):
        match = _SPLIT.match(file.name)
        split = SPLIT_NAMES.get(match["split"].lower()) if match else None
        rows = _tar_rows(file) if file.suffix == ".tar" else _parquet_rows(file)
        for number, (row, name, fetch) in enumerate(rows, start=1):
            if not set(ALIASES["text"]) & set(row):
                raise InputError(
                    f"{file} row {number} has no transcript (it has: {', '.join(map(str, row)) or 'nothing'}; known "
                    f"names: {', '.join(ALIASES['text'])}): write the shards with one of them"
                )
            columns = standard_columns({key: value for key, value in row.items() if value is not None})
            if split:
                columns.setdefault("split", split)
            yield RawRow(where=f"{file} row {number}", name=name, read_bytes=fetch, columns=columns)


def _tar_rows(file: Path) -> Iterator[tuple[dict[str, Any], str, Callable[[], bytes]]]:
    try:
        yield from read_webdataset(file)
    except (tarfile.TarError, UnicodeDecodeError, ValueError, OSError) as error:
        raise InputError(f"{file} is not a readable tar shard ({error}): copy it again") from error


def _parquet_rows(file: Path) -> Iterator[tuple[dict[str, Any], str, Callable[[], bytes]]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "hub") from error
    column = _audio_column(file)
    if column is None:
        raise InputError(f"{file} has no column of audio with its bytes: import its table another way")
    try:
        shard = parquet.ParquetFile(file)
        others = [name for name in shard.schema_arrow.names if name != column]
        for group in range(shard.num_row_groups):
            rows = shard.read_row_group(group, columns=[*others, f"{column}.path"]).to_pylist()
            for number, row in enumerate(rows):
                path = (row.pop(column) or {}).get("path")
                yield row, path or f"{file.stem}-{group:05d}-{number:05d}.flac", _fetch(file, column, group, number)
    except (ArrowException, OSError) as error:
        raise InputError(f"{file} is not a readable Parquet file ({error}): copy it again") from error


def _fetch(file: Path, column: str, group: int, number: int) -> Callable[[], bytes]:
    def fetch() -> bytes:
        with _lock:  # rows are asked for in order by several threads: one of them reads the group
            return _group_bytes(file, column, group)[number]

    return fetch


@lru_cache(maxsize=4)
def _group_bytes(file: Path, column: str, group: int) -> list[bytes]:
    from pyarrow import parquet

    table = parquet.ParquetFile(file).read_row_group(group, columns=[f"{column}.bytes"])
    return [(one or {}).get("bytes") or b"" for one in table.column(0).to_pylist()]


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """None: the audio is inside the shards."""
    return [], set()


IMPORTER = Importer(NAME, recognises, read, folders)
