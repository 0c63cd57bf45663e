"""A directory that is built over several runs, and appears only when it is complete."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, explain_write_errors
from speechtune.core.files import replace_directory, write_text
from speechtune.core.progress import note

_KEY, _DONE, _LOCK = ".plan", ".done.jsonl", ".lock"


class Workshop:
    """The unfinished directory: ``folder``, and the facts of the pieces that are finished, by name."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.done: dict[str, dict[str, Any]] = {}
        log = folder / _DONE
        if log.is_file():
            for line in log.read_text(encoding="utf-8").split("\n"):
                try:
                    name, facts = json.loads(line)
                except ValueError:  # the last line of a killed run, or the empty end
                    continue
                self.done[name] = facts

    def finish(self, name: str, facts: dict[str, Any]) -> None:
        """Remember that the piece ``name`` is complete on the disk."""
        with (self.folder / _DONE).open("a", encoding="utf-8") as stream:
            stream.write("\n" * bool(stream.tell()) + json.dumps([name, facts], ensure_ascii=False))
        self.done[name] = facts


@contextmanager
def resumable_directory(target: Path, key: str, overwrite: bool = False) -> Iterator[Workshop]:
    """Build ``target`` in a hidden directory beside it, and rename that when the block succeeds.

    If the block fails or the process is killed, the hidden directory stays, and the next call with the same ``key``
    continues in it; with another key it is emptied first.

    Args:
        target: the directory to make. It may exist if it is empty, or if ``overwrite`` is set.
        key: a fingerprint of everything that the result depends on.
        overwrite: replace an existing directory, after the new one is complete.

    Raises:
        InputError: ``target`` exists and is not empty, cannot be written, or is just being written by another process.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file: choose another --out")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise InputError(f"{target} exists and is not empty: choose another --out or add --overwrite")
    folder = target.parent / f".{target.name}.unfinished"
    with explain_write_errors(target):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / _LOCK).open("w")
        try:
            _hold(lock, target)
            _begin(folder, key)
            workshop = Workshop(folder)
            if workshop.done:
                note(f"continuing an interrupted run: {len(workshop.done)} clips are already there")
            yield workshop
            for name in (_KEY, _DONE, _LOCK):
                (folder / name).unlink(missing_ok=True)
            replace_directory(folder, target)
        finally:
            lock.close()


def _begin(folder: Path, key: str) -> None:
    mark = folder / _KEY
    if mark.is_file() and mark.read_text(encoding="utf-8") == key:
        return
    for path in folder.iterdir():
        if path.name != _LOCK:
            shutil.rmtree(path) if path.is_dir() else path.unlink()
    write_text(mark, key)


def _hold(lock: Any, target: Path) -> None:
    try:
        import fcntl
    except ImportError:  # not on Windows: two runs at once are then not told apart
        return
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        raise InputError(f"another process is writing {target}: wait for it or choose another --out") from error


def link_or_copy(source: Path, target: Path) -> None:
    """The same file in another place: a hard link where the file system has them, else a copy."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source, target)
    except OSError:
        draft = target.with_name(f".{target.name}.copy")
        shutil.copyfile(source, draft)
        os.replace(draft, target)
