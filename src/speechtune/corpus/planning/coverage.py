"""Vocabulary of a corpus: coverage of a target, growth of what is unseen, instances of the terms that matter."""

from __future__ import annotations

import random
from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.corpus.text_keys import text_key

RECOMMENDED_INSTANCES = 70
"""Instances of each term in training: "50-100+" (notebook L16063, L16392); its own worked example uses 70 (L16069)."""

FEWEST_INSTANCES = 50
"""Lower end of the same range."""


def read_terms(path: Path) -> list[str]:
    """Read target terms, one a line (a term may be several words); blank lines and lines that begin with # are skipped.

    Raises:
        InputError: the file is missing, not UTF-8, or holds no term; or a term has no letter or digit.
    """
    terms: dict[str, str] = {}
    for number, line in enumerate(read_lines(path), start=1):
        term = line.strip()
        if not term or term.startswith("#"):
            continue
        key = text_key(term)
        if not key:
            raise InputError(f"{path} line {number}: {term!r} has no letter or digit: write a word")
        terms.setdefault(key, term)
    if not terms:
        raise InputError(f"{path} holds no term: write one a line")
    return list(terms.values())


def read_lines(path: Path) -> list[str]:
    """The lines of a UTF-8 text file.

    Raises:
        InputError: it is missing, a directory, or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig").split("\n")
    except (FileNotFoundError, IsADirectoryError) as error:
        raise InputError(f"{path} is not a file: check the path") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error


@dataclass(frozen=True, slots=True)
class Coverage:
    """How much of a target vocabulary occurs in training.

    ``tokens`` counts running words, ``types`` distinct ones; ``missing`` lists unseen words, most frequent first.
    """

    target: str
    tokens: int
    tokens_seen: int
    types: int
    types_seen: int
    missing: tuple[tuple[str, int], ...]

    @property
    def out_of_vocabulary_frac(self) -> float | None:
        """Share of the target's running words that training never saw; ``None`` where there are none."""
        return 1 - self.tokens_seen / self.tokens if self.tokens else None

    def to_json(self, most: int = 50) -> dict[str, Any]:
        """Counts, the share out of vocabulary, and the most frequent missing words, JSON-ready."""
        return {
            "target": self.target,
            "tokens": self.tokens,
            "tokens_seen": self.tokens_seen,
            "types": self.types,
            "types_seen": self.types_seen,
            "out_of_vocabulary_frac": self.out_of_vocabulary_frac,
            "missing": [{"word": word, "count": count} for word, count in self.missing[:most]],
        }


def coverage(seen: Mapping[str, int], target: Mapping[str, int], name: str) -> Coverage:
    """Compare the words of a target with those seen in training (both word to count)."""
    missing = sorted(((word, count) for word, count in target.items() if not seen.get(word)), key=_by_count)
    tokens = sum(target.values())
    return Coverage(
        name,
        tokens,
        tokens - sum(count for _, count in missing),
        len(target),
        len(target) - len(missing),
        tuple(missing),
    )


def _by_count(item: tuple[str, int]) -> tuple[int, str]:
    return -item[1], item[0]


class Texts:
    """Many texts as word numbers: four bytes a word, each distinct word once."""

    def __init__(self) -> None:
        self.numbers: dict[str, int] = {}
        self._words = array("I")
        self._ends = array("q", [0])

    def add(self, words: Sequence[str]) -> None:
        """Append one text."""
        self._words.extend(self.numbers.setdefault(word, len(self.numbers)) for word in words)
        self._ends.append(len(self._words))

    def __len__(self) -> int:
        return len(self._ends) - 1

    def counts(self) -> dict[str, int]:
        """Word to count."""
        by_number = Counter(self._words)
        return {word: by_number[number] for word, number in self.numbers.items()}

    def first_seen(self, order: Sequence[int]) -> dict[str, int]:
        """Word to the rank, in this order of the texts, of the first text that holds it."""
        ranks = array("q", [-1]) * len(self.numbers)
        for rank, text in enumerate(order):
            for number in self._words[self._ends[text] : self._ends[text + 1]]:
                if ranks[number] < 0:
                    ranks[number] = rank
        return {word: ranks[number] for word, number in self.numbers.items()}


@dataclass(frozen=True, slots=True)
class GrowthPoint:
    """After ``texts`` training texts: distinct words seen, and the share of the target's words still unseen."""

    texts: int
    types: int
    out_of_vocabulary_frac: float | None


def vocabulary_growth(train: Texts, target: Mapping[str, int], points: int = 10, seed: int = 0) -> list[GrowthPoint]:
    """How the vocabulary grows, and what stays unseen, as training texts are added in a random order.

    A curve that still falls steeply at its end says that more text will help; a flat one, that the missing words must
    be recorded on purpose.
    """
    order = list(range(len(train)))
    random.Random(seed).shuffle(order)
    first = train.first_seen(order)
    tokens = sum(target.values())
    new_types = Counter(first.values())
    new_tokens: Counter[int] = Counter()
    for word, count in target.items():
        if word in first:
            new_tokens[first[word]] += count
    marks = sorted({round(len(order) * step / points) for step in range(1, points + 1)} - {0})
    growth = []
    for mark in marks:
        seen = sum(count for rank, count in new_tokens.items() if rank < mark)
        types = sum(count for rank, count in new_types.items() if rank < mark)
        growth.append(GrowthPoint(mark, types, 1 - seen / tokens if tokens else None))
    return growth


@dataclass(slots=True)
class TermDensity:
    """How often and how variedly one term is said; everything but ``by_split`` counts training only."""

    term: str
    by_split: Counter[str] = field(default_factory=Counter)
    instances: int = 0
    speakers: set[str] = field(default_factory=set)
    sentences: set[str] = field(default_factory=set)
    positions: Counter[str] = field(default_factory=Counter)
    alone: int = 0

    def to_json(self) -> dict[str, Any]:
        """Counts, JSON-ready; ``alone`` counts clips that hold nothing but the term."""
        return {
            "term": self.term,
            "instances": self.instances,
            "by_split": dict(sorted(self.by_split.items())),
            "speakers": len(self.speakers),
            "sentences": len(self.sentences),
            "positions": {name: self.positions[name] for name in ("beginning", "middle", "end")},
            "alone": self.alone,
        }


class TermCounter:
    """Finds terms of one or more words in texts; overlapping terms all count."""

    def __init__(self, terms: Iterable[str]) -> None:
        self.densities = {term: TermDensity(term) for term in terms}
        self._by_first: dict[str, list[tuple[str, list[str]]]] = {}
        for term in self.densities:
            words = text_key(term).split()
            self._by_first.setdefault(words[0], []).append((term, words))
        self.words = 0
        self.term_words = 0

    def find(self, words: Sequence[str]) -> list[tuple[str, int, int]]:
        """Every occurrence of a term: (term, index of its first word, index after its last)."""
        found = []
        for index, word in enumerate(words):
            for term, parts in self._by_first.get(word, ()):
                if list(words[index : index + len(parts)]) == parts:
                    found.append((term, index, index + len(parts)))
        return found

    def add(self, words: Sequence[str], split: str, speaker: str | None, in_training: bool) -> None:
        """Count one utterance."""
        found = self.find(words)
        for term, start, end in found:
            density = self.densities[term]
            density.by_split[split] += 1
            if not in_training:
                continue
            density.instances += 1
            density.sentences.add(" ".join(words))
            if speaker is not None:
                density.speakers.add(speaker)
            density.alone += start == 0 and end == len(words)
            density.positions["beginning" if start == 0 else "end" if end == len(words) else "middle"] += 1
        if in_training:
            self.words += len(words)
            self.term_words += len({index for _, start, end in found for index in range(start, end)})

    @property
    def term_frac(self) -> float | None:
        """Share of training words that belong to a term; ``None`` without training words."""
        return self.term_words / self.words if self.words else None
