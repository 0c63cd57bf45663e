"""Latency and flicker of live transcripts: pure functions of what was shown and when."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True, slots=True)
class Latency:
    """Commit time less the end of the word, in seconds, over ``words`` words; ``None`` where no word was measured."""

    words: int
    mean_s: float | None
    median_s: float | None
    p95_s: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields, rounded to milliseconds."""
        numbers = {name: getattr(self, name) for name in ("mean_s", "median_s", "p95_s")}
        rounded = {name: None if value is None else round(value, 3) for name, value in numbers.items()}
        return {"words": self.words, **rounded}


def latency_of(delays_s: Sequence[float]) -> Latency:
    """Mean, median and 95th percentile (linear interpolation) of the delays of words."""
    if not len(delays_s):
        return Latency(0, None, None, None)
    values = np.asarray(delays_s, np.float64)
    return Latency(len(values), float(values.mean()), float(np.median(values)), float(np.percentile(values, 95)))


def average_lagging(committed_s: Sequence[float], audio_s: float, reference_words: int) -> float | None:
    """Average lagging behind an ideal system that says its words evenly while the audio runs, in seconds.

    Ma et al. 2019 (STACL, arXiv 1810.08398) as Ma et al. 2020 (SimulMT to SimulST, arXiv 2011.02048) apply it to
    speech: the mean over the words up to the first one that was committed when all audio had been heard of
    ``committed_s[i] - i * audio_s / reference_words``.

    Args:
        committed_s: when each word was committed, in order.
        audio_s: length of the audio.
        reference_words: words of the reference; where there is none, of the transcript.

    Returns:
        ``None`` without words.
    """
    if not len(committed_s) or reference_words < 1 or audio_s <= 0:
        return None
    times = np.asarray(committed_s, np.float64)
    late = np.flatnonzero(times >= audio_s)
    counted = int(late[0]) + 1 if len(late) else len(times)
    ideal = np.arange(counted) * audio_s / reference_words
    return float((times[:counted] - ideal).mean())


@dataclass(slots=True)
class Flicker:
    """Words taken back while text was shown (Arivazhagan et al. 2020, arXiv 1912.03393, section 3.3)."""

    erased: int = 0
    final: int = 0
    _shown: list[str] = field(default_factory=list)

    def show(self, words: Sequence[str]) -> None:
        """The whole text on the screen after an update."""
        same = 0
        for one, other in zip(self._shown, words, strict=False):
            if one != other:
                break
            same += 1
        self.erased += len(self._shown) - same
        self._shown = list(words)

    def end(self) -> None:
        """The text that is shown is the final one; the next one begins with nothing."""
        self.final += len(self._shown)
        self._shown = []

    @property
    def normalised_erasure(self) -> float | None:
        """Words taken back for each word of the final texts: 0 where nothing ever changed."""
        return self.erased / self.final if self.final else None
