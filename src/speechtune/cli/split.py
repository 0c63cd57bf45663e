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
    test_list: Annotated[
        Path | None, typer.Option("--test-list", help="Utterance ids or speakers, one a line: exactly they are test.")
    ] = None,
    dev_list: Annotated[Path | None, typer.Option("--dev-list", help="The same for dev.")] = None,
    allow_speaker_overlap: Annotated[
        bool,
        typer.Option(
            "--allow-speaker-overlap",
            help="Train on what listed speakers also said; otherwise it gets the split held_out.",
        ),
    ] = False,
    folds: Annotated[int | None, typer.Option("--folds", help="Cross-validation: as many folds; needs --fold.")] = None,
    fold: Annotated[int | None, typer.Option("--fold", help="The fold, from 1, that is the test split.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Divide a corpus into train, dev and test; no speaker is in two of them."""
    from speechtune.corpus.split_lists import FixedLists, SplitOptions, split_as_told
    from speechtune.corpus.table import Corpus

    table = Corpus.load(corpus)
    options = SplitOptions(dev, test, by, stratify or ("age",), seed, keep_existing, overwrite)
    lists = FixedLists(test_list, dev_list, allow_speaker_overlap)
    result = split_as_told(table, options, lists, folds, fold)
    table.save()
    return result.to_json(), str(result)
