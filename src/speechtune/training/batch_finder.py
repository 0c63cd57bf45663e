"""Running out of memory is answered by smaller micro-batches of the same optimiser step."""

from __future__ import annotations

import gc
import itertools
import math
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from speechtune.core.errors import SpeechtuneError
from speechtune.core.files import read_json, write_json
from speechtune.core.progress import note
from speechtune.training.processes import world_size

Batch = dict[str, Any]
Backward = Callable[[Batch, bool], torch.Tensor]
"""From a micro-batch, and whether the processes exchange their gradients after it, to its loss (already summed up)."""


def record_name() -> str:
    """The file of a run that says what this process cut."""
    rank = os.environ.get("RANK", "0")
    return "batch_finder.json" if rank == "0" else f"batch_finder.{rank}.json"


class OutOfMemoryError(SpeechtuneError):
    """No micro-batch is small enough. Exit code 1."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory (the processor's or an accelerator's) could not be had."""
    from accelerate.utils.memory import should_reduce_batch_size

    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and should_reduce_batch_size(error)


class BatchFinder:
    """Cuts micro-batches that do not fit, and does the step again with the same utterances.

    A step's loss is a sum over its labels divided by their number in the whole step, so cutting changes neither it nor
    the gradient (beyond rounding; dropout draws other units). What did not fit once is cut from then on. Every
    cut is written to the record, which a resumed run reads, so that it cuts at the same steps.

    Args:
        record: where cuts are written; ``None``: nowhere.
    """

    def __init__(self, record: Path | None = None) -> None:
        self.record = record
        self.cuts: list[dict[str, Any]] = read_json(record)["cuts"] if record and record.is_file() else []
        self._step = -1
        self._batches: list[Batch] = []
        self._done = 0
        self._random: Any = None
        self._trying: Batch = {}

    def begin(self, step: int, batches: list[Batch]) -> None:
        """Remember the micro-batches of an optimiser step, and the random state it begins with."""
        self._step, self._batches, self._done, self._random = step, batches, 0, _random_state()

    def limit(self, step: int) -> float:
        """The most elements a micro-batch may have in this step."""
        return min((cut["elements"] for cut in self.cuts if cut["step"] <= step), default=math.inf)

    def start_with(self, utterances: int, of: int, elements: float) -> None:
        """Begin with micro-batches of ``elements`` elements at most: an estimate says that more will not fit."""
        if elements < self.limit(0):
            self._keep({"step": 0, "utterances": of, "becomes": utterances, "elements": elements, "why": "estimate"})

    def run(self, inputs: Batch | list[Batch], backward: Backward, clear: Callable[[], None]) -> torch.Tensor:
        """Carry ``inputs`` (the next micro-batch of the step, or all of them) through the backward pass.

        Args:
            inputs: collated micro-batches.
            backward: one micro-batch forward and backward.
            clear: forget the gradients of this step.

        Returns:
            The loss of ``inputs``.

        Raises:
            OutOfMemoryError: one utterance alone does not fit, or another process would wait for this one for ever.
        """
        now = inputs if isinstance(inputs, list) else [inputs]
        known = self._done + len(now) <= len(self._batches) and self._batches[self._done] is now[0]
        earlier = self._batches[: self._done] if known else []
        last = not known or self._done + len(now) == len(self._batches)
        redo = False
        while True:
            try:
                if redo:
                    self._through(earlier, backward, False)
                loss = self._through(now, backward, last)
                break
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or not known:
                    raise
            # Outside the except block: the traceback held the tensors of the failed attempt.
            self._cut()
            redo = True
            clear()
            _free()
            _set_random_state(self._random)
        if known:
            self._done += len(now)
        return loss

    def _through(self, batches: list[Batch], backward: Backward, last: bool) -> torch.Tensor:
        total = torch.zeros(())
        for number, batch in enumerate(batches):
            parts = cut(batch, self.limit(self._step))
            for place, part in enumerate(parts):
                self._trying = part
                final = last and number == len(batches) - 1 and place == len(parts) - 1
                loss = backward(part, final)
                total = loss if number == place == 0 else total + loss
        return total

    def _cut(self) -> None:
        rows = rows_of(self._trying)
        where = f"out of memory in optimiser step {self._step + 1}"
        if world_size() > 1:
            raise OutOfMemoryError(
                f"{where} with {rows} utterances in a micro-batch, and the others cannot be called back: lower "
                "training.batch.seconds (training.batch.effective keeps the step as it is) and add --resume"
            )
        if rows == 1:
            raise OutOfMemoryError(
                f"{where} with a single utterance: leave out long ones (data.where=['duration_s<=20']), set "
                "training.gradient_checkpointing=true, or take a smaller model"
            )
        half = -(-rows // 2)
        self._keep(
            {
                "step": self._step,
                "utterances": rows,
                "becomes": half,
                "elements": half * elements_of(self._trying) / rows,
                "why": "out of memory",
            }
        )
        note(
            f"{where} with {rows} utterances in a micro-batch: the step is done again with at most {half}, as later "
            "ones of that length; the effective batch stays the same"
        )

    def _keep(self, event: dict[str, Any]) -> None:
        self.cuts.append(event)
        if self.record is not None:
            write_json(self.record, {"cuts": self.cuts})


def rows_of(batch: Batch) -> int:
    """Utterances in a collated micro-batch."""
    return int(batch["labels"].shape[0])


def elements_of(batch: Batch) -> int:
    """Elements of its largest tensor, which grow with utterances and length alike."""
    return max(value.numel() for value in batch.values() if isinstance(value, torch.Tensor))


def cut(batch: Batch, elements: float) -> list[Batch]:
    """A micro-batch in parts of at most so many elements, each of whole utterances; padding is not changed."""
    rows = rows_of(batch)
    if elements_of(batch) <= elements or rows == 1:
        return [batch]
    most = max(1, int(elements // (elements_of(batch) / rows)))
    parts = -(-rows // most)
    ends = [round(rows * part / parts) for part in range(parts + 1)]
    return [
        {
            name: value[start:end] if hasattr(value, "__len__") and len(value) == rows else value
            for name, value in batch.items()
        }
        for start, end in itertools.pairwise(ends)
    ]


def _random_state() -> tuple[Any, ...]:
    cuda = torch.cuda.get_rng_state() if torch.cuda.is_available() else None
    return random.getstate(), np.random.get_state(), torch.get_rng_state(), cuda


def _set_random_state(state: tuple[Any, ...]) -> None:
    random.setstate(state[0])
    np.random.set_state(state[1])
    torch.set_rng_state(state[2])
    if state[3] is not None:
        torch.cuda.set_rng_state(state[3])


def _free() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
