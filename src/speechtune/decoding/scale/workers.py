"""Groups of clips decoded in this process or in several, one bad clip at the price of its own line only."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.core.progress import is_quiet, set_quiet
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.scale.output import Row
from speechtune.decoding.sources import OpenedModel, open_model

FAILED = "failed"
"""The flag of a line whose input could not be transcribed; its ``error`` says why."""


@dataclass(frozen=True, slots=True)
class Opening:
    """The arguments of `open_model`, for every process that decodes."""

    name: str
    options: dict[str, Any] = field(default_factory=dict)

    def open(self) -> OpenedModel:
        """Load the model, with the guards that transcribing has."""
        from speechtune.decoding.guards import for_transcribing

        opened = open_model(self.name, **self.options)
        return replace(opened, decoding=for_transcribing(opened.decoding))


Group = list[tuple[int, Utterance]]
"""Clips of similar length, each with its place in the chunk."""


class Here:
    """Decodes in this process."""

    def __init__(self, opened: OpenedModel) -> None:
        self.opened = opened

    def decode(self, root: Path, groups: Sequence[Group]) -> Iterator[list[tuple[int, Row]]]:
        """The rows of each group, as they are made."""
        for group in groups:
            quiet = is_quiet()
            set_quiet(True)  # one bar for everything, not one for each group
            try:
                yield decode_group(self.opened, root, group)
            finally:
                set_quiet(quiet)

    def close(self) -> None:
        """Nothing to end."""


class Workers:
    """Decodes in processes of their own, each with its model; on several GPUs they take turns."""

    def __init__(self, opening: Opening, count: int) -> None:
        context = multiprocessing.get_context("spawn")
        cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        before = os.environ.get("OMP_NUM_THREADS")
        os.environ["OMP_NUM_THREADS"] = before or str(max(1, cores // count))
        try:
            self.pool = ProcessPoolExecutor(
                count, mp_context=context, initializer=_start, initargs=(opening, context.Value("i", 0))
            )
            self.count = count
            for _ in [self.pool.submit(os.getpid) for _ in range(count)]:
                pass  # every process is started while the variable is set
        finally:
            if before is None:
                del os.environ["OMP_NUM_THREADS"]

    def decode(self, root: Path, groups: Sequence[Group]) -> Iterator[list[tuple[int, Row]]]:
        """The rows of each group, as they are made, in whatever order.

        Raises:
            SpeechtuneError: a process ended (killed, or out of memory).
        """
        waiting = list(reversed(groups))
        running: set[Future[list[tuple[int, Row]]]] = set()
        try:
            while waiting or running:
                while waiting and len(running) < 2 * self.count:
                    running.add(self.pool.submit(_work, root, waiting.pop()))
                done, running = wait(running, return_when=FIRST_COMPLETED)
                for one in done:
                    yield one.result()
        except BrokenProcessPool as error:
            raise SpeechtuneError(
                "a worker process ended before its time (out of memory?): what was finished is kept, so run the same "
                "command again, with fewer --workers or a smaller --batch-size"
            ) from error

    def close(self) -> None:
        """End the processes, whatever they do."""
        processes = list((getattr(self.pool, "_processes", None) or {}).values())
        self.pool.shutdown(wait=False, cancel_futures=True)
        for process in processes:
            process.terminate()


_opened: OpenedModel | None = None


def _start(opening: Opening, started: Any) -> None:
    """Begin a worker: it leaves interrupts to its parent, and ends when the parent does."""
    global _opened
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()
    set_quiet(True)
    import torch

    if os.environ.get("OMP_NUM_THREADS", "").isdigit():
        torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    with started.get_lock():
        number = started.value
        started.value += 1
    if torch.cuda.is_available():
        os.environ["LOCAL_RANK"] = str(number % torch.cuda.device_count())
    _opened = opening.open()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def _work(root: Path, group: Group) -> list[tuple[int, Row]]:
    assert _opened is not None
    return decode_group(_opened, root, group)


def decode_group(opened: OpenedModel, root: Path, group: Group) -> list[tuple[int, Row]]:
    """The rows of a group; if it fails as a whole, clip by clip, and what fails then gets an empty, flagged line."""
    try:
        return _decode(opened, root, group)
    except Exception as error:
        if len(group) > 1:
            return [row for one in group for row in decode_group(opened, root, [one])]
        place, utterance = group[0]
        return [(place, failed_row(utterance.utterance_id, f"{error}" or type(error).__name__))]


def failed_row(utterance_id: str, reason: str) -> Row:
    """The line of an input that could not be transcribed."""
    return {"utterance_id": utterance_id, "text": "", "flags": [FAILED], "error": " ".join(reason.split())[:300]}


def _decode(opened: OpenedModel, root: Path, group: Group) -> list[tuple[int, Row]]:
    from speechtune.decoding.long.transcribing import transcribe_all

    for _, utterance in group:
        if not utterance.duration_s > 0:
            raise InputError(f"{utterance.file_name} holds no audio: check the file")
    corpus = Corpus(root, [replace(one, utterance_id=str(place)) for place, one in group])  # ids may occur twice
    rows = []
    for (place, utterance), one in zip(group, transcribe_all(opened.family, corpus, opened.decoding), strict=True):
        one.utterance_id = utterance.utterance_id
        known = {name: value for name, value in asdict(one).items() if name == "text" or value not in (None, [])}
        rows.append((place, {**known, "duration_s": round(utterance.duration_s, 3)}))
    return rows
