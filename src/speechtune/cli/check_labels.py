"""``speechtune check-labels``: every transcript against what models hear."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, Seed, verb


@verb
def command(
    corpus: Annotated[Path, typer.Argument(help="Directory of a speechtune corpus.")],
    model: Annotated[list[str] | None, typer.Option("--model", help="A judge: run, directory or name; repeat.")] = None,
    transcripts: Annotated[
        list[Path] | None, typer.Option("--transcripts", help="A judge's ready transcripts (JSONL); repeat.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option("--split", help="Only this split; repeat.")] = None,
    group_by: Annotated[list[str] | None, typer.Option("--group-by", help="Count by this column; repeat.")] = None,
    thresholds: Annotated[str, typer.Option("--thresholds", help="Highest WER of each tier.")] = "0.9,0.7",
    thresholds_by: Annotated[
        str | None, typer.Option("--thresholds-by", help="COLUMN:FILE: limits of groups (YAML), as age:limits.yaml.")
    ] = None,
    or_cer: Annotated[float | None, typer.Option("--or-cer", help="This CER passes the loosest tier too.")] = None,
    normaliser: Annotated[str, typer.Option("--normaliser", help="As for speechtune score.")] = "auto",
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Audio context: fit or full.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips decoded together.")] = 16,
    limits: Annotated[list[str] | None, typer.Option("--limit", help="Verdict limit, as wrong_cer=0.6.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Default: CORPUS/label_check.")] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Use the answers that --out holds.")] = False,
    overwrite: Overwrite = False,
    apply: Annotated[bool, typer.Option("--apply", help="Write tiers and scores as columns of the corpus.")] = False,
    undo: Annotated[bool, typer.Option("--undo", help="Take the columns of --apply back, and leave.")] = False,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Find labels that are probably wrong, and sort the corpus into quality tiers."""
    from speechtune.core.config import load_config
    from speechtune.scoring.label_check import Judging, check_corpus
    from speechtune.scoring.label_tiers import make_tiers, thresholds_from, undo_columns
    from speechtune.scoring.label_verdicts import VerdictConfig

    if undo:
        changed = undo_columns(corpus)
        return {"undone": True, "changed": changed}, f"{changed} rows of {corpus} are as before --apply"
    tiers = make_tiers(thresholds_from(thresholds), or_cer, thresholds_by, corpus)
    judging = Judging(
        models=model or (), transcripts=transcripts or (), language=language, context=context, batch_size=batch_size
    )
    report = check_corpus(
        corpus,
        judging,
        tiers,
        splits=split or (),
        group_by=group_by or (),
        verdicts=load_config(VerdictConfig, None, limits or []),
        normaliser=normaliser,
        out=out,
        resume=resume,
        overwrite=overwrite,
        apply=apply,
        seed=seed,
    )
    return report.to_json(), str(report)
