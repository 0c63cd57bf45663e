"""``speechtune live-report MODEL SOURCE``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, Seed, verb


@verb
def command(
    model: Annotated[str, typer.Argument(help="A run, a model directory, or a catalogue name.")],
    source: Annotated[Path, typer.Argument(help="A corpus, a folder of audio files, or an audio file.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, as in decoding.streaming.agreement=3.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split of a corpus.")] = None,
    join: Annotated[
        float,
        typer.Option("--join", min=0, help="Join a speaker's utterances to recordings of so many seconds; 0: no."),
    ] = 0.0,
    compute: Annotated[
        float | None,
        typer.Option("--compute", min=0, help="Take decoding to cost this many seconds per second; else as measured."),
    ] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Audio context: fit or full.")] = None,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Beams of final texts; drafts are greedy.")] = 1,
    settings: Annotated[Path | None, typer.Option("--settings", help="YAML with a decoding: block.")] = None,
    normaliser: Annotated[str, typer.Option("--normaliser", help="Text normaliser, or auto.")] = "auto",
    html: Annotated[Path | None, typer.Option("--html", help="Also write one self-contained page here.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Keep both transcripts and the result here.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Live against batch transcription of the same audio: error rates, latency of every word, flicker, speed."""
    from speechtune.decoding.sources import open_model
    from speechtune.report.live_report import LiveReportOptions, live_report

    opened = open_model(
        model, language=language, context=context, beams=beams, settings=settings, overrides=overrides or []
    )
    options = LiveReportOptions(
        source=source, split=split, join_s=join, compute=compute, language=language, normaliser=normaliser,
        html=html, out=out, seed=seed, overwrite=overwrite,
    )  # fmt: skip
    return live_report(opened, options)
