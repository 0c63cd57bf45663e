"""What an engine is, and how one is opened by name. A new engine is one file beside this one and one line here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Protocol

import numpy as np

from speechtune.core.errors import InputError

ENGINES = ("espeak", "piper")


class AnyVoice(Protocol):
    """A voice and how it speaks; an engine's own dataclass."""

    @property
    def name(self) -> str:
        """The speaker id in the corpus."""

    @property
    def language(self) -> str:
        """The language code."""

    def columns(self) -> dict[str, Any]:
        """What was drawn, for the corpus table."""


class Engine(Protocol):
    """Text to speech. Everything random is in the voice and the seed."""

    name: str

    def version(self) -> str:
        """Name and version, for the provenance."""

    def voices(self, language: str) -> list[str]:
        """The voices of a language, the most ordinary ones first.

        Raises:
            InputError: there is none, or the engine is not installed.
        """

    def draw_voice(self, name: str, rng: np.random.Generator) -> Any:
        """How the named voice speaks one sentence."""

    def check(self, pronunciations: Mapping[str, str], voice: str) -> None:
        """Refuse pronunciations that the engine cannot use.

        Raises:
            InputError: one of them, by name.
        """

    def speak(self, text: str, voice: Any, seed: int, pronunciations: Mapping[str, str]) -> np.ndarray:
        """float32 samples in [-1, 1], shape (samples,), 16 kHz mono; the same arguments give the same samples.

        Raises:
            InputError: nothing could be spoken.
        """


@dataclass(frozen=True, slots=True)
class EngineChoice:
    """An engine by name, with the voice model files of engines that need some."""

    name: str = "espeak"
    models: tuple[str, ...] = ()


@lru_cache(maxsize=4)
def open_engine(choice: EngineChoice) -> Engine:
    """The engine, ready to speak; one instance for each process.

    Raises:
        InputError: the name is unknown, or the engine is not installed or lacks a voice model.
    """
    if choice.name == "espeak":
        from speechtune.corpus.synthesis.espeak import Espeak

        return Espeak()
    if choice.name == "piper":
        from speechtune.corpus.synthesis.piper import Piper

        return Piper(choice.models)
    raise InputError(f"there is no engine {choice.name!r}: use {' or '.join(ENGINES)}")
