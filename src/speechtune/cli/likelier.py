"""``speechtune likelier MODEL AUDIO TEXT TEXT…``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, verb


@verb
def command(
    model: Annotated[str, typer.Argument(help="A run, a model directory, or a catalogue name.")],
    audio: Annotated[Path, typer.Argument(help="A recording within the model's window.")],
    texts: Annotated[list[str], typer.Argument(help="Two or more texts.")],
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Audio context: fit or full.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Say which of several texts a model finds likelier for a recording."""
    from speechtune.decoding.likelier import likelier
    from speechtune.decoding.sources import open_model

    found = likelier(open_model(model, language=language, context=context), audio, texts)
    lines = ["log-prob   a token   share    text"]
    for row in found["texts"]:
        lines.append(f"{row['total']:8.2f}  {row['mean']:8.3f}  {100 * row['share']:5.1f} %  {row['text']}")
    return found, "\n".join(lines)
