"""The utterances that training changed most, word by word."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import groupby, zip_longest
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.corpus.reading import redivided
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import read_transcripts
from speechtune.report.audio_clips import Clip, ClipShelf
from speechtune.report.reading import ComparisonRecord, MeasurementRecord, RunRecord, section
from speechtune.report.wording import count, duration, number
from speechtune.scoring.alignment import Counts, align
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.score import UtteranceScore, score_transcripts

TOP = 15
"""Utterances of each list."""

LONG_RUN = 20
"""A run of as many words that were all inserted, or all deleted, is cut: a decoder caught in a loop writes hundreds."""

SHOWN_OF_LONG_RUN = 12


@dataclass(frozen=True, slots=True)
class Piece:
    """Words of one kind, side by side: ``equal``, ``substitute``, ``delete``, ``insert``, or ``cut`` (words not shown).

    ``said`` is empty for an insertion, ``heard`` for a deletion.
    """

    op: str
    said: str = ""
    heard: str = ""


@dataclass(slots=True)
class ChangedUtterance:
    """One utterance before and after. ``change`` is the difference of its errors."""

    utterance_id: str
    change: int
    said: str
    before: list[Piece]
    after: list[Piece]
    before_errors: str
    after_errors: str
    facts: list[tuple[str, str]]
    utterance: Utterance
    clip: Clip = field(default_factory=lambda: Clip(None))


@dataclass(slots=True)
class SetChanges:
    """The utterances of one target set; ``problem`` says why there are none."""

    set_name: str
    improved: list[ChangedUtterance] = field(default_factory=list)
    broken: list[ChangedUtterance] = field(default_factory=list)
    summary: str = ""
    problem: str = ""
    corpus: Corpus | None = None

    def in_turn(self) -> Iterator[ChangedUtterance]:
        """Improved and broken ones alternating, so that both get players when space is short."""
        for pair in zip_longest(self.improved, self.broken):
            yield from (one for one in pair if one is not None)


def load_set(measured: MeasurementRecord, data: dict[str, Any] | None = None) -> tuple[Corpus | None, str]:
    """The utterances of a set, or why they cannot be had; ``data`` is the run's recipe's."""
    try:
        corpus = redivided(Corpus.load(Path(measured.corpus)), data or {})
        return (corpus.split(measured.split) if measured.split else corpus), ""
    except (InputError, OSError) as error:
        return None, f"the corpus could not be read ({error})"


def known_speakers(corpus: Corpus | None) -> int | None:
    """How many speakers a set has, as far as they are known."""
    return None if corpus is None else len({one.speaker_id for one in corpus} - {None})


def changed_utterances(run: RunRecord, one: ComparisonRecord, corpus: Corpus | None, problem: str) -> SetChanges:
    """The most improved and most broken utterances of a set, by change in the number of word errors."""
    result = SetChanges(one.set_name, problem=problem, corpus=corpus)
    before = run.measurement(one.set_name, "before", one.context_before)
    after = run.measurement(one.set_name, "after", one.context_after)
    if corpus is None or before is None or after is None:
        result.problem = problem or "this set was not measured both before and after"
        return result
    try:
        pairs = list(zip(_rescore(run, corpus, before), _rescore(run, corpus, after), strict=True))
    except InputError as error:
        result.problem = str(error)
        return result
    rows = {utterance.utterance_id: utterance for utterance in corpus}
    changes = sorted(((b.words.errors - a.words.errors, a.utterance_id, a, b) for a, b in pairs), key=lambda c: c[:2])
    better = [change for change in changes if change[0] < 0]
    worse = sorted((change for change in changes if change[0] > 0), key=lambda c: (-c[0], c[1]))
    result.improved = [_changed(rows[name], a, b) for _, name, a, b in better[:TOP]]
    result.broken = [_changed(rows[name], a, b) for _, name, a, b in worse[:TOP]]
    result.summary = (
        f"Of {count(len(pairs), 'utterance')}, {number(len(better))} have fewer errors after training, "
        f"{number(len(worse))} have more, {number(len(pairs) - len(better) - len(worse))} as many "
        f"(before at {one.context_before}, after at {one.context_after} audio context)."
    )
    return result


def add_clips(sets: list[SetChanges], shelf: ClipShelf) -> None:
    """Give the utterances players, in turn over the sets, until the shelf is full."""
    for row in zip_longest(*(part.in_turn() for part in sets)):
        for part, one in zip(sets, row, strict=True):
            if one is not None and part.corpus is not None:
                one.clip = shelf.clip(part.corpus, one.utterance)


def _rescore(run: RunRecord, corpus: Corpus, measured: MeasurementRecord) -> list[UtteranceScore]:
    """Per-utterance counts; they must add up to those of the run.

    Raises:
        InputError: the transcripts are missing, or corpus or transcripts are no longer those of the run.
    """
    variants = section(run.recipe, "evaluation", "scoring").get("variants")
    score = score_transcripts(
        corpus,
        read_transcripts(run.directory / measured.transcripts),
        normaliser=measured.score.normaliser,
        slice_by=[],
        confidence=ScoringConfig(resamples=0, variants=variants or {}),
        allow_missing=measured.score.missing > 0,
    )
    if score.words != measured.score.words:
        raise InputError(
            f"{corpus.root} or {measured.transcripts} has changed since this run was measured "
            f"({number(score.words.errors)} word errors now, {number(measured.score.words.errors)} then)"
        )
    return score.utterances


def _changed(utterance: Utterance, before: UtteranceScore, after: UtteranceScore) -> ChangedUtterance:
    facts = [
        ("speaker", utterance.speaker_id),
        ("age", utterance.age),
        ("gender", utterance.gender),
        ("length", duration(utterance.duration_s)),
    ]
    return ChangedUtterance(
        utterance_id=utterance.utterance_id,
        change=after.words.errors - before.words.errors,
        said=utterance.text,
        before=pieces(before.reference, before.hypothesis),
        after=pieces(after.reference, after.hypothesis),
        before_errors=_errors(before.words),
        after_errors=_errors(after.words),
        facts=[(name, str(value)) for name, value in facts if value not in (None, "")],
        utterance=utterance,
    )


def _errors(words: Counts) -> str:
    return f"{count(words.errors, 'error')} in {count(words.reference_length, 'word')}"


def pieces(reference: str, hypothesis: str) -> list[Piece]:
    """The alignment of two normalised texts, words of one kind joined; substitutions stay word by word."""
    result: list[Piece] = []
    for op, run in groupby(align(reference.split(), hypothesis.split()), key=lambda edit: edit.op):
        edits = list(run)
        if op == "substitute":
            result += [Piece(op, edit.ref or "", edit.hyp or "") for edit in edits]
            continue
        hidden = 0
        if op != "equal" and len(edits) > LONG_RUN:
            hidden = len(edits) - SHOWN_OF_LONG_RUN
            edits = edits[:SHOWN_OF_LONG_RUN]
        said = " ".join(edit.ref for edit in edits if edit.ref is not None)
        heard = " ".join(edit.hyp for edit in edits if edit.hyp is not None)
        result.append(Piece(op, said, heard))
        if hidden:
            result.append(
                Piece("cut", said=f"{number(hidden)} more words {'inserted' if op == 'insert' else 'left out'}")
            )
    return result
