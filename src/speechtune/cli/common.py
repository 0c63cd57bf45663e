"""What every verb shares: its options, how it ends, and how it fails."""

from __future__ import annotations

import contextlib
import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.core.interrupt import catch_interrupts
from speechtune.core.progress import set_quiet

Json = Annotated[bool, typer.Option("--json", help="Print exactly one JSON object on standard output.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bars and no notes.")]
Seed = Annotated[int, typer.Option("--seed", help="Seed of every random draw.")]
Out = Annotated[Path, typer.Option("--out", "-o", help="Where to write; it appears only when it is complete.")]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace --out if it exists.")]

Outcome = tuple[dict[str, Any], str]
"""What a verb returns: its JSON object, and the text a person reads."""


def verb(work: Callable[..., Outcome]) -> Callable[..., None]:
    """Make a command of a function that returns ``(json_object, text)``.

    Adds the contract every verb keeps: ``--json`` prints one object on stdout and nothing else goes
    there; exit code 0 for success, 1 when the work failed, 2 when the input is wrong; an error is one
    sentence on stderr. The function needs parameters ``as_json: Json`` and ``quiet: Quiet``.
    """

    @functools.wraps(work)
    def command(*args: Any, **kwargs: Any) -> None:
        as_json = bool(kwargs.get("as_json"))
        set_quiet(bool(kwargs.get("quiet")))
        catch_interrupts()
        try:
            with contextlib.redirect_stdout(sys.stderr):
                result, text = work(*args, **kwargs)
        except SpeechtuneError as error:
            fail(str(error), error.exit_code, as_json)
        except KeyboardInterrupt:
            fail("interrupted: nothing half-written was left; run the same command again", 130, as_json)
        except BrokenPipeError:  # the reader of a pipe has seen enough: end as other commands do, without a traceback
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            raise typer.Exit(141) from None  # 128 + SIGPIPE
        except FileNotFoundError as error:
            fail(f"{error.filename} does not exist: check the path", InputError.exit_code, as_json)
        print(json.dumps(result, ensure_ascii=False) if as_json else text)
        if result.get("exit_code"):
            raise typer.Exit(int(result["exit_code"]))

    return command


def fail(message: str, exit_code: int, as_json: bool) -> NoReturn:
    """Say the one sentence and leave with the exit code."""
    print(f"speechtune: {message}", file=sys.stderr)
    if as_json:
        print(json.dumps({"error": message, "exit_code": exit_code}, ensure_ascii=False))
    raise typer.Exit(exit_code)
