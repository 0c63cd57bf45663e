"""Writing files so that a reader never sees half of one.

Everything is written beside its target under a temporary name, flushed to the disk, and renamed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, explain_write_errors


def write_text(path: Path, text: str) -> None:
    """Write ``text`` (UTF-8) to ``path`` atomically."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as stream:
                stream.write(text)
                stream.flush()
                os.fsync(stream.fileno())
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise


def write_json(path: Path, value: Any) -> None:
    """Write ``value`` as indented JSON, atomically."""
    write_text(path, json.dumps(value, ensure_ascii=False, indent=2) + "\n")


def write_jsonl(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write one JSON object a line, atomically."""
    write_text(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Raises:
        InputError: the file is missing or is not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise InputError(f"{path} is not valid JSON ({error}): repair or regenerate it") from error


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Read one JSON object a line; blank lines are passed over.

    Raises:
        InputError: the file is missing, or a line is not a JSON object (its number is named).
    """
    return [row for _, row in iterate_jsonl(path)]


def iterate_jsonl(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each row of a JSONL file with the number of its line, read as they are asked for; blank lines are passed over.

    Raises:
        InputError: the file is missing, or a line is not a JSON object (its number is named).
    """
    try:
        # Lines end at a line feed alone: U+2028 may stand inside a text.
        with path.open(encoding="utf-8-sig", newline="\n") as lines:
            for number, line in enumerate(lines, start=1):
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except json.JSONDecodeError as error:
                    raise InputError(
                        f"{path} line {number} is not valid JSON ({error.msg}): repair that line"
                    ) from error
                if not isinstance(row, dict):
                    raise InputError(f"{path} line {number} is not a JSON object: each line must be {{...}}")
                yield number, row
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a directory: give a JSONL file") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error


@contextmanager
def new_directory(target: Path, overwrite: bool = False) -> Iterator[Path]:
    """Build a directory under a temporary name; it becomes ``target`` only if the block succeeds.

    Args:
        target: the directory to make. It may exist if it is empty, or if ``overwrite`` is set.
        overwrite: replace an existing directory, after the new one is complete.

    Raises:
        InputError: ``target`` exists and is not empty, or cannot be written, or the disk is full.
    """
    if target.exists() and not target.is_dir():
        raise InputError(f"{target} is a file: choose another --out")
    if target.is_dir() and any(target.iterdir()) and not overwrite:
        raise InputError(f"{target} exists and is not empty: choose another --out or add --overwrite")
    with explain_write_errors(target):
        target.parent.mkdir(parents=True, exist_ok=True)
        _sweep(target)
        draft = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.draft-{os.getpid()}-"))
        os.chmod(draft, 0o755)
        try:
            yield draft
            replace_directory(draft, target)
        except BaseException:
            shutil.rmtree(draft, ignore_errors=True)
            raise


def replace_directory(draft: Path, target: Path) -> None:
    """Rename ``draft`` to ``target``, removing what stood there only after the rename is prepared."""
    if target.exists():
        old = Path(tempfile.mkdtemp(dir=target.parent, prefix=f".{target.name}.draft-{os.getpid()}-"))
        os.rmdir(old)
        os.rename(target, old)
        os.rename(draft, target)
        shutil.rmtree(old, ignore_errors=True)
    else:
        os.rename(draft, target)


def _sweep(target: Path) -> None:
    """Remove the drafts that killed processes left beside ``target``."""
    prefix = f".{target.name}.draft-"
    for path in target.parent.glob(f"{glob.escape(prefix)}*"):
        owner = path.name.removeprefix(prefix).split("-")[0]
        if owner.isdigit() and not _alive(int(owner)):
            shutil.rmtree(path, ignore_errors=True)


def _alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file's bytes."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
