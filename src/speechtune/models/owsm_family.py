"""An OWSM checkpoint behind the `Family` protocol, as far as it goes, through the ESPnet process of `OwsmWorker`.

It transcribes, and says what `speechtune.training.elsewhere` asks of a model that it trains.
"""

from __future__ import annotations

import atexit
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import NoReturn

import numpy as np
import torch

from speechtune.audio.mel import FRAMES_PER_SECOND
from speechtune.core.errors import InputError
from speechtune.corpus.language_codes import short_code
from speechtune.models.config import Context
from speechtune.models.family import Hypothesis, Limits
from speechtune.models.owsm import OwsmWorker


class OwsmIsElsewhereError(InputError, AttributeError):
    """Something was asked of an OWSM model that only a model inside this process has."""


class OwsmFamily:
    """A loaded OWSM model; the weights are in the other process and end with this one.

    ``limits``: what the checkpoint takes at once (30 s), whatever the tokens. ``model`` counts parameters, holds none.
    ``code`` and ``task`` are what the prompt says: ``en`` is ``eng`` and ``asr``; ``en:de`` is ``eng`` and ``st_deu``,
    English speech written in German. ``language`` is that of the text, as it is given.
    """

    name = "owsm"
    contexts: tuple[Context, ...] = ("fit",)
    mel_bins = 80

    def __init__(self, worker: OwsmWorker, language: str | None, device: str = "cpu") -> None:
        self.worker = worker
        self.device = device
        self.limits = Limits(float(worker.about.get("longest_s", 30.0)), 1024)
        self.model: torch.nn.Module = torch.nn.Module()  # stands for weights that are elsewhere
        self.model.elsewhere = torch.nn.Parameter(torch.empty(int(worker.about["parameters"]), device="meta"))
        spoken, _, written = (language or "").partition(":")
        self.language = written or language
        self.code = None if language is None else self._code(spoken)
        self.task = self._task(written) if written else "asr"

    @classmethod
    def load(cls, path: Path, *, language: str | None = None, device: str = "cpu") -> OwsmFamily:
        """Start the ESPnet process with a checkpoint.

        Raises:
            InputError: there is no environment with ESPnet, or the checkpoint does not load or lacks the language.
        """
        worker = OwsmWorker(path, device=device)
        atexit.register(worker.close)
        try:
            return cls(worker, language, device)
        except BaseException:
            worker.close()
            raise

    def __getattr__(self, name: str) -> NoReturn:
        if name.startswith("__"):
            raise AttributeError(name)
        raise OwsmIsElsewhereError(
            f"an OWSM model is in ESPnet's process and has no {name} here: it transcribes, is evaluated and is trained "
            "(docs/models.md)"
        )

    def _code(self, language: str) -> str:
        """The three letters that the checkpoint knows a language by: ``en`` finds ``eng``."""
        known = self.worker.about["languages"]
        fitting = [language] if language in known else [one for one in known if short_code(one) == short_code(language)]
        if not fitting:
            listed = ", ".join(sorted(known)[:12])
            raise InputError(f"this OWSM model has no language {language!r}: it has {listed}, …")
        return str(fitting[0])

    def _task(self, written: str) -> str:
        """The task that writes in a language: ``de`` finds ``st_deu``."""
        known = {one.removeprefix("st_"): one for one in self.worker.about["tasks"] if one.startswith("st_")}
        fitting = [one for code, one in known.items() if written == code or short_code(code) == short_code(written)]
        if not fitting:
            listed = ", ".join(sorted(known)[:12]) or "none"
            raise InputError(f"this OWSM model does not translate into {written!r}: it knows {listed}")
        return fitting[0]

    def prompt(self) -> tuple[str, str]:
        """The language and the task of the prompt.

        Raises:
            InputError: no language was given.
        """
        if self.code is None:
            known = ", ".join(sorted(self.worker.about["languages"])[:12])
            raise InputError(
                f"an OWSM model needs a language: set --language (in a recipe model.language), as in en (it knows "
                f"{known}, …)"
            )
        return self.code, self.task

    def tokens(self, text: str) -> tuple[list[int], int]:
        """The tokens of a text and an end, none of them prompt: ESPnet's process adds language and task."""
        return [*self.worker.tokens([text])[0], -1], 0

    def text(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`."""
        return self.worker.text([one for one in tokens if one >= 0])

    def refusal(self, duration_s: float, tokens: Sequence[int]) -> str | None:
        """OWSM-CTC must have a frame for every token, and one more between two that are the same."""
        frames = self.worker.about.get("ctc_frames")
        needed = 1 + len(tokens) + sum(one == other for one, other in pairwise(tokens))  # with language and task
        if frames is None or needed <= frames:
            return None
        return f"has more tokens than CTC can place, {needed} (the model has {frames} frames)"

    def context_frames(self, seconds: float, context: Context = "fit") -> int:
        """Frames of 10 ms for ``seconds``; ESPnet pads every clip to the model's window by itself."""
        return math.ceil(seconds * FRAMES_PER_SECOND)

    def generate(
        self, waveforms: Sequence[np.ndarray], n_frames: int, max_new_tokens: int, beams: int = 1
    ) -> list[Hypothesis]:
        """What ESPnet's search writes for each clip; token ids stay in the other process.

        Raises:
            InputError: no language was given, or beams for OWSM-CTC.
        """
        language, task = self.prompt()
        if beams > 1 and self.worker.about.get("ctc"):
            raise InputError(f"OWSM-CTC is decoded greedily and {beams} beams are asked for: set --beams 1")
        rows = self.worker.recognise(waveforms, language, task, beams)
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
