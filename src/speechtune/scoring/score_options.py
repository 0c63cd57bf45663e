"""What ``speechtune score`` is asked on the command line, as a `ScoringConfig`."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast, get_args

from speechtune.core.errors import InputError
from speechtune.scoring.calibration import CalibrationOptions
from speechtune.scoring.causes import CauseOptions
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.metrics import choose_metrics, registry
from speechtune.scoring.normalisation.variants import read_variants
from speechtune.scoring.phones_espeak import PhonesFrom
from speechtune.scoring.terms import read_terms


@dataclass(slots=True)
class ScoreOptions:
    """The options as they were given; ``workers`` 0 means one for each core."""

    normaliser: str = "auto"
    variants: Path | None = None
    metrics: list[str] = field(default_factory=list)
    tokenizer: Path | None = None
    slice_by: list[str] = field(default_factory=list)
    terms: Path | None = None
    resamples: int = 1000
    workers: int = 0
    seed: int = 0
    resample_by: str = "speaker_id"
    phones: str = "spelling"


def scoring_config(options: ScoreOptions) -> ScoringConfig:
    """The configuration that the options ask for.

    Raises:
        InputError: a number is out of range, a metric is unknown, or a file cannot be read.
    """
    for name, value in (("seed", options.seed), ("resamples", options.resamples), ("workers", options.workers)):
        if value < 0:
            raise InputError(f"--{name} {value} is negative: give 0 or more")
    if options.phones not in get_args(PhonesFrom):
        raise InputError(f"--phones {options.phones} is unknown: use {' or '.join(get_args(PhonesFrom))}")
    words, variants = read_terms(options.terms) if options.terms else ([], {})
    return ScoringConfig(
        normaliser=options.normaliser,
        variants=read_variants(options.variants) if options.variants else {},
        metrics=choose_metrics(options.metrics),
        tokenizer=str(options.tokenizer) if options.tokenizer else None,
        workers=options.workers or os.cpu_count() or 1,
        slice_by=options.slice_by,
        resamples=options.resamples,
        seed=options.seed,
        resample_by=options.resample_by,
        phones=cast(PhonesFrom, options.phones),
        terms=words,
        term_variants=variants,
    )


def listed_metrics() -> tuple[dict[str, Any], str]:
    """Every metric with what it is, as an object and for a person."""
    listed = {name: about for name, (about, _) in registry().items()}
    width = max(map(len, listed))
    return {"metrics": listed}, "\n".join(f"{name:<{width}}  {about}" for name, about in listed.items())


def cause_options(wanted: bool, training_corpus: Path | None, split: str | None) -> CauseOptions | None:
    """Options of the causes, or ``None`` where they are not wanted.

    Raises:
        InputError: a training corpus without ``--causes``, or a split without a corpus.
    """
    if training_corpus is not None and not wanted:
        raise InputError("--training-corpus is only used with --causes: add it, or leave the corpus out")
    if split is not None and training_corpus is None:
        raise InputError("--training-split is only used with --training-corpus: add it, or leave the split out")
    return CauseOptions(training_corpus, split) if wanted else None


def calibration_options(wanted: bool, fit_split: str | None, split: str | None) -> CalibrationOptions | None:
    """Options of the calibration, or ``None`` where it is not wanted.

    Raises:
        InputError: a split to fit on without ``--calibration``, or the one that is scored.
    """
    if fit_split is not None and not wanted:
        raise InputError("--fit-split is only used with --calibration: add it, or leave the split out")
    if fit_split is not None and split in (None, fit_split):
        raise InputError(f"--fit-split {fit_split} is also what is scored: score another one with --split")
    return CalibrationOptions(fit_split) if wanted else None


def need_both(corpus: Path | None, transcripts: Path | None) -> tuple[Path, Path]:
    """Both paths, or an `InputError` that says which are needed."""
    if corpus is None or transcripts is None:
        raise InputError("give two things to score: references (corpus, JSONL or text) and transcripts")
    return corpus, transcripts
