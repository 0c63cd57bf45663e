"""The cause of each word error of one utterance, by rules in a fixed order.

The first class of `CLASSES` whose rule fits takes the error, so every error has exactly one. The rules look at words,
not at audio: they say what an error looks like, which is where to look for its cause.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from speechtune.corpus.text_keys import text_key
from speechtune.scoring.alignment import Edit, align
from speechtune.scoring.alignment_weighted import UNIT, align_by_cost
from speechtune.scoring.causes_words import ANY_FILLERS, HOMOPHONES, is_digits
from speechtune.scoring.metrics_output import loop_places
from speechtune.scoring.metrics_text import LONGEST_COMPOUND
from speechtune.scoring.phones import PhonesOf, spelled_phones, word_distance

CLASSES: dict[str, str] = {
    "no-output": "nothing was recognised of an utterance with words",
    "loop": "a word that only repeats what stands right before it, where the output loops more than the reference",
    "words-in-silence": "a word where the reference is empty",
    "language-switch": "the output is in another language, or the word in another script",
    "case-punctuation": "the same word but for capitals, punctuation or apostrophes",
    "compound": "words written as one, or one as several",
    "number": "digits or number words on either side",
    "disfluency": "a hesitation, a repeated word or a broken-off word",
    "homophone": "another word of the same sound",
    "out-of-vocabulary": "a word that the training texts do not hold (needs --training-corpus)",
    "function-word": "articles, pronouns, prepositions, auxiliaries and their like",
    "phonetic": "another word that sounds alike",
    "substitution": "another word, for none of these reasons",
    "deletion": "a word left out, for none of these reasons",
    "insertion": "a word put in, for none of these reasons",
}
"""Every class with what is in it, in the order in which the rules are tried."""

ALIKE = 0.4
"""Words at most this far apart (`speechtune.scoring.phones.word_distance`) sound alike: 5 % of the pairs of different
words of speechocean762's 1045-word vocabulary are nearer (measured on 20,000 random pairs), read by their spelling or
by espeak-ng."""

_MOST_CELLS = 40_000


@dataclass(frozen=True, slots=True)
class WordError:
    """One error with its class, and its place in the reference and the output (the word it stands before)."""

    cause: str
    ref: str | None
    hyp: str | None
    ref_place: int
    hyp_place: int

    @property
    def op(self) -> str:
        """``substitution``, ``deletion`` or ``insertion``."""
        return "insertion" if self.ref is None else "deletion" if self.hyp is None else "substitution"


@dataclass(slots=True)
class Knowledge:
    """What the rules know beside the words: ``vocabulary`` is ``None`` where no training texts were given.

    ``phones`` reads a word, for telling which words sound alike.
    """

    function_words: frozenset[str] = frozenset()
    number_words: frozenset[str] = frozenset()
    fillers: frozenset[str] = ANY_FILLERS
    vocabulary: frozenset[str] | None = None
    phones: PhonesOf = spelled_phones

    def distance(self, a: str, b: str) -> float:
        """How unlike two words sound, 0 to 1."""
        return word_distance(a, b, self.phones)


def align_alike(
    reference: Sequence[str], hypothesis: Sequence[str], distance: Callable[[str, str], float] = word_distance
) -> list[Edit]:
    """An alignment with the fewest errors, and among those the one whose substitutions sound most alike.

    What both sides share at their beginning, and then at their end, is matched, as in the plain alignment. The number
    of errors is that of the WER; how many of them are substitutions can differ. Where more than 40,000 cells (200 by
    200 words) remain, they are aligned plainly.
    """
    start, longest = 0, min(len(reference), len(hypothesis))
    while start < longest and reference[start] == hypothesis[start]:
        start += 1
    end = 0
    while end < longest - start and reference[-1 - end] == hypothesis[-1 - end]:
        end += 1
    middle = _align_middle(reference[start : len(reference) - end], hypothesis[start : len(hypothesis) - end], distance)
    shared = [Edit("equal", word, word) for word in (*reference[:start], *reference[len(reference) - end :])]
    return [*shared[:start], *middle, *shared[start:]]


def _align_middle(
    reference: Sequence[str], hypothesis: Sequence[str], distance: Callable[[str, str], float]
) -> list[Edit]:
    rows, columns = len(reference), len(hypothesis)
    if rows * columns <= 1 or rows * columns > _MOST_CELLS:
        return align(reference, hypothesis)
    edit = UNIT * (rows + columns + 1)
    costs = np.array(
        [[0 if ref == hyp else edit + round(UNIT * distance(ref, hyp)) for hyp in hypothesis] for ref in reference],
        dtype=np.int64,
    )
    return align_by_cost(reference, hypothesis, costs, indel=edit)[0]


def classify(
    reference: Sequence[str], hypothesis: Sequence[str], known: Knowledge, other_language: bool = False
) -> list[WordError]:
    """Every word error of an utterance with its class.

    Args:
        reference: words of the normalised reference.
        hypothesis: words of the normalised output.
        known: word lists.
        other_language: whether the whole output is known to be in another language than the reference.
    """
    placed: list[tuple[Edit, int, int]] = []
    ref_place = hyp_place = 0
    for edit in align_alike(reference, hypothesis, known.distance):
        if edit.op != "equal":
            placed.append((edit, ref_place, hyp_place))
        ref_place += edit.ref is not None
        hyp_place += edit.hyp is not None
    looped = loop_places(hypothesis)
    if len(looped) <= len(loop_places(reference)):
        looped = set()
    compounds = _compounds(placed)
    scripts = {script for word in reference for script in _scripts(word)}
    found = []
    for number, (edit, ref_place, hyp_place) in enumerate(placed):
        if not hypothesis:
            cause = "no-output"
        elif edit.hyp is not None and hyp_place in looped:
            cause = "loop"
        elif not reference:
            cause = "words-in-silence"
        elif other_language or (edit.hyp is not None and scripts and not _scripts(edit.hyp) <= scripts):
            cause = "language-switch"
        elif edit.ref is not None and edit.hyp is not None and text_key(edit.ref) == text_key(edit.hyp):
            cause = "case-punctuation"
        elif number in compounds:
            cause = "compound"
        elif any(word is not None and (is_digits(word) or word in known.number_words) for word in (edit.ref, edit.hyp)):
            cause = "number"
        elif _disfluent(edit, ref_place, hyp_place, reference, hypothesis, known):
            cause = "disfluency"
        else:
            cause = _word_cause(edit, known)
        found.append(WordError(cause, edit.ref, edit.hyp, ref_place, hyp_place))
    return found


def _word_cause(edit: Edit, known: Knowledge) -> str:
    """The class of an error that only its own words decide."""
    ref, hyp = edit.ref, edit.hyp
    if ref is not None and hyp is not None and _same_sound(ref, hyp, known.phones):
        return "homophone"
    if ref is not None and known.vocabulary is not None and ref not in known.vocabulary:
        return "out-of-vocabulary"
    if (ref if ref is not None else hyp) in known.function_words:
        return "function-word"
    if ref is None:
        return "insertion"
    if hyp is None:
        return "deletion"
    return "phonetic" if known.distance(ref, hyp) <= ALIKE else "substitution"


def _same_sound(ref: str, hyp: str, phones: PhonesOf) -> bool:
    plain = ref.replace("'", ""), hyp.replace("'", "")
    return plain[1] in HOMOPHONES.get(plain[0], ()) or tuple(phones(ref)) == tuple(phones(hyp)) != ()


def _disfluent(
    edit: Edit, ref_place: int, hyp_place: int, reference: Sequence[str], hypothesis: Sequence[str], known: Knowledge
) -> bool:
    """A hesitation; or a word left out or put in that its own side repeats or completes right beside it."""
    word = edit.ref if edit.ref is not None else edit.hyp
    if word is None or edit.ref in known.fillers or edit.hyp in known.fillers:
        return True
    if edit.ref is not None and edit.hyp is not None:
        return False
    side, place = (reference, ref_place) if edit.ref is not None else (hypothesis, hyp_place)
    after = side[place + 1] if place + 1 < len(side) else ""
    if word in (after, side[place - 1] if place else ""):
        return True
    begun = word.rstrip("-")
    broken = (len(begun) >= 2 and begun not in known.function_words) or word.endswith("-")
    return bool(begun) and broken and len(after) > len(begun) and after.startswith(begun)


def _compounds(placed: Sequence[tuple[Edit, int, int]]) -> set[int]:
    """The errors that only join or split words: runs of neighbouring errors whose letters are the same on both sides.

    One side has one word, the other 2 to `LONGEST_COMPOUND`.
    """
    found: set[int] = set()
    start = 0
    while start < len(placed):
        reach = 1
        for stop in range(start + 2, min(start + LONGEST_COMPOUND, len(placed)) + 1):
            run = placed[start:stop]
            if not _adjacent(run):
                break
            sides = [
                [word for word in words if word]
                for words in ([edit.ref for edit, *_ in run], [edit.hyp for edit, *_ in run])
            ]
            counts = sorted(map(len, sides))
            if counts[0] == 1 and counts[1] > 1 and _letters(sides[0]) == _letters(sides[1]) != "":
                found.update(range(start, stop))
                reach = stop - start
                break
        start += reach
    return found


def _adjacent(run: Sequence[tuple[Edit, int, int]]) -> bool:
    for (edit, ref_place, hyp_place), (_, next_ref, next_hyp) in pairwise(run):
        if next_ref != ref_place + (edit.ref is not None) or next_hyp != hyp_place + (edit.hyp is not None):
            return False
    return True


def _letters(words: Sequence[str]) -> str:
    return "".join(char for word in words for char in word if char.isalnum() or unicodedata.category(char)[0] == "M")


def _scripts(word: str) -> set[str]:
    """The scripts of a word's letters, by the first word of their Unicode names (LATIN, CYRILLIC, CJK, ...)."""
    return {unicodedata.name(char, "?").split(" ")[0].split("-")[0] for char in word if char.isalpha()}
