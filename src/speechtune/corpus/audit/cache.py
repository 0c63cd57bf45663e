"""Measures that were already made, kept by what they were made of.

One SQLite file. The key of an entry names the content of an audio file, the span of it, and the version of the
measures, so a renamed, copied or re-labelled recording is not measured again and a changed one always is. SQLite's
rollback journal keeps the file whole when a process is killed, lets several audits write to it at once, and (unlike
its write-ahead log) needs no shared memory, so that it also works on a cluster's network file system.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from speechtune.core.errors import InputError, SpeechtuneError, explain_write_errors

_WAIT_S = 120.0
_ASK_AT_ONCE = 500


class MeasureCache:
    """A persistent mapping from key to a JSON-ready dictionary; safe for several processes.

    Args:
        path: the SQLite file; it is made if absent.
        read_only: only look up (the file must exist).

    Raises:
        InputError: the place cannot be written to, or what is there is not such a cache.
    """

    def __init__(self, path: Path, read_only: bool = False) -> None:
        self.path = path
        with explain_write_errors(path):
            if not read_only:
                path.parent.mkdir(parents=True, exist_ok=True)
        mode = "ro" if read_only else "rwc"
        with _sqlite_errors(path):
            self._db = sqlite3.connect(f"{path.absolute().as_uri()}?mode={mode}", uri=True, timeout=_WAIT_S)
            if not read_only:
                self._db.execute("CREATE TABLE IF NOT EXISTS measures (key TEXT PRIMARY KEY, value TEXT)")
                self._db.commit()

    def get(self, keys: Sequence[str]) -> dict[str, dict[str, Any]]:
        """The entries of those keys that are known."""
        found: dict[str, dict[str, Any]] = {}
        with _sqlite_errors(self.path):
            for first in range(0, len(keys), _ASK_AT_ONCE):
                some = keys[first : first + _ASK_AT_ONCE]
                marks = ",".join("?" * len(some))
                rows = self._db.execute(f"SELECT key, value FROM measures WHERE key IN ({marks})", some)
                found.update({key: json.loads(value) for key, value in rows})
        return found

    def put(self, entries: Iterable[tuple[str, dict[str, Any]]]) -> None:
        """Add entries, all or none; what is already known stays.

        Raises:
            InputError: the disk is full, or the cache is damaged.
        """
        rows = [(key, json.dumps(value, ensure_ascii=False)) for key, value in entries]
        if not rows:
            return
        with _sqlite_errors(self.path), self._db:
            self._db.executemany("INSERT OR IGNORE INTO measures VALUES (?, ?)", rows)

    def __len__(self) -> int:
        with _sqlite_errors(self.path):
            return int(self._db.execute("SELECT count(*) FROM measures").fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        self._db.close()

    def __enter__(self) -> MeasureCache:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class _sqlite_errors:  # noqa: N801 - reads as a statement
    """Turn SQLite's failures into one sentence."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> None:
        return

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, sqlite3.Error):
            return
        text = str(error)
        if "full" in text or "disk I/O" in text:
            raise InputError(
                f"the disk is full while writing {self.path}: free some space and run the same command again; "
                "what was measured so far is kept"
            ) from error
        if "readonly" in text or "unable to open" in text:
            raise InputError(f"cannot write {self.path} ({text}): choose an --out that you may write to") from error
        if "locked" in text:
            raise SpeechtuneError(
                f"{self.path} is held by another process for more than {_WAIT_S:.0f} s: wait for it or choose "
                "another --out"
            ) from error
        raise InputError(f"{self.path} is not a usable cache ({text}): delete it and run again") from error
