"""Work handed to processes in order, a bounded number of pieces at a time."""

from __future__ import annotations

import itertools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import connection
from typing import TypeVar

from speechtune.core.errors import SpeechtuneError

Piece = TypeVar("Piece")
Result = TypeVar("Result")

_THREAD_SETTINGS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
_AHEAD = 3  # pieces given to each worker beyond the one whose result is awaited


def in_order(work: Callable[[Piece], Result], pieces: Iterable[Piece], workers: int) -> Generator[Result, None, None]:
    """Yield ``work(piece)`` of every piece, in the order of the pieces; with one worker in this process.

    No more than a few pieces for each worker are taken from ``pieces`` in advance, so memory is bounded. Each process
    computes with one thread, and ends by itself when this one is killed.

    Raises:
        SpeechtuneError: a process was killed (most often: out of memory).
    """
    if workers <= 1:
        yield from map(work, pieces)
        return
    waiting: deque[Future[Result]] = deque()
    rest = iter(pieces)
    with _one_thread_each():
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(workers, mp_context=context, initializer=_begin)
        try:
            for piece in itertools.islice(rest, workers * _AHEAD):
                waiting.append(pool.submit(work, piece))
            while waiting:
                result = waiting.popleft().result()
                for piece in itertools.islice(rest, 1):
                    waiting.append(pool.submit(work, piece))
                yield result
        except BrokenProcessPool as error:
            raise SpeechtuneError(
                "a worker process was killed (most often the machine is out of memory): run again with fewer "
                "--workers; what was measured so far is kept"
            ) from error
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _one_thread_each() -> Iterator[None]:
    before = {name: os.environ.get(name) for name in _THREAD_SETTINGS}
    os.environ.update(dict.fromkeys(_THREAD_SETTINGS, "1"))
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _begin() -> None:
    """A worker's first act: leave interrupts to the parent, and end when it has ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)
