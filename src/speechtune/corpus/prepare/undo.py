"""The way back: the table a prepared corpus was made from."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, sha256, write_text
from speechtune.corpus.prepare.assemble import CHANGES, ORIGINAL
from speechtune.corpus.table import CARD


@dataclass(frozen=True, slots=True)
class UndoResult:
    """The original table: its rows as text, how many there are, and where its audio names are relative to."""

    table: str
    rows: int
    source: str
    out: Path | None

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object; the rows are in it if they were not written to a file."""
        rows = [] if self.out else [json.loads(line) for line in self.table.split("\n") if line.strip()]
        facts = {"rows": self.rows, "source": self.source, "out": str(self.out) if self.out else None}
        return facts if self.out else {**facts, "table": rows}

    def __str__(self) -> str:
        return f"{self.out}: the {self.rows} rows of {self.source}" if self.out else self.table.rstrip("\n")


def undo(prepared: Path, out: Path | None = None) -> UndoResult:
    """Return (and write to ``out``) the table that ``prepared`` was made from, byte for byte.

    Its ``file_name``s are relative to ``source``, where the original audio is; prepare only read it.

    Raises:
        InputError: ``prepared`` was not made by prepare, its record is damaged, or ``out`` exists.
    """
    original = prepared / ORIGINAL
    if not original.is_file() or not (prepared / CARD).is_file():
        raise InputError(f"{prepared} holds no {ORIGINAL}: --undo needs a directory that speechtune prepare made")
    card = read_json(prepared / CARD)
    if sha256(original) != card.get("original_sha256"):
        raise InputError(f"{original} is not as prepare left it: restore the file, or look into {prepared / CHANGES}")
    if out is not None and out.exists():
        raise InputError(f"{out} exists: choose another --out")
    table = original.read_bytes().decode("utf-8")
    if out is not None:
        write_text(out, table)
    return UndoResult(table, card["source_rows"], card["source"], out)


def original_texts(prepared: Path) -> dict[str, str]:
    """Every transcript that a text rule changed, restored by walking ``changes.jsonl`` back (id -> original text).

    Raises:
        InputError: the steps of an utterance do not follow from each other.
    """
    first: dict[str, str] = {}
    last: dict[str, str] = {}
    with (prepared / CHANGES).open(encoding="utf-8") as stream:
        for number, line in enumerate(stream, start=1):
            change = json.loads(line)
            if change["stage"] != "text":
                continue
            name = change["utterance_id"]
            if name in last and last[name] != change["before"]:
                raise InputError(f"{prepared / CHANGES} line {number} does not follow from the change before it")
            first.setdefault(name, change["before"])
            last[name] = change["after"]
    return first
