"""What a comparison of systems is made of: their costs, scores, tests, and the utterances won and lost."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.kept import Kept
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.bootstrap import Difference
from speechtune.scoring.calibration import Calibration, Kind
from speechtune.scoring.power import Power
from speechtune.scoring.score import Score
from speechtune.scoring.significance import TestResult

BANDS = 5
"""Differences of an utterance are counted one by one up to this many errors; beyond it together."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """What a system needed; ``None`` where it is not known.

    ``parameters``: of the model. ``decode_s``: time to transcribe ``audio_s`` of audio, loading left out.
    ``memory_bytes``: peak while decoding, of the accelerator where one was used, else of the process.
    """

    parameters: int | None = None
    decode_s: float | None = None
    audio_s: float | None = None
    memory_bytes: int | None = None
    device: str | None = None

    @property
    def rtf(self) -> float | None:
        """Real-time factor: time to transcribe / length of the audio; below 1 is faster than real time."""
        return self.decode_s / self.audio_s if self.decode_s is not None and self.audio_s else None

    @property
    def known(self) -> bool:
        """Whether anything is known."""
        return any(one is not None for one in (self.parameters, self.decode_s, self.memory_bytes))

    def to_json(self) -> dict[str, Any]:
        """The fields and the real-time factor."""
        return {**{name: getattr(self, name) for name in self.__dataclass_fields__}, "rtf": self.rtf}


def cost_of(kept: Kept, utterances: Iterable[Utterance]) -> Cost:
    """The cost of utterances that `speechtune.decoding.kept.transcribe_kept` has transcribed."""
    spent = kept.spent(utterances)
    return Cost(
        parameters=kept.parameters,
        decode_s=spent.decode_s if spent.audio_s else None,
        audio_s=spent.audio_s or None,
        memory_bytes=spent.memory_bytes,
        device=kept.device,
    )


@dataclass(slots=True, kw_only=True)
class SystemInput:
    """One system to compare: a short name, where it came from, its transcripts, and what else their rows say."""

    name: str
    source: str
    transcripts: list[Transcript]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    cost: Cost = field(default_factory=Cost)
    notes: list[str] = field(default_factory=list)


@dataclass(slots=True, kw_only=True)
class SystemResult:
    """One system's score; the counts of its utterances are arrays, ``score.utterances`` is empty.

    ``words`` and ``chars`` have shape [utterances, 4] (H, S, D, I), in the order of the corpus; ``hypotheses`` are
    normalised. ``calibration`` judges the confidences of whole utterances, where the transcripts carry them.
    """

    name: str
    source: str
    score: Score
    words: np.ndarray
    chars: np.ndarray
    hypotheses: list[str]
    cost: Cost
    notes: list[str]
    best_probability: float | None = None
    calibration: dict[Kind, Calibration] = field(default_factory=dict)

    @property
    def errors(self) -> np.ndarray:
        """Word errors of each utterance, shape [utterances]."""
        return self.words[:, 1:].sum(axis=1)

    def to_json(self) -> dict[str, Any]:
        """The score's object with the name, the source and the cost."""
        rest = {"source": self.source, "best_probability": self.best_probability, "cost": self.cost.to_json()}
        score = {key: value for key, value in self.score.to_json().items() if key != "slices"}
        sure = {kind: one.to_json() for kind, one in self.calibration.items()}
        return {"name": self.name, **rest, **score, "calibration": sure, "system_notes": self.notes}


@dataclass(slots=True, kw_only=True)
class Test:
    """System ``b`` minus system ``a`` (places in the list).

    ``p_value`` is that of the bootstrap, or a sharper one where no resample crosses zero; ``p_adjusted`` is Holm's over
    its family of tests.

    ``others`` are other tests of the same difference (a second opinion; no verdict hangs on them), ``power`` what data
    would show a difference of one point.
    """

    __test__ = False  # not a test class of pytest

    a: int
    b: int
    difference: Difference
    alpha: float
    p_value: float | None = None
    p_adjusted: float | None = None
    others: list[TestResult] = field(default_factory=list)
    power: Power | None = None

    @property
    def verdict(self) -> str:
        """``better`` or ``worse`` where b differs from a at the corrected level, else ``unclear``."""
        if self.p_adjusted is None or self.difference.difference is None or self.p_adjusted > self.alpha:
            return "unclear"
        return "better" if self.difference.difference < 0 else "worse" if self.difference.difference > 0 else "unclear"

    def to_json(self, names: Sequence[str]) -> dict[str, Any]:
        """The difference with the systems' names."""
        found = {
            **self.difference.to_json(),
            "p_value": self.p_value,
            "p_adjusted": self.p_adjusted,
            "verdict": self.verdict,
        }
        if self.others:
            found["tests"] = {one.name: one.to_json() for one in self.others}
        if self.power:
            found["power"] = self.power.to_json()
        return {"a": names[self.a], "b": names[self.b], **found}


@dataclass(slots=True, kw_only=True)
class Wins:
    """How the utterances of system ``b`` differ from those of ``a`` in word errors.

    ``bands`` counts utterances by difference, from ``-BANDS`` (and less) to ``BANDS`` (and more); ``better`` and
    ``worse`` are places of utterances in the corpus, the largest difference first.
    """

    a: int
    b: int
    bands: list[int]
    fewer: int
    same: int
    more: int
    better: list[int]
    worse: list[int]

    def to_json(self, names: Sequence[str], ids: Sequence[str]) -> dict[str, Any]:
        """Counts and the listed utterances' ids."""
        counts = {"fewer_errors": self.fewer, "as_many": self.same, "more_errors": self.more, "bands": self.bands}
        listed = {"better": [ids[one] for one in self.better], "worse": [ids[one] for one in self.worse]}
        return {"a": names[self.a], "b": names[self.b], **counts, **listed}


@dataclass(slots=True, kw_only=True)
class SystemComparison:
    """Everything about some systems on one set. ``reference`` is the system that the others are measured against.

    ``slices`` maps column to value to (places of utterances); ``slice_tests`` has the same keys, one test for every
    other system in order.
    """

    corpus: Corpus
    split: str | None
    systems: list[SystemResult]
    reference: int
    references: list[str]
    pairs: list[Test]
    slices: dict[str, dict[str, np.ndarray]]
    slice_tests: dict[str, dict[str, list[Test]]]
    wins: list[Wins]
    alpha: float
    resamples: int
    notes: list[str]

    @property
    def names(self) -> list[str]:
        """The systems' names."""
        return [one.name for one in self.systems]

    def pair(self, a: int, b: int) -> Test:
        """The test of b against a, turned round where it was made the other way."""
        for one in self.pairs:
            if (one.a, one.b) == (a, b):
                return one
            if (one.a, one.b) == (b, a):
                turned = _turned(one.difference)
                return replace(one, a=a, b=b, difference=turned, others=[])
        raise KeyError((a, b))

    def best(self) -> list[int]:
        """Places of the systems, the lowest word error rate first."""
        rates = [math.inf if one.score.wer is None else one.score.wer for one in self.systems]
        return sorted(range(len(rates)), key=lambda place: (rates[place], place))

    def confidence_kind(self) -> Kind | None:
        """The kind of confidence by which the systems can be compared: all carry it for equally many utterances."""
        kinds: tuple[Kind, ...] = ("utterance-sum", "utterance-mean")
        for kind in kinds:
            pairs = {one.calibration[kind].pairs if kind in one.calibration else 0 for one in self.systems}
            if len(pairs) == 1 and pairs != {0}:
                return kind
        return None

    def to_json(self) -> dict[str, Any]:
        """Everything but the texts, JSON-ready."""
        names, ids = self.names, [one.utterance_id for one in self.corpus]
        rows: dict[str, dict[str, Any]] = {}
        for column, values in self.slices.items():
            rows[column] = {}
            for value in values:
                scores = {one.name: one.score.slices[column][value].to_json() for one in self.systems}
                tests = [one.to_json(names) for one in self.slice_tests[column][value]]
                rows[column][value] = {"systems": scores, "tests": tests}
        return {
            "corpus": str(self.corpus.root),
            "split": self.split,
            "utterances": len(self.corpus),
            "seconds_of_audio": self.corpus.seconds_of_audio,
            "reference_system": names[self.reference],
            "alpha": self.alpha,
            "resamples": self.resamples,
            "correction": "holm",
            "systems": [one.to_json() for one in self.systems],
            "pairs": [one.to_json(names) for one in self.pairs],
            "slices": rows,
            "wins": [one.to_json(names, ids) for one in self.wins],
            "notes": self.notes,
        }


def _turned(one: Difference) -> Difference:
    value = None if one.difference is None else -one.difference
    bounds = replace(one.interval, low=-one.interval.high, high=-one.interval.low) if one.interval else None
    return Difference(value, bounds, one.p_value)
