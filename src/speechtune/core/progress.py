"""One progress bar with an ETA, on stderr, for every long task."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Sized
from types import TracebackType
from typing import Any, TypeVar

from speechtune.core.interrupt import stop_if_asked

T = TypeVar("T")

_quiet = False


def set_quiet(quiet: bool) -> None:
    """Silence every progress bar and note of this process (the ``--quiet`` option)."""
    global _quiet
    _quiet = quiet


def is_quiet() -> bool:
    """Whether `set_quiet` has silenced this process."""
    return _quiet


def note(message: str) -> None:
    """Tell the user one thing, on stderr, unless ``--quiet`` was given."""
    if not _quiet:
        print(message, file=sys.stderr, flush=True)


def track(items: Iterable[T], title: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items`` under a progress bar with an ETA."""
    if total is None and isinstance(items, Sized):
        total = len(items)
    with Bar(title, total) as bar:
        for item in items:
            yield item
            bar.advance()


class Bar:
    """A progress bar to advance by hand.

    On a terminal it is drawn in place; elsewhere (a log file, CI) a line is written at most every ten
    seconds, so that logs stay readable.
    """

    def __init__(self, title: str, total: int | None, done: int = 0) -> None:
        self.title = title
        self.total = total
        self.done = done
        self._start_done = done
        self._drawn: Any = None

    def __enter__(self) -> Bar:
        self._start_s = self._last_s = time.monotonic()
        if not _quiet and sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._drawn = Progress(*columns, console=Console(stderr=True), transient=True)
            self._task = self._drawn.add_task(self.title, total=self.total, completed=self.done)
            self._drawn.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._drawn is not None:
            self._drawn.stop()

    def advance(self, done: int | None = None, detail: str = "") -> None:
        """One item more is done, or ``done`` items in all; ``detail`` is shown behind the title."""
        stop_if_asked()
        self.done = self.done + 1 if done is None else done
        if self._drawn is not None:
            self._drawn.update(self._task, completed=self.done, description=f"{self.title} {detail}".strip())
        elif not _quiet and self.total:
            self._line(detail)

    def _line(self, detail: str, every_s: float = 10.0) -> None:
        now_s = time.monotonic()
        if now_s - self._last_s < every_s or self.total is None:
            return
        self._last_s = now_s
        rate = (self.done - self._start_done) / (now_s - self._start_s)
        left = f", {(self.total - self.done) / rate:.0f} s left" if rate else ""
        print(f"{self.title}: {self.done}/{self.total}{left} {detail}".rstrip(), file=sys.stderr, flush=True)
