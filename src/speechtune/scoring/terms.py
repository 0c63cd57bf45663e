"""Recall and precision of the words that matter: names, technical vocabulary, target words of a reading test."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.scoring.alignment import Edit, align
from speechtune.scoring.normalisers import Normaliser, get_normaliser

NOTHING = "(nothing)"
"""What a term is reported as recognised as when its words were deleted."""


@dataclass(slots=True)
class TermCounts:
    """One term: how often it was said, recognised where it was said, and recognised where it was not.

    ``confusions`` counts what was recognised instead of it, ``mistaken`` what was said where it was recognised wrongly.
    """

    term: str
    reference: int = 0
    hits: int = 0
    false_alarms: int = 0
    confusions: Counter[str] = field(default_factory=Counter)
    mistaken: Counter[str] = field(default_factory=Counter)

    @property
    def recall(self) -> float | None:
        """Share of spoken occurrences that were recognised; ``None`` where it was never said."""
        return self.hits / self.reference if self.reference else None

    @property
    def precision(self) -> float | None:
        """Share of recognised occurrences that were said; ``None`` where it was never recognised."""
        return self.hits / (self.hits + self.false_alarms) if self.hits + self.false_alarms else None

    def to_json(self, top: int = 5) -> dict[str, Any]:
        """Counts, rates and the most frequent confusions, JSON-ready."""
        return {
            "term": self.term,
            "reference": self.reference,
            "hits": self.hits,
            "false_alarms": self.false_alarms,
            "recall": self.recall,
            "precision": self.precision,
            "recognised_as": _ranked(self.confusions, top),
            "recognised_for": _ranked(self.mistaken, top),
        }


def _ranked(counts: Counter[str], top: int) -> list[dict[str, Any]]:
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
    return [{"text": text, "count": number} for text, number in ranked]


@dataclass(slots=True)
class TermScore:
    """All terms, in the order given, and their sum; ``dropped_by_reason`` names terms that cannot be counted."""

    terms: list[TermCounts]
    dropped_by_reason: dict[str, list[str]] = field(default_factory=dict)

    @property
    def overall(self) -> TermCounts:
        """The sum over terms (its recall and precision are micro averages)."""
        return TermCounts(
            "(all)",
            sum(one.reference for one in self.terms),
            sum(one.hits for one in self.terms),
            sum(one.false_alarms for one in self.terms),
        )

    @property
    def recall(self) -> float | None:
        """Recall over all occurrences of all terms."""
        return self.overall.recall

    @property
    def precision(self) -> float | None:
        """Precision over all occurrences of all terms."""
        return self.overall.precision

    def to_json(self) -> dict[str, Any]:
        """Totals and one object for each term, JSON-ready."""
        overall = self.overall
        return {
            "kept": len(self.terms),
            "dropped_by_reason": self.dropped_by_reason,
            "reference": overall.reference,
            "hits": overall.hits,
            "false_alarms": overall.false_alarms,
            "recall": overall.recall,
            "precision": overall.precision,
            "terms": [one.to_json() for one in self.terms],
        }

    def to_text(self) -> str:
        """A table for a person, one line for each term and one for their sum."""
        width = max(len(one.term) for one in (self.overall, *self.terms))
        lines = [f"{'term':<{width}}    said    hits   false  recall  precision  missed ones recognised as"]
        for one in (*self.terms, self.overall):
            wrong = ", ".join(f"{row['text']} x{row['count']}" for row in one.to_json(top=3)["recognised_as"])
            lines.append(
                f"{one.term:<{width}}  {one.reference:>6}  {one.hits:>6}  {one.false_alarms:>6}  "
                f"{_percent(one.recall):>6}  {_percent(one.precision):>9}  {wrong}".rstrip()
            )
        lines += [f"note: {reason}: {', '.join(names)}" for reason, names in self.dropped_by_reason.items()]
        return "\n".join(lines)


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.1f}"


def term_recall(
    references: Sequence[str],
    hypotheses: Sequence[str],
    terms: Sequence[str],
    variants: Mapping[str, Sequence[str]] | None = None,
    normaliser: Normaliser | str = "unicode",
) -> TermScore:
    """Count how terms (one or more words) were recognised.

    Occurrences are whole words, counted in each utterance: ``min(said, recognised)`` are hits, what is recognised
    beyond that is a false alarm, wherever in the utterance it stands. Terms are counted independently, so "new york"
    is also found in "new york city"; occurrences of one term do not overlap, and its longest spelling wins.

    Args:
        references: raw reference texts.
        hypotheses: raw recognised texts, same length.
        terms: raw terms; they are normalised like the texts.
        variants: other spellings that count as a term, in references and hypotheses.
        normaliser: a `Normaliser` or its name.

    Raises:
        InputError: the two lists differ in length, or variants are given for something that is not a term.
    """
    if len(references) != len(hypotheses):
        raise InputError(f"{len(references)} references but {len(hypotheses)} hypotheses: give one for each")
    strangers = sorted(set(variants or {}) - set(terms))
    if strangers:
        raise InputError(f"term_variants names {strangers[0]!r}, which is not a term: add it to the terms")
    normalise = get_normaliser(normaliser) if isinstance(normaliser, str) else normaliser
    finder, score = _prepare(terms, variants or {}, normalise)
    for raw_reference, raw_hypothesis in zip(references, hypotheses, strict=True):
        reference, hypothesis = normalise(raw_reference).split(), normalise(raw_hypothesis).split()
        said, recognised = finder.find(reference), finder.find(hypothesis)
        edits: list[Edit] | None = None
        for index in said.keys() | recognised.keys():
            spans, count = said.get(index, []), len(recognised.get(index, []))
            one = score.terms[index]
            one.reference += len(spans)
            one.hits += min(len(spans), count)
            one.false_alarms += max(0, count - len(spans))
            if len(spans) > count:
                edits = edits or align(reference, hypothesis)
                wrong = [heard for span in spans if not finder.spells(index, heard := _heard(edits, *span))]
                one.confusions.update(" ".join(heard) or NOTHING for heard in wrong[: len(spans) - count])
            elif count > len(spans):
                back = align(hypothesis, reference)
                wrong = [meant for span in recognised[index] if not finder.spells(index, meant := _heard(back, *span))]
                one.mistaken.update(" ".join(meant) or NOTHING for meant in wrong[: count - len(spans)])
    return score


def read_terms(path: Path) -> tuple[list[str], dict[str, list[str]]]:
    """Read a list of terms: one a line, other spellings after it separated by tabs; blank lines are passed over.

    Returns:
        The terms, and the variants of those that have some.

    Raises:
        InputError: the file is missing, not UTF-8, or holds no term.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error
    terms: list[str] = []
    variants: dict[str, list[str]] = {}
    for line in lines:
        term, *others = [cell.strip() for cell in line.split("\t")]
        if term:
            terms.append(term)
            variants.setdefault(term, []).extend(other for other in others if other)
    if not terms:
        raise InputError(f"{path} holds no term: write one a line")
    return terms, {term: others for term, others in variants.items() if others}


class _Finder:
    """Finds the spellings of terms in a list of words, by their first word."""

    def __init__(self) -> None:
        self._by_first: dict[str, list[tuple[tuple[str, ...], int]]] = {}
        self._spellings: set[tuple[int, tuple[str, ...]]] = set()

    def add(self, index: int, words: tuple[str, ...]) -> None:
        if (index, words) not in self._spellings:
            self._spellings.add((index, words))
            entries = self._by_first.setdefault(words[0], [])
            entries.append((words, index))
            entries.sort(key=lambda entry: -len(entry[0]))

    def spells(self, index: int, words: list[str]) -> bool:
        return (index, tuple(words)) in self._spellings

    def find(self, words: list[str]) -> dict[int, list[tuple[int, int]]]:
        """Spans ``(start, end)`` of each term, by its index."""
        spans: dict[int, list[tuple[int, int]]] = {}
        for index, start, end in self._occurrences(words):
            found = spans.setdefault(index, [])
            if not found or start >= found[-1][1]:
                found.append((start, end))
        return spans

    def _occurrences(self, words: list[str]) -> Iterator[tuple[int, int, int]]:
        for start, first in enumerate(words):
            for spelling, index in self._by_first.get(first, ()):
                if tuple(words[start : start + len(spelling)]) == spelling:
                    yield index, start, start + len(spelling)


def _prepare(
    terms: Sequence[str], variants: Mapping[str, Sequence[str]], normalise: Normaliser
) -> tuple[_Finder, TermScore]:
    finder, score = _Finder(), TermScore([])
    seen: set[str] = set()
    for term in terms:
        form = normalise(term)
        if not form or form in seen:
            reason = "same as an earlier term once normalised" if form else "empty once normalised"
            score.dropped_by_reason.setdefault(reason, []).append(term)
            continue
        seen.add(form)
        for spelling in (form, *(normalise(one) for one in variants.get(term, ()))):
            if spelling:
                finder.add(len(score.terms), tuple(spelling.split()))
        score.terms.append(TermCounts(term))
    return finder, score


def _heard(edits: list[Edit], start: int, end: int) -> list[str]:
    """Words aligned to reference words ``start`` to ``end``, with insertions inside and next to a wrong one."""
    positions = [number for number, edit in enumerate(edits) if edit.ref is not None][start:end]
    first, last = positions[0], positions[-1]
    while first > 0 and edits[first].op != "equal" and edits[first - 1].op == "insert":
        first -= 1
    while last + 1 < len(edits) and edits[last].op != "equal" and edits[last + 1].op == "insert":
        last += 1
    return [edit.hyp for edit in edits[first : last + 1] if edit.hyp is not None]
