"""A NeMo manifest: JSON lines with ``audio_filepath``, ``text`` and ``duration``, and ``offset`` where it is a span.

See https://docs.nvidia.com/nemo-framework (speech data preparation). ``audio_filepath`` is absolute or relative to
the manifest. ``duration`` alone is a statement about the whole file and is measured instead; with ``offset`` it is a
span.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import (
    MALFORMED,
    SPLIT_NAMES,
    Importer,
    RawRow,
    find_audio,
    read_jsonl_rows,
    standard_columns,
)

NAME = "nemo"
_TABLES = ("metadata.jsonl", "metadata.csv", "metadata.parquet")


def recognises(source: str) -> bool:
    """A .json or .jsonl file whose first row has audio_filepath, or a folder with such files and no metadata table."""
    return bool(manifests(Path(source)))


def manifests(source: Path) -> list[Path]:
    """The manifests that ``source`` is or directly holds."""
    if source.is_file():
        candidates = [source]
    elif any((source / name).is_file() for name in _TABLES):
        return []
    else:
        candidates = [one for one in sorted(source.glob("*.json*")) if not one.name.startswith(".")]
    return [
        one for one in candidates if one.suffix.lower() in (".json", ".jsonl") and "audio_filepath" in first_row(one)
    ]


def first_row(path: Path) -> dict[str, Any]:
    """The JSON object in a file's first line that holds something; empty if it is none."""
    try:
        with path.open("rb") as stream:
            line = next((one for one in stream if one.strip()), b"")
        row = json.loads(line.decode("utf-8-sig", "replace"))
    except (OSError, ValueError):
        return {}
    return row if isinstance(row, dict) else {}


def split_of_file(path: Path) -> str | None:
    """The split that a word of a file's name stands for: ``train_manifest.json`` is train."""
    words = re.split(r"[^a-z]+", path.stem.lower())
    return next((SPLIT_NAMES[word] for word in words if word in SPLIT_NAMES), None)


def read(source: str) -> Iterator[RawRow]:
    """One row per line of every manifest.

    Raises:
        InputError: there is none, or it lists tar archives.
    """
    found = manifests(Path(source))
    if not found:
        raise InputError(f"{source} holds no NeMo manifest (JSON lines with audio_filepath): check the path")
    for manifest in found:
        for where, row, problem in read_jsonl_rows(manifest):
            yield _raw(where, row, problem, manifest, several=len(found) > 1)


def _raw(where: str, row: dict[str, Any], problem: Any, manifest: Path, several: bool) -> RawRow:
    if "shard_id" in row and not Path(str(row.get("audio_filepath"))).suffix:
        raise InputError(f"{where} names audio inside a tar archive: extract the archives and their plain manifest")
    columns = standard_columns(row, ignore=("audio_filepath", "offset"))
    raw = RawRow(where=where, columns=columns, problem=problem)
    name = row.get("audio_filepath")
    if isinstance(name, str) and name and "\x00" not in name:
        raw.name = name.replace("\\", "/")
        raw.audio = find_audio(name, manifest.parent, manifest.parent / "audio")
    if several and "split" not in columns and (split := split_of_file(manifest)):
        columns["split"] = split
    offset = row.get("offset")
    if offset is not None and problem is None:
        try:
            columns["start_s"] = float(offset)
            if row.get("duration") is not None:
                columns["end_s"] = round(float(offset) + float(row["duration"]), 6)
        except (TypeError, ValueError):
            raw.problem = (MALFORMED, f"its offset {offset!r} and duration {row.get('duration')!r} are not seconds")
    return raw


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The folder; nothing when a manifest was given by itself."""
    path = Path(source)
    return ([path] if path.is_dir() else []), set()


IMPORTER = Importer(NAME, recognises, read, folders)
