"""What ``speechtune score`` does: files in, a score out, with whatever else was asked for beside it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.scoring.calibration import CalibrationOptions, CalibrationReport, all_pairs, report_calibration
from speechtune.scoring.causes import CauseOptions, Causes, find_causes
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.counting import NormaliserSpec
from speechtune.scoring.inputs import ScoringInput, load_input
from speechtune.scoring.score import Comparison, Score, compare, score_transcripts
from speechtune.scoring.terms import TermScore, term_recall


@dataclass(slots=True, kw_only=True)
class ScoreReport:
    """What ``speechtune score`` found: the score, and what else was asked for."""

    score: Score
    baseline: Score | None = None
    comparison: Comparison | None = None
    terms: TermScore | None = None
    causes: Causes | None = None
    calibration: CalibrationReport | None = None

    def to_json(self) -> dict[str, Any]:
        """The score's object with ``baseline``, ``difference`` and ``terms`` beside its keys."""
        result = self.score.to_json()
        if self.baseline and self.comparison:
            result |= {"baseline": self.baseline.to_json(), "difference": self.comparison.to_json()}
        parts = {"terms": self.terms, "causes": self.causes, "calibration": self.calibration}
        return result | {name: one.to_json() for name, one in parts.items() if one is not None}

    def to_text(self) -> str:
        """The same for a person."""
        more = [one.to_text() for one in (self.terms, self.causes, self.calibration) if one is not None]
        parts = [self.score.to_text(self.comparison), *more]
        return "\n\n".join(part for part in parts if part)


def score_files(
    corpus: Path,
    transcripts: Path,
    config: ScoringConfig | None = None,
    *,
    against: Path | None = None,
    split: str | None = None,
    allow_missing: bool = False,
    causes: CauseOptions | None = None,
    calibration: CalibrationOptions | None = None,
) -> ScoreReport:
    """Score a transcript file against a corpus directory or a file of references.

    Files are JSONL with ``utterance_id`` and ``text`` (or ``orthographic_text``, or ``phonetic_text`` on both sides,
    which is scored as IPA), or plain text compared line by line.

    With ``split``, transcripts of utterances in other splits are left aside and counted in the notes. With ``causes``,
    every word error is put into a class; with ``calibration``, the transcripts' confidences are judged.

    Raises:
        InputError: as `score_transcripts` and `load_input`.
    """
    config = config or ScoringConfig()
    loaded = load_input(corpus, transcripts, split)
    if loaded.phonetic and config.normaliser == "auto":
        config = config.model_copy(update={"normaliser": "ipa"})
    score = _score_input(loaded, config, allow_missing)
    if loaded.aside:
        score.notes.append(f"{loaded.aside} transcripts of other splits were left aside")
    report = ScoreReport(score=score)
    if against:
        other = load_input(corpus, against, split)
        report.baseline = _score_input(other, config.model_copy(update={"normaliser": score.normaliser}), allow_missing)
        report.comparison = compare(report.baseline, score, config)
    if causes:
        report.causes = find_causes(
            score,
            loaded.corpus,
            {one.utterance_id: one.text for one in loaded.transcripts},
            languages={one.utterance_id: one.language for one in loaded.transcripts},
            options=causes,
            config=config,
        )
    if calibration:
        report.calibration = _calibrate(loaded, score, config, corpus, transcripts, calibration)
    if config.terms:
        texts = {one.utterance_id: one.text for one in loaded.transcripts}
        report.terms = term_recall(
            [utterance.text for utterance in loaded.corpus],
            [texts.get(utterance.utterance_id, "") for utterance in loaded.corpus],
            config.terms,
            config.term_variants,
            score.normaliser,
        )
    return report


def _calibrate(
    loaded: ScoringInput,
    score: Score,
    config: ScoringConfig,
    corpus: Path,
    transcripts: Path,
    options: CalibrationOptions,
) -> CalibrationReport:
    normalise = NormaliserSpec(score.normaliser, config.variants).build()
    pairs = all_pairs(score, loaded.transcripts, loaded.rows, normalise)
    others = None
    if options.fit_split:
        fit = load_input(corpus, transcripts, options.fit_split)
        plain = config.model_copy(
            update={"normaliser": score.normaliser, "resamples": 0, "metrics": [], "slice_by": []}
        )
        others = all_pairs(_score_input(fit, plain, True), fit.transcripts, fit.rows, normalise)
    return report_calibration(
        pairs, others, resamples=config.resamples, level=config.confidence_level, seed=config.seed
    )


def _score_input(loaded: ScoringInput, config: ScoringConfig, allow_missing: bool) -> Score:
    return score_transcripts(
        loaded.corpus, loaded.transcripts, confidence=config, allow_missing=allow_missing, rows=loaded.rows
    )
