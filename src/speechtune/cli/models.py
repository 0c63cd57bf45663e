"""``speechtune models``: obtain models and list them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, verb

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
