"""``speechtune combine``: transcripts of several systems made into one, and what that gains where references exist."""

from __future__ import annotations

import typing
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.lm.text import words_function
from speechtune.decoding.together.methods import MbrOptions, agreement, combine_agree, combine_mbr, combine_rover
from speechtune.decoding.together.rover import RoverOptions, Vote
from speechtune.decoding.together.systems import System, read_systems
from speechtune.decoding.transcript import Transcript, write_transcripts
from speechtune.scoring.bootstrap import Difference, paired_difference
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.inputs import read_references
from speechtune.scoring.normalisation.rules import Normaliser
from speechtune.scoring.normalisers import get_normaliser
from speechtune.scoring.oracle import Oracle, best_text, oracle
from speechtune.scoring.score import Score, score_transcripts

METHODS = ("rover", "mbr", "rescore", "agree", "select", "oracle")
_NEED_REFERENCES = ("select", "oracle")


@dataclass(slots=True)
class CombineOptions:
    """What ``speechtune combine`` is asked.

    ``words``: how texts are cut and compared, ``spoken`` or ``none``. ``agree``: systems that must agree (0: more than
    half). ``weight``: of the model that rescores. ``folds``: groups of speakers of ``select``.
    """

    method: str = "rover"
    rover: RoverOptions = field(default_factory=RoverOptions)
    mbr: MbrOptions = field(default_factory=MbrOptions)
    words: str = "spoken"
    agree: int = 0
    model: str | None = None
    weight: float = 0.5
    folds: int = 10
    language: str | None = None
    context: str | None = None
    resamples: int = 1000
    seed: int = 0


@dataclass(slots=True)
class CombineReport:
    """The outcome: transcripts, and with references the scores of all systems and of the combination.

    ``differences``: WER of the combination less that of each system, on the same utterances.
    """

    method: str
    transcripts: list[Transcript]
    systems: list[str]
    agreement: dict[str, float]
    taken: dict[str, int] | None = None
    scores: list[Score] = field(default_factory=list)
    score: Score | None = None
    differences: list[Difference] = field(default_factory=list)
    oracle: Oracle | None = None
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """Everything but the transcripts, JSON-ready."""
        return {
            "method": self.method,
            "kept": len(self.transcripts),
            "dropped_by_reason": {},
            "seconds_of_audio": round(self.score.seconds_of_audio, 3) if self.score else None,
            "systems": [
                {
                    "name": name,
                    **({"score": self.scores[place].to_json()} if self.scores else {}),
                    **({"difference": self.differences[place].to_json()} if self.differences else {}),
                }
                for place, name in enumerate(self.systems)
            ],
            "agreement": self.agreement,
            **({"taken": self.taken} if self.taken is not None else {}),
            "score": self.score.to_json() if self.score else None,
            "oracle": self.oracle.to_json() if self.oracle else None,
            "notes": self.notes,
        }

    def to_text(self) -> str:
        """A table for a person."""
        shares = self.agreement
        lines = [
            f"{len(self.transcripts)} transcripts by {self.method} of {len(self.systems)} systems; all agree on "
            f"{100 * shares['all_agree']:.0f} %, more than half on {100 * shares['most_agree']:.0f} %"
        ]
        if self.score:
            width = max(map(len, [*self.systems, self.method, "best network path"]))
            for name, score, gap in zip(self.systems, self.scores, self.differences, strict=True):
                lines.append(f"{name:<{width}}  {_rate(score)}   {self.method} is {_gap(gap)}")
            lines.append(f"{self.method:<{width}}  {_rate(self.score)}")
        if self.oracle:
            for name, value in (
                ("best hypothesis", self.oracle.hypothesis),
                ("best of lists", self.oracle.list),
                ("best network path", self.oracle.path),
            ):
                shown = "-" if value is None else f"{100 * value:6.2f} %"
                lines.append(f"{name:<{width}}  {shown}  (oracle: knows the references)")
        if self.taken:
            lines.append("taken from: " + ", ".join(f"{name} {count}" for name, count in self.taken.items()))
        return "\n".join([*lines, *(f"note: {one}" for one in self.notes)])


def _rate(score: Score) -> str:
    if score.wer is None:
        return "WER -"
    sure = f" [{100 * score.interval.low:.2f}, {100 * score.interval.high:.2f}]" if score.interval else ""
    return f"{100 * score.wer:6.2f} %{sure}"


def _gap(gap: Difference) -> str:
    if gap.difference is None:
        return "not comparable"
    sure = f" [{100 * gap.interval.low:+.2f}, {100 * gap.interval.high:+.2f}]" if gap.interval else ""
    chance = f", p = {gap.p_value:.3g}" if gap.p_value is not None else ""
    return f"{100 * gap.difference:+.2f}{sure} points{chance}"


def combine_files(
    paths: Sequence[Path],
    out: Path,
    options: CombineOptions,
    *,
    corpus: Path | None = None,
    split: str | None = None,
    overwrite: bool = False,
) -> CombineReport:
    """Combine transcript files into ``out``; with ``corpus`` (a corpus or a JSONL of references) score everything.

    Utterances outside of ``split`` are combined too and not scored.

    Raises:
        InputError: ``out`` exists, the files do not fit together or to the corpus, or the method lacks what it needs.
    """
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists: choose another name, or add --overwrite")
    if options.method not in METHODS:
        raise InputError(f"--method {options.method!r} is unknown: use one of {', '.join(METHODS)}")
    if options.method in _NEED_REFERENCES and corpus is None:
        raise InputError(f"--method {options.method} needs references: add --corpus (and --split)")
    least = 1 if options.method in ("mbr", "rescore", "oracle") else 2
    systems = read_systems(paths, least)
    references = _references(corpus, split) if corpus else None
    if references:
        _check_transcribed(references, systems, paths[0])
    report = combine(systems, options, references, Corpus.load(corpus) if corpus and corpus.is_dir() else None)
    write_transcripts(out, report.transcripts)
    return report


def combine(
    systems: Sequence[System], options: CombineOptions, references: Corpus | None = None, audio: Corpus | None = None
) -> CombineReport:
    """Combine, and score where there are references.

    Args:
        systems: transcripts of the same utterances.
        options: what to do.
        references: utterances with texts, all of them transcribed.
        audio: the corpus of all transcribed utterances, for rescoring.
    """
    words = words_function(options.words)
    report = CombineReport(options.method, [], [one.name for one in systems], agreement(systems, words))
    scores = [_score(references, system, options) for system in systems] if references else []
    normaliser = get_normaliser(scores[0].normaliser) if scores else None
    if options.method == "rover":
        report.transcripts = combine_rover(systems, words, options.rover)
        if len(systems) == 2 and options.rover.vote == "frequency":
            report.notes.append("two systems have no majority: by frequency the first one wins every dispute")
    elif options.method == "mbr":
        report.transcripts = combine_mbr(systems, words, options.mbr)
    elif options.method == "agree":
        report.transcripts = combine_agree(systems, words, options.agree)
    elif options.method == "rescore":
        report.transcripts = _rescore(systems, options, audio)
    else:
        assert references is not None and normaliser is not None
        _with_references(report, systems, references, normaliser, options)
    if references and normaliser:
        report.oracle = oracle(references, systems, normaliser)
        _judge(report, references, scores, options)
    return report


def _with_references(
    report: CombineReport,
    systems: Sequence[System],
    references: Corpus,
    normaliser: Normaliser,
    options: CombineOptions,
) -> None:
    from speechtune.scoring.learned_selection import select

    if options.method == "select":
        chosen = select(references, systems, normaliser, folds=options.folds, seed=options.seed)
        report.transcripts, report.taken = chosen.transcripts, chosen.taken
        report.notes.append(f"every speaker was decided by trees that learned from others ({chosen.folds} groups)")
        return
    for utterance in references:
        own = [system.transcripts[utterance.utterance_id] for system in systems]
        texts = [one.text for one in own] + [str(row["text"]) for one in own for row in one.nbest]
        place = best_text(normaliser(utterance.text), [normaliser(text) for text in texts])
        report.transcripts.append(Transcript(utterance_id=utterance.utterance_id, text=texts[place], flags=["oracle"]))
    report.notes.append("oracle texts were chosen by the references: they measure head-room and are no result")


def _rescore(systems: Sequence[System], options: CombineOptions, audio: Corpus | None) -> list[Transcript]:
    from speechtune.decoding.sources import open_model
    from speechtune.decoding.together.rescoring import combine_rescored, judge_lists

    if options.model is None or audio is None:
        raise InputError("--method rescore needs the model that judges and the audio: add --model and --corpus")
    if len(systems) != 1:
        raise InputError("--method rescore reorders the N-best lists of one system: give one transcript file")
    if not any(one.nbest for one in systems[0].transcripts.values()):
        raise InputError(
            f"{systems[0].name} has no N-best lists: decode with decoding.beams=8 decoding.search.n_best=8"
        )
    judged = judge_lists(
        systems[0], audio, open_model(options.model, language=options.language, context=options.context)
    )
    return combine_rescored(systems[0], judged, options.weight)


def _references(corpus: Path, split: str | None) -> Corpus:
    if corpus.is_file():
        if split:
            raise InputError(f"{corpus} is a file and has no split {split!r}: leave --split out")
        return read_references(corpus)[0]
    whole = Corpus.load(corpus)
    return whole.split(split) if split else whole


def _check_transcribed(references: Corpus, systems: Sequence[System], path: Path) -> None:
    missing = [one.utterance_id for one in references if one.utterance_id not in systems[0].transcripts]
    if missing:
        shown = ", ".join(map(repr, missing[:3]))
        raise InputError(
            f"{path} lacks {len(missing)} of the {len(references)} utterances of {references.root} ({shown}): "
            "transcribe them, or name the --split that was transcribed"
        )


def _score(references: Corpus, system: System, options: CombineOptions) -> Score:
    config = ScoringConfig(resamples=options.resamples, seed=options.seed)
    own = [system.transcripts[one.utterance_id] for one in references]
    return score_transcripts(references, own, confidence=config, language=options.language)


def _judge(report: CombineReport, references: Corpus, scores: list[Score], options: CombineOptions) -> None:
    by_id = {one.utterance_id: one for one in report.transcripts}
    report.scores = scores
    report.score = _score(references, System(report.method, by_id, {}), options)
    report.differences = [difference(one, report.score, references, options) for one in scores]


def difference(a: Score, b: Score, corpus: Corpus, options: CombineOptions) -> Difference:
    """WER of b less that of a with its interval; speakers are resampled where there are enough of them."""
    counts = [{one.utterance_id: one.words for one in score.utterances} for score in (a, b)]
    names = [one.utterance_id for one in corpus]
    return paired_difference(
        np.array([counts[0][name].errors for name in names]),
        np.array([counts[1][name].errors for name in names]),
        np.array([counts[0][name].reference_length for name in names]),
        [one.speaker_id for one in corpus],
        options.resamples,
        0.95,
        options.seed,
    )


def read_options(
    given: dict[str, Any],
    resamples: int,
    seed: int,
    rover: tuple[str, float, float, bool],
    scale: float,
    weights: Sequence[float],
) -> CombineOptions:
    """The options as the command line gives them.

    Raises:
        InputError: an unknown vote, a negative number of resamples, or more than one weight for rescoring.
    """
    vote, alpha, null_confidence, medoid = rover
    if vote not in typing.get_args(Vote):
        raise InputError(f"--vote {vote!r} is unknown: use one of {', '.join(typing.get_args(Vote))}")
    if resamples < 0:
        raise InputError(f"--resamples {resamples} is negative: give 0 or more")
    if given["method"] == "rescore" and len(weights) > 1:
        raise InputError("--method rescore takes one --weight: the share of the model that judges")
    return CombineOptions(
        **given,
        rover=RoverOptions(vote, alpha, null_confidence, medoid),  # type: ignore[arg-type]
        mbr=MbrOptions(scale, tuple(weights) if given["method"] == "mbr" else ()),
        weight=weights[0] if weights and given["method"] == "rescore" else 0.5,
        resamples=resamples,
        seed=seed,
    )
