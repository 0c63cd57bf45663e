"""``speechtune soup MODEL_OR_RUN… --out DIR``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, verb


@verb
def command(
    models: Annotated[
        list[str] | None, typer.Argument(help="Runs, model or adapter directories, catalogue names.")
    ] = None,
    *,
    out: Out,
    group: Annotated[
        list[str] | None, typer.Option("--group", help="a,b,c: a soup of its own that is one ingredient; repeatable.")
    ] = None,
    method: Annotated[
        str, typer.Option("--method", help="uniform, greedy (kept if dev WER is no worse), or learned (on dev loss).")
    ] = "uniform",
    corpus: Annotated[Path | None, typer.Option("--corpus", help="Labelled speech to judge by.")] = None,
    split: Annotated[str | None, typer.Option("--split", help="Which split of it; '' for all of it.")] = "dev",
    context: Annotated[str | None, typer.Option("--context", help="Audio context: fit or full.")] = None,
    beams: Annotated[int, typer.Option("--beams", min=1, help="Hypotheses of the beam search; 1: greedy.")] = 1,
    batch_size: Annotated[int, typer.Option("--batch-size", min=1, help="Clips decoded together.")] = 16,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    per_layer: Annotated[bool, typer.Option("--per-layer", help="learned: weights for each layer.")] = False,
    passes: Annotated[int, typer.Option("--passes", min=1, help="learned: passes over the corpus.")] = 5,
    rate: Annotated[float, typer.Option("--rate", min=1e-6, help="learned: Adam's learning rate.")] = 0.1,
    lower: Annotated[bool, typer.Option("--lower", help="learned: labels in lower case, as data.case=lower.")] = False,
    base: Annotated[str | None, typer.Option("--base", help="Base model of adapters that do not say theirs.")] = None,
    adapter_rank: Annotated[
        int | None, typer.Option("--adapter-rank", min=1, help="Also write the soup as one adapter of this rank.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Average the weights of several models into one; adapters are merged into their base first."""
    from speechtune.training.making_soup import SoupOptions, make_soup, soup_text

    groups = [[name for name in one.split(",") if name] for one in group or []]
    how: dict[str, Any] = {
        "models": models or [],
        "groups": groups,
        "method": method,
        "corpus": corpus,
        "split": split or None,
        "context": context,
    }
    how |= {"beams": beams, "batch_size": batch_size, "language": language, "per_layer": per_layer, "passes": passes}
    how |= {"rate": rate, "lower": lower, "base": base, "adapter_rank": adapter_rank, "overwrite": overwrite}
    found = make_soup(SoupOptions(**how), out)
    return found, soup_text(found)
