"""``speechtune train RECIPE [key=value …] --out RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from speechtune.cli.common import Json, Out, Outcome, Quiet, verb


@verb
def command(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings to change, as in training.epochs=3.")] = None,
    *,
    out: Out,
    resume: Annotated[bool, typer.Option("--resume", help="Continue an interrupted run in --out.")] = False,
    live: Annotated[bool, typer.Option("--live", help="Show curves, findings and sample transcripts.")] = False,
    auto: Annotated[
        bool, typer.Option("--auto", help="The same as training.monitor.auto=true: roll back, lower the rate, stop.")
    ] = False,
    seed: Annotated[int | None, typer.Option("--seed", help="The same as training.seed=N.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Fine-tune a model: baseline, preflight, training, best model, proof and report."""
    from speechtune.training.recipe import load_recipe

    settings = [*(overrides or []), *([f"training.seed={seed}"] if seed is not None else [])]
    checked = load_recipe(recipe, [*settings, *(["training.monitor.auto=true"] if auto else [])])

    from speechtune.training.monitor.live import set_live
    from speechtune.training.run import train

    set_live(live)
    run = train(checked, out, resume=resume)
    if not run.summary:
        return {}, ""  # a helper process under torchrun: the main one speaks

    from speechtune.report.run_report import write_report

    if "adapters" in run.summary:  # several adapters: each has a run of its own below parts/
        own = run.summary["adapters"].values()
        pages = [str(write_report(Path(one["run"]))) for one in own]
        rows = [line for one in own for line in [f"adapter: {one['directory']}", *table(one)]]
        return {**run.summary, "reports": pages}, "\n".join(rows)

    page = write_report(run.directory)
    lines = [*table(run.summary), f"model: {run.summary['model']}", f"report: {page}"]
    return {**run.summary, "report": str(page)}, "\n".join(lines)


def table(summary: dict[str, Any]) -> list[str]:
    """The comparison as lines: WER before and after on every set and context, with the difference's interval."""
    lines = []
    for row in summary["comparisons"]:
        before, after, change = 100 * row["wer_before"], 100 * row["wer_after"], row["difference"]
        line = f"{row['set']} ({row['context_after']} context): WER {before:.1f} % -> {after:.1f} %"
        if change["interval"]:
            low, high = 100 * change["interval"]["low"], 100 * change["interval"]["high"]
            level = 100 * change["interval"]["level"]
            line += f" ({100 * change['difference']:+.1f} points, {level:.0f} % interval {low:+.1f} to {high:+.1f})"
        lines.append(line)
    return lines
