"""What there is to do: one pass over the table that finds its columns, its languages and its chunks."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import speechtune
from speechtune.core.errors import InputError
from speechtune.core.files import sha256
from speechtune.corpus.conventions import TextPipeline
from speechtune.corpus.naming import audio_stem
from speechtune.corpus.prepare.policy import PreparePolicy
from speechtune.corpus.storage import ColumnTypes, column_type, common_type
from speechtune.corpus.stream import iter_utterances, table_of, table_sha256
from speechtune.corpus.table import Utterance

_CHUNK_ROWS = 64
_CHUNK_S = 600.0
_FOLDER_ROWS = 10_000
"""Files per folder of a large corpus: what the Hugging Face hub allows."""
PIECE_TYPES: ColumnTypes = {
    "parent_id": "string",
    "parent_start_s": "float64",
    "parent_end_s": "float64",
    "cut_by": "string",
    "cut_confidence": "float64",
}
"""Columns that segmentation adds."""


@dataclass(slots=True)
class Item:
    """One row on its way: its number in the table (from 0), and the name its audio file gets (without suffix).

    ``dropped`` is the filter's reason and the value behind it, if a filter leaves the row out.
    """

    number: int
    utterance: Utterance
    stem: str
    dropped: tuple[str, dict[str, Any]] | None = None


@dataclass(slots=True)
class Chunk:
    """Rows that are finished and remembered together; of one split where the output is sharded."""

    number: int
    split: str | None
    items: list[Item] = field(default_factory=list)


@dataclass(slots=True)
class Plan:
    """What the table holds."""

    root: Path
    rows: int
    seconds_of_audio: float
    splits: list[str | None]
    columns: frozenset[str]
    types: ColumnTypes
    facts: dict[str, Any]
    by_split: bool
    shard_s: float

    def chunks(self) -> Iterator[Chunk]:
        """The rows again, in chunks; the same every time."""
        number = 0
        for split in self.splits if self.by_split else [None]:
            chunk = Chunk(number, split)
            length_s = 0.0
            for item in self._items():
                if self.by_split and item.utterance.split != split:
                    continue
                chunk.items.append(item)
                length_s += item.utterance.duration_s
                full = length_s >= self.shard_s if self.by_split else length_s >= _CHUNK_S
                if full or (not self.by_split and len(chunk.items) >= _CHUNK_ROWS):
                    yield chunk
                    number += 1
                    chunk, length_s = Chunk(number, split), 0.0
            if chunk.items:
                yield chunk
                number += 1

    def _items(self) -> Iterator[Item]:
        taken: set[str] = set()
        for number, utterance in enumerate(iter_utterances(self.root)):
            stem = audio_stem(utterance.utterance_id, taken)
            folder = f"{number // _FOLDER_ROWS:04d}/" if self.rows > _FOLDER_ROWS else ""
            yield Item(number, utterance, f"{folder}{stem}")


def make_plan(root: Path, policy: PreparePolicy, audit: Path | None, aligner_name: str | None) -> Plan:
    """Look at every row once and check that the policy can be applied to it.

    Raises:
        InputError: the corpus is empty or not one, an id occurs twice, or a language's conventions cannot be applied.
    """
    seen: dict[str, int] = {}
    splits: dict[str | None, None] = {}
    languages: set[str | None] = set()
    types: dict[str, str | None] = {}
    seconds = 0.0
    for number, utterance in enumerate(iter_utterances(root), start=1):
        if utterance.utterance_id in seen:
            first = seen[utterance.utterance_id]
            raise InputError(
                f"{table_of(root)} rows {first} and {number} share the utterance id {utterance.utterance_id!r}: "
                "make the ids unique"
            )
        seen[utterance.utterance_id] = number
        splits[utterance.split] = None
        languages.add(utterance.language)
        seconds += utterance.duration_s
        for name, value in utterance.to_row().items():
            types[name] = common_type(types.get(name), column_type(value)) if value is not None else types.get(name)
    if not seen:
        raise InputError(f"{root} holds no utterances: import some first")
    for language in sorted(languages, key=str):
        TextPipeline(policy.conventions_for(language), language)
    columns = frozenset(types)
    stored = {name: kind or "string" for name, kind in types.items() if name not in ("file_name", "start_s", "end_s")}
    if policy.segmentation.mode != "off":
        stored.pop("segments", None)
        stored |= PIECE_TYPES
    facts = {
        "corpus": str(root.resolve()),
        "table": table_sha256(root),
        "policy": hashlib.sha256(policy.model_dump_json(by_alias=True).encode()).hexdigest(),
        "audit": sha256(audit / "audit.parquet" if audit.is_dir() else audit) if audit and policy.where else None,
        "aligner": aligner_name,
        "version of speechtune": speechtune.__version__,
    }
    by_split = policy.output.format != "flac"
    shard_s = policy.output.shard_minutes * 60.0
    return Plan(root, len(seen), seconds, list(splits), columns, stored, facts, by_split, shard_s)
