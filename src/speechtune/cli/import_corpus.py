"""``speechtune import``: recordings in any known layout become a corpus."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, verb


@verb
def command(
    source: Annotated[str, typer.Argument(help="A folder, a table file, or hf:owner/name[:config][@split].")],
    out: Out,
    format: Annotated[
        str | None,
        typer.Option(
            "--format", help="Layout such as kaldi, nemo, chat or subtitles (docs/corpus.md lists all); default: guess."
        ),
    ] = None,
    audio: Annotated[
        str,
        typer.Option("--audio", help="flac: copy each clip as 16 kHz mono FLAC; reference: name the original files."),
    ] = "flac",
    language: Annotated[
        str | None, typer.Option("--language", help="Language code of the rows that state none, such as en.")
    ] = None,
    speaker_from: Annotated[
        str | None,
        typer.Option("--speaker-from", help="Column that holds the speaker; folder: the recording's folder name."),
    ] = None,
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="A setting of the layout, KEY=VALUE (docs/corpus.md lists them); repeatable."),
    ] = None,
    drop_bad: Annotated[
        bool, typer.Option("--drop-bad", help="Leave bad rows out, counted and listed, instead of stopping.")
    ] = False,
    allow_empty: Annotated[bool, typer.Option("--allow-empty", help="Keep rows whose transcript is empty.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Import recordings and transcripts as a corpus; every file is decoded and every row checked."""
    from speechtune.corpus.importing import Fill, import_corpus

    options: dict[str, Any] = {"drop_bad": drop_bad, "allow_empty": allow_empty, "overwrite": overwrite}
    fill = Fill(language=language, speaker_from=speaker_from, settings=tuple(settings or ()))
    result = import_corpus(source, Path(out), format=format, audio=audio, fill=fill, **options)  # type: ignore[arg-type]
    return result.to_json(), str(result)
