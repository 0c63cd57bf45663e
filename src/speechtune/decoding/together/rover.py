"""ROVER: several transcripts aligned into one word network, and a vote in every slot of it.

J. G. Fiscus 1997, "A post-processing system to yield reduced word error rates: Recognizer Output Voting Error Reduction
(ROVER)" (ASRU). Costs, order and ties are those of NIST's own program (SCTK 2.4.10, ``sctk rover``), so that the result
is the same: the first transcript is the first network; each further one is aligned to all words of every slot at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rapidfuzz.distance import Levenshtein

from speechtune.core.errors import InputError
from speechtune.decoding.together.systems import Word

Vote = Literal["frequency", "average", "share", "maximum"]
Arc = tuple[int, Word | None]
"""Number of a transcript, and its word in the slot (``None``: it has none there)."""

_MOST_CELLS = 30_000_000


# SCTK's word.c, wwd_WORD_rover: no word of the slot for no word; a word where the slot has none; a word more or less;
# one word for another. It adds them as 32-bit floats, and their rounding breaks ties: so here.
_NOTHING, _NULL_FOR_WORD, _WORD, _OTHER_WORD = np.float32(0.001), np.float32(1), np.float32(3), np.float32(4)
_SAME = np.float32(0)
_MATCH, _LESS, _MORE = 0, 1, 2


@dataclass(frozen=True, slots=True)
class RoverOptions:
    """How slots are voted on.

    ``vote``: ``frequency``: how many transcripts have the word; else ``alpha`` x that share + (1 - ``alpha``) x
    confidence, which is the ``average`` over the word's transcripts (SCTK ``meth1``), their ``maximum``
    (``maxconf``), or the word's ``share`` of all confidence in the slot (``avgconf``). ``null_confidence``: that of
    having no word. ``medoid``: begin with the transcript that differs least from the others (else with the first).
    """

    vote: Vote = "frequency"
    alpha: float = 0.5
    null_confidence: float = 0.7
    medoid: bool = False


@dataclass(frozen=True, slots=True)
class Chosen:
    """A word that was voted for, its score, and the share of the transcripts that have it."""

    word: Word
    score: float
    share: float


Slot = list[Arc]


def build_network(transcripts: Sequence[Sequence[Word]], medoid: bool = False) -> list[Slot]:
    """Align transcripts into slots; each slot has one arc of every transcript.

    Args:
        transcripts: words of each, at least one transcript.
        medoid: begin with the transcript of the least summed word distance to the others, of equal ones the first;
            the others follow in their order.

    Raises:
        InputError: the transcripts are too long to be aligned as a whole.
    """
    order = list(range(len(transcripts)))
    if medoid:
        first = medoid_of([[word.key for word in one] for one in transcripts])
        order = [first, *(one for one in order if one != first)]
    network: list[Slot] = [[(order[0], word)] for word in transcripts[order[0]]]
    for done, number in enumerate(order[1:], start=1):
        network = _merge(network, number, transcripts[number], order[:done])
    return network


def medoid_of(texts: Sequence[Sequence[str]]) -> int:
    """Which text has the least summed edit distance to the others; of equal ones the first."""
    sums = [sum(Levenshtein.distance(one, other) for other in texts) for one in texts]
    return sums.index(min(sums))


def vote(network: Sequence[Slot], options: RoverOptions) -> list[Chosen]:
    """The winners of all slots in order; slots that nothing won are left out.

    Of words with equal scores the one that comes first in the slot wins: that of the transcript aligned earlier, and
    a word before nothing where a later transcript brought the slot.
    """
    chosen = []
    for slot in network:
        winner = _winner(slot, options)
        if winner is not None:
            chosen.append(winner)
    return chosen


def rover(transcripts: Sequence[Sequence[Word]], options: RoverOptions) -> list[Chosen]:
    """`build_network` and `vote`."""
    return vote(build_network(transcripts, options.medoid), options)


def _winner(slot: Slot, options: RoverOptions) -> Chosen | None:
    groups: dict[str | None, list[Word | None]] = {}
    for _, word in slot:
        groups.setdefault(word.key if word else None, []).append(word)
    confidences = {
        key: [one.confidence if one else options.null_confidence for one in words] for key, words in groups.items()
    }
    everything = sum(sum(own) for own in confidences.values())
    alpha = 1.0 if options.vote == "frequency" else options.alpha
    best, best_score = None, -1.0
    for key, own in confidences.items():
        if options.vote == "maximum":
            trust = max(own)
        elif options.vote == "share":
            trust = sum(own) / everything if everything else 0.0
        else:
            trust = sum(own) / len(own)
        score = alpha * (len(own) / len(slot)) + (1 - alpha) * trust
        if score > best_score:
            best, best_score = key, score
    words = [one for one in groups[best] if one is not None]
    if not words:
        return None
    mean = sum(one.confidence for one in words) / len(words)
    surfaces = [one.surface for one in words]
    surface = max(dict.fromkeys(surfaces), key=surfaces.count)
    return Chosen(Word(words[0].key, surface, mean), best_score, len(words) / len(slot))


def _merge(network: list[Slot], number: int, words: Sequence[Word], before: Sequence[int]) -> list[Slot]:
    """The network with one transcript more: in a slot, behind its end, or in a slot of its own."""
    merged: list[Slot] = []
    for slot, word in _path(network, words):
        if slot is None:
            assert word is not None
            merged.append([(number, word), *((one, None) for one in before)])
        else:
            merged.append([*slot, (number, word)])
    return merged


def _path(network: list[Slot], words: Sequence[Word]) -> list[tuple[Slot | None, Word | None]]:
    """The cheapest alignment of a network and a transcript, as pairs in order.

    A state is a word of a slot (or none) and a place in the transcript. Of equally cheap steps, matching comes first,
    then a word of the transcript more, then one less (SCTK's net_dp.c).
    """
    states: list[list[str | None]] = [[None]]  # the state before the first slot
    states += [list(dict.fromkeys(word.key if word else None for _, word in slot)) for slot in network]
    width = len(words) + 1
    if width * sum(map(len, states)) > _MOST_CELLS:
        raise InputError(
            f"a transcript of {len(words)} words is too long to be aligned at once: combine shorter segments"
        )
    start = list(np.cumsum(np.full(width, _WORD)) - _WORD)
    steps: list[list[list[int]]] = [[[_MORE] * width]]
    least: list[tuple[list[np.float32], list[int]]] = [(start, [0] * width)]
    for slot in range(1, len(states)):
        below, _ = least[-1]
        own_costs, own_steps = [], []
        for key in states[slot]:
            other = _NULL_FOR_WORD if key is None else _OTHER_WORD
            fewer = _NOTHING if key is None else _WORD
            row, row_steps = [below[0] + fewer], [_LESS]
            for place in range(1, width):
                same = _SAME if key == words[place - 1].key else other
                match, less, more = below[place - 1] + same, below[place] + fewer, row[place - 1] + _WORD
                step = _MATCH if match <= less and match <= more else _LESS if less < more else _MORE
                row.append((match, less, more)[step])
                row_steps.append(step)
            own_costs.append(row)
            own_steps.append(row_steps)
        steps.append(own_steps)
        columns = [[row[place] for row in own_costs] for place in range(width)]
        minima = [min(column) for column in columns]
        least.append((minima, [column.index(low) for column, low in zip(columns, minima, strict=True)]))
    return _walk_back(network, words, steps, [first for _, first in least])


def _walk_back(
    network: list[Slot], words: Sequence[Word], steps: list[list[list[int]]], first: list[list[int]]
) -> list[tuple[Slot | None, Word | None]]:
    slot, place = len(network), len(words)
    state = first[slot][place]
    path: list[tuple[Slot | None, Word | None]] = []
    while slot or place:
        step = steps[slot][state][place]
        if step == _MORE:
            place -= 1
            path.append((None, words[place]))
            continue
        slot -= 1
        if step == _MATCH:
            place -= 1
        path.append((network[slot], words[place] if step == _MATCH else None))
        state = first[slot][place]
    return path[::-1]
