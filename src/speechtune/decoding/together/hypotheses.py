"""The N-best lists of several systems as one list of texts with probabilities, and the text of least expected error."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import Levenshtein

from speechtune.core.errors import InputError
from speechtune.decoding.lm.text import Words
from speechtune.decoding.transcript import Transcript


@dataclass(slots=True)
class Candidate:
    """A text, the words it is compared by, and its probability among all candidates."""

    text: str
    words: list[str]
    probability: float


def candidates_of(
    transcripts: Sequence[Transcript], words: Words, scale: float = 1.0, weights: Sequence[float] | None = None
) -> list[Candidate]:
    """The joint list of one utterance: each system's own probabilities, weighted and added up.

    Within a system, a hypothesis has the probability ``softmax(scale x sum of its tokens' log-probabilities)``; texts
    of the same words are one candidate, written as the first of them. A transcript without an N-best list is a list
    of one.

    Args:
        transcripts: one of each system.
        words: how a text is cut into the words that count.
        scale: of the log-probabilities: towards 0 all hypotheses of a list are alike, high values leave its best.
        weights: of the systems; equal ones without them.

    Raises:
        InputError: a list without sums of log-probabilities.
    """
    shares = list(weights) if weights else [1.0] * len(transcripts)
    total = sum(shares)
    found: dict[tuple[str, ...], Candidate] = {}
    for transcript, share in zip(transcripts, shares, strict=True):
        for text, probability in _posterior(transcript, scale):
            own = words(text)
            one = found.setdefault(tuple(own), Candidate(text, own, 0.0))
            one.probability += share / total * probability
    return list(found.values())


def least_expected_error(candidates: Sequence[Candidate]) -> int:
    """Which candidate has the fewest expected word errors if the candidates' probabilities are right.

    Minimum Bayes risk with the word edit distance (Stolcke, Konig & Weintraub 1997, "Explicit word error minimization
    in N-best list rescoring", Eurospeech; Goel & Byrne 2000). Of equal ones the most probable, then the first.
    """
    risks = [
        sum(other.probability * Levenshtein.distance(one.words, other.words) for other in candidates)
        for one in candidates
    ]
    return min(range(len(candidates)), key=lambda place: (round(risks[place], 12), -candidates[place].probability))


def expected_error(candidates: Sequence[Candidate], text: Sequence[str]) -> float:
    """Expected word errors of a text if one of the candidates is right, with their probabilities."""
    return sum(one.probability * Levenshtein.distance(text, one.words) for one in candidates)


def _posterior(transcript: Transcript, scale: float) -> list[tuple[str, float]]:
    rows = transcript.nbest
    if not rows:
        return [(transcript.text, 1.0)]
    if any("sum_log_prob" not in row for row in rows):
        raise InputError(
            f"the N-best list of {transcript.utterance_id} has no sum_log_prob: decode it with "
            "decoding.beams=8 decoding.search.n_best=8"
        )
    scores = [scale * float(row["sum_log_prob"]) for row in rows]
    highest = max(scores)
    powers = [math.exp(score - highest) for score in scores]
    return [(str(row["text"]), power / sum(powers)) for row, power in zip(rows, powers, strict=True)]
