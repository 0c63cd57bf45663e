"""Which words of a known transcript belong to which window of a long recording.

Two steps, neither of which needs a good recogniser. First the hypotheses of all windows are aligned with the whole
transcript letter by letter, and words that agree bound where each window can begin and end (anchors, as in Moreno et
al. 1998, "A recursive algorithm for the forced alignment of very long audio segments", ICSLP). Then, within those
bounds, the windows' own probabilities of the known words decide, exactly, by dynamic programming.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence

import numpy as np
from rapidfuzz.distance import Levenshtein

Score = Callable[[int, int, int], np.ndarray]
"""``score(window, first, last)``: entry ``n`` is the log-probability that words ``first .. first + n`` (``n`` of them)
are all that the window says; shape (last - first + 1,)."""

_SLACK_WORDS = 3
_MAX_CHOICES = 32
_REPAIR_WORDS = 8
_REPAIR_ROUNDS = 4
_ANCHOR_SHARE = 0.6


def letters(word: str) -> str:
    """Letters, digits and combining marks of a word, case folded: what recognisers and transcripts can agree on."""
    folded = unicodedata.normalize("NFKC", word).casefold()
    return "".join(one for one in folded if unicodedata.category(one)[0] in "LNM")


def anchor_windows(words: Sequence[str], hypotheses: Sequence[str]) -> np.ndarray:
    """The window that each transcript word was heard in.

    Args:
        words: the transcript.
        hypotheses: the recognised text of every window, in order of time.

    Returns:
        int64 of shape (words,): the window in which at least 60 % of the word's letters (and two, or all) were found,
        -1 where there is none. Never falls from one anchored word to the next.
    """
    known = [letters(word) for word in words]
    heard = ["".join(letters(word) for word in text.split()) for text in hypotheses]
    owner = np.repeat(np.arange(len(words)), [len(one) for one in known])
    window = np.repeat(np.arange(len(heard)), [len(one) for one in heard])
    votes: dict[int, dict[int, int]] = {}
    for step in Levenshtein.opcodes("".join(known), "".join(heard)):
        if step.tag == "equal":
            for place, other in zip(
                range(step.src_start, step.src_end), range(step.dest_start, step.dest_end), strict=True
            ):
                found = votes.setdefault(int(owner[place]), {})
                found[int(window[other])] = found.get(int(window[other]), 0) + 1
    result = np.full(len(words), -1, np.int64)
    for index, found in votes.items():
        place, count = max(found.items(), key=lambda item: (item[1], -item[0]))
        if count >= max(_ANCHOR_SHARE * len(known[index]), min(2, len(known[index]))):
            result[index] = place
    return result


def boundary_choices(anchors: np.ndarray, speech_s: Sequence[float]) -> list[range]:
    """For every boundary between two windows, how many words may lie before it.

    Args:
        anchors: from `anchor_windows`.
        speech_s: seconds of speech in every window; boundaries without anchors nearby are placed in proportion.

    Returns:
        One range for each of ``len(speech_s) + 1`` boundaries; the first is 0 only, the last all words only.
    """
    total = len(anchors)
    anchored = np.flatnonzero(anchors >= 0)
    places = anchors[anchored]
    time = np.concatenate([[0.0], np.cumsum(speech_s)])
    # (time, words so far) that are known: both ends, and the middle of every window with its anchored words
    points = [(0.0, 0.0)]
    for window in np.unique(places):
        points.append(((time[window] + time[window + 1]) / 2, float(np.median(anchored[places == window])) + 0.5))
    points.append((max(time[-1], points[-1][0] + 1e-6), float(total)))
    expected = np.interp(time, [at for at, _ in points], [count for _, count in points])
    choices = [range(0, 1)]
    for boundary in range(1, len(speech_s)):
        before, after = anchored[places < boundary], anchored[places >= boundary]
        low = int(before.max()) + 1 if len(before) else 0
        high = int(after.min()) if len(after) else total
        low, high = max(0, min(low, high) - _SLACK_WORDS), min(total, max(low, high) + _SLACK_WORDS)
        if high - low > _MAX_CHOICES:
            middle = round(min(max(expected[boundary], low + _MAX_CHOICES // 2), high - _MAX_CHOICES // 2))
            low, high = middle - _MAX_CHOICES // 2, middle + _MAX_CHOICES // 2
        choices.append(range(low, high + 1))
    choices.append(range(total, total + 1))
    return choices


def place_boundaries(choices: Sequence[range], score: Score) -> list[int]:
    """The most probable boundaries; where one lies at the edge of its range, the range is widened and all repeated.

    Args:
        choices: from `boundary_choices`.
        score: how well words explain a window; called once for each window and first word.

    Returns:
        Words before each boundary, rising, shape (windows + 1,).

    Raises:
        ValueError: no assignment is possible (more words than the windows can hold).
    """
    total = choices[-1][0]
    ranges = _made_possible(choices)
    for _ in range(_REPAIR_ROUNDS):
        bounds = _best_path(ranges, score)
        widened = list(ranges)
        for index in range(1, len(ranges) - 1):
            span = ranges[index]
            if bounds[index] == span[0] and span[0] > 0:
                widened[index] = range(max(0, span[0] - _REPAIR_WORDS), span.stop)
            elif bounds[index] == span[-1] and span[-1] < total:
                widened[index] = range(span.start, min(total, span[-1] + _REPAIR_WORDS) + 1)
        if widened == ranges:
            break
        ranges = widened
    return bounds


def _made_possible(choices: Sequence[range]) -> list[range]:
    """Ranges whose lowest values rise, and highest values too, so that a rising path exists."""
    lows = np.maximum.accumulate([one[0] for one in choices])
    highs = np.minimum.accumulate([one[-1] for one in choices][::-1])[::-1]
    return [range(min(int(a), int(b)), max(int(a), int(b)) + 1) for a, b in zip(lows, highs, strict=True)]


def _best_path(ranges: Sequence[range], score: Score) -> list[int]:
    total = np.zeros(1)
    back: list[np.ndarray] = []
    for window in range(len(ranges) - 1):
        firsts, lasts = ranges[window], ranges[window + 1]
        table = np.full((len(firsts), len(lasts)), -np.inf)
        for row, first in enumerate(firsts):
            if np.isinf(total[row]) or first > lasts[-1]:
                continue
            found = score(window, first, lasts[-1])
            reachable = [column for column, last in enumerate(lasts) if last >= first]
            table[row, reachable] = total[row] + found[[lasts[column] - first for column in reachable]]
        back.append(table.argmax(axis=0))
        total = table.max(axis=0)
    if np.isinf(total).all():
        raise ValueError("more words than the windows can hold")
    place = int(total.argmax())
    bounds = [ranges[-1][place]]
    for window in range(len(ranges) - 2, -1, -1):
        place = int(back[window][place])
        bounds.append(ranges[window][place])
    return bounds[::-1]
