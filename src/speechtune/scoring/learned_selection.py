"""Which system to trust for each utterance, learned from references by gradient-boosted trees.

A model predicts, from what is known without the reference (scores, lengths, speaking rate, agreement with the other
systems), by how many words a system errs more or less than the systems do on average on that utterance; the system
with the lowest prediction is taken. Utterances that were learned from are decided by a model that has not seen their
speaker.
"""

from __future__ import annotations

import math
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from rapidfuzz.distance import Levenshtein

from speechtune.core.errors import InputError, missing_extra
from speechtune.corpus.table import Corpus
from speechtune.decoding.together.systems import System
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.alignment import word_counts
from speechtune.scoring.normalisation.rules import Normaliser

FEATURES = (
    "log_prob",
    "log_prob_above_others",
    "words",
    "words_above_others",
    "words_per_s",
    "characters_per_s",
    "compression",
    "no_speech_prob",
    "flags",
    "list_lead",
    "list_distance",
    "distance_to_others",
    "least_distance",
    "same_as",
    "system",
)
_LEAST_GROUPS = 2


@dataclass(slots=True)
class Selected:
    """Chosen transcripts, how often each system was taken, and how many groups of speakers there were."""

    transcripts: list[Transcript]
    taken: dict[str, int]
    folds: int


def features_of(systems: Sequence[System], name: str, duration_s: float, normaliser: Normaliser) -> np.ndarray:
    """What is known of each system's transcript of an utterance, shape [systems, features]; NaN: unknown."""
    own = [system.transcripts[name] for system in systems]
    texts = [normaliser(one.text).split() for one in own]
    seconds = duration_s or math.nan
    mean_words = sum(map(len, texts)) / len(texts)
    known = [one.log_prob for one in own if one.log_prob is not None]
    mean_log_prob = sum(known) / len(known) if known else math.nan
    rows = []
    for place, (transcript, text) in enumerate(zip(own, texts, strict=True)):
        others = [_share(text, other) for number, other in enumerate(texts) if number != place]
        log_prob = math.nan if transcript.log_prob is None else transcript.log_prob
        data = transcript.text.encode()
        silence = transcript.no_speech_prob
        rows.append(
            [
                log_prob,
                log_prob - mean_log_prob,
                len(text),
                len(text) - mean_words,
                len(text) / seconds,
                len(transcript.text) / seconds,
                len(data) / len(zlib.compress(data)),
                math.nan if silence is None else silence,
                len(transcript.flags),
                *_list_features(transcript, text, normaliser),
                sum(others) / len(others),
                min(others),
                sum(text == other for other in texts) - 1,
                place,
            ]
        )
    return np.array(rows, np.float64)


def select(
    corpus: Corpus, systems: Sequence[System], normaliser: Normaliser, *, folds: int = 10, seed: int = 0
) -> Selected:
    """Learn from a corpus which system to take, and choose for every transcribed utterance.

    Utterances of the corpus are decided by a model of the other groups of speakers, all others by a model of the whole
    corpus. Of equal predictions the earlier system is taken.

    Args:
        corpus: the utterances with references to learn from; all are transcribed.
        systems: two or more.
        normaliser: of references and texts.
        folds: groups of speakers; utterances of unknown speakers are one speaker each.
        seed: of the trees.

    Raises:
        InputError: one system, or fewer than two speakers.
        InputError: scikit-learn is not installed.
    """
    try:
        from sklearn.model_selection import GroupKFold
    except ImportError as error:
        raise missing_extra("scikit-learn", "combine") from error
    if len(systems) < 2:
        raise InputError("there is nothing to select among with one system: give several transcript files")
    durations = {one.utterance_id: one.duration_s for one in corpus}
    names = list(systems[0].transcripts)
    table = {name: features_of(systems, name, durations.get(name, 0.0), normaliser) for name in names}
    learned = [one.utterance_id for one in corpus]
    errors = np.array([_errors(systems, one.utterance_id, normaliser(one.text), normaliser) for one in corpus])
    groups = [one.speaker_id if one.speaker_id is not None else f"({one.utterance_id})" for one in corpus]
    if len(set(groups)) < _LEAST_GROUPS:
        raise InputError(f"{corpus.root} has one speaker: learning to select needs two or more")
    known = np.array([table[name] for name in learned])
    target = errors - errors.mean(axis=1, keepdims=True)
    choice: dict[str, int] = {}
    parts = min(folds, len(set(groups)))
    for inside, outside in GroupKFold(parts).split(known, groups=groups):
        predicted = _fit(known[inside], target[inside], seed)(known[outside])
        choice |= {learned[place]: int(row.argmin()) for place, row in zip(outside, predicted, strict=True)}
    rest = [name for name in names if name not in choice]
    if rest:
        predicted = _fit(known, target, seed)(np.array([table[name] for name in rest]))
        choice |= {name: int(row.argmin()) for name, row in zip(rest, predicted, strict=True)}
    made = []
    for name in names:
        system = systems[choice[name]]
        source = system.transcripts[name]
        made.append(replace(source, flags=[*source.flags, f"from-{system.name}"]))
    taken = Counter(systems[place].name for place in choice.values())
    return Selected(made, {system.name: taken[system.name] for system in systems}, parts)


def _fit(rows: np.ndarray, target: np.ndarray, seed: int) -> Any:
    """A predictor of [utterances, systems, features] to [utterances, systems]."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    model = HistGradientBoostingRegressor(
        max_iter=80,
        learning_rate=0.05,
        max_leaf_nodes=8,
        min_samples_leaf=20,
        l2_regularization=1.0,
        early_stopping=False,
        random_state=seed,
    )
    flat = rows.reshape(-1, rows.shape[-1])
    used = np.isfinite(flat).any(axis=0)  # scikit-learn 1.9 fails on a feature that is never known
    model.fit(flat[:, used], target.reshape(-1))

    def predict(others: np.ndarray) -> np.ndarray:
        return model.predict(others.reshape(-1, others.shape[-1])[:, used]).reshape(others.shape[:2])

    return predict


def _errors(systems: Sequence[System], name: str, reference: str, normaliser: Normaliser) -> list[int]:
    return [word_counts(reference, normaliser(system.transcripts[name].text)).errors for system in systems]


def _share(text: Sequence[str], other: Sequence[str]) -> float:
    return Levenshtein.normalized_distance(text, other)


def _list_features(transcript: Transcript, text: list[str], normaliser: Normaliser) -> tuple[float, float]:
    """By how much the first hypothesis leads, and how far the second one's words are from it."""
    rows = transcript.nbest
    if len(rows) < 2 or any("sum_log_prob" not in row for row in rows[:2]):
        return math.nan, math.nan
    second = normaliser(str(rows[1]["text"])).split()
    return float(rows[0]["sum_log_prob"]) - float(rows[1]["sum_log_prob"]), _share(text, second)
