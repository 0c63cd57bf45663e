"""What kinds of errors a recogniser makes: classes, confusion pairs and speakers, with counts, shares and examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from speechtune.core.errors import InputError
from speechtune.core.progress import track
from speechtune.corpus.language_codes import short_code
from speechtune.corpus.table import Corpus, Utterance
from speechtune.scoring.alignment import Counts, count, total
from speechtune.scoring.bootstrap import Interval, bootstrap_interval
from speechtune.scoring.causes_classes import CLASSES, Knowledge, WordError, classify
from speechtune.scoring.causes_words import ANY_FILLERS, FILLERS, function_words, number_words
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.counting import NormaliserSpec
from speechtune.scoring.phones_espeak import PhonesFrom, phones_for

if TYPE_CHECKING:
    from speechtune.scoring.score import Score, UtteranceScore

_CONTEXT_WORDS = 3
_SWITCH_WORDS, _SWITCH_WER = 4, 0.5
"""An output is taken for another language from so many words and such a WER on: right words settle the question."""


@dataclass(slots=True)
class CauseOptions:
    """How much is listed, and the corpus whose texts the model was trained on (``None``: unknown).

    ``training_split``: only that split of it. ``examples`` of each class and pair, ``pairs`` and ``speakers`` at most.
    """

    training_corpus: Path | None = None
    training_split: str | None = None
    examples: int = 3
    pairs: int = 20
    speakers: int = 10


@dataclass(frozen=True, slots=True)
class Example:
    """An error where it happened: a few words around it on both sides, the error itself in square brackets."""

    utterance_id: str
    reference: str
    hypothesis: str

    def to_json(self) -> dict[str, str]:
        """The fields, JSON-ready."""
        return {"utterance_id": self.utterance_id, "reference": self.reference, "hypothesis": self.hypothesis}


@dataclass(slots=True)
class CauseClass:
    """One class: its errors by kind, the utterances that have one, and the first examples in the corpus's order."""

    name: str
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0
    utterances: int = 0
    examples: list[Example] = field(default_factory=list)

    @property
    def errors(self) -> int:
        """All errors of the class."""
        return self.substitutions + self.deletions + self.insertions

    def to_json(self, errors: int, words: int) -> dict[str, Any]:
        """Counts, the share of all errors, and what the class adds to the WER."""
        return {
            "about": CLASSES[self.name],
            "errors": self.errors,
            "share": self.errors / errors if errors else None,
            "wer_part": self.errors / words if words else None,
            "substitutions": self.substitutions,
            "deletions": self.deletions,
            "insertions": self.insertions,
            "utterances": self.utterances,
            "examples": [one.to_json() for one in self.examples],
        }


@dataclass(slots=True)
class ConfusionPair:
    """A word and what was recognised in its place (``None``: nothing was said, or nothing was recognised)."""

    ref: str | None
    hyp: str | None
    count: int
    said: int
    cause: str
    examples: list[Example]

    def to_json(self) -> dict[str, Any]:
        """Both words, how often, of how many occurrences of the word, its class, and examples."""
        return {
            "reference": self.ref,
            "hypothesis": self.hyp,
            "count": self.count,
            "said": self.said,
            "class": self.cause,
            "examples": [one.to_json() for one in self.examples],
        }


@dataclass(slots=True)
class SpeakerErrors:
    """A speaker's error rate with its interval over that speaker's utterances.

    ``excess`` is how many errors more the speaker has than the corpus's rate would give; speakers are ordered by it.
    """

    speaker_id: str
    utterances: int
    counts: Counts
    interval: Interval | None
    excess: float

    def to_json(self) -> dict[str, Any]:
        """Rate, interval, counts and excess."""
        return {
            "speaker_id": self.speaker_id,
            "utterances": self.utterances,
            "wer": self.counts.rate,
            "interval": self.interval.to_json() if self.interval else None,
            "excess_errors": round(self.excess, 2),
            "words": self.counts.to_json(),
        }


@dataclass(slots=True, kw_only=True)
class Causes:
    """Every word error of a score by class; the classes' errors add up to ``errors``, the score's.

    ``hidden`` is what the normaliser made equal: utterances whose words are all right once normalised but are written
    otherwise, and the raw words in them that differ. They are no errors of the WER.
    """

    errors: int
    words: int
    classes: dict[str, CauseClass]
    pairs: list[ConfusionPair]
    speakers: list[SpeakerErrors]
    hidden: CauseClass
    vocabulary: int | None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready; classes without an error too."""
        hidden = self.hidden
        return {
            "errors": self.errors,
            "reference_words": self.words,
            "classes": {name: one.to_json(self.errors, self.words) for name, one in self.classes.items()},
            "hidden_by_normaliser": {
                "utterances": hidden.utterances,
                "words": hidden.errors,
                "examples": [one.to_json() for one in hidden.examples],
            },
            "confusions": [one.to_json() for one in self.pairs],
            "worst_speakers": [one.to_json() for one in self.speakers],
            "training_vocabulary": self.vocabulary,
            "notes": self.notes,
        }

    def to_text(self) -> str:
        """Tables for a person; classes without an error are left out."""
        from speechtune.scoring.causes_text import causes_as_text

        return causes_as_text(self)


def find_causes(
    score: Score,
    corpus: Corpus,
    raw: Mapping[str, str],
    *,
    languages: Mapping[str, str | None] | None = None,
    options: CauseOptions | None = None,
    config: ScoringConfig | None = None,
) -> Causes:
    """Put every word error of a score into a class.

    Args:
        score: the score, with its utterances.
        corpus: the corpus that was scored.
        raw: the raw output of each utterance, by id.
        languages: the language that the recogniser named for each output, by id, where it did.
        options: how much is listed, and the training corpus.
        config: spellings, resamples, level and seed.

    Raises:
        InputError: the training corpus cannot be read.
    """
    options, config = options or CauseOptions(), config or ScoringConfig()
    spec = NormaliserSpec(score.normaliser, config.variants)
    vocabulary = training_vocabulary(options, spec) if options.training_corpus else None
    rows = {one.utterance_id: one for one in corpus}
    known = _knowledge_by_language(rows.values(), score, vocabulary, config.phones)
    gathered = _Gathered(options.examples)
    switches = _Switches(languages or {})
    for one in track(score.utterances, "looking for causes"):
        row = rows[one.utterance_id]
        if one.words.errors:
            switched = switches.of(one, row, raw.get(one.utterance_id, ""))
            language = _code(row.language)
            reference, hypothesis = one.reference.split(), one.hypothesis.split()
            gathered.add(
                one.utterance_id, reference, hypothesis, classify(reference, hypothesis, known[language], switched)
            )
        else:
            gathered.add_hidden(one.utterance_id, row.text, raw.get(one.utterance_id, ""))
    notes = list(switches.notes)
    if vocabulary is None:
        notes.append("no training corpus was given: out-of-vocabulary words are counted in the classes after it")
    return Causes(
        errors=score.words.errors,
        words=score.words.reference_length,
        classes=gathered.classes,
        pairs=gathered.top_pairs(
            options.pairs, Counter(word for one in score.utterances for word in one.reference.split())
        ),
        speakers=worst_speakers(score, options.speakers, config),
        hidden=gathered.hidden,
        vocabulary=None if vocabulary is None else len(vocabulary),
        notes=notes,
    )


def training_vocabulary(options: CauseOptions, spec: NormaliserSpec) -> frozenset[str]:
    """The normalised words of the training corpus.

    Raises:
        InputError: it cannot be read or holds no words.
    """
    assert options.training_corpus is not None
    corpus = Corpus.load(options.training_corpus)
    if options.training_split:
        corpus = corpus.split(options.training_split)
    normalise = spec.build()
    words = frozenset(word for text in {one.text for one in corpus} for word in normalise(text).split())
    if not words:
        raise InputError(f"{options.training_corpus} holds no words: give the corpus that the model was trained on")
    return words


def _knowledge_by_language(
    rows: Any, score: Score, vocabulary: frozenset[str] | None, phones: PhonesFrom
) -> dict[str | None, Knowledge]:
    texts: dict[str | None, list[str]] = defaultdict(list)
    heard: dict[str | None, list[str]] = defaultdict(list)
    scored = {one.utterance_id: one for one in score.utterances}
    for row in rows:
        texts[_code(row.language)].append(scored[row.utterance_id].reference)
        heard[_code(row.language)].append(scored[row.utterance_id].hypothesis)
    english = score.normaliser == "whisper-english"
    found = {}
    for language, own in texts.items():
        named = language or ("en" if english else None)
        fillers = FILLERS.get(named or "", ANY_FILLERS)
        reader = phones_for(phones, named, (word for text in (*own, *heard[language]) for word in text.split()))
        found[language] = Knowledge(function_words(named, own), number_words(named), fillers, vocabulary, reader)
    return found


def _code(language: str | None) -> str | None:
    return short_code(language) if language else None


class _Switches:
    """Tells outputs in another language than their reference, and notes when it cannot."""

    def __init__(self, languages: Mapping[str, str | None]) -> None:
        self.languages = languages
        self.notes: list[str] = []

    def of(self, one: UtteranceScore, row: Utterance, raw: str) -> bool:
        named = self.languages.get(one.utterance_id)
        rate = one.words.rate
        if row.language is None or rate is None or rate < _SWITCH_WER:
            return False
        if named and short_code(named) != short_code(row.language):
            return True
        if len(raw.split()) < _SWITCH_WORDS or self.notes:
            return False
        from speechtune.corpus.text_language import identify_language, is_mismatch

        try:
            return is_mismatch(identify_language(raw), row.language) is True
        except InputError as error:
            self.notes.append(f"outputs in another language of the same script were not looked for: {error}")
            return False


class _Gathered:
    """Classes, pairs and examples while utterances come in."""

    def __init__(self, examples: int) -> None:
        self.examples = examples
        self.classes = {name: CauseClass(name) for name in CLASSES}
        self.hidden = CauseClass("case-punctuation")
        self.counts: Counter[tuple[str | None, str | None]] = Counter()
        self.causes: dict[tuple[str | None, str | None], Counter[str]] = defaultdict(Counter)
        self.shown: dict[tuple[str | None, str | None], list[Example]] = defaultdict(list)

    def add(self, name: str, reference: Sequence[str], hypothesis: Sequence[str], errors: Sequence[WordError]) -> None:
        for one in errors:
            group, pair = self.classes[one.cause], (one.ref, one.hyp)
            setattr(group, f"{one.op}s", getattr(group, f"{one.op}s") + 1)
            self.counts[pair] += 1
            self.causes[pair][one.cause] += 1
            if len(group.examples) < self.examples or len(self.shown[pair]) < self.examples:
                example = _example(name, reference, hypothesis, one)
                if len(self.shown[pair]) < self.examples:
                    self.shown[pair].append(example)
                if len(group.examples) < self.examples and all(it.utterance_id != name for it in group.examples):
                    group.examples.append(example)
        for cause in {one.cause for one in errors}:
            self.classes[cause].utterances += 1

    def add_hidden(self, name: str, reference: str, hypothesis: str) -> None:
        if reference.split() == hypothesis.split():
            return
        found = count(reference.split(), hypothesis.split())
        self.hidden.substitutions += found.substitutions
        self.hidden.deletions += found.deletions
        self.hidden.insertions += found.insertions
        self.hidden.utterances += 1
        if len(self.hidden.examples) < self.examples:
            self.hidden.examples.append(Example(name, reference, hypothesis))

    def top_pairs(self, most: int, said: Counter[str]) -> list[ConfusionPair]:
        order = sorted(self.counts.items(), key=lambda item: (-item[1], item[0][0] or "", item[0][1] or ""))
        return [
            ConfusionPair(
                ref=pair[0],
                hyp=pair[1],
                count=number,
                said=said[pair[0]] if pair[0] is not None else 0,
                cause=min(self.causes[pair].items(), key=lambda item: (-item[1], list(CLASSES).index(item[0])))[0],
                examples=self.shown[pair],
            )
            for pair, number in order[:most]
        ]


def _example(name: str, reference: Sequence[str], hypothesis: Sequence[str], error: WordError) -> Example:
    sides = []
    for words, place, own in ((reference, error.ref_place, error.ref), (hypothesis, error.hyp_place, error.hyp)):
        before = list(words[max(0, place - _CONTEXT_WORDS) : place])
        after = list(words[place + (own is not None) : place + (own is not None) + _CONTEXT_WORDS])
        sides.append(" ".join([*before, f"[{own or ''}]", *after]))
    return Example(name, *sides)


def worst_speakers(score: Score, most: int, config: ScoringConfig) -> list[SpeakerErrors]:
    """The speakers with the most errors beyond what the corpus's rate would give them, with their intervals.

    Empty with fewer than two known speakers. Ordering by rate alone would put those who said three words first.
    """
    rows: dict[str, list[UtteranceScore]] = defaultdict(list)
    for one in score.utterances:
        if one.speaker_id is not None:
            rows[one.speaker_id].append(one)
    if len(rows) < 2 or score.wer is None:
        return []
    sums = {speaker: total(one.words for one in own) for speaker, own in rows.items()}
    excess = {speaker: counts.errors - score.wer * counts.reference_length for speaker, counts in sums.items()}
    order = sorted(sums, key=lambda speaker: (-excess[speaker], speaker))[:most]
    return [
        SpeakerErrors(
            speaker_id=speaker,
            utterances=len(rows[speaker]),
            counts=sums[speaker],
            interval=bootstrap_interval(
                [one.words.errors for one in rows[speaker]],
                [one.words.reference_length for one in rows[speaker]],
                None,
                config.resamples,
                config.confidence_level,
                config.seed,
            ),
            excess=excess[speaker],
        )
        for speaker in order
        if excess[speaker] > 0
    ]
