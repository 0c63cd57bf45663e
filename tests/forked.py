"""Commands in processes of their own that do not import everything anew: they are forked from one that has.

The one that they are forked from (multiprocessing's fork server) only imports; it never computes, so a fork of it is
as good as a new process.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

PRELOADED = ["forked", "peft", "speechtune.models.whisper", "speechtune.training.run", "speechtune.report.run_report"]


class Started:
    """A command that runs: ``wait`` for its exit code (minus the signal that ended it), then see ``stderr``."""

    def __init__(self, words: Sequence[Any], hook: str = "") -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        handle, name = tempfile.mkstemp(prefix="speechtune-test-")
        os.close(handle)
        self._log = Path(name)
        self._process: Any = context.Process(target=_carry_out, args=([str(word) for word in words], hook, name))
        self._process.start()

    @property
    def pid(self) -> int:
        """Of the command's own process."""
        return int(self._process.pid)

    def wait(self) -> int:
        """The exit code."""
        self._process.join()
        return int(self._process.exitcode)

    def stderr(self) -> str:
        """What it wrote to both streams."""
        return self._log.read_text(encoding="utf-8", errors="replace")


def _carry_out(words: list[str], hook: str, log: str) -> None:
    signal.signal(signal.SIGINT, signal.default_int_handler)
    stream = os.open(log, os.O_WRONLY | os.O_TRUNC)
    os.dup2(stream, 1)
    os.dup2(stream, 2)
    sys.argv = ["speechtune", *words]
    exec(hook, {"os": os, "signal": signal, "sys": sys})
    from speechtune.cli.app import main

    main()
