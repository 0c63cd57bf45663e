"""The voice detector on audio that arrives bit by bit: the same numbers as on the whole recording."""

from __future__ import annotations

from typing import Protocol

import numpy as np

from speechtune.audio import silero
from speechtune.audio.io import SAMPLE_RATE_HZ, Samples
from speechtune.audio.vad import FRAME_SAMPLES, heard_spans, spans_from_probabilities
from speechtune.corpus.segmentation.cuts import Span


class VoiceDetector(Protocol):
    """Says how probable speech is in successive frames of 512 samples."""

    def hear(self, frames: Samples) -> np.ndarray:
        """Probabilities of the next ``n`` frames, shape (n,), given their ``n * 512`` samples."""


class SileroStream:
    """Silero with its state kept from one call to the next.

    Raises:
        InputError: the package with the detector's weights is not installed.
    """

    def __init__(self) -> None:
        silero.probabilities([np.zeros(FRAME_SAMPLES, np.float32)])  # a missing package shows before anybody speaks
        self._last: Samples = np.zeros(0, np.float32)
        self._state: list[np.ndarray] = []

    def hear(self, frames: Samples) -> np.ndarray:
        """As in `VoiceDetector`; whatever the pieces, together they are `speech_probabilities` of the whole."""
        count = len(frames) // FRAME_SAMPLES
        if not count:
            return np.zeros(0, np.float32)
        before = len(self._last) // FRAME_SAMPLES
        if not self._state:
            self._state = list(np.zeros((2, silero._LANES, silero._UNITS), np.float32))
        inputs = silero._gate_inputs([np.concatenate([self._last, frames])], before, [count])
        values, *self._state = silero._recur(inputs, *self._state)
        self._last = np.array(frames[(count - 1) * FRAME_SAMPLES : count * FRAME_SAMPLES])
        return values[:count, 0]


def spans_within(samples: Samples, probabilities: np.ndarray) -> list[Span]:
    """Spans of speech in samples, in order: what the detector finds and what is heard beside it."""
    found = heard_spans(samples, spans_from_probabilities(probabilities, len(samples)))
    return [(round(one.start_s * SAMPLE_RATE_HZ), round(one.end_s * SAMPLE_RATE_HZ)) for one in found]
