"""``speechtune baseline CORPUS``."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, Seed, verb
from speechtune.cli.score import split_names


@verb
def command(
    corpus: Annotated[Path, typer.Argument(help="A speechtune corpus with reference texts.")],
    out: Out,
    models: Annotated[
        list[str] | None, typer.Option("--models", help="2 to 5 models, with commas; default: those on this machine.")
    ] = None,
    minutes: Annotated[float, typer.Option("--minutes", min=0.01, help="Audio of the screening.")] = 10.0,
    full_minutes: Annotated[
        float | None, typer.Option("--full-minutes", min=0.01, help="Most audio of phase 2; default: everything.")
    ] = None,
    edge_minutes: Annotated[float, typer.Option("--edge-minutes", min=0.01, help="Most audio of an edge case.")] = 2.0,
    keep: Annotated[int, typer.Option("--keep", min=2, max=5, help="Most models that go on to phase 2.")] = 3,
    split: Annotated[str | None, typer.Option("--split", help="Only this split; default: all but test.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language; default: the corpus's.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips decoded together.")] = 16,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Hypotheses of the beam search; 1: greedy.")] = 1,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Find the best model to begin with, in three phases; run again to go on where it stopped."""
    from speechtune.report.baseline_page import write_baseline_report
    from speechtune.scoring.baseline import SEARCH, BaselineOptions, find_baseline
    from speechtune.scoring.baseline_text import baseline_as_text

    if overwrite and (out / SEARCH).is_file():
        shutil.rmtree(out)
    options = BaselineOptions(
        models=tuple(split_names(models)), minutes=minutes, full_minutes=full_minutes, edge_minutes=edge_minutes,
        keep=keep, split=split, language=language, batch_size=batch_size, beams=beams, seed=seed,
    )  # fmt: skip
    found = find_baseline(corpus, out, options)
    page = write_baseline_report(found, out / "report.html")
    return {**found.to_json(), "report": str(page)}, f"{baseline_as_text(found)}\nreport: {page}"
