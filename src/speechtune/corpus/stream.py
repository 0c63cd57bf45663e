"""The utterance table read row by row, for work whose memory must not grow with the corpus.

`Corpus.load` holds every row; these functions hold one. What needs all rows at once (are the ids unique?) is left to
the caller, who can ask it of a database.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_json
from speechtune.corpus.table import CARD, METADATA, Utterance

_TEXT_COLUMNS = ("utterance_id", "file_name", "text")
_NUMBER_COLUMNS = ("duration_s", "start_s", "end_s")


def iter_utterances(root: Path | str) -> Iterator[Utterance]:
    """Read ``metadata.jsonl`` of a corpus line by line.

    Raises:
        InputError: the directory or its table is missing, or a line is not a usable row; the sentence names the line.
            (Ids that occur twice are not noticed: that would take memory in proportion to the corpus.)
    """
    table = table_of(root)
    for number, row in _rows(table):
        yield _utterance(table, number, row)


def table_of(root: Path | str) -> Path:
    """The table of a corpus directory.

    Raises:
        InputError: there is none.
    """
    table = Path(root) / METADATA
    if not table.is_file():
        raise InputError(f"{root} is not a speechtune corpus (no {METADATA}): make one with speechtune import")
    return table


def card_of(root: Path | str) -> dict[str, Any]:
    """What ``corpus.json`` holds; empty where there is none.

    Raises:
        InputError: it is not a JSON object.
    """
    path = Path(root) / CARD
    if not path.is_file():
        return {}
    card = read_json(path)
    if not isinstance(card, dict):
        raise InputError(f"{path} is not a JSON object: repair it or import the corpus again")
    return card


def count_rows(root: Path | str) -> int:
    """How many rows the table has, by counting lines that are not blank."""
    with table_of(root).open("rb") as stream:
        return sum(1 for line in stream if line.strip())


def table_sha256(root: Path | str) -> str:
    """Hex SHA-256 of the table's bytes: names the state of a corpus that a result was computed from."""
    with table_of(root).open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def _rows(table: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    with table.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise InputError(f"{table} line {number} is not UTF-8 text ({error}): save it as UTF-8") from error
            except json.JSONDecodeError as error:
                raise InputError(f"{table} line {number} is not valid JSON ({error.msg}): repair that line") from error
            if not isinstance(row, dict):
                raise InputError(f"{table} line {number} is not a JSON object: each line must be {{...}}")
            yield number, row


def _utterance(table: Path, number: int, row: dict[str, Any]) -> Utterance:
    missing = [name for name in (*_TEXT_COLUMNS, "duration_s") if row.get(name) is None]
    if missing:
        raise InputError(f"{table} line {number} has no {', '.join(missing)}: run speechtune import on it first")
    for name in _TEXT_COLUMNS:
        if not isinstance(row[name], str):
            raise InputError(f"{table} line {number}: {name} must be text, not {row[name]!r}: put it in quotes")
    for name in _NUMBER_COLUMNS:
        value = row.get(name)
        if value is not None and (isinstance(value, bool) or not isinstance(value, int | float)):
            raise InputError(f"{table} line {number}: {name} must be a number of seconds, not {value!r}")
    return Utterance.from_row(row)
