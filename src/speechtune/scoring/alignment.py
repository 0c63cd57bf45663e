"""Minimum edit distance between reference and hypothesis, as edits and as counts, one pair or many at once.

Where several alignments have the fewest errors, one is taken, the same on every run and machine: what both sides share
at their beginning and then at their end is matched; in what remains the alignment is read from the end, and at each
step a deletion is taken if a best alignment has one there, else a substitution, else an insertion, else the match.
These are the choices of rapidfuzz, so that counts of substitutions, deletions and insertions equal jiwer's. (Pairs of
thousands of units are split in two by rapidfuzz; the distance is the same, the choice among equals can differ.)
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from rapidfuzz.distance import Indel, Levenshtein
from rapidfuzz.process import cpdist

Operation = Literal["equal", "substitute", "delete", "insert"]
Unit = Literal["words", "characters", "graphemes"]

_MANY_SYMBOLS = 0xFFFF
"""After this many distinct units a fresh alphabet is begun; the last pair may use up the other 17 x 65,536."""


@dataclass(frozen=True, slots=True)
class Edit:
    """One step of an alignment; ``ref`` is ``None`` for an insertion, ``hyp`` for a deletion."""

    op: Operation
    ref: str | None
    hyp: str | None


@dataclass(frozen=True, slots=True)
class Counts:
    """How reference units (words or characters) were recognised; counts add up over utterances."""

    hits: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def errors(self) -> int:
        """Substitutions, deletions and insertions together."""
        return self.substitutions + self.deletions + self.insertions

    @property
    def reference_length(self) -> int:
        """Units in the reference."""
        return self.hits + self.substitutions + self.deletions

    @property
    def hypothesis_length(self) -> int:
        """Units in the hypothesis."""
        return self.hits + self.substitutions + self.insertions

    @property
    def rate(self) -> float | None:
        """Errors per reference unit (may exceed 1); ``None`` where the reference is empty."""
        return self.errors / self.reference_length if self.reference_length else None

    @property
    def match_error_rate(self) -> float | None:
        """Errors per aligned unit, insertions included (MER, Morris et al. 2004): at most 1."""
        aligned = self.hits + self.errors
        return self.errors / aligned if aligned else None

    @property
    def information_lost(self) -> float | None:
        """Word information lost (WIL, Morris et al. 2004): 1 - hits² / (reference length x hypothesis length).

        ``None`` where both sides are empty; 1 where one of them is.
        """
        if not self.reference_length and not self.hypothesis_length:
            return None
        if not self.hits:
            return 1.0
        return 1 - (self.hits / self.reference_length) * (self.hits / self.hypothesis_length)

    def __add__(self, other: Counts) -> Counts:
        return Counts(
            self.hits + other.hits,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )

    def to_json(self) -> dict[str, int]:
        """The four counts and the two sums, JSON-ready."""
        return {
            "reference_length": self.reference_length,
            "errors": self.errors,
            "hits": self.hits,
            "substitutions": self.substitutions,
            "deletions": self.deletions,
            "insertions": self.insertions,
        }


def total(counts: Iterable[Counts]) -> Counts:
    """The sum of counts; rates of the sum are corpus-level (micro) rates."""
    hits = substitutions = deletions = insertions = 0
    for one in counts:
        hits += one.hits
        substitutions += one.substitutions
        deletions += one.deletions
        insertions += one.insertions
    return Counts(hits, substitutions, deletions, insertions)


def align(reference: Sequence[str], hypothesis: Sequence[str]) -> list[Edit]:
    """A minimum edit distance alignment (unit costs, Levenshtein 1966), the one described above.

    Args:
        reference: units (words, or the characters of a string).
        hypothesis: units of the same kind.
    """
    edits: list[Edit] = []
    for step in Levenshtein.opcodes(*_as_numbers(reference, hypothesis)):
        ref_units = reference[step.src_start : step.src_end]
        hyp_units = hypothesis[step.dest_start : step.dest_end]
        if step.tag == "delete":
            edits += [Edit("delete", unit, None) for unit in ref_units]
        elif step.tag == "insert":
            edits += [Edit("insert", None, unit) for unit in hyp_units]
        else:
            op: Operation = "equal" if step.tag == "equal" else "substitute"
            edits += [Edit(op, ref, hyp) for ref, hyp in zip(ref_units, hyp_units, strict=True)]
    return edits


def count(reference: Sequence[str], hypothesis: Sequence[str]) -> Counts:
    """The counts of `align`, without building the edits."""
    substitutions = deletions = insertions = 0
    for tag, _, _ in Levenshtein.editops(*_as_numbers(reference, hypothesis)):
        if tag == "replace":
            substitutions += 1
        elif tag == "delete":
            deletions += 1
        else:
            insertions += 1
    return Counts(len(reference) - substitutions - deletions, substitutions, deletions, insertions)


def units_of(text: str, unit: Unit, spaces: bool = True) -> list[str]:
    """The units of a text: words, characters (code points) or grapheme clusters (what a reader calls a letter).

    A run of white space is one space and the ends are bare; with ``spaces`` false, spaces are no units.
    """
    words = text.split()
    if unit == "words":
        return words
    joined = (" " if spaces else "").join(words)
    if unit == "characters":
        return list(joined)
    import regex

    return regex.findall(r"\X", joined)


def word_counts(ref_text: str, hyp_text: str) -> Counts:
    """Counts over words, which are what white space separates."""
    return count(ref_text.split(), hyp_text.split())


def char_counts(ref_text: str, hyp_text: str) -> Counts:
    """Counts over characters (code points), the space between words included, as jiwer's ``cer`` counts.

    A run of white space is one space and the ends are bare. A letter and its combining mark are two characters.
    """
    return count(" ".join(ref_text.split()), " ".join(hyp_text.split()))


def count_many(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> np.ndarray:
    """The counts of `count` for many pairs at once.

    The distances of all pairs come from one call in C++; where they and the two lengths leave only one possibility for
    the number of substitutions, nothing more is computed.

    Args:
        references: units of each reference: lists of words, or strings for counts over characters.
        hypotheses: the same for the hypotheses.

    Returns:
        int64, shape [pairs, 4]: hits, substitutions, deletions, insertions.
    """
    pairs = len(references)
    if pairs != len(hypotheses):
        raise ValueError(f"{pairs} references and {len(hypotheses)} hypotheses: there must be one for each")
    left, right = _as_texts(references), _as_texts(hypotheses)
    if left is None or right is None:
        left, right = _encode(references, hypotheses)
    return _count_texts(left, right)


def count_words(references: Sequence[Sequence[str]], hypotheses: Sequence[Sequence[str]]) -> np.ndarray:
    """`count_many` over the words of texts that are given in pieces: each piece holds no, one or more words.

    What words a piece holds is looked at once for each distinct piece.
    """
    return _count_texts(*_encode(references, hypotheses, _WordAlphabet))


def _count_texts(left: list[str], right: list[str]) -> np.ndarray:
    pairs = len(left)
    if not pairs:
        return np.zeros((0, 4), dtype=np.int64)
    lengths = np.fromiter(map(len, left), np.int64, pairs)
    differences = lengths - np.fromiter(map(len, right), np.int64, pairs)
    errors = cpdist(left, right, scorer=Levenshtein.distance, dtype=np.int64, workers=1)
    # errors = S + D + I and lengths say D - I, so S is known up to multiples of 2 and has a greatest value. It has a
    # least one too: hits cannot be more than the longest common subsequence, which the distance without S says.
    substitutions = errors - np.abs(differences)
    least = cpdist(left, right, scorer=Indel.distance, dtype=np.int64, workers=1) - errors
    for index in np.flatnonzero((substitutions > 1) & (substitutions > least)).tolist():
        substitutions[index] = _substitutions(left[index], right[index])
    deletions = (errors - substitutions + differences) // 2
    insertions = errors - substitutions - deletions
    return np.stack([lengths - substitutions - deletions, substitutions, deletions, insertions], axis=1)


def _substitutions(reference: str, hypothesis: str) -> int:
    substitutions = 0
    for step in Levenshtein.opcodes(reference, hypothesis):
        if step.tag == "replace":
            substitutions += step.src_end - step.src_start
    return substitutions


def _as_texts(units: Sequence[Sequence[str]]) -> list[str] | None:
    return list(units) if all(isinstance(one, str) for one in units) else None  # type: ignore[arg-type]


class _Alphabet(dict[str, str]):
    """A character for every distinct unit."""

    used = 0

    def __missing__(self, unit: str) -> str:
        self[unit] = char = chr(self.used)
        self.used += 1
        return char


class _WordAlphabet(_Alphabet):
    """The characters of the words that a unit holds."""

    def __init__(self) -> None:
        super().__init__()
        self._words = _Alphabet()

    def __missing__(self, unit: str) -> str:
        self[unit] = chars = "".join([self._words[word] for word in unit.split()])
        self.used = self._words.used
        return chars


def _encode(
    references: Sequence[Sequence[str]],
    hypotheses: Sequence[Sequence[str]],
    new_alphabet: type[_Alphabet] = _Alphabet,
) -> tuple[list[str], list[str]]:
    """Every distinct unit as one character; a fresh alphabet is begun where one would be used up."""
    alphabet = new_alphabet()
    left, right = [], []
    for reference, hypothesis in zip(references, hypotheses, strict=True):
        if alphabet.used > _MANY_SYMBOLS:
            alphabet = new_alphabet()
        left.append("".join(map(alphabet.__getitem__, reference)))
        right.append("".join(map(alphabet.__getitem__, hypothesis)))
    return left, right


def _as_numbers(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[Sequence[int], Sequence[int]]:
    # Plain integers: rapidfuzz compares other objects by their hash, which differs from process to process.
    vocabulary: dict[str, int] = {}
    return (
        [vocabulary.setdefault(unit, len(vocabulary)) for unit in reference],
        [vocabulary.setdefault(unit, len(vocabulary)) for unit in hypothesis],
    )
