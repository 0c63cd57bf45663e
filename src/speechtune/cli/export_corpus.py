"""``speechtune export-corpus``: a corpus in the layout of another tool."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, verb


@verb
def command(
    corpus: Annotated[Path, typer.Argument(help="Directory of a speechtune corpus.")],
    to: Annotated[str, typer.Option("--to", help="audiofolder, nemo, lhotse, kaldi or qwen3_asr.")],
    out: Out,
    audio: Annotated[
        str | None,
        typer.Option(
            "--audio", help="reference: name the files where they are; copy: put them below --out. Default: by layout."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Export a corpus; importing it again gives the same utterances and transcripts."""
    from speechtune.corpus.exporting import export_corpus
    from speechtune.corpus.table import Corpus

    place: Any = audio
    result = export_corpus(Corpus.load(corpus), to, out, audio=place, overwrite=overwrite)
    return result.to_json(), str(result)
