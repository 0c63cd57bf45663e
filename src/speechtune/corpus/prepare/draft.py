"""The directory in which a prepare grows: locked while in use, resumed if it was left."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, explain_write_errors
from speechtune.core.files import read_json, read_jsonl, replace_directory, write_json, write_jsonl

_LOCK = ".lock"
_PLAN = "plan.json"


class Draft:
    """``NEW.partial``: finished chunks with their marks, and the ``corpus`` that becomes ``NEW``."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.root = partial_of(target)
        self.corpus = self.root / "corpus"
        self._marks = self.root / "chunks"

    def agree(self, facts: dict[str, Any], overwrite: bool) -> bool:
        """Begin with these facts, or continue what was begun with the same; returns whether there is something.

        Raises:
            InputError: what was begun there has other facts; the sentence names them.
        """
        plan = self.root / _PLAN
        if plan.is_file():
            begun = read_json(plan)
            other = sorted(name for name in {*facts, *begun} if facts.get(name) != begun.get(name))
            if not other:
                return self._marks.is_dir()
            if not overwrite:
                raise InputError(
                    f"{self.root} was begun with another {', '.join(other)}: finish it with the command that began it, "
                    "delete it, or add --overwrite to begin anew"
                )
        for part in (self.corpus, self._marks):
            shutil.rmtree(part, ignore_errors=True)
        write_json(plan, facts)
        return False

    def mark(self, number: int, records: list[dict[str, Any]]) -> None:
        """Remember a finished chunk, atomically; its files are complete by then."""
        write_jsonl(self._mark(number), records)

    def finished(self, number: int) -> bool:
        """Whether a chunk is complete."""
        return self._mark(number).is_file()

    def records(self, number: int) -> list[dict[str, Any]]:
        """What a finished chunk left."""
        return read_jsonl(self._mark(number))

    def _mark(self, number: int) -> Path:
        return self._marks / f"{number:06d}.jsonl"

    def publish(self) -> None:
        """Rename the complete corpus to the target and remove the draft."""
        with explain_write_errors(self.target):
            replace_directory(self.corpus, self.target)
            shutil.rmtree(self.root, ignore_errors=True)


def partial_of(target: Path) -> Path:
    """Where the draft of a target lies."""
    return target.with_name(f"{target.name}.partial")


@contextmanager
def locked_draft(target: Path, overwrite: bool) -> Iterator[Draft]:
    """The draft of ``target``, for this process alone until the block ends; it stays if the block fails.

    Raises:
        InputError: another process is writing it, or the target is there already, or cannot be written.
    """
    draft = Draft(target)
    _refuse_existing(target, overwrite)
    with explain_write_errors(target):
        draft.root.mkdir(parents=True, exist_ok=True)
        lock = draft.root / _LOCK
        with lock.open("a") as stream:
            try:
                fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise InputError(
                    f"another speechtune prepare is writing {target}: wait until it ends, or choose another --out"
                ) from None
            if not lock.exists() or os.stat(lock).st_ino != os.fstat(stream.fileno()).st_ino:
                raise InputError(f"another speechtune prepare has just finished {target}: choose another --out")
            _refuse_existing(target, overwrite)
            yield draft


def _refuse_existing(target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file: choose another --out")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise InputError(f"{target} exists and is not empty: choose another --out or add --overwrite")
