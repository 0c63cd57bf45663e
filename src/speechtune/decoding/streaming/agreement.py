"""Local agreement: which words of successive hypotheses are sure enough to be committed.

LocalAgreement-n (Liu et al. 2020, "Low-latency sequence-to-sequence speech recognition and translation by partial
hypothesis selection"; Macháček et al. 2023, arXiv 2307.14743): the longest common beginning of the last n hypotheses.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import takewhile

import numpy as np

from speechtune.corpus.text_keys import text_key


def units_of(text: str, unspaced: bool) -> list[str]:
    """What is committed one by one: white-space words, or characters where the language writes no spaces."""
    return list(text.strip()) if unspaced else text.split()


def joined(units: Sequence[str], unspaced: bool) -> str:
    """The inverse of `units_of`."""
    return ("" if unspaced else " ").join(units)


class LocalAgreement:
    """Remembers the last hypotheses of what comes after the committed text."""

    def __init__(self, needed: int) -> None:
        self.needed = needed
        self._tails: deque[list[str]] = deque(maxlen=needed)

    def agreed(self, tail: Sequence[str]) -> list[str]:
        """Take one more hypothesis; the common beginning of the last ``needed`` ones (none before there are so many).

        The words returned stay part of the remembered hypotheses: `commit` takes them off.
        """
        self._tails.append(list(tail))
        if len(self._tails) < self.needed:
            return []
        columns = zip(*self._tails, strict=False)
        return [same[0] for same in takewhile(lambda words: len(set(words)) == 1, columns)]

    def commit(self, count: int) -> None:
        """The first ``count`` words are committed: hypotheses are of what follows them."""
        for tail in self._tails:
            del tail[:count]

    def restart(self) -> None:
        """Forget every hypothesis."""
        self._tails.clear()


def joint(known: Sequence[str], heard: Sequence[str]) -> tuple[int, int]:
    """Where two texts that begin alike end together: the places behind the last word of both.

    One of the two is used up: ``heard`` says what follows ``known`` (then the first number is ``len(known)``), or
    breaks off before its end (then the second is ``len(heard)``). Words are compared by their letters; of the ways to
    match with the fewest word errors, the one that leaves the fewest words over is taken.
    """
    first, second = _keys(known), _keys(heard)
    cost = np.zeros((len(first) + 1, len(second) + 1), np.int64)
    cost[:, 0], cost[0] = np.arange(len(first) + 1), np.arange(len(second) + 1)
    for row, one in enumerate(first, start=1):
        for column, other in enumerate(second, start=1):
            cost[row, column] = min(
                cost[row - 1, column - 1] + (one != other), cost[row - 1, column] + 1, cost[row, column - 1] + 1
            )
    ends = [(len(first), column) for column in range(len(second) + 1)]
    ends += [(row, len(second)) for row in range(len(first))]
    return min(ends, key=lambda end: (cost[end], -min(end), abs(end[0] - end[1])))


def follows(known: Sequence[str], heard: Sequence[str]) -> list[str]:
    """The words of ``heard`` behind the committed ones, all of which it is taken to contain.

    Unlike `joint`, no committed word is left over: a hypothesis that says less than is committed adds nothing.
    """
    if list(heard[: len(known)]) == list(known):
        return list(heard[len(known) :])
    first, second = _keys(known), _keys(heard)
    row = np.arange(len(second) + 1)
    for number, one in enumerate(first, start=1):
        above, row = row, np.empty_like(row)
        row[0] = number
        for column, other in enumerate(second, start=1):
            row[column] = min(above[column - 1] + (one != other), above[column] + 1, row[column - 1] + 1)

    def worse(column: int) -> tuple[int, bool, int]:
        ends_alike = column > 0 and second[column - 1 : column] == first[-1:]
        return int(row[column]), not ends_alike, abs(column - len(first))

    place = min(range(len(second) + 1), key=worse)
    return list(heard[place:])


def _keys(words: Sequence[str]) -> list[str]:
    return [text_key(word) or word for word in words]
