"""Shards that hold the audio inside: Parquet or Arrow with an audio column ``{bytes, path}``, and WebDataset tar files.

They are what ``speechtune prepare`` writes and what the Hugging Face hub stores; Arrow is also what ``save_to_disk`` of
``datasets`` writes, in a folder for each split. A folder is read with the shards in it and in its ``data`` folder; a
shard by itself is read too.
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
Rows = Iterator[tuple[dict[str, Any], str, Callable[[], bytes]]]
"""Of each row: its columns, the name of its audio, and what reads the audio's bytes."""


def recognises(source: str) -> bool:
    """A tar file, a Parquet or Arrow file with an audio column, or a folder of such (without a metadata table)."""
    path = Path(source)
    if path.is_dir() and any(path.glob("metadata.*")):
        return False
    files = _files(path)
    return bool(files) and (files[0].suffix == ".tar" or _audio_column(files[0]) is not None)


def _files(path: Path) -> list[Path]:
    if path.is_file():
        return [path] if path.suffix in (".parquet", ".arrow", ".tar") else []
    for suffix in ("parquet", "arrow", "tar"):
        found = sorted([*path.glob(f"*.{suffix}"), *path.glob(f"data/*.{suffix}")])
        if suffix == "arrow":  # datasets puts what map and filter made beside the data
            found = found or sorted(path.glob("*/data-*.arrow"))
            found = [one for one in found if not one.name.startswith(("cache-", "tmp"))]
        if found:
            return found
    return []


def _audio_column(file: Path) -> str | None:
    """The column of a Parquet or Arrow file whose values have bytes and a path."""
    try:
        from pyarrow import ArrowException, parquet, types
    except ImportError:
        return None
    try:
        schema = _arrow_table(file).schema if file.suffix == ".arrow" else parquet.read_schema(file)
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
        if file.suffix == ".arrow" and file.parent not in (path, path / "data"):
            split = SPLIT_NAMES.get(file.parent.name.lower(), file.parent.name)
        for number, (row, name, fetch) in enumerate(_READERS[file.suffix](file), start=1):
            if not set(ALIASES["text"]) & set(row):
                raise InputError(
                    f"{file} row {number} has no transcript (it has: {', '.join(map(str, row)) or 'nothing'}; known "
                    f"names: {', '.join(ALIASES['text'])}): write the shards with one of them"
                )
            columns = standard_columns({key: value for key, value in row.items() if value is not None})
            if split:
                columns.setdefault("split", split)
            yield RawRow(where=f"{file} row {number}", name=name, read_bytes=fetch, columns=columns)


def _tar_rows(file: Path) -> Rows:
    try:
        yield from read_webdataset(file)
    except (tarfile.TarError, UnicodeDecodeError, ValueError, OSError) as error:
        raise InputError(f"{file} is not a readable tar shard ({error}): copy it again") from error


def _parquet_rows(file: Path) -> Rows:
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


def _arrow_rows(file: Path) -> Rows:
    try:
        from pyarrow import ArrowException
    except ImportError as error:
        raise missing_extra("pyarrow", "hub") from error
    try:
        table = _arrow_table(file)
        column = _audio_column(file)
        if column is None:
            raise InputError(f"{file} has no column of audio with its bytes: import its table another way")
        audio, number = table.column(column), 0
        for batch in table.drop_columns([column]).to_batches():
            for row in batch.to_pylist():
                path = audio[number].get("path")
                name = path.as_py() if path is not None else None
                yield row, name or f"{file.stem}-{number:07d}.flac", _mapped_bytes(audio, number)
                number += 1
    except (ArrowException, OSError) as error:
        raise InputError(f"{file} is not a readable Arrow file ({error}): copy it again") from error


def _arrow_table(file: Path) -> Any:
    """An Arrow stream or file, mapped into memory: nothing is read before it is asked for."""
    import pyarrow

    source = pyarrow.memory_map(str(file))
    try:
        return pyarrow.ipc.open_stream(source).read_all()
    except pyarrow.ArrowInvalid:
        source.seek(0)
        return pyarrow.ipc.open_file(source).read_all()


def _mapped_bytes(audio: Any, number: int) -> Callable[[], bytes]:
    def fetch() -> bytes:
        value = audio[number].as_py() or {}
        if value.get("bytes") is None and Path(value.get("path") or "").is_file():  # save_to_disk may only name it
            return Path(value["path"]).read_bytes()
        return value.get("bytes") or b""

    return fetch


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


_READERS: dict[str, Callable[[Path], Rows]] = {".tar": _tar_rows, ".parquet": _parquet_rows, ".arrow": _arrow_rows}

IMPORTER = Importer(NAME, recognises, read, folders)
