"""Stretches of a window that its transcript passes over, decoded by themselves.

Whisper may skip seconds of speech in a window that begins within a sentence; the merge of windows cannot repair that.
Nothing that was heard before is given up: what a hole's own transcript says is put between the words around it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import pairwise

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples
from speechtune.corpus.segmentation.cuts import TimedWord, fixed_windows, frame_energy_db
from speechtune.corpus.text_keys import text_key
from speechtune.decoding.long.merge import Heard, merge_windows

HOLE_S = 3.0
"""No pause within speech that is read or told: what `decoding.long.transcribing` calls an early stop."""
AROUND_S = 2.0
"""Decoded before and after a hole: words need their neighbours."""
_PIECE_S, _SHARED_S = 15.0, 4.0
"""Longer holes are decoded in pieces: half of a window, because the whole one was what failed."""
_SLACK_S = 0.3
_AGAIN_S = 0.8
"""A neighbour of a hole is found again so near to its first place: a model's times beside what it skipped are off."""
_BELOW_SPEECH_DB = 20.0
_LOUD_S = 0.3
"""A hole without so much sound within 20 dB of the window's words is a pause (own choice)."""
_WORD_S, _LETTER_S = 0.6, 0.15
"""A word lasts at most so long, and so much more a letter, unless its time is wrong: half the slowest rate of
`speechtune.corpus.speaking_rates` and what a drawn-out short word takes (own choice)."""

Again = Callable[[Samples], Sequence[TimedWord]]
"""Decodes a stretch: its words with seconds from its beginning, none where it is not to be believed."""


def fill_holes(words: Sequence[TimedWord], waveform: Samples, again: Again) -> tuple[list[TimedWord], int]:
    """The words of a window with those that it passed over, and how many these are.

    Args:
        words: what was heard, in order, with seconds from the window's beginning.
        waveform: the window.
        again: decodes a stretch of it.
    """
    length_s = len(waveform) / SAMPLE_RATE_HZ
    result, added = list(words), 0
    for start_s, end_s in find_holes(words, length_s):
        if not sounds(waveform, words, start_s, end_s):
            continue
        inside = [one for one in result if start_s <= one.start_s < end_s]  # words with impossible times
        new = _between(_hear(waveform, start_s, end_s, again), result, start_s, end_s)
        if len(new) <= len(inside):
            continue
        before = [one for one in result if one.start_s < start_s]
        after = [one for one in result if one.start_s >= end_s]
        result, added = [*before, *new, *after], added + len(new) - len(inside)
    return result, added


def find_holes(words: Sequence[TimedWord], length_s: float) -> list[tuple[float, float]]:
    """Stretches of `HOLE_S` or more without a word; words that last impossibly long do not count."""
    sure = _sure(words)
    edges = [0.0, *(edge for one in sure for edge in (one.start_s, one.end_s)), length_s]
    gaps = list(pairwise(edges))[::2]
    return [(start_s, end_s) for start_s, end_s in gaps if end_s - start_s >= HOLE_S]


def _sure(words: Sequence[TimedWord]) -> list[TimedWord]:
    return [one for one in words if one.end_s - one.start_s <= longest_s(one.text)]


def longest_s(word: str) -> float:
    """Seconds that a word may take."""
    return _WORD_S + _LETTER_S * len(word)


def sounds(waveform: Samples, words: Sequence[TimedWord], start_s: float, end_s: float) -> bool:
    """Whether the stretch is about as loud somewhere as the words are; without words, as the loudest part is."""
    energy_db = frame_energy_db(waveform)
    spoken = [energy_db[round(100 * one.start_s) : round(100 * one.end_s)] for one in _sure(words)]
    spoken = [one for one in spoken if len(one)]
    level_db = float(np.median(np.concatenate(spoken))) if spoken else float(np.quantile(energy_db, 0.95))
    loud = energy_db[round(100 * start_s) : round(100 * end_s)] > level_db - _BELOW_SPEECH_DB
    return float(loud.sum()) / 100 >= _LOUD_S


def _hear(waveform: Samples, start_s: float, end_s: float, again: Again) -> list[TimedWord]:
    """The words of a stretch and of what is around it, with seconds from the window's beginning."""
    first = max(0, round((start_s - AROUND_S) * SAMPLE_RATE_HZ))
    last = min(len(waveform), round((end_s + AROUND_S) * SAMPLE_RATE_HZ))
    piece, shared = round(_PIECE_S * SAMPLE_RATE_HZ), round(_SHARED_S * SAMPLE_RATE_HZ)
    spans = fixed_windows(last - first, piece, shared) if last - first > piece else [(0, last - first)]
    windows = []
    for low, high in spans:
        at_s = (first + low) / SAMPLE_RATE_HZ
        found = again(waveform[first + low : first + high])
        moved = [replace(one, start_s=one.start_s + at_s, end_s=one.end_s + at_s) for one in found]
        windows.append(Heard(at_s, (first + high) / SAMPLE_RATE_HZ, moved))
    return merge_windows(windows)


def _between(found: Sequence[TimedWord], words: Sequence[TimedWord], start_s: float, end_s: float) -> list[TimedWord]:
    """The words of a hole: those between its neighbours where these are found again, else between their times."""
    left = [one for one in words if one.start_s < start_s]
    right = [one for one in words if one.start_s >= end_s]
    first = next((place for place, one in enumerate(found) if _middle_s(one) >= start_s - _SLACK_S), len(found))
    last = next((place for place, one in enumerate(found) if _middle_s(one) >= end_s + _SLACK_S), len(found))
    if left and (known := _nearest(left[-1], found)) is not None:
        first = known + 1
    if right and (known := _nearest(right[0], found)) is not None:
        last = known
    return list(found[first:last])


def _nearest(word: TimedWord, found: Sequence[TimedWord]) -> int | None:
    """Which of the words is this one again."""
    key = text_key(word.text) or word.text
    alike = [place for place, one in enumerate(found) if (text_key(one.text) or one.text) == key]
    near = [(abs(_middle_s(found[place]) - _middle_s(word)), place) for place in alike]
    return min(near)[1] if near and min(near)[0] <= _AGAIN_S else None


def _middle_s(word: TimedWord) -> float:
    return (word.start_s + word.end_s) / 2
