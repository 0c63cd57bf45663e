"""``speechtune submit MODEL --out submission.zip``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, Seed, verb


@verb
def command(
    model: Annotated[str, typer.Argument(help="A Whisper run, model directory, soup or catalogue name.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, as in decoding.beams=2 or package.batch_size=128.")
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The archive to write.")] = Path("submission.zip"),
    engine: Annotated[str, typer.Option("--engine", help="What runs there: torch or ctranslate2.")] = "torch",
    compute_type: Annotated[str, typer.Option("--compute-type", help="Of ctranslate2, as in int8.")] = "float32",
    context: Annotated[str | None, typer.Option("--context", help="Audio context: fit or full.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    wheels: Annotated[Path | None, typer.Option("--wheels", help="Folder of wheels to put into the archive.")] = None,
    corpus: Annotated[Path | None, typer.Option("--corpus", help="Rehearse on its clips; else on tones.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split of it.")] = None,
    clips: Annotated[int, typer.Option("--clips", min=1, help="Clips of the rehearsal.")] = 48,
    hours_limit: Annotated[float | None, typer.Option("--hours-limit", help="Fail beyond so many hours.")] = None,
    size_limit: Annotated[float | None, typer.Option("--size-limit-gib", help="Fail beyond that size.")] = None,
    utterances: Annotated[int, typer.Option("--utterances", min=1, help="How many the real run has.")] = 214_274,
    mean_s: Annotated[float, typer.Option("--mean-s", min=0.01, help="Their mean length.")] = 6.98,
    speedup: Annotated[float, typer.Option("--speedup", min=0.01, help="Speed there by speed here; measure it.")] = 1.0,
    rehearsal: Annotated[bool, typer.Option("--rehearse/--no-rehearse", help="Run and judge the package.")] = True,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Build a code-execution package, run it as the challenge does, and say whether it is fit to be handed in."""
    from speechtune.core.config import load_config
    from speechtune.decoding.submission.config import SubmitFile
    from speechtune.decoding.submission.rehearsal import Limits
    from speechtune.decoding.submission.verb import SubmitOptions, submit

    words = overrides or []
    package = [word for word in words if word.startswith("package.")]
    chosen = [f"package.engine={engine}", f"package.compute_type={compute_type}", *package]
    options = SubmitOptions(
        out=out,
        settings=load_config(SubmitFile, None, chosen).package,
        limits=Limits(hours_limit, size_limit, utterances, mean_s, speedup),
        corpus=corpus,
        split=split,
        clips=clips,
        seed=seed,
        wheels=wheels,
        rehearse=rehearsal,
        overwrite=overwrite,
        opening={"context": context, "language": language, "overrides": [w for w in words if w not in package]},
    )
    return submit(model, options)
