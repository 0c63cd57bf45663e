"""Back-off n-gram models in sorted arrays, and what every language model here can be asked.

An n-gram is found by walking from its first word: the place of its first n - 1 words in their table, times the
vocabulary, plus its last word, is its key in the table of its order. A million n-grams take 16 MB.
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

BEGIN, END, UNKNOWN = "<s>", "</s>", "<unk>"
LN10 = math.log(10.0)
ABSENT_LOG10 = -100.0
"""What an unknown word costs in a model without ``<unk>``, as in KenLM (Heafield 2011, github.com/kpu/kenlm)."""


class LanguageModel(Protocol):
    """A model of word sequences: states are hashable, log-probabilities natural."""

    order: int

    def begin(self) -> Hashable:
        """The state at the start of a sentence."""

    def score(self, state: Hashable, word: str) -> tuple[float, Hashable]:
        """The log-probability of ``word`` after ``state``, and the state behind it."""

    def knows(self, word: str) -> bool:
        """Whether the word is in the vocabulary."""


def end_log_prob(model: LanguageModel, state: Hashable) -> float:
    """The log-probability that the sentence ends after ``state``."""
    return model.score(state, END)[0]


def sentence_log_prob(model: LanguageModel, words: Iterable[str], end: bool = True) -> float:
    """The natural log-probability of a sentence, its end included unless ``end`` is false."""
    state, total = model.begin(), 0.0
    for word in words:
        one, state = model.score(state, word)
        total += one
    return total + (end_log_prob(model, state) if end else 0.0)


@dataclass(frozen=True, slots=True)
class Table:
    """The n-grams of one order: ``keys`` (n-grams,) rising int64, ``log10_probs`` and ``log10_backoffs`` float32."""

    keys: np.ndarray
    log10_probs: np.ndarray
    log10_backoffs: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)


class NgramModel:
    """A back-off n-gram model.

    Args:
        words: the vocabulary; ``<s>`` and ``</s>`` are in it, ``<unk>`` may be.
        tables: one for each order. The keys of the first are the word ids, all of them in order.
    """

    def __init__(self, words: Sequence[str], tables: Sequence[Table]) -> None:
        self.words = list(words)
        self.tables = list(tables)
        self.order = len(tables)
        self._ids = {word: number for number, word in enumerate(self.words)}
        self._size = len(self.words)
        self._unknown = self._ids.get(UNKNOWN)
        self._cache: dict[tuple[tuple[int, ...], int], tuple[float, tuple[int, ...]]] = {}

    def begin(self) -> tuple[int, ...]:
        """The state at the start of a sentence: ``<s>``."""
        return (self._ids[BEGIN],) if BEGIN in self._ids and self.order > 1 else ()

    def knows(self, word: str) -> bool:
        """Whether the word is in the vocabulary (``<unk>`` is not)."""
        return word in self._ids and word != UNKNOWN

    def id_of(self, word: str) -> int:
        """The word's id, that of ``<unk>`` for unknown words, -1 where there is none."""
        known = self._ids.get(word, self._unknown)
        return -1 if known is None else known

    def score(self, state: Hashable, word: str) -> tuple[float, tuple[int, ...]]:
        """The natural log-probability of ``word`` after ``state``, and the next state."""
        key = (state, self.id_of(word))
        found = self._cache.get(key)  # type: ignore[arg-type]
        if found is None:
            if len(self._cache) > 500_000:
                self._cache.clear()
            found = self._cache[key] = self._score(*key)  # type: ignore[index, arg-type]
        return found

    def _score(self, history: tuple[int, ...], word: int) -> tuple[float, tuple[int, ...]]:
        if word < 0:
            return ABSENT_LOG10 * LN10, ()
        total = 0.0
        for start in range(len(history) + 1):
            context = history[start:]
            place = self.place(context)
            if place < 0:
                continue
            found = self._child(len(context), place, word)
            if found >= 0:
                total += float(self.tables[len(context)].log10_probs[found])
                break
            total += float(self.tables[len(context) - 1].log10_backoffs[place])
        return total * LN10, self._shortened((*history, word))

    def _shortened(self, history: tuple[int, ...]) -> tuple[int, ...]:
        """The longest end of the history that is an n-gram of the model and can have more words behind it."""
        for start in range(max(0, len(history) - self.order + 1), len(history)):
            if self.place(history[start:]) >= 0:
                return history[start:]
        return ()

    def place(self, ngram: Sequence[int]) -> int:
        """Where an n-gram stands in the table of its order; -1: nowhere (the empty n-gram: 0)."""
        if not ngram:
            return 0
        place = int(ngram[0])
        for length, word in enumerate(ngram[1:], start=1):
            place = self._child(length, place, word)
            if place < 0:
                return -1
        return place

    def _child(self, length: int, place: int, word: int) -> int:
        """Where the n-gram at ``place`` of order ``length`` followed by ``word`` stands; -1: nowhere."""
        if length == 0:
            return word
        keys = self.tables[length].keys
        wanted = place * self._size + word
        found = int(keys.searchsorted(wanted))
        return found if found < len(keys) and int(keys[found]) == wanted else -1

    # The same for many n-grams at once.

    def places(self, ngrams: np.ndarray) -> np.ndarray:
        """`place` for every row of ``ngrams`` (rows, n), int64; ids of -1 are found nowhere."""
        place = ngrams[:, 0].astype(np.int64)
        for length in range(1, ngrams.shape[1]):
            keys = self.tables[length].keys if length < self.order else np.empty(0, np.int64)
            wanted = np.where((place >= 0) & (ngrams[:, length] >= 0), place * self._size + ngrams[:, length], -1)
            found = np.searchsorted(keys, wanted)
            found[found == len(keys)] = 0
            hit = (keys[found] == wanted) & (wanted >= 0) if len(keys) else np.zeros(len(wanted), bool)
            place = np.where(hit, found, -1)
        return place

    def log10_probs(self, ngrams: np.ndarray) -> np.ndarray:
        """Log10 probability of the last word of every row of ``ngrams`` (rows, n) given the others, float64 (rows,)."""
        if ngrams.shape[1] > self.order:
            ngrams = ngrams[:, -self.order :]
        if ngrams.shape[1] == 1:
            word = ngrams[:, 0]
            return np.where(word >= 0, self.tables[0].log10_probs[word].astype(np.float64), ABSENT_LOG10)
        place = self.places(ngrams)
        own = self.tables[ngrams.shape[1] - 1].log10_probs[place].astype(np.float64)
        result = np.where(place >= 0, own, 0.0)
        missing = np.flatnonzero(place < 0)
        if len(missing):
            context = self.places(ngrams[missing, :-1])
            weights = self.tables[ngrams.shape[1] - 2].log10_backoffs[context].astype(np.float64)
            result[missing] = np.where(context >= 0, weights, 0.0) + self.log10_probs(ngrams[missing, 1:])
        return np.maximum(result, ABSENT_LOG10)

    def ngrams(self, order: int) -> np.ndarray:
        """The n-grams of one order as word ids, int64 of shape (n-grams, order), in the order of their table."""
        columns: list[np.ndarray] = []
        place = np.arange(len(self.tables[order - 1]), dtype=np.int64)
        for length in range(order, 1, -1):
            keys = self.tables[length - 1].keys[place]
            columns.append(keys % self._size)
            place = keys // self._size
        columns.append(place)
        return np.stack(columns[::-1], axis=1)


def build(words: Sequence[str], orders: Sequence[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> NgramModel:
    """A model from n-grams in any order of rows.

    Args:
        words: the vocabulary.
        orders: for each order, word ids (n-grams, order), log10 probabilities and log10 back-off weights (n-grams,).
            The first order has every word.

    Raises:
        ValueError: an n-gram's first n - 1 words are no n-gram of the model.
    """
    size = len(words)
    sorted_first = np.argsort(orders[0][0][:, 0], kind="stable")
    ids, probs, backoffs = (one[sorted_first] for one in orders[0])
    if not np.array_equal(ids[:, 0], np.arange(size)):
        raise ValueError("the first order must have every word once")
    tables = [Table(np.arange(size, dtype=np.int64), probs.astype(np.float32), backoffs.astype(np.float32))]
    for ids, probs, backoffs in orders[1:]:
        context = NgramModel(words, tables).places(ids[:, :-1])
        if (context < 0).any():
            bad = " ".join(words[one] for one in ids[int(np.flatnonzero(context < 0)[0])])
            raise ValueError(f"the n-gram {bad!r} has no shorter one that begins it")
        keys = context * size + ids[:, -1]
        rising = np.argsort(keys, kind="stable")
        tables.append(Table(keys[rising], probs[rising].astype(np.float32), backoffs[rising].astype(np.float32)))
    return NgramModel(words, tables)
