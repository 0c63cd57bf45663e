"""``speechtune diagnose-repetition MODEL INPUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, verb


@verb
def command(
    model: Annotated[str, typer.Argument(help="A run, a model directory, or a catalogue name.")],
    source: Annotated[Path, typer.Argument(help="A corpus, a folder of audio files, or one file.")],
    split: Annotated[str | None, typer.Option("--split", help="Only this split of a corpus.")] = None,
    clips: Annotated[int, typer.Option("--clips", min=2, help="How many clips, spread over the input.")] = 40,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    context: Annotated[
        str, typer.Option("--context", help="Audio context that precision and end of text are judged at.")
    ] = "fit",
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Find out why a model repeats itself: audio context first, then precision, then the end of the text."""
    import math

    from speechtune.core.progress import is_quiet, set_quiet
    from speechtune.decoding.sources import open_model, open_source
    from speechtune.scoring.repetition import diagnose

    was_quiet = is_quiet()
    set_quiet(True)  # the warning that the model was not trained at this context is what is to be found out
    opened = open_model(model, language=language, context=context)
    set_quiet(was_quiet)
    corpus = open_source(source, split, window_s=math.inf)
    found = diagnose(opened.family, corpus, opened.decoding, clips)
    return {"model": str(opened.path), **found.to_json()}, found.to_text()
