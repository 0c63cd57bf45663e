"""Minimum edit distance between reference and hypothesis, as edits and as counts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from rapidfuzz.distance import Levenshtein

Operation = Literal["equal", "substitute", "delete", "insert"]


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
    def rate(self) -> float | None:
        """Errors per reference unit (may exceed 1); ``None`` where the reference is empty."""
        return self.errors / self.reference_length if self.reference_length else None

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
    """A minimum edit distance alignment (unit costs, Levenshtein 1966), the same one on every run.

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


def word_counts(ref_text: str, hyp_text: str) -> Counts:
    """Counts over words, which are what white space separates."""
    return count(ref_text.split(), hyp_text.split())


def char_counts(ref_text: str, hyp_text: str) -> Counts:
    """Counts over characters (code points), the space between words included, as jiwer's ``cer`` counts.

    A run of white space is one space and the ends are bare. A letter and its combining mark are two characters.
    """
    return count(" ".join(ref_text.split()), " ".join(hyp_text.split()))


def _as_numbers(reference: Sequence[str], hypothesis: Sequence[str]) -> tuple[Sequence[int], Sequence[int]]:
    # Plain integers: rapidfuzz compares other objects by their hash, which differs from process to process.
    vocabulary: dict[str, int] = {}
    return (
        [vocabulary.setdefault(unit, len(vocabulary)) for unit in reference],
        [vocabulary.setdefault(unit, len(vocabulary)) for unit in hypothesis],
    )
