"""What a corpus is good for and what to record next, put together from the parts of planning."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, write_json, write_jsonl, write_text
from speechtune.core.progress import track
from speechtune.core.provenance import provenance
from speechtune.corpus.language_codes import UNSPACED, short_code
from speechtune.corpus.planning.coverage import (
    FEWEST_INSTANCES,
    RECOMMENDED_INSTANCES,
    Coverage,
    GrowthPoint,
    TermCounter,
    TermDensity,
    Texts,
    coverage,
    read_lines,
    vocabulary_growth,
)
from speechtune.corpus.planning.curve import LearningCurve, fit_learning_curve, read_points
from speechtune.corpus.planning.recording import (
    CARRIERS,
    RecordingPlan,
    candidates,
    plan_recordings,
    prompts_text,
    read_carriers,
)
from speechtune.corpus.planning.volume import Labour, VolumeAdvice, advise_volume, labour, split_verdicts
from speechtune.corpus.stream import count_rows, iter_utterances
from speechtune.corpus.text_keys import text_key

TRAIN = "train"
NO_SPLIT = "(none)"
_HELD_OUT = ("dev", "test")


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanRequest:
    """What to plan for.

    ``terms`` are words that must be recognised; ``target_text`` is text of the intended use, one sentence a line;
    ``sentences`` and ``carriers`` are what may be read aloud; ``instances`` is wanted of each term.
    """

    terms: Sequence[str] = ()
    target_text: Path | None = None
    sentences: Path | None = None
    carriers: Path | None = None
    instances: int = RECOMMENDED_INSTANCES
    goal: str = "general"
    target_hours: float | None = None
    learning_curve: Path | None = None
    seed: int = 0


@dataclass(slots=True)
class _Counts:
    """What one pass over the table collects."""

    rows: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    speakers: set[str] = field(default_factory=set)
    languages: Counter[str] = field(default_factory=Counter)
    train: Texts = field(default_factory=Texts)
    held_out: dict[str, Counter[str]] = field(default_factory=dict)
    sentences: dict[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything that `make_plan` found; parts that were not asked for are ``None``."""

    corpus: Path
    rows_by_split: dict[str, int]
    seconds_by_split: dict[str, float]
    vocabulary: int
    coverages: list[Coverage]
    growth: list[GrowthPoint]
    terms: list[TermDensity]
    term_frac: float | None
    instances: int
    recording: RecordingPlan | None
    volume: VolumeAdvice
    splits: dict[str, dict[str, Any]]
    labour: Labour | None
    curve: LearningCurve | None
    notes: list[str]

    def to_json(self) -> dict[str, Any]:
        """The plan as one JSON object, without the takes."""
        return {
            "corpus": str(self.corpus),
            "kept": sum(self.rows_by_split.values()),
            "dropped_by_reason": {},
            "seconds_of_audio": sum(self.seconds_by_split.values()),
            "rows_by_split": self.rows_by_split,
            "seconds_by_split": self.seconds_by_split,
            "vocabulary": {
                "types": self.vocabulary,
                "coverage": [one.to_json() for one in self.coverages],
                "growth": [
                    {"texts": one.texts, "types": one.types, "out_of_vocabulary_frac": one.out_of_vocabulary_frac}
                    for one in self.growth
                ],
            },
            "terms": {
                "recommended_instances": self.instances,
                "density_frac": self.term_frac,
                "source": "notebook L16063-16072, L16169",
                "each": [one.to_json() for one in self.terms],
            },
            "recording": self.recording.to_json() if self.recording else None,
            "volume": self.volume.to_json(),
            "splits": self.splits,
            "labour": self.labour.to_json() if self.labour else None,
            "learning_curve": self.curve.to_json() if self.curve else None,
            "notes": self.notes,
        }


def make_plan(root: Path | str, request: PlanRequest) -> Plan:
    """Read a corpus once and say what it is good for and what to record next.

    Rows of no split count as training, with a note.

    Raises:
        InputError: the corpus or a file of the request cannot be used, or a recording plan has no sentence to offer.
    """
    if request.instances < 1:
        raise InputError(f"--instances must be at least 1, not {request.instances}")
    counter = TermCounter(request.terms)
    counts = _read(root, counter)
    seen = counts.train.counts()
    coverages, target = _coverages(counts, seen, request.target_text)
    train_s = counts.seconds.get(TRAIN, 0.0) + counts.seconds.get(NO_SPLIT, 0.0)
    terms = list(counter.densities.values())
    recording = _recording(counts, terms, request) if terms else None
    wanted_s = max((request.target_hours or 0.0) * 3600 - train_s, 0.0)
    more_h = max(wanted_s, recording.audio_s if recording else 0.0) / 3600
    return Plan(
        corpus=Path(root),
        rows_by_split=dict(counts.rows),
        seconds_by_split=dict(counts.seconds),
        vocabulary=len(seen),
        coverages=coverages,
        growth=vocabulary_growth(counts.train, target, seed=request.seed),
        terms=terms,
        term_frac=counter.term_frac if terms else None,
        instances=request.instances,
        recording=recording,
        volume=advise_volume(train_s / 3600, len(counts.speakers), request.goal, request.target_hours),
        splits=split_verdicts(counts.seconds),
        labour=labour(more_h) if more_h else None,
        curve=_curve(request),
        notes=_notes(counts, counter, recording, train_s, request.goal),
    )


def _read(root: Path | str, counter: TermCounter) -> _Counts:
    counts = _Counts()
    for utterance in track(iter_utterances(root), "planning", count_rows(root)):
        split = utterance.split or NO_SPLIT
        in_training = split in (TRAIN, NO_SPLIT)
        words = text_key(utterance.text).split()
        counts.rows[split] += 1
        counts.seconds[split] = counts.seconds.get(split, 0.0) + utterance.duration_s
        if utterance.language:
            counts.languages[short_code(utterance.language)] += 1
        counter.add(words, split, utterance.speaker_id, in_training)
        if in_training:
            counts.train.add(words)
            if utterance.speaker_id is not None:
                counts.speakers.add(utterance.speaker_id)
        else:
            counts.held_out.setdefault(split, Counter()).update(words)
        # Only sentences from outside of dev and test may be read again for training.
        if in_training and len(words) > 3 and counter.find(words):
            counts.sentences.setdefault(" ".join(words), utterance.text)
    if not counts.rows:
        raise InputError(f"{root} has no utterances: import some first")
    return counts


def _coverages(counts: _Counts, seen: dict[str, int], target_text: Path | None) -> tuple[list[Coverage], Counter[str]]:
    """Coverage of every held-out split and of the target text; the words the growth curve is drawn against."""
    found = [coverage(seen, counts.held_out[name], name) for name in _HELD_OUT if name in counts.held_out]
    target: Counter[str] = sum((counts.held_out[name] for name in _HELD_OUT if name in counts.held_out), Counter())
    if target_text is not None:
        target = Counter(word for line in read_lines(target_text) for word in text_key(line).split())
        if not target:
            raise InputError(f"{target_text} holds no words: give text of the intended use, one sentence a line")
        found.append(coverage(seen, target, str(target_text)))
    return found, target


def _recording(counts: _Counts, terms: Sequence[TermDensity], request: PlanRequest) -> RecordingPlan:
    missing = {one.term: max(0, request.instances - one.instances) for one in terms}
    lacking = [term for term, count in missing.items() if count]
    sentences = list(counts.sentences.values())
    if request.sentences is not None:
        sentences += [line for line in read_lines(request.sentences) if line.strip()]
    language = counts.languages.most_common(1)[0][0] if counts.languages else "en"
    carriers = read_carriers(request.carriers) if request.carriers else list(CARRIERS.get(language, ()))
    possible = candidates(lacking, sentences, carriers)
    if lacking and not possible:
        raise InputError(
            f"there is no sentence to read for {lacking[0]!r} in the language {language!r}: give sentences with "
            "--sentences FILE or --carriers FILE (one a line, with {term} where the term goes)"
        )
    return plan_recordings(missing, possible, request.seed)


def _curve(request: PlanRequest) -> LearningCurve | None:
    if request.learning_curve is None:
        return None
    return fit_learning_curve(read_points(request.learning_curve), request.target_hours, request.seed)


def _notes(
    counts: _Counts, counter: TermCounter, recording: RecordingPlan | None, train_s: float, goal: str
) -> list[str]:
    notes = []
    if counts.rows[NO_SPLIT]:
        notes.append(f"{counts.rows[NO_SPLIT]} utterances have no split and count as training: run speechtune split")
    unspaced = sorted(set(counts.languages) & UNSPACED)
    if unspaced:
        notes.append(
            f"{', '.join(unspaced)} is written without spaces: vocabulary and terms are counted by white space"
        )
    thin = [one.term for one in counter.densities.values() if one.instances < FEWEST_INSTANCES]
    if thin:
        notes.append(f"{len(thin)} terms have under {FEWEST_INSTANCES} instances in training (notebook L16063)")
    alone = [one.term for one in counter.densities.values() if one.alone]
    if alone:
        notes.append(
            f"clips hold nothing but the term for {', '.join(alone[:5])}: record it in sentences (L16018-16022)"
        )
    single = [one.term for one in counter.densities.values() if one.instances and len(one.speakers) == 1]
    if single and len(counts.speakers) > 1:
        notes.append(f"only one speaker says {', '.join(single[:5])}: others may not be recognised saying it")
    density = counter.term_frac
    if counter.densities and density is not None and counter.term_words:
        best = (0.15, 0.20) if train_s < 1200 else (0.10, 0.15)
        if density > best[1] or (density < best[0] and goal == "vocabulary"):
            notes.append(
                f"{100 * density:.1f} % of the training words are terms; the notebook's best is {100 * best[0]:.0f} to "
                f"{100 * best[1]:.0f} % when a set is recorded for its terms (L16106-16112, L16169)"
            )
    if recording is not None and recording.unmet:
        notes.append(
            f"{len(recording.unmet)} terms stay short of instances for want of sentences: add some with --sentences "
            "or --carriers"
        )
    return notes


def write_plan(plan: Plan, out: Path, overwrite: bool = False) -> None:
    """Write ``plan.json``, ``prompts.jsonl`` (one take a row) and ``prompts.txt`` (to read from) into a directory.

    Raises:
        InputError: ``out`` exists and is not empty, or cannot be written.
    """
    with new_directory(out, overwrite) as draft:
        if plan.recording is not None:
            write_jsonl(draft / "prompts.jsonl", (take.to_row() for take in plan.recording.takes))
            write_text(draft / "prompts.txt", prompts_text(plan.recording))
        write_json(draft / "plan.json", {**plan.to_json(), "provenance": provenance()})
