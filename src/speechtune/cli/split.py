"""``speechtune split``: train, dev and test without a shared speaker."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, Seed, verb


@verb
def command(
    corpus: Annotated[Path, typer.Argument(help="Directory of a speechtune corpus.")],
    dev: Annotated[float, typer.Option("--dev", help="Share of dev; 0: no such split.")] = 0.1,
    test: Annotated[float, typer.Option("--test", help="Share of test; 0: no such split.")] = 0.1,
    by: Annotated[
        str, typer.Option("--by", help="Column whose groups stay together; none: split by utterance.")
    ] = "speaker_id",
    stratify: Annotated[
        list[str] | None, typer.Option("--stratify", help="Column to balance; repeat for several. Default: age.")
    ] = None,
    seed: Seed = 0,
    keep_existing: Annotated[
        bool, typer.Option("--keep-existing", help="Assign only the utterances that have no split.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Assign all anew although there are splits.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Divide a corpus into train, dev and test; no speaker is in two of them."""
    from speechtune.corpus.split import split_corpus
    from speechtune.corpus.table import Corpus

    table = Corpus.load(corpus)
    result = split_corpus(
        table,
        dev_frac=dev,
        test_frac=test,
        by=by,
        stratify=stratify or ("age",),
        seed=seed,
        keep_existing=keep_existing,
        overwrite=overwrite,
    )
    table.save()
    return result.to_json(), str(result)
