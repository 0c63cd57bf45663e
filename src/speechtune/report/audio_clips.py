"""Clips as data URIs, so that a page plays them without any other file."""

from __future__ import annotations

import base64
import io
from dataclasses import dataclass

from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus, Utterance

SAMPLE_RATE_HZ = 16_000
BIT_RATE_BPS = 24_000
"""Of Opus, mono: speech stays clear, and a clip of 4 s takes 16 kB on the page."""

MAX_EMBEDDED_BYTES = 5_000_000
"""Base64 characters of all clips of a page together."""

_BLOCK_SAMPLES = 16_000


@dataclass(frozen=True, slots=True)
class Clip:
    """What a player needs: a data URI, or a reason why there is none."""

    uri: str | None
    reason: str = ""


class ClipShelf:
    """Encodes clips until the page's share of bytes is used up, and counts what was left out."""

    def __init__(self, max_bytes: int = MAX_EMBEDDED_BYTES) -> None:
        self.max_bytes = max_bytes
        self.used_bytes = 0
        self.embedded = 0
        self.over_budget = 0
        self.unreadable: list[str] = []

    def clip(self, corpus: Corpus, utterance: Utterance) -> Clip:
        """The audio of an utterance, if it can be read and still fits."""
        try:
            waveform = load_audio(corpus.path_of(utterance), utterance.start_s, utterance.end_s, SAMPLE_RATE_HZ)
        except InputError as error:
            self.unreadable.append(str(error))
            return Clip(None, "audio not readable")
        uri = data_uri(encode_opus(waveform))
        if self.used_bytes + len(uri) > self.max_bytes:
            self.over_budget += 1
            return Clip(None, "audio left out to keep the page small")
        self.used_bytes += len(uri)
        self.embedded += 1
        return Clip(uri)

    def sentence(self) -> str:
        """How many clips are on the page and how many are not, and why."""
        parts = [f"{self.embedded} clips can be played ({self.used_bytes / 1e6:.1f} MB on this page)"]
        if self.over_budget:
            parts.append(f"{self.over_budget} were left out to keep it under {self.max_bytes / 1e6:g} MB of audio")
        if self.unreadable:
            parts.append(f"{len(self.unreadable)} could not be read, for example: {self.unreadable[0]}")
        return "; ".join(parts).removesuffix(".") + "."


def encode_opus(waveform: object) -> bytes:
    """Ogg Opus of a float32 array of shape ``(samples,)`` at 16 kHz, about `BIT_RATE_BPS`."""
    import numpy as np
    import soundfile

    samples = np.clip(np.asarray(waveform, dtype=np.float32), -1.0, 1.0)
    # libsndfile 1.2 maps 0..1 to 256..6 kbit/s a channel (src/ogg_opus.c).
    level = 1 - (BIT_RATE_BPS / 1000 - 6) / 250
    stream = io.BytesIO()
    with soundfile.SoundFile(stream, "w", SAMPLE_RATE_HZ, 1, "OPUS", format="OGG", compression_level=level) as file:
        for first in range(0, len(samples), _BLOCK_SAMPLES):  # one huge write of Ogg overflows libsndfile's stack
            file.write(samples[first : first + _BLOCK_SAMPLES])
    return stream.getvalue()


def data_uri(encoded: bytes) -> str:
    """Ogg Opus bytes as a URI for an audio element."""
    return "data:audio/ogg;codecs=opus;base64," + base64.b64encode(encoded).decode("ascii")
