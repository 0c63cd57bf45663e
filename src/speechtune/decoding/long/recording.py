"""A long recording read in spans: a whole file is never in memory, only what is asked for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples, load_audio, probe
from speechtune.corpus.table import Utterance

_RESAMPLER_MARGIN_S = 1
"""Read before and after a span whose resampling shall not show where it was cut."""


@dataclass(frozen=True, slots=True)
class Recording:
    """A span of a file. Times are in seconds from its beginning; ``length`` is in samples at 16 kHz."""

    path: Path
    offset_s: float
    duration_s: float

    @classmethod
    def of(cls, path: Path, utterance: Utterance) -> Recording:
        """The span that an utterance names.

        Raises:
            AudioError: the file cannot be read.
        """
        start_s = utterance.start_s or 0.0
        end_s = probe(path).duration_s if utterance.end_s is None else utterance.end_s
        return cls(path, start_s, end_s - start_s)

    @property
    def length(self) -> int:
        """Samples at 16 kHz."""
        return round(self.duration_s * SAMPLE_RATE_HZ)

    def read(self, start_s: float, end_s: float) -> Samples:
        """The samples from ``start_s`` to ``end_s``, what lies outside the recording left out.

        Exactly ``round(end_s * 16000) - round(start_s * 16000)`` samples inside the recording; files at other rates
        are resampled with a margin, so that neighbouring spans join without a click.

        Raises:
            AudioError: the file cannot be read.
        """
        first, last = (min(max(0, round(at_s * SAMPLE_RATE_HZ)), self.length) for at_s in (start_s, end_s))
        if first >= last:
            return np.zeros(0, np.float32)
        # whole seconds: there every rate has a sample at the same time as 16 kHz
        low_s = max(0, first // SAMPLE_RATE_HZ - _RESAMPLER_MARGIN_S)
        high_s = min(self.duration_s, -(-last // SAMPLE_RATE_HZ) + _RESAMPLER_MARGIN_S)
        waveform = load_audio(self.path, self.offset_s + low_s, self.offset_s + high_s)
        found = waveform[first - low_s * SAMPLE_RATE_HZ : last - low_s * SAMPLE_RATE_HZ]
        return np.pad(found, (0, last - first - len(found)))  # the stated length was rounded

    def blocks(self, block_s: int, before_s: int = 0) -> Iterator[tuple[int, Samples]]:
        """Successive blocks with ``before_s`` of what precedes: where each begins (in samples), and its samples."""
        for start_s in range(0, -(-self.length // SAMPLE_RATE_HZ), block_s):
            low_s = max(0, start_s - before_s)
            yield low_s * SAMPLE_RATE_HZ, self.read(low_s, start_s + block_s)
