"""NeMo manifests: ``manifest.json``, or ``SPLIT_manifest.json`` for each split, with every column in the rows."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechtune.core.files import write_jsonl
from speechtune.corpus.exporters.base import Exporter, ExportRow, always, by_split, part_names
from speechtune.corpus.table import STANDARD_COLUMNS

NAME = "nemo"
_RESERVED = frozenset({"audio_filepath", "offset", "duration", "shard_id"})


def write(rows: Sequence[ExportRow], draft: Path, out: Path) -> list[str]:
    """Write a manifest for each split; copied audio is named relative to it, as NeMo reads it."""
    parts = by_split(rows)
    names = part_names(list(parts))
    for split, part in parts.items():
        name = f"{names[split]}_manifest.json" if names[split] else "manifest.json"
        write_jsonl(draft / name, [_row(row) for row in part])
    return []


def _row(row: ExportRow) -> dict[str, Any]:
    columns = row.utterance.to_row()
    for name in ("file_name", "text", "start_s", "end_s", "duration_s"):
        columns.pop(name, None)
    head: dict[str, Any] = {"audio_filepath": row.place.as_posix(), "text": row.utterance.text}
    if row.span_s is None:
        head["duration"] = row.utterance.duration_s
    else:
        start_s, end_s = row.span_s
        head |= {"offset": start_s, "duration": round(end_s - start_s, 6)}
    return {**head, **{name: value for name, value in columns.items() if name not in _RESERVED}}


EXPORTER = Exporter(
    NAME,
    write,
    always,
    frozenset(STANDARD_COLUMNS),
    extra=True,
    spans=True,
    cuts=False,
    copies=False,
    reserved=_RESERVED,
)
