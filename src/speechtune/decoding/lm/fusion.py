"""Shallow fusion: a language model's say in the search, token by token or word by word.

Gulcehre et al. 2015 (arXiv 1503.03535). A word-level model speaks when a word ends, that is when a token begins the
next word or ends the text: every such token then gets ``alpha x log p(word | words before) + beta``. A hypothesis
within a word has not been charged yet, so beams are compared as they are in any word-level fusion over subwords.
"""

from __future__ import annotations

import string
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import torch
from transformers import LogitsProcessor

from speechtune.decoding.lm.model import LanguageModel, end_log_prob
from speechtune.decoding.lm.text import Words

_MAX_CACHED = 200_000


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """What fusion must know of a tokenizer.

    ``starts_word`` (vocabulary,): whether a token begins with white space, or with punctuation that ends a word;
    ``end``: the end-of-text token; ``decode``: ids to text.
    """

    starts_word: torch.Tensor
    end: int
    decode: Any

    @classmethod
    def of(cls, tokenizer: Any, size: int, end: int, punctuation: bool = True) -> Vocabulary:
        """The vocabulary of a byte-level BPE tokenizer (GPT-2's, Whisper's) or a SentencePiece one.

        ``punctuation``: ASCII punctuation other than the apostrophe ends words too, as in `spoken_words`; without,
        a search could put off the language model's charge with hyphens.
        """
        marks = ("Ġ", "Ċ", "▁", " ", *(string.punctuation.replace("'", "") if punctuation else ""))
        pieces = tokenizer.convert_ids_to_tokens(list(range(min(size, len(tokenizer)))))
        flags = [bool(piece) and str(piece).startswith(marks) and not str(piece).startswith("<|") for piece in pieces]
        flags += [False] * (size - len(flags))
        return cls(torch.tensor(flags), end, lambda ids: tokenizer.decode(list(ids), skip_special_tokens=True))


class WordFusion(LogitsProcessor):
    """Adds a word-level model's log-probabilities where words end.

    Args:
        vocabulary: of the recogniser.
        model: the language model.
        words: how text is cut into the model's words; a piece of text may be none (punctuation) or several.
        alpha: weight of the model's natural log-probability.
        beta: added for every word.
        begin: how many tokens come before the text.
    """

    def __init__(
        self, vocabulary: Vocabulary, model: LanguageModel, words: Words, alpha: float, beta: float, begin: int
    ) -> None:
        self.vocabulary, self.model, self.words = vocabulary, model, words
        self.alpha, self.beta, self.begin = alpha, beta, begin
        self._starts: list[bool] = vocabulary.starts_word.tolist()
        self._states: dict[tuple[int, ...], Hashable] = {}

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores with the finished word's share added to the tokens that finish it."""
        mask = self.vocabulary.starts_word.to(scores.device)[: scores.shape[-1]]
        next_word, text_end = [], []
        for row in input_ids[:, self.begin :].tolist():
            word, end = (0.0, 0.0) if self.vocabulary.end in row else self.gains(tuple(row))
            next_word.append(word)
            text_end.append(end)
        scores = scores + mask * torch.tensor(next_word, device=scores.device, dtype=scores.dtype)[:, None]
        scores[:, self.vocabulary.end] += torch.tensor(text_end, device=scores.device, dtype=scores.dtype)
        return scores

    def gains(self, tokens: tuple[int, ...]) -> tuple[float, float]:
        """What a token that begins a word, and the end of the text, are given after ``tokens``."""
        cut = self._last_start(tokens)
        state = self._state(tokens[:cut])
        total = 0.0
        for word in self.words(self.vocabulary.decode(tokens[cut:])):
            one, state = self.model.score(state, word)
            total += self.alpha * one + self.beta
        return total, total + self.alpha * end_log_prob(self.model, state)

    def _state(self, tokens: tuple[int, ...]) -> Hashable:
        """The model's state behind the finished words ``tokens``."""
        if not tokens:
            return self.model.begin()
        found = self._states.get(tokens)
        if found is None:
            cut = self._last_start(tokens)
            found = self._state(tokens[:cut])
            for word in self.words(self.vocabulary.decode(tokens[cut:])):
                _, found = self.model.score(found, word)
            if len(self._states) > _MAX_CACHED:
                self._states.clear()
            self._states[tokens] = found
        return found

    def _last_start(self, tokens: tuple[int, ...]) -> int:
        """Where the last word begins."""
        for place in range(len(tokens) - 1, 0, -1):
            if self._starts[tokens[place]]:
                return place
        return 0


class TokenFusion(LogitsProcessor):
    """Adds a token-level model's log-probabilities to the scores of the best tokens.

    The model's words are token ids as decimal text (``speechtune lm train --tokens MODEL`` makes such a model).
    Only the ``width`` best tokens are scored; the others are left behind them by the penalty of the worst of these.
    """

    def __init__(self, end: int, model: LanguageModel, alpha: float, beta: float, begin: int, width: int = 100) -> None:
        self.end, self.model, self.alpha, self.beta = end, model, alpha, beta
        self.begin, self.width = begin, width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores with the model's share added."""
        best = scores.topk(min(self.width, scores.shape[-1]), dim=-1).indices
        result = torch.full_like(scores, 0.0)
        for number, row in enumerate(input_ids[:, self.begin :].tolist()):
            if self.end in row:
                continue
            state = self.model.begin()
            for token in row:
                _, state = self.model.score(state, str(token))
            gains = [self._gain(state, token) for token in best[number].tolist()]
            result[number] = min(gains)
            result[number, best[number]] = torch.tensor(gains, device=scores.device, dtype=scores.dtype)
        return scores + result

    def _gain(self, state: Hashable, token: int) -> float:
        if token == self.end:
            return self.alpha * end_log_prob(self.model, state)
        return self.alpha * self.model.score(state, str(token))[0] + self.beta
