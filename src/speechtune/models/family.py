"""What speechtune must know of an architecture, and the registry of those it knows."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from speechtune.audio.augment import MaskDraw
from speechtune.core.errors import InputError
from speechtune.models.config import Context


@dataclass(frozen=True, slots=True)
class Limits:
    """What one training example may be: seconds of audio, and label tokens with the prompt included."""

    max_audio_s: float
    max_label_tokens: int


@dataclass(frozen=True, slots=True)
class Example:
    """One training example before collation.

    ``waveform``: float32 mono 16 kHz. ``tokens``: prompt, text and end token. The first
    ``prompt_tokens`` of them are given, never trained. ``masks``: the SpecAugment stripes of its features.
    """

    waveform: np.ndarray
    tokens: list[int]
    prompt_tokens: int
    masks: MaskDraw | None = None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One decoded text: token ids without prompt and end, mean log-probability, whether the limit cut it."""

    text: str
    tokens: list[int]
    log_prob: float
    truncated: bool


class Family(Protocol):
    """One loaded model of an architecture, and everything a room needs to train or run it."""

    name: str
    model: torch.nn.Module
    limits: Limits
    mel_bins: int
    language: str | None

    def tokens(self, text: str) -> tuple[list[int], int]:
        """Token ids of a training label (prompt + text + end), and how many of them are prompt."""

    def text(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""

    def context_frames(self, seconds: float, context: Context = "fit") -> int:
        """The feature frames the model is given for ``seconds`` of audio."""

    def collate(self, examples: Sequence[Example], n_frames: int) -> dict[str, torch.Tensor]:
        """The keyword arguments of the model's forward for a batch at one audio context.

        ``labels`` holds -100 wherever nothing is to be learnt. Given ``num_items_in_batch``, the
        model returns the summed cross-entropy over its labels divided by that number.
        """

    def generate(
        self, waveforms: Sequence[np.ndarray], n_frames: int, max_new_tokens: int, beams: int = 1
    ) -> list[Hypothesis]:
        """Decode a batch at one audio context: greedily, or by beam search with ``beams`` hypotheses a clip."""

    def adapter_targets(self, roles: Sequence[str]) -> list[str]:
        """The names of the linear layers that play the given roles."""

    def part(self, name: str) -> torch.nn.Module:
        """A named part (``encoder``, ``decoder``) for freezing and learning rates."""

    def regularise(self, dropout: float | None, label_smoothing: float) -> None:
        """Set what is active in training mode only: dropout of the blocks (``None``: as loaded), label smoothing."""

    def save(self, directory: Path) -> None:
        """Write a plain Hugging Face model directory."""


def pick_device() -> str:
    """``cuda`` where there is one (under torchrun, this process's), else ``cpu``."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


FAMILIES = {"whisper": "speechtune.models.whisper:WhisperFamily"}


def load_family(
    path: Path, *, family: str | None = None, language: str | None = None, device: str | None = None
) -> Family:
    """Load a model directory with the family that fits its ``config.json``, on `pick_device` unless told otherwise.

    Weights are float32 on every device: mixed precision is the business of autocast.

    Raises:
        InputError: not a model directory, or an architecture no family covers.
    """
    name = family or family_of(path)
    if name not in FAMILIES:
        raise InputError(f"{path} is of family {name!r}, which is not known here: use one of {', '.join(FAMILIES)}")
    module, attribute = FAMILIES[name].split(":")
    _no_chatter()
    loader: Any = getattr(import_module(module), attribute)
    return loader.load(path, language=language, device=device or pick_device())


def _no_chatter() -> None:
    """Transformers warns about settings that are as intended, at every batch; its errors still come through."""
    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()


def family_of(path: Path) -> str:
    """The ``model_type`` of a model directory.

    Raises:
        InputError: there is no readable ``config.json``.
    """
    config = path / "config.json"
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["model_type"])
    except FileNotFoundError as error:
        raise InputError(f"{path} is not a model directory (no config.json): see speechtune models list") from error
    except (json.JSONDecodeError, KeyError) as error:
        raise InputError(f"{config} names no model_type: it is not a Transformers configuration") from error
