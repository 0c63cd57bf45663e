"""``speechtune transcribe MODEL INPUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, verb


@verb
def command(
    model: Annotated[str, typer.Argument(help="A run, a model directory, or a catalogue name.")],
    source: Annotated[Path, typer.Argument(help="An audio file, a folder of audio files, a corpus, or a JSONL.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, as in decoding.search.n_best=8.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write transcripts here.")] = None,
    kind: Annotated[
        str | None,
        typer.Option("--format", help="jsonl, json, txt, srt or vtt; without it, by the suffix of --out, else jsonl."),
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split of a corpus.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Audio context: fit or full.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips decoded together.")] = 16,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Hypotheses of the beam search; 1: greedy.")] = 1,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML with a decoding: block, as speechtune lm tune writes.")
    ] = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Append to --out as it goes; the same command goes on after any end.")
    ] = False,
    shard: Annotated[str | None, typer.Option("--shard", help="Only every n-th input, as in 3/8; streams.")] = None,
    workers: Annotated[int, typer.Option("--workers", min=1, help="Processes that decode; above 1 it streams.")] = 1,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Write what is said in recordings of any length: one transcript for every utterance."""
    from speechtune.decoding.sources import open_model
    from speechtune.decoding.transcribe_source import transcribe_source

    options: dict[str, Any] = {
        "language": language,
        "context": context,
        "batch_size": batch_size,
        "beams": beams,
        "settings": settings,
        "overrides": overrides or [],
    }
    if stream or shard or workers > 1 or source.suffix == ".jsonl":
        from speechtune.decoding.scale.verb import StreamWords, stream_verb

        return stream_verb(model, options, StreamWords(source, out, kind, split, shard, workers, overwrite))
    opened = open_model(model, **options)
    return transcribe_source(opened, source, split, out, kind, overwrite)
