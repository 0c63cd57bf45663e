"""A file of transcripts that grows in the inputs' order and survives the end of the process at any moment.

Whole chunks are appended to the file; the results of the chunk in work are kept in a journal beside it, synced to the
disk after every batch. What counts as done is what the file and the journal hold: there is no third place to contradict
them. A line that was cut off by the end of the process is cut away.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any

from speechtune.core.errors import InputError, explain_write_errors
from speechtune.core.files import read_json, write_json

Row = dict[str, Any]


class GrowingFile:
    """The transcripts at ``path``, and beside it ``.journal`` (the chunk in work) and ``.settings`` (what made it).

    Raises:
        InputError: it was made with other settings, is not such a file, or another process is writing it.
    """

    def __init__(self, path: Path, settings: Row, overwrite: bool = False) -> None:
        self.path = path
        self.journal_path = path.with_name(path.name + ".journal")
        self.settings_path = path.with_name(path.name + ".settings")
        self.settings = settings
        self.overwrite = overwrite

    def __enter__(self) -> GrowingFile:
        with explain_write_errors(self.path):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.journal = self.journal_path.open("a+b")
            try:
                fcntl.flock(self.journal, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                self.journal.close()
                raise InputError(f"{self.path} is being written by another process: wait for it") from None
            self._check_settings()
            self.stream = self.path.open("a+b")
            _cut_half_line(self.stream)
            _cut_half_line(self.journal)
        return self

    def _check_settings(self) -> None:
        if self.overwrite:
            self.path.unlink(missing_ok=True)
            self.settings_path.unlink(missing_ok=True)
            self.journal.truncate(0)
        if self.settings_path.is_file():
            changed = changed_settings(read_json(self.settings_path), self.settings)
            if changed:
                name, before = changed[0]
                raise InputError(
                    f"{self.path} was begun with another {name} ({before!r}): choose another --out or add --overwrite"
                )
        elif self.path.is_file() and self.path.stat().st_size:
            raise InputError(f"{self.path} exists and was not begun this way: choose another --out or add --overwrite")
        else:
            write_json(self.settings_path, self.settings)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stream.close()
        self.journal.close()
        if kind is None:
            self.journal_path.unlink(missing_ok=True)

    def finished(self) -> Iterator[Row]:
        """The lines of whole chunks, in order."""
        self.stream.seek(0)
        for line in self.stream:
            yield json.loads(line)

    def journalled(self) -> dict[int, Row]:
        """Results that are not in whole chunks yet, by the number of their input (from 0)."""
        self.journal.seek(0)
        return {int(held["input"]): held["row"] for held in map(json.loads, self.journal)}

    def note(self, rows: Iterable[tuple[int, Row]]) -> None:
        """Keep results of the chunk in work, each with the number of its input."""
        _append(self.journal, b"".join(_line({"input": number, "row": row}) for number, row in rows))

    def append(self, rows: Iterable[Row]) -> None:
        """Append a whole chunk; its journal is emptied afterwards."""
        _append(self.stream, b"".join(map(_line, rows)))
        self.journal.truncate(0)


def _line(row: Row) -> bytes:
    return json.dumps(row, ensure_ascii=False).encode("utf-8", "replace") + b"\n"


def _append(stream: Any, data: bytes) -> None:
    stream.seek(0, os.SEEK_END)
    stream.write(data)
    stream.flush()
    os.fsync(stream.fileno())


def _cut_half_line(stream: Any) -> None:
    """Cut what stands behind the last line end."""
    end = stream.seek(0, os.SEEK_END)
    while end > 0:
        begin = max(0, end - 65_536)
        stream.seek(begin)
        place = stream.read(end - begin).rfind(b"\n")
        if place >= 0:
            stream.truncate(begin + place + 1)
            return
        end = begin
    stream.truncate(0)


def changed_settings(held: dict[str, Any], own: dict[str, Any]) -> list[tuple[str, Any]]:
    """Settings that are not what they were, each with its old value; one that is new since then had its default."""
    from speechtune.decoding.config import DecodingConfig

    default = _flat({"decoding": DecodingConfig().model_dump(mode="json")})
    before, now = ({**default, **_flat(settings)} for settings in (held, own))
    return [(name, before.get(name)) for name in sorted({*before, *now}) if before.get(name) != now.get(name)]


def _flat(settings: dict[str, Any], above: str = "") -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, value in settings.items():
        found |= _flat(value, f"{above}{name}.") if isinstance(value, dict) and value else {above + name: value}
    return found
