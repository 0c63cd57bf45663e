"""``speechtune tune-decoding MODEL CORPUS``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, Seed, verb


@verb
def command(
    model: Annotated[str, typer.Argument(help="A run, a model directory, a catalogue name, or several as A+B.")],
    corpus: Annotated[Path, typer.Argument(help="A speechtune corpus with references.")],
    out: Out,
    split: Annotated[str | None, typer.Option("--split", help="The split to tune on; never the test split.")] = "dev",
    trials: Annotated[
        int, typer.Option("--trials", min=1, help="Settings to draw; each distinct one is decoded.")
    ] = 20,
    metric: Annotated[str, typer.Option("--metric", help="wer or cer.")] = "wer",
    folds: Annotated[int, typer.Option("--folds", min=0, help="Groups of speakers; 0: every speaker is one.")] = 5,
    sampler: Annotated[
        str, typer.Option("--sampler", help="random (an unbiased figure), or tpe (goes where results were good).")
    ] = "random",
    max_beams: Annotated[int, typer.Option("--max-beams", min=1, help="Most beams to try.")] = 5,
    clips: Annotated[int, typer.Option("--clips", min=0, help="Clips without speech to decode beside.")] = 20,
    max_slowdown: Annotated[
        float, typer.Option("--max-slowdown", help="A choice may take so many times the default's time.")
    ] = 4.0,
    more_inserted: Annotated[
        float, typer.Option("--more-inserted", help="Words a minute without speech that a choice may add.")
    ] = 0.0,
    context: Annotated[
        str | None, typer.Option("--context", help="Try only fit or full; else all that the model was trained for.")
    ] = None,
    prompt: Annotated[str | None, typer.Option("--prompt", help="A prompt to try, with and without.")] = None,
    lm: Annotated[str | None, typer.Option("--lm", help="A language model to try, as in speechtune lm tune.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Search for decoding settings, judged on speakers that they were not chosen on; write a decoding: block."""
    from speechtune.scoring.tuning.choosing import Limits
    from speechtune.scoring.tuning.run import TuneDecodingOptions, tune_decoding

    options = TuneDecodingOptions(
        split=split,
        trials=trials,
        metric=metric,  # type: ignore[arg-type]
        folds=folds,
        sampler=sampler,  # type: ignore[arg-type]
        most_beams=max_beams,
        clips=clips,
        limits=Limits(max_slowdown, more_inserted),
        prompt=prompt,
        lm=lm,
        language=language,
        context=context,
        seed=seed,
    )
    result = tune_decoding(model, corpus, out, options, overwrite)
    return result.to_json() | {"out": str(out)}, f"{result.to_text()}\nwrote {out} (trials.csv in {out.stem}.tuning/)"
