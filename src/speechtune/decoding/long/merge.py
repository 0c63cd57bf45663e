"""Joining the transcripts of overlapping windows: no word lost, doubled or split.

Two windows that share a stretch of audio are joined at a word that both heard at the same time: what is before it
comes from the left one, what is behind it from the right one. Words that an edge of a window cuts are never near the
middle of the overlap, so they are never the ones that are kept.

The law (a property test holds it): if every word that lies wholly inside a window is in its transcript, with times
off by at most a fifth of its length and 0.2 s, and the overlap is 0.5 s longer than twice the longest word, then the
result is the true text, whatever the windows say of the words that their edges cut.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from speechtune.corpus.segmentation.cuts import TimedWord
from speechtune.corpus.text_keys import text_key

_LEAST_SHARED = 0.2
"""Of the time of two words together (intersection over union): below it they are not the same word."""
_TOUCH = 0.1
"""Words that share more of the shorter one's time are at the same time: neighbours' times overlap a little."""
_NEAR_S = 0.5
"""So near a word with the same letters may be the same one, heard with another time."""
_EDGE_S = 0.25
"""So near to the edge of a window a word may be one that it cuts."""


@dataclass(frozen=True, slots=True)
class Heard:
    """The words of one window; times in seconds from the beginning of the recording."""

    start_s: float
    end_s: float
    words: Sequence[TimedWord]


def merge_windows(windows: Sequence[Heard]) -> list[TimedWord]:
    """The words of the whole recording.

    Args:
        windows: in order of time; each overlaps the next, and none but those.
    """
    if not windows:
        return []
    result = list(windows[0].words)
    for left, right in pairwise(windows):
        result = merge_two(result, right.words, right.start_s, left.end_s)
    return result


def merge_two(left: Sequence[TimedWord], right: Sequence[TimedWord], start_s: float, end_s: float) -> list[TimedWord]:
    """``left`` and then ``right``, with the words of the overlap ``start_s`` to ``end_s`` only once."""
    middle_s = (start_s + end_s) / 2
    # Only words that lie wholly in the overlap were wholly heard by both; times may be off a little.
    edge_s = min(_EDGE_S, (end_s - start_s) / 8)
    begin = next((place for place, word in enumerate(left) if word.start_s >= start_s + edge_s), len(left))
    stop = next((place for place, word in enumerate(right) if word.end_s > end_s - edge_s), len(right))
    pairs = same_words(left[begin:], right[:stop])
    if pairs:
        first, second = min(
            pairs, key=lambda pair: abs(_middle_s(left[begin + pair[0]]) + _middle_s(right[pair[1]]) - 2 * middle_s)
        )
        kept_left, kept_right = list(left[: begin + first + 1]), list(right[second + 1 :])
    else:  # no word was heard by both: each window keeps what is on its side
        kept_left = [word for word in left if _middle_s(word) < middle_s]
        kept_right = [word for word in right if _middle_s(word) >= middle_s]
    # What only one of them heard, where the other says nothing, stays; a word that the window's edge cuts does not.
    kept = [*kept_left, *kept_right]
    alone = [
        *(word for word in left if word not in kept and word.end_s <= end_s - edge_s),
        *(word for word in right if word not in kept and word.start_s >= start_s + edge_s),
    ]
    rescued = [word for word in alone if not any(_in_the_way(word, other) for other in kept)]
    return sorted(kept + rescued, key=_middle_s) if rescued else kept


def _in_the_way(word: TimedWord, other: TimedWord) -> bool:
    """Whether ``other`` is at the time of ``word``, or is the same word nearby."""
    common_s = min(word.end_s, other.end_s) - max(word.start_s, other.start_s)
    if common_s > _TOUCH * min(word.end_s - word.start_s, other.end_s - other.start_s):
        return True
    return common_s > -_NEAR_S and _key(word.text) == _key(other.text)


def same_words(left: Sequence[TimedWord], right: Sequence[TimedWord]) -> list[tuple[int, int]]:
    """Pairs of places, both rising, of equal words at the same time: the choice that shares the most time.

    Equal are words with the same letters, whatever their case and punctuation.
    """
    worth = np.array([[_shared(one, other) for other in right] for one in left]).reshape(len(left), len(right))
    total = np.zeros((len(left) + 1, len(right) + 1))
    for row in range(len(left)):
        for column in range(len(right)):
            total[row + 1, column + 1] = max(
                total[row, column + 1], total[row + 1, column], total[row, column] + worth[row, column]
            )
    pairs = []
    row, column = len(left), len(right)
    while row and column:
        if total[row, column] == total[row - 1, column]:
            row -= 1
        elif total[row, column] == total[row, column - 1]:
            column -= 1
        else:
            row, column = row - 1, column - 1
            pairs.append((row, column))
    return pairs[::-1]


def _shared(one: TimedWord, other: TimedWord) -> float:
    """Intersection over union of the times of equal words, else 0."""
    common = min(one.end_s, other.end_s) - max(one.start_s, other.start_s)
    if common <= 0 or _key(one.text) != _key(other.text):
        return 0.0
    share = common / (max(one.end_s, other.end_s) - min(one.start_s, other.start_s))
    return share if share >= _LEAST_SHARED else 0.0


def _key(text: str) -> str:
    return text_key(text) or text


def _middle_s(word: TimedWord) -> float:
    return (word.start_s + word.end_s) / 2
