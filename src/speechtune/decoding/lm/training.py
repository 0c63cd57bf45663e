"""N-gram training: interpolated modified Kneser-Ney, and Witten-Bell where the counts are too few for it.

Chen & Goodman 1998, "An empirical study of smoothing techniques for language modeling" (TR-10-98, Harvard), with the
conventions of KenLM's lmplz (Heafield et al. 2013, ACL): an n-gram that begins a sentence keeps its own count, unigrams
are interpolated with the uniform distribution over the vocabulary with ``<unk>`` and ``</s>`` and without ``<s>``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Literal

import numpy as np

from speechtune.core.errors import InputError
from speechtune.decoding.lm.model import BEGIN, END, UNKNOWN, NgramModel, build

Smoothing = Literal["auto", "kneser-ney", "witten-bell"]
Ngram = tuple[str, ...]

_NEVER_LOG10 = -99.0


@dataclass(frozen=True, slots=True)
class Trained:
    """A trained model, the smoothing that made it, and what it was made of.

    ``discounts``: of Kneser-Ney for counts of 1, 2 and 3 or more, one triple an order.
    """

    model: NgramModel
    smoothing: str
    sentences: int
    words: int
    discounts: list[tuple[float, float, float]]

    def to_json(self) -> dict[str, Any]:
        """The facts without the model."""
        return {
            "order": self.model.order,
            "smoothing": self.smoothing,
            "sentences": self.sentences,
            "words": self.words,
            "vocabulary": len(self.model.words),
            "ngrams": [len(table) for table in self.model.tables],
            "discounts": self.discounts,
        }


def train_ngram(sentences: Iterable[Sequence[str]], order: int = 3, smoothing: Smoothing = "auto") -> Trained:
    """Train an n-gram model.

    Args:
        sentences: words (or tokens) of each sentence, without marks of its begin and end. Empty ones are left out.
        order: the length of the longest n-grams.
        smoothing: ``auto`` takes Kneser-Ney, or Witten-Bell where Kneser-Ney's discounts cannot be estimated.

    Raises:
        InputError: no words, a word that is one of ``<s>``, ``</s>`` and ``<unk>`` or holds white space, or
            Kneser-Ney was demanded and there is too little text.
    """
    counts, number = _count(sentences, order)
    discounts: list[tuple[float, float, float]] = []
    if smoothing != "witten-bell":
        adjusted = _adjust(counts)
        try:
            discounts = [_discounts(one) for one in adjusted]
        except ValueError as error:
            if smoothing == "kneser-ney":
                raise InputError(
                    f"the text is too small for Kneser-Ney ({error}): use witten-bell, or a lower order"
                ) from error
    model = _interpolate(adjusted, discounts) if discounts else _interpolate(counts, None)
    used = "kneser-ney" if discounts else "witten-bell"
    words = sum(count for (word,), count in counts[0].items() if word != END)
    return Trained(model, used, number, words, discounts)


def _count(sentences: Iterable[Sequence[str]], order: int) -> tuple[list[Counter[Ngram]], int]:
    """Counts of the n-grams of every order; ``<s>`` only begins n-grams and is no unigram."""
    counts: list[Counter[Ngram]] = [Counter() for _ in range(order)]
    number = 0
    for sentence in sentences:
        if not sentence:
            continue
        number += 1
        if BEGIN in sentence:
            raise InputError(f"the text holds {BEGIN!r} as a word, which a language model cannot have: remove it")
        words = (BEGIN, *sentence, END)
        for n in range(1, order + 1):
            counts[n - 1].update(words[at : at + n] for at in range(len(words) - n + 1))
    counts[0].pop((BEGIN,), None)
    if not number:
        raise InputError("there is no text to train a language model on: give a corpus with transcripts or a text file")
    for (word,) in counts[0]:
        if word == UNKNOWN or len(word.split()) != 1:
            raise InputError(f"the text holds {word!r} as a word, which a language model cannot have: remove it")
    if counts[0][(END,)] > number:
        raise InputError(f"the text holds {END!r} as a word, which a language model cannot have: remove it")
    return [one for one in counts if one], number


def _adjust(counts: list[Counter[Ngram]]) -> list[Counter[Ngram]]:
    """Below the longest order, how many different words stand before an n-gram; its count where it begins with <s>."""
    adjusted: list[Counter[Ngram]] = []
    for shorter, longer in pairwise(counts):
        kinds: Counter[Ngram] = Counter(ngram[1:] for ngram in longer)
        adjusted.append(Counter({one: shorter[one] if one[0] == BEGIN else kinds[one] for one in shorter}))
    return [*adjusted, counts[-1]]


def _discounts(counts: Counter[Ngram]) -> tuple[float, float, float]:
    """Chen & Goodman's equations 26; a ``ValueError`` where they give no discount between 0 and the count."""
    seen = Counter(counts.values())
    if not all(seen[one] for one in (1, 2, 3)):
        raise ValueError("no n-grams of one order occur exactly 1, 2 or 3 times")
    ratio = seen[1] / (seen[1] + 2 * seen[2])
    found = tuple(k - (k + 1) * ratio * seen[k + 1] / seen[k] for k in (1, 2, 3))
    for k, discount in enumerate(found, start=1):
        if not 0 <= discount <= k:
            raise ValueError(f"a discount of {discount:.2f} for a count of {k}")
    return found[0], found[1], found[2]


def _interpolate(counts: list[Counter[Ngram]], discounts: list[tuple[float, float, float]] | None) -> NgramModel:
    """Probability = discounted share + weight of the history x probability after the shorter history.

    With Kneser-Ney the weight is the share that the discounts freed; with Witten-Bell (``discounts`` is ``None``) it
    is types / (count + types) of the history (Witten & Bell 1991), which is what a history's back-off weight is too.
    """
    vocabulary = [BEGIN, END, UNKNOWN, *sorted(word for (word,) in counts[0] if word != END)]
    uniform = 1 / (len(vocabulary) - 1)
    lower: dict[Ngram, float] = {}
    probabilities: list[dict[Ngram, float]] = []
    weights: list[dict[Ngram, float]] = []
    for level, own in enumerate(counts):
        total: dict[Ngram, float] = {}
        freed: dict[Ngram, float] = {}
        for ngram, count in own.items():
            history = ngram[:-1]
            total[history] = total.get(history, 0) + count
            gain = discounts[level][min(count, 3) - 1] if discounts else 1.0
            freed[history] = freed.get(history, 0) + gain
        if not discounts:
            total = {history: value + freed[history] for history, value in total.items()}
        weight = {history: freed[history] / value for history, value in total.items()}
        current: dict[Ngram, float] = {}
        for ngram, count in own.items():
            history = ngram[:-1]
            kept = count - (discounts[level][min(count, 3) - 1] if discounts else 0.0)
            below = lower[ngram[1:]] if level else uniform
            current[ngram] = kept / total[history] + weight[history] * below
        if level == 0:
            current[(UNKNOWN,)] = weight[()] * uniform
            current[(BEGIN,)] = 0.0
        probabilities.append(current)
        weights.append(weight)
        lower = current
    return _to_model(vocabulary, probabilities, weights)


def _to_model(
    vocabulary: list[str], probabilities: list[dict[Ngram, float]], weights: list[dict[Ngram, float]]
) -> NgramModel:
    """``weights[n]`` holds the back-off weights of histories of n words."""
    ids = {word: number for number, word in enumerate(vocabulary)}
    orders = []
    for level, own in enumerate(probabilities):
        behind = weights[level + 1] if level + 1 < len(weights) else {}
        rows = np.array([[ids[word] for word in ngram] for ngram in own], np.int64)
        probs = np.array([_log10(one) for one in own.values()])
        backoffs = np.array([_log10(behind.get(one, 1.0)) for one in own])
        orders.append((rows, probs, backoffs))
    return build(vocabulary, orders)


def _log10(value: float) -> float:
    return math.log10(value) if value > 0 else _NEVER_LOG10
