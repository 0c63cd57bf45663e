"""``speechtune compare A B [C ...]``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, Seed, verb
from speechtune.cli.score import split_names


@verb
def command(
    systems: Annotated[
        list[str],
        typer.Argument(help="Runs (RUN@before: its base model), JSONL transcripts or models; NAME=PATH names."),
    ],
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help="Corpus or JSONL of references; default: the first run's set.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split of the corpus.")] = None,
    against: Annotated[
        str | None,
        typer.Option("--against", help="Name of the system the others are compared with; default: the first."),
    ] = None,
    slice_by: Annotated[
        list[str] | None, typer.Option("--slice-by", help="Columns to compare value by value; repeat or use commas.")
    ] = None,
    normaliser: Annotated[str, typer.Option("--normaliser", help="Text normaliser, or auto.")] = "auto",
    html: Annotated[Path | None, typer.Option("--html", help="Also write one self-contained page here.")] = None,
    examples: Annotated[
        int, typer.Option("--examples", min=0, help="Utterances shown for each system and direction.")
    ] = 12,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep decoded transcripts, comparison.json and the page here.")
    ] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, for models.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Audio context of models: fit or full.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips decoded together.")] = 16,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Hypotheses of the beam search; 1: greedy.")] = 1,
    resamples: Annotated[
        int, typer.Option("--resamples", min=0, help="Bootstrap resamples; 0: no intervals.")
    ] = 10_000,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Compare 2 to 10 systems on the same utterances: rates, slices, significance, cost, and a page to listen to."""
    from speechtune.report.compare_run import CompareOptions, compare
    from speechtune.report.compare_systems import DecodeOptions
    from speechtune.scoring.score_options import ScoreOptions, scoring_config

    chosen = ScoreOptions(
        normaliser=normaliser, slice_by=split_names(slice_by), resamples=resamples, workers=1, seed=seed
    )
    options = CompareOptions(
        corpus, split, against, html, out, examples, overwrite,
        scoring_config(chosen),
        DecodeOptions(language=language, context=context, batch_size=batch_size, beams=beams, keep=out),
    )  # fmt: skip
    return compare(systems, options)
