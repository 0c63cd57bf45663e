"""``speechtune models``: obtain models and list them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, verb

app = typer.Typer(help="Obtain models and list them.", no_args_is_help=True)


@app.command("get")
@verb
def get(
    model: Annotated[str, typer.Argument(help="A name from the list, hf:owner/name[@revision], or a directory.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write here instead of below $SPEECHTUNE_HOME.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Obtain a model, check it, and make it ready to use; a CTranslate2 model is converted exactly."""
    from speechtune.models.obtaining import get_model

    result = get_model(model, out, overwrite)
    state = "is already there" if result.already_there else "is ready"
    return result.to_json(), f"{result.name} {state}: {result.path}\nchecked: {result.verified}"


@app.command("list")
@verb
def list_all(as_json: Json = False, quiet: Quiet = False) -> Outcome:
    """List the models known by name and those already on this machine."""
    from speechtune.models.obtaining import list_models

    rows = list_models()
    lines = [f"{'name':24} {'download':>9}  {'languages':14} {'on this machine':16} source"]
    for row in rows:
        size = f"{row['download_mb']} MB" if row["download_mb"] else "-"
        here = "yes" if row["path"] else "no"
        lines.append(f"{row['name']:24} {size:>9}  {row['languages'] or '-':14} {here:16} {row['source']}")
    return {"models": rows}, "\n".join(lines)


@app.command("shrink")
@verb
def shrink(
    model: Annotated[str, typer.Argument(help="A catalogue name, a run, or a model directory (Whisper).")],
    out: Out,
    encoder_layers: Annotated[int | None, typer.Option("--encoder-layers", help="How many to keep, spaced.")] = None,
    decoder_layers: Annotated[int | None, typer.Option("--decoder-layers", help="How many to keep, spaced.")] = None,
    encoder_keep: Annotated[str | None, typer.Option("--encoder-keep", help="Which ones instead, as in 0,3.")] = None,
    decoder_keep: Annotated[str | None, typer.Option("--decoder-keep", help="Which ones instead, as in 0,3.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Make a student with fewer layers, copied from a model that is to teach it."""
    from speechtune.models import shrinking

    result = shrinking.shrink(
        model,
        out,
        encoder_layers=encoder_layers,
        decoder_layers=decoder_layers,
        encoder_keep=shrinking.numbers("--encoder-keep", encoder_keep),
        decoder_keep=shrinking.numbers("--decoder-keep", decoder_keep),
        overwrite=overwrite,
    )
    return result.to_json(), str(result)


@app.command("merge")
@verb
def merge(
    base: Annotated[str, typer.Argument(help="The model the adapters were trained on: a name, a run or a directory.")],
    adapters: Annotated[list[Path], typer.Argument(help="Adapter directories, as RUN/adapter or RUN/adapters/NAME.")],
    out: Out,
    weight: Annotated[
        list[float] | None, typer.Option("--weight", help="Factor on an adapter's update, once for each; default: 1.")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Merge adapters into their base and save a plain model directory."""
    from speechtune.models.merging import merge_adapters

    merged = merge_adapters(base, adapters, out, weight or [], overwrite)
    check = "" if merged.loss_difference is None else f" (probe loss differs by {100 * merged.loss_difference:.1g} %)"
    return merged.to_json(), f"{merged.changed_parameters:,} weights changed{check}: {merged.path}"
