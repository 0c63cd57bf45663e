"""The measures as a DuckDB table: questions about all utterances in bounded memory.

DuckDB works on the Parquet file and spills to disk beyond its memory limit. It is held to one thread, so that sums
come out the same on every run.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, explain_write_errors, missing_extra

MEMORY = "128MB"
ROW_GROUP_ROWS = 16_384


def quoted(text: str | Path) -> str:
    """A text as an SQL literal."""
    return "'" + str(text).replace("'", "''") + "'"


def name_sql(name: str) -> str:
    """A column name as an SQL identifier."""
    return '"' + name.replace('"', '""') + '"'


class Database:
    """A private DuckDB that keeps what does not fit into memory below ``scratch``.

    Raises:
        InputError: duckdb is not installed.
    """

    def __init__(self, scratch: Path, memory: str = MEMORY) -> None:
        try:
            import duckdb
        except ImportError as error:
            raise missing_extra("duckdb", "audit") from error
        self.scratch = scratch
        self._error = duckdb.Error
        settings: dict[str, str | bool | int | float | list[str]] = {
            "threads": 1,
            "memory_limit": memory,
            "temp_directory": str(scratch / "spill"),
        }
        # On disk: a table in a memory database counts against the limit and is compressed less.
        with self._explained():
            self._db = duckdb.connect(str(scratch / "work.duckdb"), config=settings)
            self._db.execute("SET enable_progress_bar = false")

    def run(self, sql: str, values: Sequence[Any] = ()) -> Any:
        """Execute one statement.

        Raises:
            InputError: the disk is full.
            KeyboardInterrupt: the process was interrupted during the query.
        """
        with self._explained():
            return self._db.execute(sql, list(values)) if values else self._db.execute(sql)

    @contextlib.contextmanager
    def _explained(self) -> Iterator[None]:
        """What DuckDB raises, in this program's words; a query may also fail while its rows are fetched."""
        try:
            with explain_write_errors(self.scratch):
                yield
        except self._error as error:
            if "No space left" in str(error) or "could not write" in str(error).lower():
                raise InputError(
                    f"the disk is full while writing {self.scratch}: free some space and run the same command again; "
                    "what was measured so far is kept"
                ) from error
            raise
        except RuntimeError as error:
            if "interrupted" in str(error).lower():  # how DuckDB passes on an interrupt of this process
                raise KeyboardInterrupt from error
            raise

    def rows(self, sql: str) -> list[tuple[Any, ...]]:
        """All rows of a query (for results that are small)."""
        with self._explained():
            found: list[tuple[Any, ...]] = self._db.execute(sql).fetchall()
        return found

    def stream(self, sql: str, at_once: int = 10_000) -> Iterator[tuple[Any, ...]]:
        """The rows of a query, some at a time."""
        cursor = self.run(sql)
        while True:
            with self._explained():
                some = cursor.fetchmany(at_once)
            if not some:
                return
            yield from some

    def one(self, sql: str) -> tuple[Any, ...]:
        """The only row of a query."""
        return self.rows(sql)[0]

    def value(self, sql: str) -> Any:
        """The only value of a query."""
        return self.one(sql)[0]

    def dicts(self, sql: str) -> list[dict[str, Any]]:
        """All rows of a query with the names of its columns."""
        with self._explained():
            cursor = self._db.execute(sql)
            names = [column[0] for column in cursor.description]
            return [dict(zip(names, row, strict=True)) for row in cursor.fetchall()]

    def arrow(self, sql: str) -> Any:
        """All rows of a query as an Arrow table (for results that are small)."""
        with self._explained():
            return self._db.sql(sql).to_arrow_table()

    def write_parquet(self, path: Path, parts: Iterable[Any]) -> None:
        """Arrow tables as the row groups of one Parquet file.

        Raises:
            InputError: the disk is full.
        """
        pyarrow = _pyarrow()
        rest = iter(parts)
        first = next(rest)
        with explain_write_errors(path), pyarrow.parquet.ParquetWriter(path, first.schema, compression="zstd") as file:
            file.write_table(first)
            for part in rest:
                file.write_table(part)

    def fill(self, table: str, columns: str, rows: Iterable[Sequence[Any]]) -> None:
        """Make a table of rows, through Arrow (DuckDB's own row-wise insertion is a hundred times slower)."""
        self.run(f"CREATE OR REPLACE TABLE {table} ({columns})")
        pyarrow = _pyarrow()
        names = [column.split()[0] for column in columns.split(",")]
        waiting: list[Sequence[Any]] = []
        for row in rows:
            waiting.append(row)
            if len(waiting) == 50_000:
                self._insert(pyarrow, table, names, waiting)
                waiting = []
        self._insert(pyarrow, table, names, waiting)

    def _insert(self, pyarrow: Any, table: str, names: list[str], rows: list[Sequence[Any]]) -> None:
        if rows:
            arrow = pyarrow.table(dict(zip(names, map(list, zip(*rows, strict=True)), strict=True)))
            self._db.register("incoming", arrow)
            self.run(f"INSERT INTO {table} SELECT * FROM incoming")
            self._db.unregister("incoming")

    def close(self) -> None:
        """Let go of the files; what cannot be written to them any more is not missed."""
        with contextlib.suppress(self._error):
            self._db.close()


@functools.cache
def _pyarrow() -> Any:
    from speechtune.corpus.audit.rows import load_pyarrow

    return load_pyarrow()
