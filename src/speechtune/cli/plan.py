"""``speechtune plan``: what a corpus is good for, and what to record next."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, Seed, verb

Input = Path | None
GOALS = "vocabulary, personal, general, accent, medical-legal, code-switching or low-resource."


@verb
def command(
    corpus: Annotated[Path, typer.Argument(help="Directory of a speechtune corpus.")],
    terms: Annotated[Input, typer.Option("--terms", help="File of words to be recognised, one a line.")] = None,
    text: Annotated[Input, typer.Option("--text", help="Text of the intended use: is its vocabulary covered?")] = None,
    sentences: Annotated[Input, typer.Option("--sentences", help="Sentences that may be recorded, one a line.")] = None,
    carriers: Annotated[Input, typer.Option("--carriers", help="Carrier sentences with {term}, one a line.")] = None,
    instances: Annotated[int, typer.Option("--instances", help="Instances wanted of each term in training.")] = 70,
    goal: Annotated[str, typer.Option("--goal", help=GOALS)] = "general",
    target_hours: Annotated[float | None, typer.Option("--target-hours", help="Hours of training to consider.")] = None,
    learning_curve: Annotated[
        Input, typer.Option("--learning-curve", help="CSV of own runs with the columns hours, wer.")
    ] = None,
    out: Annotated[
        Input, typer.Option("--out", "-o", help="Directory for prompts.txt, prompts.jsonl, plan.json.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Say what the hours and the vocabulary of a corpus are worth, and plan what to record."""
    from speechtune.corpus.planning.coverage import read_terms
    from speechtune.corpus.planning.plan import PlanRequest, make_plan, write_plan
    from speechtune.corpus.planning.text import plan_text

    request = PlanRequest(
        terms=read_terms(terms) if terms else (),
        target_text=text,
        sentences=sentences,
        carriers=carriers,
        instances=instances,
        goal=goal,
        target_hours=target_hours,
        learning_curve=learning_curve,
        seed=seed,
    )
    plan = make_plan(corpus, request)
    if out is not None:
        write_plan(plan, out, overwrite)
    return {**plan.to_json(), "out": str(out) if out else None}, plan_text(plan) + (
        f"\nwritten to {out}" if out else ""
    )
