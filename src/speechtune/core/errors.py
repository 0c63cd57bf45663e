"""The two kinds of failure a user can meet, and the exit code each one has.

A message is one sentence that says what is wrong, where (file and row or key), and what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


class SpeechtuneError(Exception):
    """The work failed although the input was usable. Exit code 1."""

    exit_code = 1


class InputError(SpeechtuneError):
    """What the user gave cannot be used: a file, a row, a key, a path, a full disk. Exit code 2."""

    exit_code = 2


def missing_extra(package: str, extra: str) -> SpeechtuneError:
    """The error for a heavy library that is not installed; ``extra`` is the pip extra that brings it."""
    return InputError(f"{package} is not installed: run pip install 'speechtune[{extra}]' and try again")


@contextmanager
def explain_write_errors(target: Path) -> Iterator[None]:
    """Turn an operating-system error while writing below ``target`` into one sentence.

    Raises:
        InputError: the disk is full, or the place cannot be written to.
    """
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise _full(target) from error
        if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.EISDIR):
            raise InputError(
                f"cannot write {target} ({error.strerror}): choose an --out that you may write to"
            ) from error
        raise
    except SpeechtuneError:
        raise
    except Exception as error:
        # torch and safetensors report a failed write as their own kind of error.
        if "No space left" in str(error) or "failed writing file" in str(error):
            raise _full(target) from error
        raise


def _full(target: Path) -> InputError:
    return InputError(
        f"the disk is full while writing {target}: free some space or choose another --out, then run again"
    )
