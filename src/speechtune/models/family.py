"""What speechtune must know of an architecture, and the registry of those it knows."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, replace
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch

from speechtune.audio.augment import MaskDraw
from speechtune.core.errors import InputError
from speechtune.models.config import Context
from speechtune.models.ctc_config import CTC_TYPES, CtcConfig
from speechtune.models.not_covered import reason_against
from speechtune.models.search_config import SearchConfig
from speechtune.models.trainable import Part


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
    ``inputs`` and ``targets`` (one entry fewer than ``tokens``) say what a decoder is fed and what it learns at each
    position where that is not the tokens without their last and, after the prompt, without their first; only a
    family with a ``label_format`` is given them.
    """

    waveform: np.ndarray
    tokens: list[int]
    prompt_tokens: int
    masks: MaskDraw | None = None
    inputs: list[int] | None = None
    targets: list[int] | None = None


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One decoded text: token ids without prompt and end, mean log-probability, whether the limit cut it.

    ``token_log_probs``: one for each token, where the family knows them. ``sum_log_prob``: over the tokens and the
    end. ``no_speech_prob``: that nobody speaks. ``nbest``: all hypotheses of the clip, best first, where kept.
    """

    text: str
    tokens: list[int]
    log_prob: float
    truncated: bool
    token_log_probs: list[float] | None = None
    sum_log_prob: float | None = None
    no_speech_prob: float | None = None
    nbest: tuple[Hypothesis, ...] = ()

    @classmethod
    def of_row(
        cls,
        row: Sequence[int],
        log_probs: Sequence[float],
        text: Callable[[list[int]], str],
        ends: Collection[int],
        limit: int,
        prefix: Sequence[int] = (),
        no_speech_prob: float | None = None,
    ) -> Hypothesis:
        """What a search generated for a clip: the tokens before its end, behind the prefix it was given.

        Args:
            row: the generated tokens, with whatever fills the row behind the end.
            log_probs: of each token of the row.
            text: what makes a text of tokens.
            ends: the tokens that end a text.
            limit: tokens it might take; an end beyond them does not count.
            prefix: tokens that every text begins with, whose log-probabilities are not known.
            no_speech_prob: that nobody speaks.
        """
        length = next((place for place, token in enumerate(row) if token in ends), len(row))
        ended = length < len(row) and length < limit
        counted = list(log_probs[: length + ended])
        tokens = [*prefix, *row[:length]]
        return cls(
            text=text(tokens),
            tokens=tokens,
            log_prob=sum(counted) / max(len(counted), 1),
            truncated=not ended and length >= limit,
            token_log_probs=None if prefix else counted[:length],
            sum_log_prob=sum(counted),
            no_speech_prob=no_speech_prob,
        )

    def with_nbest(self, nbest: Sequence[Hypothesis]) -> Hypothesis:
        """The same hypothesis with the list that it comes from."""
        return replace(self, nbest=tuple(nbest))


def best_of(kept: Sequence[Hypothesis], search: SearchConfig) -> Hypothesis:
    """The best of a clip's hypotheses, with the list where one is wanted; sampled ones are put into order."""
    ranked = sorted(kept, key=lambda one: -one.log_prob) if search.sample else kept
    return ranked[0].with_nbest(ranked) if search.n_best > 1 else ranked[0]


class Family(Protocol):
    """One loaded model of an architecture, and everything a room needs to train or run it."""

    name: str
    model: torch.nn.Module
    limits: Limits
    mel_bins: int
    language: str | None
    contexts: tuple[Context, ...]
    """The audio contexts it knows; only ``fit`` for a model without a fixed window."""

    def prepare(self, settings: CtcConfig, texts: Sequence[str], seed: int) -> None:
        """Make it ready to be trained on these texts (a CTC model: vocabulary and head); nothing for most."""

    def written(self, text: str) -> str:
        """What reading a label back gives: the text, in the case and characters of the model's vocabulary."""

    def refusal(self, duration_s: float, tokens: Sequence[int]) -> str | None:
        """Why the label cannot be learnt from so much audio, beyond `limits`; ``None`` if it can."""

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
        """The names of the linear layers that play the given roles (``attention``, ``mlp``, ``encoder_mlp``, …).

        Raises:
            InputError: a role is unknown; the sentence names those there are.
        """

    def parts(self) -> list[Part]:
        """Every weight's part, from the sound to the text: what freezing and learning rates go by."""

    def part(self, name: str) -> torch.nn.Module:
        """The module of a side (``encoder``, ``decoder``)."""

    def regularise(self, dropout: float | None, label_smoothing: float) -> None:
        """Set what is active in training mode only: dropout of the blocks (``None``: as loaded), label smoothing."""

    def save(self, directory: Path) -> None:
        """Write a plain Hugging Face model directory."""


def pick_device() -> str:
    """``cuda`` where there is one (under torchrun, this process's), else ``cpu``."""
    return f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"


FAMILIES = {
    "whisper": "speechtune.models.whisper:WhisperFamily",
    **dict.fromkeys(("ctc", *CTC_TYPES), "speechtune.models.ctc:CtcFamily"),
    "qwen3_asr": "speechtune.models.qwen3_asr:Qwen3AsrFamily",
    "moonshine": "speechtune.models.moonshine:MoonshineFamily",
    **dict.fromkeys(("parakeet_tdt", "parakeet_rnnt"), "speechtune.models.parakeet:ParakeetFamily"),
    "canary": "speechtune.models.canary:CanaryFamily",
    "granite_speech": "speechtune.models.granite_speech:GraniteSpeechFamily",
    "voxtral": "speechtune.models.voxtral:VoxtralFamily",
}
"""The class of each ``model_type``."""


def load_family(
    path: Path, *, family: str | None = None, language: str | None = None, device: str | None = None
) -> Family:
    """Load a model directory with the family that fits its ``config.json``, on `pick_device` unless told otherwise.

    Weights are float32 on every device: mixed precision is the business of autocast. An adapter directory is loaded
    with its base, merged.

    Raises:
        InputError: not a model directory, or an architecture no family covers.
    """
    if (path / "adapter_config.json").is_file() and not (path / "config.json").is_file():
        from speechtune.models.adapters import load_adapted

        return load_adapted(path, language=language, device=device)
    name = family or family_of(path)
    if name == "owsm":
        from speechtune.models.owsm_family import OwsmFamily

        return cast(Family, OwsmFamily.load(path, language=language, device=device or pick_device()))
    if name not in FAMILIES:
        reason = reason_against(name)
        if reason:
            raise InputError(f"{path} cannot be loaded: {reason}")
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
    """The ``model_type`` of a model directory; ``owsm`` for a checkpoint of ESPnet.

    Raises:
        InputError: there is no readable ``config.json``.
    """
    config = path / "config.json"
    try:
        return str(json.loads(config.read_text(encoding="utf-8"))["model_type"])
    except FileNotFoundError as error:
        from speechtune.models.owsm import is_checkpoint

        if is_checkpoint(path):
            return "owsm"
        raise InputError(f"{path} is not a model directory (no config.json): see speechtune models list") from error
    except (json.JSONDecodeError, KeyError) as error:
        raise InputError(f"{config} names no model_type: it is not a Transformers configuration") from error
