"""``speechtune mix``: several corpora as one, by ratio, hours and balance."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, Seed, verb


@verb
def command(
    corpora: Annotated[list[str], typer.Argument(help="CORPUS=WEIGHT each (own=0.8 other=0.2), or CORPUS each.")],
    out: Out,
    hours: Annotated[float | None, typer.Option("--hours", help="Hours to learn from in all; a nested subset.")] = None,
    where: Annotated[
        list[str] | None, typer.Option("--where", help="Condition: 'duration_s<=20', 'tier=all,0.9', 'age!=6'; repeat.")
    ] = None,
    split: Annotated[list[str] | None, typer.Option("--split", help="Only rows of this split; repeat.")] = None,
    balance: Annotated[str | None, typer.Option("--balance", help="Column whose values get equal seconds.")] = None,
    temperature: Annotated[
        float, typer.Option("--temperature", min=1.0, help="With --balance: share ~ seconds^(1/T); inf: equal.")
    ] = float("inf"),
    deduplicate: Annotated[
        bool, typer.Option("--deduplicate", help="Of rows with the same audio and text keep one.")
    ] = False,
    on_leak: Annotated[
        str, typer.Option("--on-leak", help="Training rows whose speaker or audio another corpus tests: error or drop.")
    ] = "error",
    speakers: Annotated[
        str, typer.Option("--speakers", help="shared: equal ids are one person; separate: each corpus has its own.")
    ] = "shared",
    audio: Annotated[
        str, typer.Option("--audio", help="reference: name the files where they are; link or copy them below --out.")
    ] = "reference",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Write one corpus from several; dev and test rows are kept whole, training rows by ratio."""
    from speechtune.corpus.conditions import parse_conditions
    from speechtune.corpus.mixing import MixOptions, mix_corpora, parse_source

    choices: dict[str, Any] = {"on_leak": on_leak, "speakers": speakers, "audio": audio}
    conditions = parse_conditions(where or ())
    options = MixOptions(hours, conditions, split or (), balance, temperature, deduplicate, seed=seed, **choices)
    result = mix_corpora([parse_source(one) for one in corpora], Path(out), options, overwrite)
    return result.to_json(), str(result)
