"""Error rates of transcripts against a corpus: counts, corpus-level rates, intervals, slices, comparison."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import write_jsonl
from speechtune.core.progress import track
from speechtune.corpus.table import STANDARD_COLUMNS, Corpus, Utterance
from speechtune.decoding.transcript import Transcript, read_transcripts
from speechtune.scoring.alignment import Counts, char_counts, total, word_counts
from speechtune.scoring.bootstrap import (
    MIN_SPEAKERS,
    Difference,
    Interval,
    bootstrap_interval,
    paired_difference,
)
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.normalisers import UNSPACED_LANGUAGES, choose_normaliser, get_normaliser, language_code
from speechtune.scoring.terms import TermScore, term_recall

UNKNOWN = "(unknown)"
REFERENCE_WORDS = "reference_words"
"""A column every corpus has for slicing: the number of words of the normalised reference."""

BANDS: dict[str, tuple[float, ...]] = {
    "duration_s": (2, 5, 10, 30),
    "snr_db": (0, 5, 10, 20, 30),
    REFERENCE_WORDS: (1, 2, 6, 11, 21),
}
"""Edges of the bands a numeric column is sliced in: below the first, [edge, next edge), from the last on."""

_TEXT_COLUMNS = frozenset({"text", "file_name", "utterance_id"})


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
class SliceScore:
    """The utterances that share one value of a column: word counts, character counts, WER interval."""

    counts: Counts
    chars: Counts
    utterances: int
    interval: Interval | None

    @property
    def wer(self) -> float | None:
        """Word error rate as a fraction; ``None`` where no reference has a word."""
        return self.counts.rate

    @property
    def cer(self) -> float | None:
        """Character error rate as a fraction."""
        return self.chars.rate

    def to_json(self) -> dict[str, Any]:
        """Rates and counts, JSON-ready."""
        return {
            "utterances": self.utterances,
            "wer": self.wer,
            "interval": self.interval.to_json() if self.interval else None,
            "cer": self.cer,
            "words": self.counts.to_json(),
            "chars": self.chars.to_json(),
        }


@dataclass(slots=True, kw_only=True)
class Score:
    """The score of one system on one corpus. ``words`` and ``chars`` are sums over all utterances.

    ``interval`` and ``cer_interval`` are ``None`` where nothing can be resampled (one utterance, no reference words).
    ``empty_references`` counts utterances whose normalised reference has no word, ``insertions_on_empty`` the words
    recognised there: they count as errors. ``missing`` utterances had no transcript and were scored as empty ones.
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
            "cer": self.cer,
            "cer_interval": self.cer_interval.to_json() if self.cer_interval else None,
            "normaliser": self.normaliser,
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
        }

    def to_text(self, comparison: Comparison | None = None) -> str:
        """Lines for a person: rates in per cent with their counts, notes, and a table for each sliced column."""
        return _as_text(self, comparison)

    def write_utterances(self, path: Path) -> None:
        """Write one row per utterance (JSONL), in corpus order, atomically."""
        write_jsonl(path, (one.to_row() for one in self.utterances))


@dataclass(slots=True, kw_only=True)
class Comparison:
    """System b against baseline a on the same utterances; negative differences mean that b is better."""

    wer: Difference
    cer: Difference
    slices: dict[str, dict[str, Difference]]

    def to_json(self) -> dict[str, Any]:
        """The differences, JSON-ready."""
        return {
            "wer": self.wer.to_json(),
            "cer": self.cer.to_json(),
            "slices": {
                column: {value: one.to_json() for value, one in parts.items()} for column, parts in self.slices.items()
            },
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
) -> Score:
    """Compare transcripts with the texts of a corpus.

    Args:
        corpus: every utterance of it is scored.
        transcripts: one for each utterance, in any order.
        normaliser: a name from `NORMALISERS` or ``auto``; ``None``: as ``confidence`` says.
        slice_by: corpus columns (or ``reference_words``); ``None``: as ``confidence`` says.
        confidence: normaliser, slices, and how intervals are made; ``None``: the defaults of `ScoringConfig`.
        allow_missing: score an utterance without a transcript as an empty one instead of refusing.
        language: the language of utterances whose ``language`` is unknown, for the normaliser ``auto``.

    Raises:
        InputError: the corpus is empty, an utterance has no transcript, a transcript is of no utterance or is given
            twice, or a column does not exist.
    """
    config = confidence or ScoringConfig()
    if not corpus.utterances:
        raise InputError(f"{corpus.root} has no utterances: there is nothing to score")
    hypotheses = _match(corpus, transcripts, allow_missing)
    name, notes = _resolve(config.normaliser if normaliser is None else normaliser, corpus, language)
    normalise = get_normaliser(name)
    rows = []
    for utterance in track(corpus.utterances, "scoring"):
        reference = normalise(utterance.text)
        hypothesis = normalise(hypotheses.get(utterance.utterance_id, ""))
        rows.append(
            UtteranceScore(
                utterance_id=utterance.utterance_id,
                reference=reference,
                hypothesis=hypothesis,
                words=word_counts(reference, hypothesis),
                chars=char_counts(reference, hypothesis),
                speaker_id=utterance.speaker_id,
            )
        )
    columns = list(dict.fromkeys(config.slice_by if slice_by is None else slice_by))
    order = {column: _label(column, corpus, rows) for column in columns}
    missing = len(corpus) - len(hypotheses)
    if missing:
        notes.append(f"{missing} utterances had no transcript and were scored as empty")
    return _summarise(rows, name, order, config, corpus.seconds_of_audio, missing, notes)


def compare(a: Score, b: Score, confidence: ScoringConfig | None = None) -> Comparison:
    """The difference b - a with intervals and p-values; slices are those that both scores have.

    The p-values of slices are not corrected for their number: with many slices some are small by chance.

    Raises:
        InputError: the scores are of different utterances, references or normalisers.
    """
    config = confidence or ScoringConfig()
    if a.normaliser != b.normaliser:
        raise InputError(
            f"the scores used the normalisers {a.normaliser!r} and {b.normaliser!r}: score both with the same one"
        )
    others = {one.utterance_id: one for one in b.utterances}
    if len(a.utterances) != len(b.utterances) or any(
        one.utterance_id not in others or others[one.utterance_id].reference != one.reference for one in a.utterances
    ):
        raise InputError("the two scores are of different utterances or references: score both on the same corpus")
    pairs = [(one, others[one.utterance_id]) for one in a.utterances]
    slices = {
        column: {
            value: _difference([pair for pair in pairs if pair[0].columns.get(column) == value], "words", config)
            for value in values
        }
        for column, values in a.slices.items()
        if column in b.slices
    }
    return Comparison(wer=_difference(pairs, "words", config), cer=_difference(pairs, "chars", config), slices=slices)


@dataclass(slots=True, kw_only=True)
class ScoreReport:
    """What ``speechtune score`` found: the score, and the baseline, comparison and terms where they were asked for."""

    score: Score
    baseline: Score | None = None
    comparison: Comparison | None = None
    terms: TermScore | None = None

    def to_json(self) -> dict[str, Any]:
        """The score's object with ``baseline``, ``difference`` and ``terms`` beside its keys."""
        result = self.score.to_json()
        if self.baseline and self.comparison:
            result |= {"baseline": self.baseline.to_json(), "difference": self.comparison.to_json()}
        return result | ({"terms": self.terms.to_json()} if self.terms else {})

    def to_text(self) -> str:
        """The same for a person."""
        parts = [self.score.to_text(self.comparison), self.terms.to_text() if self.terms else ""]
        return "\n\n".join(part for part in parts if part)


def score_files(
    corpus: Path,
    transcripts: Path,
    config: ScoringConfig | None = None,
    *,
    against: Path | None = None,
    split: str | None = None,
    allow_missing: bool = False,
) -> ScoreReport:
    """Score a transcript file against a corpus directory, or one text file against another line by line.

    With ``split``, transcripts of utterances in other splits are left aside and counted in the notes.

    Raises:
        InputError: as `score_transcripts`, `corpus_from_lines` and `read_transcripts`.
    """
    config = config or ScoringConfig()
    part, hypotheses, aside = _load(corpus, transcripts, split)
    score = score_transcripts(part, hypotheses, confidence=config, allow_missing=allow_missing)
    if aside:
        score.notes.append(f"{aside} transcripts of other splits were left aside")
    report = ScoreReport(score=score)
    if against:
        report.baseline = score_transcripts(
            part,
            _load(corpus, against, split)[1],
            normaliser=score.normaliser,
            confidence=config,
            allow_missing=allow_missing,
        )
        report.comparison = compare(report.baseline, score, config)
    if config.terms:
        texts = {one.utterance_id: one.text for one in hypotheses}
        report.terms = term_recall(
            [utterance.text for utterance in part],
            [texts.get(utterance.utterance_id, "") for utterance in part],
            config.terms,
            config.term_variants,
            score.normaliser,
        )
    return report


def _load(corpus: Path, transcripts: Path, split: str | None) -> tuple[Corpus, list[Transcript], int]:
    """The utterances to score, their transcripts, and how many transcripts belong to other splits."""
    if corpus.is_file():
        if split:
            raise InputError(f"{corpus} is a text file and has no split {split!r}: leave --split out")
        return *corpus_from_lines(corpus, transcripts), 0
    if transcripts.is_dir():
        raise InputError(f"{transcripts} is a directory: give the file of transcripts in it (JSONL)")
    whole = Corpus.load(corpus)
    rows = read_transcripts(transcripts)
    if not split:
        return whole, rows, 0
    part = whole.split(split)
    others = {one.utterance_id for one in whole} - {one.utterance_id for one in part}
    kept = [one for one in rows if one.utterance_id not in others]
    return part, kept, len(rows) - len(kept)


def corpus_from_lines(reference: Path, hypothesis: Path) -> tuple[Corpus, list[Transcript]]:
    """Two text files, one utterance a line, as a corpus without audio and its transcripts.

    Every line counts, blank ones and those of one character included.

    Raises:
        InputError: a file is missing or not UTF-8, or the files have different numbers of lines.
    """
    ref_lines, hyp_lines = _read_lines(reference), _read_lines(hypothesis)
    if len(ref_lines) != len(hyp_lines):
        raise InputError(
            f"{reference} has {len(ref_lines)} lines but {hypothesis} has {len(hyp_lines)}: "
            "give both one line for each utterance"
        )
    ids = [f"line {number}" for number in range(1, len(ref_lines) + 1)]
    utterances = [
        Utterance(utterance_id=name, file_name="", text=text, duration_s=0.0)
        for name, text in zip(ids, ref_lines, strict=True)
    ]
    transcripts = [Transcript(utterance_id=name, text=text) for name, text in zip(ids, hyp_lines, strict=True)]
    return Corpus(reference, utterances), transcripts


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a directory: give a text file with one utterance a line") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error
    return text.removesuffix("\n").split("\n") if text else []


def _match(corpus: Corpus, transcripts: Sequence[Transcript], allow_missing: bool) -> dict[str, str]:
    hypotheses = {one.utterance_id: one.text for one in transcripts}
    if len(hypotheses) != len(transcripts):
        twice = next(name for name in hypotheses if sum(one.utterance_id == name for one in transcripts) > 1)
        raise InputError(f"the transcripts hold {twice!r} more than once: keep one of them")
    ids = {utterance.utterance_id for utterance in corpus}
    unknown = [name for name in hypotheses if name not in ids]
    if unknown:
        raise InputError(
            f"{len(unknown)} transcripts are of no utterance in {corpus.root}, first {unknown[0]!r}: "
            "check that they were made from this corpus"
        )
    missing = [utterance.utterance_id for utterance in corpus if utterance.utterance_id not in hypotheses]
    if missing and not allow_missing:
        raise InputError(
            f"{len(missing)} of {len(ids)} utterances of {corpus.root} have no transcript, first {missing[0]!r}: "
            "transcribe them, or add --allow-missing to score them as empty"
        )
    return hypotheses


def _resolve(name: str, corpus: Corpus, language: str | None) -> tuple[str, list[str]]:
    languages = {utterance.language or language for utterance in corpus}
    notes = []
    if name == "auto":
        name, reason = choose_normaliser(languages, (utterance.text for utterance in corpus))
        notes.append(f"normaliser {name} ({reason})")
    unspaced = sorted({language_code(one) for one in languages if one} & UNSPACED_LANGUAGES)
    if unspaced:
        notes.append(f"words are not separated by spaces in {', '.join(unspaced)}: read the CER, not the WER")
    speakers = {utterance.speaker_id for utterance in corpus} - {None}
    if len(speakers) < MIN_SPEAKERS:
        notes.append(
            f"{len(speakers)} known speakers: intervals resample utterances and do not cover how other speakers differ"
        )
    return name, notes


def _summarise(
    rows: list[UtteranceScore],
    normaliser: str,
    order: dict[str, list[str]],
    config: ScoringConfig,
    seconds_of_audio: float,
    missing: int,
    notes: list[str],
) -> Score:
    empty = [row for row in rows if not row.words.reference_length]
    slices: dict[str, dict[str, SliceScore]] = {}
    for column, values in order.items():
        parts: dict[str, list[UtteranceScore]] = {value: [] for value in values}
        for row in rows:
            parts[row.columns[column]].append(row)
        slices[column] = {
            value: SliceScore(
                counts=total(row.words for row in part),
                chars=total(row.chars for row in part),
                utterances=len(part),
                interval=_interval(part, "words", config),
            )
            for value, part in parts.items()
        }
    return Score(
        utterances=rows,
        normaliser=normaliser,
        words=total(row.words for row in rows),
        chars=total(row.chars for row in rows),
        interval=_interval(rows, "words", config),
        cer_interval=_interval(rows, "chars", config),
        slices=slices,
        seconds_of_audio=seconds_of_audio,
        empty_references=len(empty),
        insertions_on_empty=sum(row.words.insertions for row in empty),
        missing=missing,
        notes=notes,
    )


def _interval(rows: Sequence[UtteranceScore], kind: str, config: ScoringConfig) -> Interval | None:
    counts: list[Counts] = [getattr(row, kind) for row in rows]
    return bootstrap_interval(
        [one.errors for one in counts],
        [one.reference_length for one in counts],
        [row.speaker_id for row in rows],
        config.resamples,
        config.confidence_level,
        config.seed,
    )


def _difference(pairs: Sequence[tuple[UtteranceScore, UtteranceScore]], kind: str, config: ScoringConfig) -> Difference:
    counts: list[tuple[Counts, Counts]] = [(getattr(a, kind), getattr(b, kind)) for a, b in pairs]
    return paired_difference(
        [a.errors for a, _ in counts],
        [b.errors for _, b in counts],
        [a.reference_length for a, _ in counts],
        [a.speaker_id for a, _ in pairs],
        config.resamples,
        config.confidence_level,
        config.seed,
    )


def _label(column: str, corpus: Corpus, rows: list[UtteranceScore]) -> list[str]:
    """Store each row's label in a column; return the labels in the order in which they are shown."""
    if column == REFERENCE_WORDS:
        values: list[Any] = [row.words.reference_length for row in rows]
    else:
        values = [utterance.column(column) for utterance in corpus]
    if all(value is None for value in values):
        columns = [*STANDARD_COLUMNS, *sorted({name for utterance in corpus for name in utterance.extra})]
        known = [name for name in columns if any(utterance.column(name) is not None for utterance in corpus)]
        known = [name for name in known if name not in _TEXT_COLUMNS] + [REFERENCE_WORDS]
        raise InputError(f"no utterance of {corpus.root} has a {column!r}: slice by one of {', '.join(known)}")
    labeller, order = _labeller(column, [value for value in values if value is not None])
    labels = [UNKNOWN if value is None else labeller(value) for value in values]
    for row, label in zip(rows, labels, strict=True):
        row.columns[column] = label
    present = set(labels)
    return [label for label in order if label in present] + ([UNKNOWN] if UNKNOWN in present else [])


def _labeller(column: str, values: list[Any]) -> tuple[Callable[[Any], str], list[str]]:
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    if len(numbers) == len(values) and (column in BANDS or any(value != int(value) for value in numbers)):
        edges = BANDS.get(column) or _quartiles(numbers)
        names = _band_names(edges)
        return lambda value: names[sum(value >= edge for edge in edges)], names
    return _plain_label, sorted({_plain_label(value) for value in values}, key=_natural)


def _quartiles(numbers: list[float]) -> tuple[float, ...]:
    import numpy as np

    return tuple(sorted({float(f"{edge:.3g}") for edge in np.quantile(numbers, [0.25, 0.5, 0.75])}))


def _band_names(edges: Sequence[float]) -> list[str]:
    middle = [f"{low:g}-{high:g}" for low, high in pairwise(edges)]
    return [f"<{edges[0]:g}", *middle, f">={edges[-1]:g}"]


def _plain_label(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _natural(label: str) -> tuple[int, float, str]:
    try:
        return 0, float(label), label
    except ValueError:
        return 1, 0.0, label


def _as_text(score: Score, comparison: Comparison | None) -> str:
    lines = [
        _rate_line("WER", score.words, score.interval),
        _rate_line("CER", score.chars, score.cer_interval),
        f"{len(score.utterances)} utterances, {score.seconds_of_audio:.0f} s of audio, "
        f"{score.empty_references} empty references with {score.insertions_on_empty} words inserted",
    ]
    lines += [f"note: {note}" for note in score.notes]
    if comparison:
        lines += [_difference_line("WER", comparison.wer), _difference_line("CER", comparison.cer)]
    for column, parts in score.slices.items():
        lines += ["", *_table(column, parts, (comparison.slices.get(column) if comparison else None) or {})]
    return "\n".join(lines)


def _rate_line(name: str, counts: Counts, interval: Interval | None) -> str:
    sure = f" [{_percent(interval.low)}, {_percent(interval.high)}]" if interval else ""
    how = f", {interval.level:g} interval over {interval.units} {interval.unit}s" if interval else ""
    return (
        f"{name} {_percent(counts.rate)} %{sure} = {counts.errors} errors / {counts.reference_length} "
        f"({counts.substitutions} sub, {counts.deletions} del, {counts.insertions} ins){how}"
    )


def _difference_line(name: str, one: Difference) -> str:
    sure = f" [{_signed(one.interval.low)}, {_signed(one.interval.high)}]" if one.interval else ""
    chance = "" if one.p_value is None else f", p = {one.p_value:.3g}"
    return f"{name} difference from the baseline {_signed(one.difference)} points{sure}{chance} (negative: better)"


def _table(column: str, parts: dict[str, SliceScore], differences: dict[str, Difference]) -> Iterable[str]:
    width = max(len(column), *(len(value) for value in parts))
    head = f"{column:<{width}}  utterances   words   WER %          interval"
    yield head + ("   difference" if differences else "")
    for value, one in parts.items():
        sure = f"[{_percent(one.interval.low)}, {_percent(one.interval.high)}]" if one.interval else "-"
        line = f"{value:<{width}}  {one.utterances:>10}  {one.counts.reference_length:>6}  {_percent(one.wer):>6}"
        change = differences.get(value)
        yield f"{line}  {sure:>16}" + (f"   {_signed(change.difference):>10}" if change else "")


def _percent(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:.2f}"


def _signed(rate: float | None) -> str:
    return "-" if rate is None else f"{100 * rate:+.2f}"
