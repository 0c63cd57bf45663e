"""Decode a corpus with a model and score what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from speechtune.core.errors import InputError
from speechtune.core.files import write_json
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus
from speechtune.decoding.sources import OpenedModel, transcribe_to
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.score import Score, score_transcripts

if TYPE_CHECKING:
    from speechtune.scoring.noise_ladder import NoiseLadder


def evaluate(
    opened: OpenedModel,
    corpus: Corpus,
    *,
    normaliser: str = "auto",
    slice_by: Sequence[str] = (),
    out: Path | None = None,
    seed: int = 0,
) -> Score:
    """Transcribe every utterance and score it.

    With ``out``, three files are kept there: ``transcripts.jsonl``, ``utterances.jsonl`` (counts of each
    utterance) and ``score.json``, written last. ``seed`` is that of the intervals.

    Raises:
        InputError: see `transcribe_corpus` and `score_transcripts`.
    """
    transcripts = transcribe_to(opened, corpus, out / "transcripts.jsonl" if out else None)
    score = score_transcripts(
        corpus,
        transcripts,
        normaliser=normaliser,
        slice_by=slice_by,
        language=opened.family.language,
        confidence=ScoringConfig(seed=seed),
    )
    if out:
        score.write_utterances(out / "utterances.jsonl")
        facts: dict[str, str | None] = {
            "model": str(opened.path),
            "corpus": str(corpus.root),
            "context": opened.decoding.context,
        }
        if len(splits := {one.split for one in corpus}) == 1:
            facts["split"] = splits.pop()
        write_json(out / "score.json", {**score.to_json(), "provenance": provenance(None, **facts)})
    return score


def check_ladder(wanted: bool, noise: Path | None) -> None:
    """Refuse a directory of noise that nothing would use, before anything is decoded.

    Raises:
        InputError: noise without a ladder, or a directory without recordings.
    """
    from speechtune.audio.augment.materials import recordings_below

    if noise is not None and not wanted:
        raise InputError("--noise is only used with --noise-ladder: add it, or leave the directory out")
    if noise is not None:
        recordings_below(noise, "noise")


def climb(
    opened: OpenedModel,
    corpus: Corpus,
    clean: Score,
    *,
    wanted: bool = True,
    noise: Path | None = None,
    seed: int = 0,
    out: Path | None = None,
) -> NoiseLadder | None:
    """`speechtune.scoring.noise_ladder.run_ladder`, or ``None`` where it is not wanted."""
    from speechtune.scoring.noise_ladder import run_ladder

    if not wanted:
        return None
    return run_ladder(opened, corpus, clean, noise=noise, seed=seed, out=out, confidence=ScoringConfig(seed=seed))
