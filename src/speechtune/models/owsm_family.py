"""An OWSM checkpoint that transcribes behind the `Family` protocol, through the ESPnet process of `OwsmWorker`."""

from __future__ import annotations

import atexit
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from speechtune.audio.mel import FRAMES_PER_SECOND
from speechtune.core.errors import InputError
from speechtune.corpus.language_codes import short_code
from speechtune.models.config import Context
from speechtune.models.family import Hypothesis, Limits
from speechtune.models.owsm import OwsmWorker

TRAIN = (
    "OWSM is not trained by a recipe: its low-rank updates are trained from Python by "
    "speechtune.models.owsm.OwsmWorker.train_lora (docs/models.md)"
)


class OwsmOnlyTranscribesError(InputError, AttributeError):
    """Something was asked of an OWSM model that only a model inside this process has."""


class OwsmFamily:
    """A loaded OWSM model; the weights are in the other process and end with this one.

    ``limits``: what the checkpoint takes at once (30 s), whatever the tokens. ``model`` counts parameters, holds none.
    """

    name = "owsm"
    contexts: tuple[Context, ...] = ("fit",)
    mel_bins = 80

    def __init__(self, worker: OwsmWorker, language: str | None) -> None:
        self.worker = worker
        self.language = language
        self.limits = Limits(float(worker.about.get("longest_s", 30.0)), 1024)
        self.model: torch.nn.Module = torch.nn.Module()  # stands for weights that are elsewhere
        self.model.elsewhere = torch.nn.Parameter(torch.empty(int(worker.about["parameters"]), device="meta"))
        self.code = None if language is None else self._code(language)

    @classmethod
    def load(cls, path: Path, *, language: str | None = None, device: str = "cpu") -> OwsmFamily:
        """Start the ESPnet process with a checkpoint.

        Raises:
            InputError: there is no environment with ESPnet, or the checkpoint does not load or lacks the language.
        """
        worker = OwsmWorker(path, device=device)
        atexit.register(worker.close)
        try:
            return cls(worker, language)
        except BaseException:
            worker.close()
            raise

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise OwsmOnlyTranscribesError(f"an OWSM model can only transcribe (it has no {name}): {TRAIN}")

    def _code(self, language: str) -> str:
        """The three letters that the checkpoint knows a language by: ``en`` finds ``eng``."""
        known = self.worker.about["languages"]
        fitting = [language] if language in known else [one for one in known if short_code(one) == short_code(language)]
        if not fitting:
            listed = ", ".join(sorted(known)[:12])
            raise InputError(f"this OWSM model has no language {language!r}: it has {listed}, …")
        return str(fitting[0])

    def prepare(self, settings: Any, texts: Sequence[str], seed: int) -> NoReturn:
        """Refuse to be trained.

        Raises:
            InputError: always.
        """
        raise InputError(TRAIN)

    def context_frames(self, seconds: float, context: Context = "fit") -> int:
        """Frames of 10 ms for ``seconds``; ESPnet pads every clip to the model's window by itself."""
        return math.ceil(seconds * FRAMES_PER_SECOND)

    def generate(
        self, waveforms: Sequence[np.ndarray], n_frames: int, max_new_tokens: int, beams: int = 1
    ) -> list[Hypothesis]:
        """What ESPnet's search writes for each clip; token ids stay in the other process.

        Raises:
            InputError: no language was given.
        """
        if self.code is None:
            known = ", ".join(sorted(self.worker.about["languages"])[:12])
            raise InputError(f"an OWSM model needs a language: set --language, as in en (it knows {known}, …)")
        rows = self.worker.recognise(waveforms, self.code, beams=beams)
        return [
            Hypothesis(
                text=row["text"],
                tokens=[],
                log_prob=(row["score"] or 0.0) / max(int(row["tokens"]), 1),
                truncated=False,
                sum_log_prob=row["score"],
            )
            for row in rows
        ]
