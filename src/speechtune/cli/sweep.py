"""``speechtune sweep RECIPE --grid key=a,b --out DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, Seed, verb


@verb
def command(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML) that all trainings have in common.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings of all trainings, as in training.epochs=3.")
    ] = None,
    *,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="Directory of the sweep; the same command again continues it.")
    ],
    grid: Annotated[
        list[str] | None, typer.Option("--grid", help="key=a,b: values to try; repeatable, all combinations.")
    ] = None,
    ranges: Annotated[
        list[str] | None, typer.Option("--range", help="key=low:high or key=low:high:log: numbers to draw from.")
    ] = None,
    trials: Annotated[
        int | None, typer.Option("--trials", min=1, help="With a range: how many combinations are drawn.")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="With a range: random, or tpe, which learns from the earlier trials.")
    ] = "tpe",
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Train a recipe with many settings, resumably, and compare their dev WER in one table."""
    from speechtune.training.sweep import SweepOptions, sweep, sweep_text

    options = SweepOptions(recipe, overrides or (), grid or (), ranges or (), trials, method, seed)
    found = sweep(options, out)
    return found, sweep_text(found)
