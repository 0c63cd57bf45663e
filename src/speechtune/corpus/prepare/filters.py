"""Which rows are kept, by any column of the table or of an audit."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, missing_extra
from speechtune.corpus.conditions import Condition
from speechtune.corpus.table import Utterance

KEY = "utterance_id"


class RowFilter:
    """The policy's conditions, with the values of the audit at hand.

    Args:
        where: every condition must hold.
        audit: ``audit.parquet``, or the directory that holds it; its columns win over the table's of the same name.
        table_columns: what the corpus' rows have.

    Raises:
        InputError: a condition names a column that neither has, or the audit cannot be read.
    """

    def __init__(self, where: Sequence[Condition], audit: Path | None, table_columns: frozenset[str]) -> None:
        self._conditions = where
        wanted = {condition.column for condition in where}
        self._audit: dict[str, dict[str, Any]] = {}
        self._audited: frozenset[str] = frozenset()
        if audit is not None and wanted:
            self._audit, audit_columns = _read_audit(audit, wanted)
            self._audited = audit_columns & wanted
        else:
            audit_columns = frozenset()
        for condition in where:
            if condition.column not in audit_columns | table_columns:
                advice = "" if audit else "; the measures of an audit need --audit"
                known = ", ".join(sorted(audit_columns | table_columns))
                raise InputError(
                    f"where: there is no column {condition.column!r} (there are: {known}{advice}): correct it"
                )

    def reason(self, utterance: Utterance) -> tuple[str, dict[str, Any]] | None:
        """Why the row is left out, and the value that says so; ``None`` if it is kept."""
        for condition in self._conditions:
            value = self._value(utterance, condition.column)
            problem = condition.why_not_value(value, utterance.utterance_id)
            if problem:
                return problem, {condition.column: value}
        return None

    def _value(self, utterance: Utterance, column: str) -> Any:
        if column in self._audited:
            return self._audit.get(utterance.utterance_id, {}).get(column)
        return utterance.column(column)


def _read_audit(path: Path, wanted: set[str]) -> tuple[dict[str, dict[str, Any]], frozenset[str]]:
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "hub") from error
    file = path / "audit.parquet" if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"--audit {path} holds no audit.parquet: run speechtune audit first")
    try:
        names = frozenset(parquet.read_schema(file).names)
        if KEY not in names:
            raise InputError(f"{file} has no column {KEY}: give the table of speechtune audit")
        table = parquet.read_table(file, columns=[KEY, *sorted(wanted & names)])
    except (ArrowException, OSError) as error:
        raise InputError(f"{file} is not a readable Parquet table ({error}): run speechtune audit again") from error
    rows: Mapping[str, dict[str, Any]] = {row[KEY]: row for row in table.to_pylist()}
    return dict(rows), names
