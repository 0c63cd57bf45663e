"""Speech that a program understands: words are levels, so that a few lines hear exactly what is said."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np

from speechtune.audio.vad import FRAME_SAMPLES
from speechtune.decoding.streaming.recogniser import Recognised

WORD, GAP = 6_400, 1_600
"""Samples of a word and of the silence behind it: two words a second."""


def spoken(words: Sequence[int], pause_samples: int = 0) -> np.ndarray:
    """Words as noise of a level of their own (``0``: half a second of silence), and a pause behind them all."""
    pieces = [np.concatenate([np.full(WORD, word / 1000), np.zeros(GAP)]) for word in words]
    signs = np.where(np.arange(len(pieces) * (WORD + GAP)) % 2, 1.0, -1.0)
    return np.concatenate([np.concatenate(pieces) * signs, np.zeros(pause_samples)]).astype(np.float32)


def understood(waveform: np.ndarray) -> list[str]:
    """The words of a waveform; one that it cuts is heard as another word, by what is there of it."""
    levels = np.rint(np.abs(waveform) * 1000).astype(int)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], levels, [0]])))
    found = []
    for first, last in pairwise(edges):
        if levels[first]:
            found.append(f"w{levels[first]}" if last - first == WORD else f"cut{last - first}")
    return found


class Listener:
    """A `Recogniser` that hears exactly what is said, and remembers how it was asked."""

    unspaced = False
    longest_s = 30.0

    def __init__(self, upper: bool = False) -> None:
        self.upper = upper
        self.asked: list[tuple[float, list[str], str, bool]] = []

    def recognise(self, waveform: np.ndarray, given: Sequence[str], prompt: str, draft: bool) -> Recognised:
        self.asked.append((len(waveform) / 16_000, list(given), prompt, draft))
        words = understood(waveform)
        return Recognised([one.upper() for one in words] if self.upper else words)


class LevelVoice:
    """A `VoiceDetector`: there is speech where there is sound."""

    def hear(self, frames: np.ndarray) -> np.ndarray:
        return (np.abs(frames.reshape(-1, FRAME_SAMPLES)).max(axis=1) > 0).astype(np.float32)


class AlwaysVoice:
    """A `VoiceDetector` for which everything is speech."""

    def hear(self, frames: np.ndarray) -> np.ndarray:
        return np.ones(len(frames) // FRAME_SAMPLES, np.float32)
