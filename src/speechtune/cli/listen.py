"""``speechtune listen MODEL [INPUT]``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, verb


def command(
    model: Annotated[str, typer.Argument(help="A run, a model directory, or a catalogue name.")],
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="[INPUT]", help="An audio file, or - for raw 16-bit PCM on standard input; else a microphone."
        ),
    ] = None,
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, as in decoding.streaming.agreement=3.")
    ] = None,
    pace: Annotated[float, typer.Option("--pace", min=0, help="Speed of a file: 1 as spoken, 0 at once.")] = 1.0,
    rate: Annotated[int, typer.Option("--rate", min=1000, help="Sample rate of standard input in Hz.")] = 16_000,
    channels: Annotated[int, typer.Option("--channels", min=1, help="Channels of standard input.")] = 1,
    device: Annotated[str | None, typer.Option("--device", help="The microphone: a number or part of a name.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write the transcript here at the end.")] = None,
    kind: Annotated[str | None, typer.Option("--format", help="Of --out: jsonl, json, txt, srt or vtt.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Audio context: fit or full.")] = None,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Beams at the end of a segment; drafts are greedy.")] = 1,
    settings: Annotated[Path | None, typer.Option("--settings", help="YAML with a decoding: block.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Transcribe while somebody speaks: committed text stays, the faint tail may change; --json: an event a line."""
    if source is not None and "=" in source and not Path(source).exists():
        overrides = [source, *(overrides or [])]
        source = None
    opening = {
        "language": language,
        "context": context,
        "beams": beams,
        "settings": settings,
        "overrides": overrides or [],
    }
    hearing = {"source": source, "pace": pace, "rate_hz": rate, "channels": channels, "device": device}
    writing = {"out": out, "named_format": kind, "overwrite": overwrite, "stream": sys.stdout, "language": language}
    _listen(model, opening, {**hearing, **writing}, as_json=as_json, quiet=quiet)


@verb
def _listen(model: str, opening: dict[str, Any], options: dict[str, Any], as_json: bool, quiet: bool) -> Outcome:
    from speechtune.decoding.sources import open_model
    from speechtune.decoding.streaming.listening import ListenOptions, listen

    asked = ListenOptions(**options, as_json=as_json)
    asked.check()  # before a model is loaded
    return listen(open_model(model, **opening), asked)
