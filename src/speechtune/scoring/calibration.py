"""Whether a recogniser's confidences mean what they say: reliability, ECE, NLL, Brier score, and how to mend them.

A confidence is a probability of being right: of a whole utterance (every word right once normalised) or of one word of
the output (aligned with an equal word of the reference; words left out have no confidence and do not count).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from speechtune.core.errors import InputError
from speechtune.scoring.alignment import align
from speechtune.scoring.bootstrap import Interval, blocks_of
from speechtune.scoring.calibration_scaling import EDGE, Scaling, fit_scaling
from speechtune.scoring.normalisation.rules import Normaliser

if TYPE_CHECKING:
    from speechtune.decoding.transcript import Transcript
    from speechtune.scoring.score import Score

Kind = Literal["utterance-mean", "utterance-sum", "word"]
KINDS: dict[Kind, str] = {
    "utterance-mean": "exp(mean log-probability of the tokens) against: every word of the utterance is right",
    "utterance-sum": "exp(sum of the tokens' log-probabilities) against: every word of the utterance is right",
    "word": "confidence of each word against: the word is right",
}
BINS = 10
_WORD_FIELDS = ("confidence", "probability", "prob", "score")


@dataclass(slots=True)
class ConfidencePairs:
    """Confidences and whether what they are about was right, with the block (speaker) of each.

    Shapes: [pairs] each. ``dropped_by_reason`` counts utterances or words that had no usable confidence.
    """

    kind: Kind
    confidence: np.ndarray
    correct: np.ndarray
    blocks: list[str | None]
    dropped_by_reason: dict[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.confidence)


@dataclass(frozen=True, slots=True)
class Bin:
    """One row of the reliability table: what was promised and what came true between two confidences."""

    low: float
    high: float
    count: int
    confidence: float | None
    accuracy: float | None

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON-ready."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


@dataclass(slots=True, kw_only=True)
class Calibration:
    """How well confidences of one kind are calibrated on some data.

    ``ece`` is the expected calibration error (Naeini et al. 2015): the mean distance of accuracy and confidence over
    the bins, weighted by their counts. It is above 0 for a calibrated recogniser too, by chance, so ``ece_corrected``
    takes off the bootstrap's estimate of that bias, and ``ece_interval`` is shifted by it. ``nll`` (natural logarithm)
    and ``brier`` are proper scores: only right and sharp confidences make them small, so they are what to choose a
    model by. ``auroc`` is the chance that something right has more confidence than something wrong. ``scaling`` is
    what was fitted elsewhere and applied before (``None``: nothing).
    """

    kind: Kind
    pairs: int
    accuracy: float
    mean_confidence: float
    ece: float
    ece_corrected: float
    ece_interval: Interval | None
    nll: float
    brier: float
    auroc: float | None
    bins: list[Bin]
    scaling: Scaling | None = None
    dropped_by_reason: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready; ``bins`` are the points of a reliability plot."""
        plain = ("kind", "pairs", "accuracy", "mean_confidence", "ece", "ece_corrected", "nll", "brier", "auroc")
        return {
            **{name: getattr(self, name) for name in plain},
            "about": KINDS[self.kind],
            "ece_interval": self.ece_interval.to_json() if self.ece_interval else None,
            "bins": [one.to_json() for one in self.bins],
            "scaling": self.scaling.to_json() if self.scaling else None,
            "dropped_by_reason": self.dropped_by_reason,
        }

    def to_text(self) -> str:
        """A line of figures and the reliability table, for a person."""
        sure = self.ece_interval
        between = f" [{100 * sure.low:.1f}, {100 * sure.high:.1f}]" if sure else ""
        after = f" after {self.scaling.to_text()}" if self.scaling else ""
        lines = [
            f"calibration, {self.kind}{after}: ECE {100 * self.ece_corrected:.1f} %{between} "
            f"(uncorrected {100 * self.ece:.1f} %), NLL {self.nll:.3f}, Brier {self.brier:.3f}, "
            f"AUROC {'-' if self.auroc is None else f'{self.auroc:.3f}'}, {self.pairs} confidences",
            "  confidence     count  promised  came true",
        ]
        for one in self.bins:
            if one.count and one.confidence is not None and one.accuracy is not None:
                promised, came = 100 * one.confidence, 100 * one.accuracy
                lines.append(f"  {one.low:.3f}-{one.high:.3f}  {one.count:>6}  {promised:>6.1f} %  {came:>7.1f} %")
        lines += [f"  without a confidence: {count} ({reason})" for reason, count in self.dropped_by_reason.items()]
        return "\n".join(lines)


def utterance_pairs(
    score: Score,
    transcripts: Sequence[Transcript],
    rows: Mapping[str, Mapping[str, Any]] | None = None,
    kind: Kind = "utterance-mean",
) -> ConfidencePairs:
    """Confidence of each utterance and whether every word of it is right.

    The mean is ``log_prob``; the sum is ``nbest[0].sum_log_prob`` where the text is the same, else that of
    ``token_log_probs``, a column of numbers that other recognisers' transcripts may have (it gives the mean too).
    """
    given = {one.utterance_id: one for one in transcripts}
    confidences, correct, blocks = [], [], []
    dropped: Counter[str] = Counter()
    for one in score.utterances:
        transcript = given.get(one.utterance_id)
        log_prob = _log_prob(transcript, (rows or {}).get(one.utterance_id, {}), kind) if transcript else None
        if log_prob is None or not math.isfinite(log_prob):
            dropped["no transcript" if transcript is None else f"no log-probability for {kind}"] += 1
            continue
        confidences.append(math.exp(min(log_prob, 0.0)))
        correct.append(one.words.errors == 0)
        blocks.append(one.block)
    return ConfidencePairs(kind, np.array(confidences), np.array(correct, dtype=bool), blocks, dict(dropped))


def _log_prob(transcript: Transcript, row: Mapping[str, Any], kind: Kind) -> float | None:
    tokens = row.get("token_log_probs")
    if not isinstance(tokens, list) or not tokens or not all(isinstance(one, int | float) for one in tokens):
        tokens = None
    if kind == "utterance-mean":
        return (
            transcript.log_prob if transcript.log_prob is not None else (sum(tokens) / len(tokens) if tokens else None)
        )
    best = transcript.nbest[0] if transcript.nbest else {}
    if best.get("text") == transcript.text and isinstance(best.get("sum_log_prob"), int | float):
        return float(best["sum_log_prob"])
    return float(sum(tokens)) if tokens else None


def word_pairs(score: Score, rows: Mapping[str, Mapping[str, Any]], normalise: Normaliser) -> ConfidencePairs:
    """Confidence of each recognised word and whether it is right.

    The transcript's column ``words`` holds dictionaries with ``word`` or ``text`` and ``confidence``, ``probability``,
    ``prob`` or ``score`` between 0 and 1, or ``log_prob``. Each word is normalised by itself; where the normalised
    output has other words (a number made of two), those that are the same are used and the others dropped.

    Raises:
        InputError: a confidence is no number between 0 and 1.
    """
    confidences: list[float] = []
    correct: list[bool] = []
    blocks: list[str | None] = []
    dropped: Counter[str] = Counter()
    for one in score.utterances:
        words = rows.get(one.utterance_id, {}).get("words")
        output = one.hypothesis.split()
        if not isinstance(words, list):
            dropped["words of utterances without word confidences"] += len(output)
            continue
        sure = _by_normalised_word(words, output, normalise, one.utterance_id)
        place = 0
        for edit in align(one.reference.split(), output):
            if edit.hyp is None:
                continue
            confidence = sure[place]
            place += 1
            if confidence is None:
                dropped["words that the normaliser made of others"] += 1
                continue
            confidences.append(confidence)
            correct.append(edit.op == "equal")
            blocks.append(one.block)
    return ConfidencePairs("word", np.array(confidences), np.array(correct, dtype=bool), blocks, dict(dropped))


def _by_normalised_word(
    words: Sequence[Any], output: Sequence[str], normalise: Normaliser, name: str
) -> list[float | None]:
    """The confidence of each word of the normalised output, ``None`` where it has no counterpart."""
    texts: list[str] = []
    values: list[float | None] = []
    for number, entry in enumerate(words, start=1):
        entry = entry if isinstance(entry, Mapping) else {}
        text = entry.get("word", entry.get("text"))
        if not isinstance(text, str):
            raise InputError(f"{name}: entry {number} of words has no word: add it or leave words out")
        value = next((entry[key] for key in _WORD_FIELDS if entry.get(key) is not None), None)
        if value is None and isinstance(entry.get("log_prob"), int | float):
            value = math.exp(min(float(entry["log_prob"]), 0.0))
        if value is not None and not (isinstance(value, int | float) and 0 <= value <= 1):
            raise InputError(f"{name}: word {number} has the confidence {value!r}: give a number between 0 and 1")
        for part in normalise(text).split():
            texts.append(part)
            values.append(None if value is None else float(value))
    found: list[float | None] = []
    place = 0
    for edit in align(texts, output):
        if edit.hyp is not None:
            found.append(values[place] if edit.op == "equal" else None)
        place += edit.ref is not None
    return found


def calibration_of(
    pairs: ConfidencePairs,
    scaling: Scaling | None = None,
    *,
    bins: int = BINS,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> Calibration | None:
    """Reliability table and measures of some confidences.

    Bins hold equally many confidences each (Nguyen & O'Connor 2015), so that none of them is nearly empty; equal
    confidences share a bin. The interval resamples speakers as blocks where five or more are known, else single pairs.

    Args:
        pairs: confidences and outcomes.
        scaling: applied to the confidences first; fit it on other data (`fit_scaling`).
        bins: number of bins, at least 1.
        resamples: of the interval; 0: none.
        level: its coverage.
        seed: of its draws.

    Returns:
        ``None`` without any pair.
    """
    if not len(pairs):
        return None
    confidence = pairs.confidence if scaling is None else scaling.apply(pairs.confidence)
    correct = pairs.correct.astype(np.float64)
    edges = np.unique(np.quantile(confidence, np.linspace(0, 1, bins + 1)))
    # The edges are met by data: a bin holds its lower edge, the last one its upper edge too.
    number = np.clip(np.searchsorted(edges, confidence, side="right") - 1, 0, max(len(edges) - 2, 0))
    used = max(len(edges) - 1, 1)
    counts, sums = np.bincount(number, minlength=used), np.bincount(number, confidence, used)
    hits = np.bincount(number, correct, used)
    table = [
        Bin(
            float(edges[index]),
            float(edges[min(index + 1, len(edges) - 1)]),
            int(counts[index]),
            float(sums[index] / counts[index]) if counts[index] else None,
            float(hits[index] / counts[index]) if counts[index] else None,
        )
        for index in range(used)
    ]
    ece = float(np.abs(hits - sums).sum() / len(confidence))
    bias, interval = _ece_interval(number, correct - confidence, used, ece, pairs.blocks, resamples, level, seed)
    clipped = np.clip(confidence, EDGE, 1 - EDGE)
    return Calibration(
        kind=pairs.kind,
        pairs=len(confidence),
        accuracy=float(correct.mean()),
        mean_confidence=float(confidence.mean()),
        ece=ece,
        ece_corrected=max(0.0, ece - bias),
        ece_interval=interval,
        nll=float(-np.where(pairs.correct, np.log(clipped), np.log1p(-clipped)).mean()),
        brier=float(np.square(confidence - correct).mean()),
        auroc=_auroc(confidence, pairs.correct),
        bins=table,
        scaling=scaling,
        dropped_by_reason=pairs.dropped_by_reason,
    )


def _ece_interval(
    number: np.ndarray,
    gaps: np.ndarray,
    bins: int,
    ece: float,
    groups: Sequence[str | None],
    resamples: int,
    level: float,
    seed: int,
) -> tuple[float, Interval | None]:
    """The bias of the ECE and its interval, by resampling the gaps (outcome minus confidence) of blocks."""
    blocks, unit = blocks_of(groups, len(gaps)), "speaker"
    if blocks is None:
        blocks, unit = np.arange(len(gaps)), "pair"
    units = int(blocks.max()) + 1
    if units < 2 or not resamples:
        return 0.0, None
    per_block = np.zeros((units, bins + 1))
    np.add.at(per_block, (blocks, number), gaps)
    per_block[:, bins] = np.bincount(blocks, minlength=units)
    generator = np.random.default_rng(seed)
    draws = np.empty(resamples)
    # Counts of drawn blocks; a piece at a time keeps the memory at a few megabytes.
    step = max(1, 4_000_000 // units)
    for start in range(0, resamples, step):
        stop = min(start + step, resamples)
        drawn = generator.multinomial(units, np.full(units, 1 / units), size=stop - start) @ per_block
        draws[start:stop] = np.abs(drawn[:, :bins]).sum(axis=1) / drawn[:, bins]
    bias = float(draws.mean()) - ece
    low, high = np.quantile(draws - 2 * bias, [(1 - level) / 2, (1 + level) / 2])
    return bias, Interval(max(0.0, float(low)), max(0.0, float(high)), level, unit, units, resamples, seed)


def _auroc(confidence: np.ndarray, correct: np.ndarray) -> float | None:
    """The Mann-Whitney statistic; ties count half. ``None`` where everything is right or everything wrong."""
    right, wrong = int(correct.sum()), int((~correct).sum())
    if not right or not wrong:
        return None
    _, place, counts = np.unique(confidence, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks = (ends - (counts - 1) / 2)[place]
    return float((ranks[correct].sum() - right * (right + 1) / 2) / (right * wrong))


@dataclass(frozen=True, slots=True)
class CalibrationOptions:
    """``fit_split``: the split of the corpus on which a scaling of the confidences is fitted (``None``: none is)."""

    fit_split: str | None = None


@dataclass(slots=True)
class CalibrationReport:
    """Calibration of each kind of confidence that the transcripts carry; ``scaled``: after a scaling."""

    found: dict[Kind, Calibration]
    scaled: dict[Kind, Calibration]
    missing: dict[Kind, str]

    def to_json(self) -> dict[str, Any]:
        """By kind; kinds without any confidence with the reason."""
        return {
            **{kind: one.to_json() for kind, one in self.found.items()},
            "scaled": {kind: one.to_json() for kind, one in self.scaled.items()},
            "missing": self.missing,
        }

    def to_text(self) -> str:
        """The tables for a person."""
        lines = [one.to_text() for one in (*self.found.values(), *self.scaled.values())]
        return "\n".join([*lines, *(f"no calibration of {kind}: {why}" for kind, why in self.missing.items())])


def all_pairs(
    score: Score,
    transcripts: Sequence[Transcript],
    rows: Mapping[str, Mapping[str, Any]],
    normalise: Normaliser,
) -> dict[Kind, ConfidencePairs]:
    """Confidences of every kind; those that the transcripts do not carry are empty."""
    return {
        "utterance-mean": utterance_pairs(score, transcripts, rows, "utterance-mean"),
        "utterance-sum": utterance_pairs(score, transcripts, rows, "utterance-sum"),
        "word": word_pairs(score, rows, normalise),
    }


def report_calibration(
    pairs: Mapping[Kind, ConfidencePairs],
    fitted_on: Mapping[Kind, ConfidencePairs] | None = None,
    *,
    resamples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
) -> CalibrationReport:
    """Calibration of each kind, and, with other data to fit on, of its confidences after temperature scaling."""
    report = CalibrationReport({}, {}, {})
    for kind, own in pairs.items():
        found = calibration_of(own, resamples=resamples, level=level, seed=seed)
        if found is None:
            report.missing[kind] = "; ".join(own.dropped_by_reason) or "no words"
            continue
        report.found[kind] = found
        others = (fitted_on or {}).get(kind)
        if others is not None and len(others):
            scaling = fit_scaling(others.confidence, others.correct)
            scaled = calibration_of(own, scaling, resamples=resamples, level=level, seed=seed)
            assert scaled is not None
            report.scaled[kind] = scaled
    return report
