"""``speechtune corrections``: transcripts out to a spreadsheet, and corrected ones back."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, verb

app = typer.Typer(help="Correct transcripts in a spreadsheet, in rounds.", no_args_is_help=True)
CorpusOption = Annotated[Path, typer.Option("--corpus", help="Directory of the speechtune corpus.")]


@app.command("export")
@verb
def export(
    corpus: Annotated[Path, typer.Argument(help="Directory of a speechtune corpus.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The table to write: .csv or .jsonl.")],
    only: Annotated[
        str | None, typer.Option("--only", help="COLUMN=VALUE: only such utterances, as label_source=model.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Write the table to correct; its verdicts are ok, fixed, drop, unsure or nothing."""
    from speechtune.corpus.corrections import export_corrections
    from speechtune.corpus.table import Corpus

    result = export_corrections(Corpus.load(corpus), out, only, overwrite)
    return result, f"{out}: {result['kept']} transcripts to correct ({result['seconds_of_audio'] / 60:.1f} minutes)"


@app.command("import")
@verb
def import_(
    file: Annotated[Path, typer.Argument(help="The corrected table.")],
    corpus: CorpusOption,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Bring corrections back into the corpus they came from, as a round that can be undone."""
    from speechtune.corpus.corrections import import_corrections
    from speechtune.corpus.table import Corpus

    result = import_corrections(file, Corpus.load(corpus))
    return result.to_json(), str(result)


@app.command("undo")
@verb
def undo(corpus: CorpusOption, as_json: Json = False, quiet: Quiet = False) -> Outcome:
    """Take the last round of corrections back."""
    from speechtune.corpus.corrections import undo_corrections
    from speechtune.corpus.table import Corpus

    result = undo_corrections(Corpus.load(corpus))
    return {**result.to_json(), "undone": True}, f"round {result.round} was undone: {result.kept} utterances"
