"""``speechtune evaluate MODEL CORPUS``."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, Seed, verb


@verb
def command(
    model: Annotated[str, typer.Argument(help="A run, a model directory, or a catalogue name.")],
    corpus: Annotated[Path | None, typer.Argument(help="A speechtune corpus; not with --suite.")] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, as in decoding.search.n_best=8.")
    ] = None,
    suite: Annotated[
        str | None, typer.Option("--suite", help="Several sets with averages: a YAML file, a packaged suite, or list.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split.")] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Keep transcripts and score in this directory.")
    ] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Audio context: fit or full.")] = None,
    normaliser: Annotated[str, typer.Option("--normaliser", help="Text normaliser, or auto.")] = "auto",
    slice_by: Annotated[list[str] | None, typer.Option("--slice-by", help="Column to report by; repeatable.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips decoded together.")] = 16,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Hypotheses of the beam search; 1: greedy.")] = 1,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML with a decoding: block, as speechtune lm tune writes.")
    ] = None,
    noise_ladder: Annotated[
        bool, typer.Option("--noise-ladder", help="Also decode under mild, moderate and heavy noise, with verdicts.")
    ] = False,
    noise: Annotated[
        Path | None, typer.Option("--noise", help="Recordings of noise for the ladder; else pink noise and babble.")
    ] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Transcribe a corpus and score it: WER and CER with counts, intervals and slices."""
    from speechtune.corpus.table import Corpus
    from speechtune.decoding.sources import open_model
    from speechtune.scoring.evaluate import check_ladder, climb, evaluate
    from speechtune.scoring.suites import evaluate_named, need_corpus

    opening = partial(open_model, model, context=context, batch_size=batch_size, beams=beams, settings=settings)
    if suite:
        return evaluate_named(suite, opening, out, language, [str(corpus)] * bool(corpus) + (overrides or []), seed)
    check_ladder(noise_ladder, noise)
    whole = Corpus.load(need_corpus(corpus))
    chosen = whole.split(split) if split else whole
    opened = opening(language=language, overrides=overrides or [])
    score = evaluate(opened, chosen, normaliser=normaliser, slice_by=slice_by or [], out=out, seed=seed)
    facts = {"model": str(opened.path), "context": opened.decoding.context, **score.to_json()}
    ladder = climb(opened, chosen, score, wanted=noise_ladder, noise=noise, seed=seed, out=out)
    if ladder is None:
        return facts, score.to_text()
    return {**facts, "noise_ladder": ladder.to_json()}, f"{score.to_text()}\n\n{ladder.to_text()}"
