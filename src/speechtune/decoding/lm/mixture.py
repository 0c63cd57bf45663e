"""Linear interpolation of language models: at query time, or merged into one back-off model."""

from __future__ import annotations

import math
from collections.abc import Hashable, Sequence

import numpy as np

from speechtune.core.errors import InputError
from speechtune.decoding.lm.model import END, LN10, UNKNOWN, LanguageModel, NgramModel, build

_NEVER_LOG10 = -99.0


class Mixture:
    """The weighted mean of the probabilities of several models; a state is one state of each.

    Args:
        models: at least one.
        weights: of each model; they are divided by their sum.
    """

    def __init__(self, models: Sequence[LanguageModel], weights: Sequence[float]) -> None:
        if len(models) != len(weights) or not models or min(weights) < 0 or sum(weights) <= 0:
            raise InputError(
                f"{len(models)} language models need as many weights, none below 0 and not all 0, "
                f"and these were given: {', '.join(f'{one:g}' for one in weights)}"
            )
        total = sum(weights)
        chosen = [(model, weight / total) for model, weight in zip(models, weights, strict=True) if weight > 0]
        self.models = [model for model, _ in chosen]
        self.weights = [weight for _, weight in chosen]
        self.order = max(model.order for model in models)

    def begin(self) -> tuple[Hashable, ...]:
        """The state at the start of a sentence."""
        return tuple(model.begin() for model in self.models)

    def knows(self, word: str) -> bool:
        """Whether any of the models has the word."""
        return any(model.knows(word) for model in self.models)

    def score(self, state: Hashable, word: str) -> tuple[float, tuple[Hashable, ...]]:
        """The natural log-probability of ``word`` after ``state``, and the next state."""
        parts = [model.score(one, word) for model, one in zip(self.models, state, strict=True)]  # type: ignore[call-overload]
        terms = [math.log(weight) + part[0] for weight, part in zip(self.weights, parts, strict=True)]
        highest = max(terms)
        total = highest + math.log(sum(math.exp(term - highest) for term in terms))
        return total, tuple(part[1] for part in parts)


def word_log_probs(model: LanguageModel, sentences: Sequence[Sequence[str]]) -> np.ndarray:
    """Natural log-probability of every word and sentence end, in order, float64."""
    found: list[float] = []
    for sentence in sentences:
        state = model.begin()
        for word in (*sentence, END):
            log_prob, state = model.score(state, word)
            found.append(log_prob)
    return np.array(found)


def tune_weights(models: Sequence[LanguageModel], sentences: Sequence[Sequence[str]], rounds: int = 100) -> list[float]:
    """The weights that make the text most probable, by expectation maximisation (Jelinek & Mercer 1980).

    The text must not be one that a model was trained on, or that model gets all the weight.

    Raises:
        InputError: the text has no words.
    """
    table = np.stack([word_log_probs(model, sentences) for model in models])
    if not sum(map(len, sentences)):
        raise InputError("the text to tune the weights on has no words: give another")
    shares = np.exp(table - table.max(axis=0))
    weights = np.full(len(models), 1 / len(models))
    for _ in range(rounds):
        posterior = weights[:, None] * shares
        posterior /= posterior.sum(axis=0)
        updated = posterior.mean(axis=1)
        done = np.abs(updated - weights).max() < 1e-6
        weights = updated
        if done:
            break
    return [float(one) for one in weights]


def merge(models: Sequence[NgramModel], weights: Sequence[float]) -> NgramModel:
    """One back-off model with the n-grams of all: the mixture on those n-grams, backed off elsewhere.

    The back-off weights are computed anew so that every history's probabilities sum to one (as SRILM's ``ngram
    -mix-lm`` does, Stolcke 2002). A word that a model lacks has its ``<unk>``'s probability there, or none.

    Raises:
        InputError: the weights do not fit.
    """
    checked = Mixture(models, weights)
    parts = [one for one in checked.models if isinstance(one, NgramModel)]
    order = max(part.order for part in parts)
    words = sorted({word for part in parts for word in part.words})
    ids = {word: number for number, word in enumerate(words)}
    from_union = [np.array([part.id_of(word) for word in words], np.int64) for part in parts]
    to_union = [np.array([ids[word] for word in part.words], np.int64) for part in parts]
    orders: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    for n in range(1, order + 1):
        held = [to_union[at][part.ngrams(n)] for at, part in enumerate(parts) if part.order >= n]
        rows = np.unique(np.concatenate(held), axis=0)
        total = np.zeros(len(rows))
        for at, part in enumerate(parts):
            own = np.power(10.0, part.log10_probs(from_union[at][rows]))
            total += checked.weights[at] * own
        probs = np.where(total > 0, np.log10(np.maximum(total, 1e-99)), _NEVER_LOG10)
        orders.append((rows, probs, np.zeros(len(rows))))
    if UNKNOWN in ids:
        # A word that one model lacks took that one's <unk>'s probability, so that the words' sum is a little above 1.
        rows, probs, backoffs = orders[0]
        orders[0] = (rows, probs - np.log10(np.power(10.0, probs).sum()), backoffs)
    return normalised(words, orders)


def normalised(words: Sequence[str], orders: list[tuple[np.ndarray, np.ndarray, np.ndarray]]) -> NgramModel:
    """A model with these probabilities and the back-off weights that make every history's sum to one."""
    kept = [orders[0]]
    for n in range(1, len(orders)):
        model = build(words, kept)
        rows, probs, _ = orders[n]
        histories = model.places(rows[:, :-1])
        size = len(kept[-1][0])
        taken = np.bincount(histories, np.power(10.0, probs), size)
        below = np.bincount(histories, np.power(10.0, model.log10_probs(rows[:, 1:])), size)
        free, left = np.maximum(1 - taken, 0.0), np.maximum(1 - below, 1e-12)
        backoffs = np.log10(np.maximum(free / left, 1e-99))
        lower = model.tables[n - 1]
        ids = model.ngrams(n)
        kept[-1] = (ids, lower.log10_probs, backoffs)
        kept.append((rows, probs, np.zeros(len(rows))))
    return build(words, kept)


def perplexity(model: LanguageModel, sentences: Sequence[Sequence[str]]) -> dict[str, float | int]:
    """Perplexity with sentence ends, and without the words that the model does not know.

    ``perplexity`` counts unknown words at what the model gives them, ``perplexity_known`` leaves them out (KenLM's
    "including OOVs" and "excluding OOVs").

    Raises:
        InputError: the text has no words.
    """
    log_probs = word_log_probs(model, sentences)
    known = np.array([model.knows(word) for sentence in sentences for word in (*sentence, END)], bool)
    words = sum(map(len, sentences))
    if not words:
        raise InputError("the text has no words: give another")
    return {
        "sentences": len(sentences),
        "words": words,
        "unknown_words": int((~known).sum()),
        "log10_prob": float(log_probs.sum() / LN10),
        "perplexity": float(math.exp(min(700.0, -log_probs.mean()))),
        "perplexity_known": float(math.exp(-log_probs[known].mean())) if known.any() else math.inf,
    }
