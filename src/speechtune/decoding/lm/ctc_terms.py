"""Contextual biasing of CTC models: terms of one word or several that their beam search prefers, word by word."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Hashable, Mapping
from typing import Any

from speechtune.core.errors import InputError
from speechtune.decoding.boosting import TermTree
from speechtune.decoding.lm.text import Words
from speechtune.models.ctc_search import WordScores

_MAX_CACHED = 200_000


class BoostedWords:
    """Adds a bonus for terms to what words earn otherwise.

    A term gets its bonus for each letter while it is spelled: of an unfinished word the share that is there (of the
    shortest word of a term that it can become, as pyctcdecode's hotwords). What does not become a whole term loses all
    of it (`TermTree`, over words); "cat" gets nothing in "catalogue". For terms of one word this is pyctcdecode's
    search with ``hotword_weight`` = bonus x letters; it takes the words of longer terms one by one.

    Args:
        terms: term to its bonus for each letter, a natural log-probability.
        words: how written words become those that are compared.
        inner: what words earn besides; ``None``: nothing.

    Raises:
        InputError: a term has no words.
    """

    def __init__(self, terms: Mapping[str, float], words: Words, inner: WordScores | None) -> None:
        self.words, self.inner = words, inner
        split = {term: words(term) for term in terms}
        empty = [term for term, own in split.items() if not own]
        if empty:
            raise InputError(f"decoding.boost has the term {empty[0]!r}, in which there are no words: remove it")
        self._known = sorted({one for own in split.values() for one in own})
        self._number = {one: place for place, one in enumerate(self._known)}
        sequences = {tuple(self._number[one] for one in own): terms[term] for term, own in split.items()}
        self.tree = TermTree(sequences, {place: len(one) for one, place in self._number.items()})
        self._parts: dict[tuple[int, str], float] = {}

    def begin(self) -> Hashable:
        """The inner state, and the place in the tree of terms."""
        return (None if self.inner is None else self.inner.begin(), 0)

    def finished(self, state: Hashable, word: str) -> tuple[float, Hashable]:
        """What a word earns behind a state, and the next state."""
        inner, node = self._of(state)
        gain, node = self._walk(node, self.words(word))
        if self.inner is not None:
            more, inner = self.inner.finished(inner, word)
            gain += more
        return gain, (inner, node)

    def unfinished(self, part: str, state: Hashable = None) -> float:
        """What the beginning of a word earns behind a state until it is finished."""
        inner, node = self._of(state)
        key = (node, part)
        gain = self._parts.get(key)
        if gain is None:
            if len(self._parts) >= _MAX_CACHED:
                self._parts.clear()
            gain = self._parts[key] = self._of_part(node, part)
        return gain if self.inner is None else gain + self.inner.unfinished(part, inner)

    def end(self, state: Hashable) -> float:
        """What the end of the text earns: a term under way is taken back."""
        inner, node = self._of(state)
        return self.tree.fail(node) + (0.0 if self.inner is None else self.inner.end(inner))

    def _of(self, state: Any) -> tuple[Any, int]:
        return self.begin() if state is None else state  # type: ignore[return-value]

    def _walk(self, node: int, words: list[str]) -> tuple[float, int]:
        gain = 0.0
        for one in words:
            node, change = self.tree.step(node, self._number.get(one, -1))
            gain += change
        return gain, node

    def _of_part(self, node: int, part: str) -> float:
        pieces = self.words(part)
        if not pieces:
            return 0.0
        gain, node = self._walk(node, pieces[:-1])
        last = pieces[-1]
        best = self.tree.fail(node)
        next_words = self.tree.continuing(node)
        for place in range(bisect_left(self._known, last), len(self._known)):
            if not self._known[place].startswith(last):
                break
            if place in next_words:
                share = len(last) / len(self._known[place])
                best = max(best, share * self.tree.step(node, place)[1])
        return gain + best
