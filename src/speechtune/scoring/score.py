"""Error rates of transcripts against a corpus: counts, corpus-level rates, intervals, slices, comparison."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.files import write_jsonl
from speechtune.corpus.table import Corpus
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.alignment import Counts
from speechtune.scoring.bootstrap import (
    MIN_SPEAKERS,
    Difference,
    Interval,
    paired_difference,
)
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.counting import Counted, NormaliserSpec, collector_paused, count_texts
from speechtune.scoring.inputs import columns_of, corpus_from_lines, match
from speechtune.scoring.metrics import Metric, Pairs, as_counts, choose_metrics, compute_metrics
from speechtune.scoring.normalisers import (
    UNSPACED_LANGUAGES,
    choose_normaliser,
    get_normaliser,
    language_code,
)
from speechtune.scoring.score_text import score_as_text
from speechtune.scoring.significance import PairTests, adjust, matched_pairs, pair_tests
from speechtune.scoring.slice_scores import SliceScore, interval_of_counts, score_slices
from speechtune.scoring.slices import REFERENCE_WORDS, UNKNOWN, block_labels, block_name, labels_of

__all__ = [
    "REFERENCE_WORDS",
    "UNKNOWN",
    "Comparison",
    "Score",
    "SliceScore",
    "UtteranceScore",
    "compare",
    "corpus_from_lines",
    "score_transcripts",
]


@dataclass(slots=True, kw_only=True)
class UtteranceScore:
    """One utterance: normalised texts, counts, and its value (or band) in every sliced column."""

    utterance_id: str
    reference: str
    hypothesis: str
    words: Counts
    chars: Counts
    speaker_id: str | None = None
    columns: dict[str, str] = field(default_factory=dict)
    block: str | None = None
    """What is resampled as one: the speaker, or the value of the column that ``resample_by`` names."""

    def to_row(self) -> dict[str, Any]:
        """The row of the per-utterance file."""
        return {
            "utterance_id": self.utterance_id,
            "wer": self.words.rate,
            "cer": self.chars.rate,
            "reference": self.reference,
            "hypothesis": self.hypothesis,
            "words": self.words.to_json(),
            "chars": self.chars.to_json(),
            **({"speaker_id": self.speaker_id} if self.speaker_id is not None else {}),
            **({"columns": self.columns} if self.columns else {}),
        }


@dataclass(slots=True, kw_only=True)
class Score:
    """The score of one system on one corpus. ``words`` and ``chars`` are sums over all utterances.

    ``interval`` and ``cer_interval`` are ``None`` where nothing can be resampled (one utterance, no reference words).
    ``empty_references`` counts utterances whose normalised reference has no word, ``insertions_on_empty`` the words
    recognised there: they count as errors. ``missing`` utterances had no transcript and were scored as empty ones.
    ``variants`` is how many words had other spellings that count as them; ``metrics`` holds what was asked for beside
    WER and CER.
    """

    utterances: list[UtteranceScore]
    normaliser: str
    words: Counts
    chars: Counts
    interval: Interval | None
    cer_interval: Interval | None
    slices: dict[str, dict[str, SliceScore]]
    seconds_of_audio: float
    empty_references: int
    insertions_on_empty: int
    missing: int = 0
    notes: list[str] = field(default_factory=list)
    variants: int = 0
    metrics: dict[str, Metric] = field(default_factory=dict)

    @property
    def wer(self) -> float | None:
        """Corpus-level word error rate as a fraction (may exceed 1); ``None`` where no reference has a word."""
        return self.words.rate

    @property
    def cer(self) -> float | None:
        """Corpus-level character error rate as a fraction."""
        return self.chars.rate

    def to_json(self) -> dict[str, Any]:
        """Rates, counts, intervals and slices, JSON-ready; utterances are in `write_utterances`."""
        return {
            "wer": self.wer,
            "interval": self.interval.to_json() if self.interval else None,
            "errors": self.words.errors,
            "reference_words": self.words.reference_length,
            "cer": self.cer,
            "cer_interval": self.cer_interval.to_json() if self.cer_interval else None,
            "normaliser": self.normaliser,
            "variants": self.variants,
            "utterances": len(self.utterances),
            "seconds_of_audio": self.seconds_of_audio,
            "words": self.words.to_json(),
            "chars": self.chars.to_json(),
            "empty_references": self.empty_references,
            "insertions_on_empty": self.insertions_on_empty,
            "missing": self.missing,
            "slices": {
                column: {value: one.to_json() for value, one in parts.items()} for column, parts in self.slices.items()
            },
            "notes": self.notes,
            **({"metrics": {name: one.to_json() for name, one in self.metrics.items()}} if self.metrics else {}),
        }

    def to_text(self, comparison: Comparison | None = None) -> str:
        """Lines for a person: rates in per cent with their counts, notes, and a table for each sliced column."""
        return score_as_text(self, comparison)

    def write_utterances(self, path: Path) -> None:
        """Write one row per utterance (JSONL), in corpus order, atomically."""
        write_jsonl(path, (one.to_row() for one in self.utterances))


@dataclass(slots=True, kw_only=True)
class Comparison:
    """System b against baseline a on the same utterances; negative differences mean that b is better.

    ``adjusted`` holds a p-value for each slice, corrected for the number of slices of all columns (Holm). It is that of
    `speechtune.scoring.significance.matched_pairs`: the bootstrap's cannot be small enough to survive a correction
    unless there are very many resamples. ``tests`` are the other tests of the whole difference.
    """

    wer: Difference
    cer: Difference
    slices: dict[str, dict[str, Difference]]
    adjusted: dict[str, dict[str, float | None]] = field(default_factory=dict)
    tests: PairTests | None = None

    def to_json(self) -> dict[str, Any]:
        """The differences, JSON-ready."""
        return {
            "wer": self.wer.to_json(),
            "cer": self.cer.to_json(),
            "slices": {
                column: {
                    value: one.to_json() | {"adjusted_p_value": self.adjusted.get(column, {}).get(value)}
                    for value, one in parts.items()
                }
                for column, parts in self.slices.items()
            },
            **({"significance": self.tests.to_json()} if self.tests else {}),
        }


def score_transcripts(
    corpus: Corpus,
    transcripts: Sequence[Transcript],
    *,
    normaliser: str | None = None,
    slice_by: Sequence[str] | None = None,
    confidence: ScoringConfig | None = None,
    allow_missing: bool = False,
    language: str | None = None,
    rows: Mapping[str, Mapping[str, Any]] | None = None,
) -> Score:
    """Compare transcripts with the texts of a corpus.

    Args:
        corpus: every utterance of it is scored.
        transcripts: one for each utterance, in any order.
        normaliser: a name from `NORMALISERS` or ``auto``; ``None``: as ``confidence`` says.
        slice_by: corpus columns (or ``reference_words``); ``None``: as ``confidence`` says.
        confidence: normaliser, spellings, metrics, slices, and how intervals are made; ``None``: the defaults.
        allow_missing: score an utterance without a transcript as an empty one instead of refusing.
        language: the language of utterances whose ``language`` is unknown, for the normaliser ``auto``.
        rows: what else is known of a transcript (word times, latency), by utterance id, for the metrics.

    Raises:
        InputError: the corpus is empty, an utterance has no transcript, a transcript is of no utterance or is given
            twice, or a column, normaliser or metric does not exist.
    """
    config = confidence or ScoringConfig()
    if not corpus.utterances:
        raise InputError(f"{corpus.root} has no utterances: there is nothing to score")
    wanted = choose_metrics(config.metrics)
    hypotheses = match(corpus, transcripts, allow_missing)
    name, notes = _resolve(config.normaliser if normaliser is None else normaliser, corpus, language)
    raw = [hypotheses.get(utterance.utterance_id, "") for utterance in corpus]
    spec = NormaliserSpec(name, config.variants)
    counted = count_texts([utterance.text for utterance in corpus], raw, spec, config.workers)
    scored = _rows(corpus, counted, block_labels(corpus, config.resample_by))
    columns = list(dict.fromkeys(config.slice_by if slice_by is None else slice_by))
    order = {}
    for column in columns:
        labels, order[column] = labels_of(column, corpus, [one.words.reference_length for one in scored])
        for one, label in zip(scored, labels, strict=True):
            one.columns[column] = label
    missing = len(corpus) - len(hypotheses)
    if missing:
        notes.append(f"{missing} utterances had no transcript and were scored as empty")
    score = _summarise(scored, counted, name, order, config, corpus.seconds_of_audio, notes)
    score.missing = missing
    if wanted:
        extras = columns_of(rows or {}, (utterance.utterance_id for utterance in corpus))
        pairs = Pairs(corpus.utterances, raw, counted, spec, extras, language, config.tokenizer, config.phones)
        score.metrics = compute_metrics(wanted, pairs)
    return score


@collector_paused()
def _rows(corpus: Corpus, counted: Counted, blocks: Sequence[str | None]) -> list[UtteranceScore]:
    parts = zip(
        corpus.utterances,
        blocks,
        counted.references,
        counted.hypotheses,
        _each(counted.words),
        _each(counted.chars),
        strict=True,
    )
    return [
        UtteranceScore(
            utterance_id=utterance.utterance_id,
            reference=reference,
            hypothesis=hypothesis,
            words=words,
            chars=chars,
            speaker_id=utterance.speaker_id,
            block=block,
        )
        for utterance, block, reference, hypothesis, words, chars in parts
    ]


def _each(counts: np.ndarray) -> Iterator[Counts]:
    """The counts of each utterance, shape [utterances, 4]; equal ones are one object."""
    known: dict[tuple[int, ...], Counts] = {}
    for row in zip(*counts.T.tolist(), strict=True):
        yield known.get(row) or known.setdefault(row, Counts(*row))


def compare(a: Score, b: Score, confidence: ScoringConfig | None = None) -> Comparison:
    """The difference b - a with intervals and p-values, also corrected ones; slices are those that both scores have.

    Raises:
        InputError: the scores are of different utterances, references or normalisers.
    """
    config = confidence or ScoringConfig()
    pairs = pairs_of(a, b)
    parts: dict[str, dict[str, list[tuple[UtteranceScore, UtteranceScore]]]] = {
        column: {value: [] for value in values} for column, values in a.slices.items() if column in b.slices
    }
    for pair in pairs:
        for column, by_value in parts.items():
            by_value[pair[0].columns[column]].append(pair)
    slices = {
        column: {value: _difference(part, "words", config) for value, part in by_value.items()}
        for column, by_value in parts.items()
    }
    p_values = [_slice_p_value(part) if config.resamples else None for one in parts.values() for part in one.values()]
    corrected = iter(adjust(p_values))
    return Comparison(
        wer=_difference(pairs, "words", config),
        cer=_difference(pairs, "chars", config),
        slices=slices,
        adjusted={column: {value: next(corrected) for value in one} for column, one in parts.items()},
        tests=pair_tests(a, b, config) if config.resamples else None,
    )


def _slice_p_value(pairs: Sequence[tuple[UtteranceScore, UtteranceScore]]) -> float | None:
    errors_a, errors_b = [one.words.errors for one, _ in pairs], [one.words.errors for _, one in pairs]
    return matched_pairs(errors_a, errors_b, [one.block for one, _ in pairs]).p_value


def pairs_of(a: Score, b: Score) -> list[tuple[UtteranceScore, UtteranceScore]]:
    """The utterances of two scores side by side, in the order of the first.

    Raises:
        InputError: the scores are of different utterances, references or normalisers.
    """
    if a.normaliser != b.normaliser:
        raise InputError(
            f"the scores used the normalisers {a.normaliser!r} and {b.normaliser!r}: score both with the same one"
        )
    others = {one.utterance_id: one for one in b.utterances}
    if len(a.utterances) != len(b.utterances) or any(
        one.utterance_id not in others or others[one.utterance_id].reference != one.reference for one in a.utterances
    ):
        raise InputError("the two scores are of different utterances or references: score both on the same corpus")
    return [(one, others[one.utterance_id]) for one in a.utterances]


def _resolve(name: str, corpus: Corpus, language: str | None) -> tuple[str, list[str]]:
    languages = {utterance.language or language for utterance in corpus}
    notes = []
    if name == "auto":
        name, reason = choose_normaliser(languages, (utterance.text for utterance in corpus))
        notes.append(f"normaliser {name} ({reason})")
    unspaced = sorted({language_code(one) for one in languages if one} & UNSPACED_LANGUAGES)
    if unspaced and not get_normaliser(name).characters_are_words:
        notes.append(f"words are not separated by spaces in {', '.join(unspaced)}: read the CER, not the WER")
    speakers = {utterance.speaker_id for utterance in corpus} - {None}
    if len(speakers) < MIN_SPEAKERS:
        notes.append(
            f"{len(speakers)} known speakers: intervals resample utterances and do not cover how other speakers differ"
        )
    return name, notes


def _summarise(
    rows: list[UtteranceScore],
    counted: Counted,
    normaliser: str,
    order: dict[str, list[str]],
    config: ScoringConfig,
    seconds_of_audio: float,
    notes: list[str],
) -> Score:
    blocks = [row.block for row in rows]
    labels = {column: [row.columns[column] for row in rows] for column in order}
    empty = counted.words[:, :3].sum(axis=1) == 0
    return Score(
        utterances=rows,
        normaliser=normaliser,
        words=as_counts(counted.words),
        chars=as_counts(counted.chars),
        interval=interval_of_counts(counted.words, blocks, config),
        cer_interval=interval_of_counts(counted.chars, blocks, config),
        slices=score_slices(labels, order, counted.words, counted.chars, blocks, config),
        seconds_of_audio=seconds_of_audio,
        empty_references=int(empty.sum()),
        insertions_on_empty=int(counted.words[empty, 3].sum()),
        notes=notes,
        variants=len(config.variants),
    )


def _difference(pairs: Sequence[tuple[UtteranceScore, UtteranceScore]], kind: str, config: ScoringConfig) -> Difference:
    counts: list[tuple[Counts, Counts]] = [(getattr(a, kind), getattr(b, kind)) for a, b in pairs]
    return paired_difference(
        [a.errors for a, _ in counts],
        [b.errors for _, b in counts],
        [a.reference_length for a, _ in counts],
        [a.block for a, _ in pairs],
        config.resamples,
        config.confidence_level,
        config.seed,
        block_name(config.resample_by),
    )
