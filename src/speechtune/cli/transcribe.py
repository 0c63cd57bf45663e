"""``speechtune transcribe MODEL INPUT``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, verb


@verb
def command(
    model: Annotated[str, typer.Argument(help="A run, a model directory, or a catalogue name.")],
    source: Annotated[Path, typer.Argument(help="An audio file, a folder of audio files, or a corpus.")],
    overrides: Annotated[
        list[str] | None, typer.Argument(help="Settings to change, as in decoding.search.n_best=8.")
    ] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Write transcripts here (JSONL).")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Only this split of a corpus.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Audio context: fit or full.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips decoded together.")] = 16,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Hypotheses of the beam search; 1: greedy.")] = 1,
    settings: Annotated[
        Path | None, typer.Option("--settings", help="YAML with a decoding: block, as speechtune lm tune writes.")
    ] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Write what is said: one transcript for every utterance."""
    from speechtune.decoding.sources import open_model, open_source, transcribe_to

    opened = open_model(
        model,
        language=language,
        context=context,
        batch_size=batch_size,
        beams=beams,
        settings=settings,
        overrides=overrides or [],
    )
    corpus = open_source(source, split, window_s=opened.family.limits.max_audio_s)
    transcripts = transcribe_to(opened, corpus, out)
    result = {
        "model": str(opened.path),
        "context": opened.decoding.context,
        "kept": len(transcripts),
        "dropped_by_reason": {},
        "seconds_of_audio": round(corpus.seconds_of_audio, 3),
        "out": str(out) if out else None,
        "transcripts": [
            {
                "utterance_id": one.utterance_id,
                "text": one.text,
                "flags": one.flags,
                **({"nbest": one.nbest} if one.nbest else {}),
            }
            for one in transcripts
        ],
    }
    text = (
        f"{len(transcripts)} transcripts in {out}"
        if out
        else "\n".join(f"{one.utterance_id}\t{one.text}" for one in transcripts)
    )
    return result, text
