"""Whisper's own way through a long recording: window after window, each begun where the last timestamp ended.

The algorithm of openai/whisper's ``transcribe.py`` (Radford et al. 2022, arXiv 2212.04356, section 4.5): a window is
decoded with timestamps and given the text before it; it is decoded again, hotter, while it looks wrong; the next one
starts at its last timestamp. One difference: the features' dynamic range is that of the window, not of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.core.errors import InputError
from speechtune.core.progress import Bar
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.long.recording import Recording
from speechtune.decoding.long.timing import is_single_whisper
from speechtune.decoding.search_blocks import FallbackConfig
from speechtune.decoding.searching import is_silence, needs_fallback
from speechtune.models.family import Family, Hypothesis

TIME_TOKEN_S = 0.02
"""What one timestamp token stands for."""
_RESET_ABOVE = 0.5
"""A text found at a higher temperature is no prompt for the next window (openai/whisper)."""


@dataclass(frozen=True, slots=True)
class Window:
    """One decoded window: its hypothesis (tokens with timestamps), and the temperature that it was found at."""

    hypothesis: Hypothesis
    temperature: float
    failed: bool = False


@dataclass(slots=True)
class Segment:
    """One stretch of text between two timestamps; times in seconds from the beginning of the recording."""

    start_s: float
    end_s: float
    tokens: list[int]
    window: Window
    flags: list[str] = field(default_factory=list)


def split_by_timestamps(
    tokens: Sequence[int], first_timestamp: int, window_s: float
) -> tuple[list[tuple[float, float, list[int]]], float]:
    """The stretches between timestamps, and how far the next window moves, both in seconds.

    As in openai/whisper: where two timestamps stand side by side, a stretch ends; what follows the last pair is left
    to the next window, unless a single timestamp ends the text (nothing is said after it). Without a pair there is
    one stretch, and the whole window is done.

    Args:
        tokens: of one window, timestamps included.
        first_timestamp: the id of ``<|0.00|>``.
        window_s: how much audio the window holds.
    """

    def at_s(token: int) -> float:
        return (token - first_timestamp) * TIME_TOKEN_S

    marks = [token >= first_timestamp for token in tokens]
    ends_single = marks[-2:] == [False, True]
    cuts = [place + 1 for place in range(len(tokens) - 1) if marks[place] and marks[place + 1]]
    if not cuts:
        times = [token for token, mark in zip(tokens, marks, strict=True) if mark]
        end_s = at_s(times[-1]) if times and times[-1] != first_timestamp else window_s
        return [(0.0, end_s, list(tokens))], window_s
    if ends_single:
        cuts.append(len(tokens))
    parts = []
    for first, last in zip([0, *cuts], cuts, strict=False):
        part = list(tokens[first:last])
        parts.append((at_s(part[0]), at_s(part[-1]), part))
    return parts, window_s if ends_single else at_s(tokens[cuts[-1] - 1])


Decode = Callable[[np.ndarray, Sequence[int]], Window]
"""Decodes one window of samples, given the tokens before it."""


def walk(
    recording: Recording,
    decode: Decode,
    first_timestamp: int,
    window_s: float,
    fallback: FallbackConfig,
    condition: bool = True,
    title: str = "transcribe",
) -> Iterator[Segment]:
    """The segments of a recording, one window in memory at a time.

    Raises:
        AudioError: the file cannot be read.
    """
    seek_s = 0.0
    previous: list[int] = []
    end_s = recording.length / SAMPLE_RATE_HZ
    with Bar(title, round(end_s)) as bar:
        while seek_s < end_s:
            this_s = min(window_s, end_s - seek_s)
            waveform = recording.read(seek_s, seek_s + this_s)
            window = decode(waveform, previous)
            if is_silence(window.hypothesis, fallback):
                seek_s += this_s
                bar.advance(round(min(seek_s, end_s)))
                continue
            parts, step_s = split_by_timestamps(window.hypothesis.tokens, first_timestamp, this_s)
            for start_s, stop_s, tokens in parts:
                if start_s != stop_s and any(token < first_timestamp for token in tokens):
                    previous += tokens
                    # a model may name times behind the end of the audio
                    edges_s = min(seek_s + start_s, end_s), min(seek_s + stop_s, end_s)
                    yield Segment(*edges_s, tokens, window)
            if not condition or window.temperature > _RESET_ABOVE:
                previous = []
            # a first timestamp of zero alone would not move
            seek_s = round(seek_s + (step_s if step_s > 0 else this_s), 2)
            bar.advance(round(min(seek_s, end_s)))


def whisper_decoder(family: Family, config: DecodingConfig) -> Decode:
    """Decodes windows by Whisper's ladder of temperatures.

    Raises:
        InputError: the model has no timestamps.
    """
    if not is_single_whisper(family):
        raise InputError(
            f"decoding.long: sequential needs one Transformers Whisper model, not a {type(family).__name__}: use vad"
        )
    from speechtune.decoding.long.timestamps import decode_window

    whisper: Any = family
    ladder = config.fallback
    long_form = config.long_form

    def decode(waveform: np.ndarray, previous: Sequence[int]) -> Window:
        found: Hypothesis | None = None
        for temperature in long_form.temperatures:
            found = decode_window(whisper, waveform, previous, config, temperature)
            if not needs_fallback(found, ladder):
                return Window(found, temperature)
        assert found is not None
        return Window(found, long_form.temperatures[-1], failed=True)

    return decode
