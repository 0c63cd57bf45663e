"""``speechtune combine``: several systems' transcripts of the same audio as one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, Seed, verb


@verb
def command(
    transcripts: Annotated[list[Path], typer.Argument(help="Transcript files (JSONL); the best system first.")],
    out: Out,
    method: Annotated[
        str, typer.Option("--method", help="rover, mbr, rescore, agree, select (learned), or oracle.")
    ] = "rover",
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help="References (corpus or JSONL): score, learn, or rescore its audio.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Score and learn on this split only.")] = None,
    words: Annotated[
        str, typer.Option("--words", help="Words compared: spoken (no case, punctuation) or none.")
    ] = "spoken",
    vote: Annotated[
        str, typer.Option("--vote", help="rover: frequency, or with confidence: average, maximum, share.")
    ] = "frequency",
    alpha: Annotated[float, typer.Option("--alpha", help="rover: weight of the frequency beside confidence.")] = 0.5,
    null_confidence: Annotated[
        float, typer.Option("--null-confidence", help="rover: confidence of having no word.")
    ] = 0.7,
    medoid: Annotated[bool, typer.Option("--medoid", help="rover: begin with the most central transcript.")] = False,
    scale: Annotated[float, typer.Option("--scale", help="mbr: factor on the log-probabilities of the lists.")] = 1.0,
    weight: Annotated[
        list[float] | None, typer.Option("--weight", help="mbr: one a system (repeat); rescore: the model's share.")
    ] = None,
    agree: Annotated[int, typer.Option("--agree", help="agree: systems that must agree; 0: more than half.")] = 0,
    model: Annotated[str | None, typer.Option("--model", help="rescore: the model that judges.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="rescore: audio context, fit or full.")] = None,
    folds: Annotated[int, typer.Option("--folds", min=2, help="select: groups of speakers.")] = 10,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    resamples: Annotated[int, typer.Option("--resamples", help="Bootstrap resamples; 0: no intervals.")] = 1000,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Make one transcript of several by voting, expected error, rescoring, agreement or learned selection."""
    from speechtune.scoring.combining import combine_files, read_options

    given = {"method": method, "words": words, "agree": agree, "model": model, "folds": folds}
    given |= {"language": language, "context": context}
    options = read_options(given, resamples, seed, (vote, alpha, null_confidence, medoid), scale, weight or [])
    report = combine_files(transcripts, out, options, corpus=corpus, split=split, overwrite=overwrite)
    return report.to_json() | {"out": str(out)}, f"{report.to_text()}\nwrote {out}"
