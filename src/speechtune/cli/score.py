"""``speechtune score``: error rates of transcripts, with intervals, slices and a paired comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, Seed, verb


@verb
def command(
    corpus: Annotated[Path, typer.Argument(help="Corpus directory, or a text file with one reference a line.")],
    transcripts: Annotated[
        Path, typer.Argument(help="Transcripts (JSONL), or a text file with one hypothesis a line.")
    ],
    against: Annotated[
        Path | None, typer.Option(help="Baseline transcripts: report the difference, its interval and p-value.")
    ] = None,
    normaliser: Annotated[str, typer.Option(help="auto, whisper-english, whisper-basic, unicode or none.")] = "auto",
    slice_by: Annotated[
        list[str] | None, typer.Option(help="Columns to report value by value; repeat it or separate by commas.")
    ] = None,
    terms: Annotated[
        Path | None, typer.Option(help="Terms whose recall is reported: one a line, other spellings after tabs.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Score only this split of the corpus.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score utterances without a transcript as empty ones.")
    ] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write one row per utterance (JSONL).")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Word and character error rates with counts, intervals, slices, and a paired comparison."""
    from speechtune.core.errors import InputError
    from speechtune.scoring.config import ScoringConfig
    from speechtune.scoring.score import score_files
    from speechtune.scoring.terms import read_terms

    if seed < 0:
        raise InputError(f"--seed {seed} is negative: give 0 or more")
    words, variants = read_terms(terms) if terms else ([], {})
    config = ScoringConfig(
        normaliser=normaliser,
        slice_by=[name.strip() for one in slice_by or [] for name in one.split(",") if name.strip()],
        seed=seed,
        terms=words,
        term_variants=variants,
    )
    result = score_files(corpus, transcripts, config, against=against, split=split, allow_missing=allow_missing)
    if out:
        result.score.write_utterances(out)
    return result.to_json(), result.to_text()
