"""The utterance table: what every other room reads and writes."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, read_jsonl, write_json, write_jsonl

METADATA = "metadata.jsonl"
CARD = "corpus.json"

STANDARD_COLUMNS = (
    "file_name",
    "text",
    "utterance_id",
    "speaker_id",
    "session_id",
    "language",
    "duration_s",
    "start_s",
    "end_s",
    "split",
    "age",
    "gender",
    "source",
)


@dataclass(slots=True, kw_only=True)
class Utterance:
    """One row: a span of audio, its text, and what is known about it.

    ``start_s``/``end_s`` select a span of the file (``None``: the whole file); ``duration_s`` is
    the length of the span. Columns outside the standard ones are kept in ``extra``.
    """

    utterance_id: str
    file_name: str
    text: str
    duration_s: float
    speaker_id: str | None = None
    session_id: str | None = None
    language: str | None = None
    start_s: float | None = None
    end_s: float | None = None
    split: str | None = None
    age: str | None = None
    gender: str | None = None
    source: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    def column(self, name: str) -> Any:
        """The value of a standard or extra column; ``None`` where it is unknown."""
        return getattr(self, name) if name in STANDARD_COLUMNS else self.extra.get(name)

    def to_row(self) -> dict[str, Any]:
        """The row of ``metadata.jsonl``: ``file_name`` and ``text`` first, unknown columns left out."""
        standard = {name: getattr(self, name) for name in STANDARD_COLUMNS}
        return {**{name: value for name, value in standard.items() if value is not None}, **self.extra}

    @classmethod
    def from_row(cls, row: dict[str, Any]) -> Utterance:
        """The inverse of `to_row`."""
        standard = {name: row[name] for name in STANDARD_COLUMNS if row.get(name) is not None}
        extra = {name: value for name, value in row.items() if name not in STANDARD_COLUMNS}
        return cls(**standard, extra=extra)


@dataclass(slots=True)
class Corpus:
    """A directory with ``metadata.jsonl`` and ``corpus.json``, held in memory as a list of utterances.

    ``card`` is what ``corpus.json`` holds: provenance, counts, drops by reason.
    """

    root: Path
    utterances: list[Utterance]
    card: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def load(cls, root: Path | str) -> Corpus:
        """Read a corpus directory.

        Raises:
            InputError: the directory or its table is missing, a row lacks a required column, or an
                utterance id occurs twice.
        """
        root = Path(root)
        table = root / METADATA
        if not table.is_file():
            raise InputError(f"{root} is not a speechtune corpus (no {METADATA}): make one with speechtune import")
        rows = read_jsonl(table)
        utterances = []
        seen: dict[str, int] = {}
        for number, row in enumerate(rows, start=1):
            missing = [name for name in ("utterance_id", "file_name", "text", "duration_s") if row.get(name) is None]
            if missing:
                raise InputError(f"{table} row {number} has no {', '.join(missing)}: run speechtune import on it first")
            name = row["utterance_id"]
            if name in seen:
                raise InputError(
                    f"{table} rows {seen[name]} and {number} share the utterance id {name!r}: make the ids unique"
                )
            seen[name] = number
            utterances.append(Utterance.from_row(row))
        card = read_json(root / CARD) if (root / CARD).is_file() else {}
        return cls(root, utterances, card)

    def save(self) -> None:
        """Write the table and the card (each atomically; the card last)."""
        write_jsonl(self.root / METADATA, (utterance.to_row() for utterance in self.utterances))
        write_json(self.root / CARD, self.card)

    def path_of(self, utterance: Utterance) -> Path:
        """The audio file of an utterance (``file_name`` may be absolute, else it is below ``root``)."""
        return self.root / utterance.file_name

    def subset(self, keep: Callable[[Utterance], bool]) -> Corpus:
        """The same corpus with only some of its utterances."""
        return Corpus(self.root, [utterance for utterance in self.utterances if keep(utterance)], self.card)

    def split(self, name: str) -> Corpus:
        """The utterances of one split.

        Raises:
            InputError: no utterance is in that split.
        """
        part = self.subset(lambda utterance: utterance.split == name)
        if not part.utterances:
            known = sorted({utterance.split or "(none)" for utterance in self.utterances})
            raise InputError(
                f"{self.root} has no split {name!r} (it has: {', '.join(known)}): run speechtune split on it first"
            )
        return part

    @property
    def seconds_of_audio(self) -> float:
        """Total length of all utterances in seconds."""
        return sum(utterance.duration_s for utterance in self.utterances)

    def fingerprint(self) -> str:
        """SHA-256 over the rows in id order: changes when any text, span, split or file name does."""
        digest = hashlib.sha256()
        for utterance in sorted(self.utterances, key=lambda one: one.utterance_id):
            digest.update(json.dumps(utterance.to_row(), sort_keys=True, ensure_ascii=False).encode())
        return digest.hexdigest()

    def __len__(self) -> int:
        return len(self.utterances)

    def __iter__(self) -> Iterator[Utterance]:
        return iter(self.utterances)


def count_by(utterances: Iterable[Utterance], column: str) -> dict[str, int]:
    """How many utterances have each value of a column, most frequent first."""
    counts: dict[str, int] = {}
    for utterance in utterances:
        value = utterance.column(column)
        key = "(unknown)" if value is None else str(value)
        counts[key] = counts.get(key, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))
