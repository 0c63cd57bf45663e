"""What the audit's page is made from: ``audit.json``, and what only ``audit.parquet`` can answer."""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, sha256
from speechtune.corpus.audit.corpus_checks import HOURS
from speechtune.corpus.audit.database import Database, quoted
from speechtune.corpus.audit.engine import SUMMARY, TABLE
from speechtune.corpus.audit.policy import Policy
from speechtune.corpus.audit.summary import SCHEMA

MOST_SPLITS = 6
MOST_SPEAKERS = 60
MOST_GROUPS = 8
MOST_MEMBERS = 5
_SHOWN = "utterance_id, file_name, text, split, speaker_id, language, start_s, end_s, duration_s"
_SHARED = (("speaker_id", "speakers"), ("session_id", "sessions"), ("samples_sha256", "identical recordings"),
           ("text_key", "texts"))  # fmt: skip


@dataclass(frozen=True, slots=True)
class SpeakerRank:
    """A speaker at one place of the ranking by minutes."""

    place: int
    speaker_id: str
    utterances: int
    minutes: float


@dataclass(frozen=True, slots=True)
class DuplicateGroup:
    """Utterances that are copies of each other: how many there are, and the first of them."""

    size: int
    members: list[dict[str, Any]]


class AuditRecord:
    """An audit that is finished: its summary, and its table to ask."""

    def __init__(self, summary: dict[str, Any], db: Database) -> None:
        self.summary = summary
        self.db = db

    def splits(self) -> list[str]:
        """The splits with the most audio, at most `MOST_SPLITS`."""
        return [str(one["split"]) for one in self.summary["corpus"]["splits"] if one["split"] != "(none)"][:MOST_SPLITS]

    def hours_without(self, *severities: str) -> tuple[int, float]:
        """Utterances that have no problem of these severities, and their hours."""
        free = " AND ".join(f"len({severity}s) = 0" for severity in severities)
        count, hours = self.db.one(f"SELECT count(*), {HOURS} FROM audit WHERE audio_error IS NULL AND {free}")
        return int(count), float(hours or 0.0)

    def utterances(self, ids: Sequence[str], most: int) -> list[dict[str, Any]]:
        """Rows of these utterances, in the order of the table."""
        if not ids:
            return []
        names = ", ".join(map(quoted, ids))
        return self.db.dicts(
            f"SELECT {_SHOWN} FROM audit WHERE utterance_id IN ({names}) ORDER BY row LIMIT {int(most)}"
        )

    def crossed(self, rows: str, columns: str) -> dict[tuple[str, str], tuple[int, float]]:
        """(utterances, minutes) of each pair of values of two columns; empty where one of them has no value."""
        if not all(self.summary["categories"].get(name) for name in (rows, columns)):
            return {}
        found = self.db.rows(
            f"SELECT coalesce({rows}::VARCHAR, '(unknown)'), coalesce({columns}::VARCHAR, '(unknown)'), count(*), "
            f"60 * {HOURS} FROM audit GROUP BY 1, 2 ORDER BY 1, 2 LIMIT 400"
        )
        return {(str(row), str(column)): (int(n), float(minutes or 0.0)) for row, column, n, minutes in found}

    def speakers(self) -> list[SpeakerRank]:
        """Speakers by minutes, the most first; evenly spaced places where there are more than `MOST_SPEAKERS`."""
        speakers = f"SELECT speaker_id, count(*) AS n, 60 * {HOURS} AS minutes FROM audit GROUP BY 1"
        order = "row_number() OVER (ORDER BY minutes DESC, speaker_id) AS place, count(*) OVER () AS total"
        step = f"greatest(1, ceil(total / {MOST_SPEAKERS}.0)::INT)"
        found = self.db.rows(
            "SELECT place, speaker_id, n, minutes FROM "
            f"(SELECT *, {order} FROM ({speakers}) WHERE speaker_id IS NOT NULL) "
            f"WHERE (place - 1) % {step} = 0 OR place = total ORDER BY place"
        )
        return [SpeakerRank(int(place), str(name), int(n), float(minutes)) for place, name, n, minutes in found]

    def shared(self) -> list[dict[str, Any]]:
        """For each pair of splits, how many speakers, sessions, recordings and texts are in both."""
        splits = self.splits()
        pairs: dict[tuple[str, str], dict[str, int]] = {
            (one, other): {} for place, one in enumerate(splits) for other in splits[place + 1 :]
        }
        if not pairs:
            return []
        chosen = ", ".join(map(quoted, splits))
        for column, noun in _SHARED:
            values = (
                f"(SELECT DISTINCT split, {column} AS value FROM audit WHERE split IN ({chosen}) "
                f"AND {column} IS NOT NULL AND {column} <> '')"
            )
            for one, other, count in self.db.rows(
                f"SELECT a.split, b.split, count(*) FROM {values} AS a JOIN {values} AS b USING (value) "
                "WHERE a.split < b.split GROUP BY 1, 2"
            ):
                pair = (one, other) if (one, other) in pairs else (other, one)
                pairs[pair][noun] = int(count)
        known = {
            noun: bool(self.db.value(f"SELECT count({column}) FROM audit WHERE {column} <> ''"))
            for column, noun in _SHARED
        }
        return [
            {"splits": pair, **{noun: counts.get(noun, 0) if known[noun] else None for _, noun in _SHARED}}
            for pair, counts in pairs.items()
        ]

    def groups(self, column: str) -> tuple[int, int, list[DuplicateGroup]]:
        """Groups of duplicates by a ``..._of`` column: number of groups, of utterances in them, and the largest."""
        total, members = self.db.one(
            f"SELECT count(DISTINCT {column}), count({column}) + count(DISTINCT {column}) FROM audit"
        )
        largest = self.db.rows(
            f"SELECT {column}, count(*) + 1 FROM audit WHERE {column} IS NOT NULL GROUP BY 1 ORDER BY 2 DESC, 1 "
            f"LIMIT {MOST_GROUPS}"
        )
        groups = []
        for first, size in largest:
            rows = self.db.dicts(
                f"SELECT {_SHOWN} FROM audit WHERE utterance_id = {quoted(first)} OR {column} = {quoted(first)} "
                f"ORDER BY row LIMIT {MOST_MEMBERS}"
            )
            groups.append(DuplicateGroup(int(size), rows))
        return int(total), int(members), groups


def policy_of(summary: dict[str, Any]) -> Policy:
    """The limits that an audit judged by.

    Raises:
        InputError: they are those of another version of speechtune.
    """
    try:
        return Policy.model_validate(summary.get("policy"))
    except ValidationError as error:
        raise InputError(f"the audit was made by another version of speechtune ({error.error_count()} limits differ): "
                         "run speechtune audit again") from error  # fmt: skip


@contextlib.contextmanager
def read_audit(directory: Path) -> Iterator[AuditRecord]:
    """Open a finished audit.

    Args:
        directory: where ``speechtune audit`` wrote.

    Raises:
        InputError: there is no finished audit, it is of another version, or its two files do not belong together.
    """
    summary_path, table = directory / SUMMARY, directory / TABLE
    if not summary_path.is_file() or not table.is_file():
        raise InputError(f"{directory} holds no finished audit: run speechtune audit first")
    summary = read_json(summary_path)
    if not isinstance(summary, dict) or summary.get("schema") != SCHEMA:
        raise InputError(f"{summary_path} is not of this version of speechtune: run speechtune audit again")
    if summary.get("audit_sha256") != sha256(table):
        raise InputError(f"{table} is not the table that {summary_path} describes: run speechtune audit again")
    with tempfile.TemporaryDirectory() as scratch, contextlib.closing(Database(Path(scratch))) as db:
        db.run(f"CREATE VIEW audit AS SELECT * FROM read_parquet({quoted(table)})")
        yield AuditRecord(summary, db)
