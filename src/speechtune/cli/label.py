"""``speechtune label``: recordings without transcripts become a corpus of pseudo-labels."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, verb


@verb
def command(
    source: Annotated[Path, typer.Argument(help="An audio file, a folder of audio files, or a corpus.")],
    model: Annotated[str, typer.Option("--model", help="A run, a model directory, or a catalogue name.")],
    out: Out,
    split: Annotated[str | None, typer.Option("--split", help="Only this split of a corpus.")] = None,
    agree_with: Annotated[str | None, typer.Option("--agree-with", help="A second model that must agree.")] = None,
    max_wer: Annotated[float, typer.Option("--max-wer", help="How much it may differ, as a WER.")] = 0.2,
    min_log_prob: Annotated[
        float, typer.Option("--min-log-prob", help="Lowest mean log-probability of the tokens.")
    ] = -0.36,
    limits: Annotated[list[str] | None, typer.Option("--limit", help="Another limit, as min_duration_s=1.")] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    context: Annotated[str | None, typer.Option("--context", help="Audio context: fit or full.")] = None,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips decoded together.")] = 16,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Hypotheses of the beam search; 1: greedy.")] = 1,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Label recordings with a model; keep what it is sure of. An interrupted run continues by itself."""
    from speechtune.core.config import load_config
    from speechtune.decoding.sources import open_model
    from speechtune.scoring.label_pseudo import Labeller, PseudoLabelConfig, label_recordings

    own = [f"min_log_prob={min_log_prob}", f"max_wer={max_wer}"]
    config = load_config(PseudoLabelConfig, None, [*own, *(limits or [])])

    def opened(name: str) -> Labeller:
        return Labeller(
            name=name, opened=open_model(name, language=language, context=context, batch_size=batch_size, beams=beams)
        )

    second = opened(agree_with) if agree_with else None
    result = label_recordings(source, opened(model), out, config, second=second, split=split, overwrite=overwrite)
    return result.to_json(), str(result)
