"""Choosing among N-best hypotheses with a language model's help."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.decoding.lm.model import LanguageModel, sentence_log_prob
from speechtune.decoding.lm.text import Words
from speechtune.decoding.transcript import Transcript

Scorer = Callable[[Sequence[str]], list[float]]
"""Natural log-probability of each text, its end included."""


@dataclass(frozen=True, slots=True)
class Features:
    """What is known of the hypotheses of one utterance, arrays of shape (hypotheses,).

    ``acoustic``: the recogniser's summed log-probability; ``language``: the language model's; ``words``; ``tokens``,
    the end included.
    """

    acoustic: np.ndarray
    language: np.ndarray
    words: np.ndarray
    tokens: np.ndarray

    def total(self, alpha: float, beta: float, length_power: float = 0.0) -> np.ndarray:
        """``(acoustic + alpha x language + beta x words) / tokens ** length_power``."""
        return (self.acoustic + alpha * self.language + beta * self.words) / self.tokens**length_power

    def best(self, alpha: float, beta: float, length_power: float = 0.0) -> int:
        """The first hypothesis with the highest total."""
        return int(self.total(alpha, beta, length_power).argmax())


def ngram_scorer(model: LanguageModel, words: Words) -> Scorer:
    """Scores texts with an n-gram model."""
    return lambda texts: [sentence_log_prob(model, words(text)) for text in texts]


def features_of(transcript: Transcript, scorer: Scorer, words: Words) -> Features:
    """The features of a transcript's N-best list.

    Raises:
        InputError: it has no list, or one without sums of log-probabilities.
    """
    rows = transcript.nbest
    if not rows or any("sum_log_prob" not in row for row in rows):
        raise InputError(
            f"the transcript of {transcript.utterance_id} has no N-best list with scores: decode with "
            "decoding.beams=8 decoding.search.n_best=8"
        )
    texts = [str(row["text"]) for row in rows]
    return Features(
        np.array([row["sum_log_prob"] for row in rows], np.float64),
        np.array(scorer(texts), np.float64),
        np.array([len(words(text)) for text in texts], np.float64),
        np.array([row["tokens"] for row in rows], np.float64),
    )


def rescore(transcript: Transcript, features: Features, alpha: float, beta: float, length_power: float) -> Transcript:
    """The transcript with its list ordered anew; the flag ``rescored`` says that another text came first."""
    totals = features.total(alpha, beta, length_power)
    order = np.argsort(-totals, kind="stable")
    nbest: list[dict[str, Any]] = [
        {
            **transcript.nbest[place],
            "lm_log_prob": round(float(features.language[place]), 4),
            "total": round(float(totals[place]), 4),
        }
        for place in order
    ]
    changed = nbest[0]["text"] != transcript.text
    return Transcript(
        utterance_id=transcript.utterance_id,
        text=nbest[0]["text"],
        log_prob=nbest[0].get("log_prob", transcript.log_prob),
        language=transcript.language,
        no_speech_prob=transcript.no_speech_prob,
        nbest=nbest,
        flags=[*transcript.flags, *(["rescored"] if changed else [])],
    )
