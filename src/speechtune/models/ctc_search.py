"""Prefix beam search over CTC probabilities, with words scored from outside (a lexicon, a language model).

The search of pyctcdecode (github.com/kensho-technologies/pyctcdecode, after Graves & Jaitly 2014 and Hannun et al.
2014, arXiv 1408.2873): a beam is a text and its last token; alignments of the same beam are summed; a word is scored
when it ends, and an unfinished one by whether it can become a known word. Texts and scores are pyctcdecode's
(`tests/decoding/test_ctc_beam.py`) with two exceptions: there, a text that ends in a space is charged for an unknown
word, and a piece that is only the mark of a word's beginning breaks the next word of other beams.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from speechtune.core.errors import InputError
from speechtune.models.ctc_search_config import CtcSearchConfig
from speechtune.models.ctc_vocabulary import CtcVocabulary
from speechtune.models.search_config import SearchConfig

_WORD_MARK = "▁"
"""SentencePiece's: a piece that begins with it begins a word."""


class WordScores(Protocol):
    """What is added to the log-probability of a text for its words. States are hashable, scores natural logarithms."""

    def begin(self) -> Hashable:
        """The state before the first word."""

    def finished(self, state: Hashable, word: str) -> tuple[float, Hashable]:
        """What a word earns behind a state, and the next state."""

    def unfinished(self, part: str, state: Hashable = None) -> float:
        """What the beginning of a word earns behind a state until it is finished; minus infinity forbids it."""

    def end(self, state: Hashable) -> float:
        """What the end of the text earns."""


@dataclass(frozen=True, slots=True)
class CtcGuide:
    """What a decoding configuration asks of the beam search of a CTC model."""

    options: CtcSearchConfig
    scores: WordScores | None = None


@dataclass(frozen=True, slots=True)
class Units:
    """What the search must know of a vocabulary.

    ``texts``: what each token writes, ``None`` for those that a transcript never has; ``delimiter``: the token between
    words, ``None`` where pieces mark the beginnings of words.
    """

    texts: list[str | None]
    blank: int
    delimiter: int | None

    @classmethod
    def of(cls, vocabulary: CtcVocabulary, size: int) -> Units:
        """The units of a CTC vocabulary with ``size`` outputs."""
        texts: list[str | None] = [None] * size
        for unit, number in vocabulary.units.items():
            if number < size and number != vocabulary.blank:
                texts[number] = unit
        return cls(texts, vocabulary.blank, vocabulary.delimiter)


@dataclass(frozen=True, slots=True)
class Found:
    """One text: its tokens, the natural log-probability of all its alignments in the search, and with the words'."""

    tokens: list[int]
    log_prob: float
    total: float


@dataclass(eq=False, slots=True)
class _Node:
    """A text: the finished words, and the part of a word behind them. ``total`` is what its words earn so far."""

    words: _Words
    part: str
    total: float
    before: _Node | None
    token: int
    children: dict[int, _Node] = field(default_factory=dict)


@dataclass(eq=False, slots=True)
class _Words:
    """Finished words: what they earn, and the state behind them."""

    score: float
    state: Hashable
    then: dict[str, _Words] = field(default_factory=dict)
    parts: dict[str, _Node] = field(default_factory=dict)


class _Tree:
    """All texts that a search has looked at, each once."""

    def __init__(self, units: Units, scores: WordScores | None) -> None:
        self.units, self.scores = units, scores
        first = _Words(0.0, None if scores is None else scores.begin())
        self.root = first.parts[""] = _Node(first, "", 0.0, None, -1)

    def child(self, node: _Node, token: int) -> _Node:
        """The text with one more token."""
        found = node.children.get(token)
        if found is None:
            found = node.children[token] = self._child(node, token)
        return found

    def _child(self, node: _Node, token: int) -> _Node:
        words, part = node.words, node.part
        if token == self.units.delimiter:
            words, part = self.finish(node), ""
        else:
            text = str(self.units.texts[token])
            if self.units.delimiter is None and text.startswith(_WORD_MARK):
                words, part = self.finish(node), text[1:]
            else:
                part += text
        known = words.parts.get(part)
        if known is None:
            known = words.parts[part] = _Node(words, part, words.score + self._unfinished(words, part), node, token)
        return known

    def finish(self, node: _Node) -> _Words:
        """The words of a text with the last one finished."""
        words, part = node.words, node.part
        if not part:
            return words
        found = words.then.get(part)
        if found is None:
            if self.scores is None:
                found = _Words(0.0, None)
            else:
                gain, state = self.scores.finished(words.state, part)
                found = _Words(words.score + gain, state)
            words.then[part] = found
        return found

    def _unfinished(self, words: _Words, part: str) -> float:
        return 0.0 if self.scores is None or not part else self.scores.unfinished(part, words.state)


def beam_search(log_probs: np.ndarray, units: Units, beams: int, n_best: int, guide: CtcGuide) -> list[Found]:
    """The best texts of one clip, best first; at least one.

    Args:
        log_probs: natural-log probabilities, shape (frames, vocabulary), no padding.
        units: of the vocabulary.
        beams: how many are kept at every frame.
        n_best: how many texts are returned at most.
        guide: thresholds, and what words earn.
    """
    options, tree = guide.options, _Tree(units, guide.scores)
    values = np.array(log_probs, np.float64)
    usable = [one is not None or place in (units.blank, units.delimiter) for place, one in enumerate(units.texts)]
    values[:, ~np.array(usable)] = -np.inf
    held: list[tuple[_Node, int, float]] = [(tree.root, -1, 0.0)]
    for row, best in zip(values, values.argmax(1).tolist(), strict=True):
        tokens = set(np.flatnonzero(row >= options.token_log_prob).tolist()) | {best}
        grown = _grow(held, [(token, float(row[token])) for token in sorted(tokens)], tree)
        if not grown:  # a strict lexicon allows none of the likely tokens here: the blank is always possible
            grown = _grow(held, [(units.blank, float(row[units.blank]))], tree)
        ranked = [(log_prob + node.total, node, last, log_prob) for (node, last), log_prob in grown.items()]
        least = max(one[0] for one in ranked) + options.beam_log_prob
        kept = heapq.nlargest(beams, (one for one in ranked if one[0] >= least), key=lambda one: one[0])
        held = [one[1:] for one in kept]
    return _finished(held, tree, n_best, options.beam_log_prob)


def _grow(
    held: Sequence[tuple[_Node, int, float]], tokens: Sequence[tuple[int, float]], tree: _Tree
) -> dict[tuple[_Node, int], float]:
    """All continuations of the beams by one frame; alignments of the same text and last token are summed."""
    blank = tree.units.blank
    grown: dict[tuple[_Node, int], float] = {}
    for token, value in tokens:
        for node, last, log_prob in held:
            reached = node if token in (blank, last) else tree.child(node, token)
            if reached.total == -math.inf:
                continue
            key, new = (reached, token), log_prob + value
            old = grown.get(key)
            grown[key] = new if old is None else _log_sum(old, new)
    return grown


def _finished(held: Sequence[tuple[_Node, int, float]], tree: _Tree, n_best: int, beam_log_prob: float) -> list[Found]:
    """The texts of the last beams with their last words finished, whatever their last token."""
    merged: dict[_Words, tuple[_Node, float]] = {}
    for node, _, log_prob in held:
        words = tree.finish(node)
        known = merged.get(words)
        merged[words] = (node, log_prob) if known is None else (known[0], _log_sum(known[1], log_prob))
    whole = {words: one for words, one in merged.items() if words.score > -math.inf}
    if not whole:  # every beam ends within a word that a strict lexicon lacks: it is left out
        for node, log_prob in merged.values():
            whole.setdefault(node.words, (_without_part(node), log_prob))
    scores = tree.scores
    found = [
        Found(
            _path(node, tree.units),
            log_prob,
            log_prob + words.score + (0.0 if scores is None else scores.end(words.state)),
        )
        for words, (node, log_prob) in whole.items()
    ]
    found.sort(key=lambda one: (-one.total, -one.log_prob))
    return [one for one in found[:n_best] if one.total >= found[0].total + beam_log_prob]


def _without_part(node: _Node) -> _Node:
    words = node.words
    while node.part and node.words is words and node.before is not None:
        node = node.before
    return node


def _path(node: _Node, units: Units) -> list[int]:
    tokens: list[int] = []
    at: _Node | None = node
    while at is not None and at.before is not None:
        tokens.append(at.token)
        at = at.before
    tokens.reverse()
    while tokens and tokens[-1] == units.delimiter:
        tokens.pop()
    return tokens


def _log_sum(one: float, other: float) -> float:
    low, high = (one, other) if one < other else (other, one)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def guide_of(guides: Sequence[Any], search: SearchConfig, beams: int) -> CtcGuide:
    """The guide of a batch.

    Raises:
        InputError: the search asks for what a CTC model cannot do, or for more hypotheses than beams.
    """
    plain = SearchConfig()
    able = {"n_best", "early_stopping", "scores", "seed"}
    for name in SearchConfig.model_fields:
        if name not in able and getattr(search, name) != getattr(plain, name):
            instead = "name the terms in decoding.boost" if name in ("hotwords", "glossary") else "remove it"
            raise InputError(f"decoding.search.{name} does not work with a CTC model: {instead}")
    if search.n_best > beams:
        raise InputError(
            f"decoding.search.n_best is {search.n_best} and decoding.beams is {beams}: a CTC model keeps at most as "
            "many hypotheses as beams"
        )
    return next((one for one in guides if isinstance(one, CtcGuide)), CtcGuide(CtcSearchConfig()))
