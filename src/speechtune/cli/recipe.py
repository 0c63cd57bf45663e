"""``speechtune recipe explain | check | draws``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, verb

app = typer.Typer(help="What a recipe can say.", no_args_is_help=True)


@verb
def _explain(
    prefix: Annotated[str, typer.Argument(help="Only keys that begin so, as in training.batch.")] = "",
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Print every key with its type, default and meaning."""
    from speechtune.core.config import explain
    from speechtune.core.errors import InputError
    from speechtune.training.recipe import Recipe

    rows = [row for row in explain(Recipe) if row["key"].startswith(prefix)]
    if not rows:
        raise InputError(f"no recipe key begins with {prefix!r}: run speechtune recipe explain to see all")
    return {"keys": rows}, "\n".join(
        f"{row['key']}: {row['type']} = {row['default']}\n    {row['help']}" for row in rows
    )


@verb
def _check(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings to change, as in training.epochs=3.")] = None,
    parameters: Annotated[
        bool, typer.Option("--parameters", help="Load the model and show what is trained, part by part, at which rate.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Validate a recipe and print it with every default filled in, or with --parameters what it trains."""
    import yaml

    from speechtune.training.recipe import load_recipe

    loaded = load_recipe(recipe, overrides or [])
    if parameters:
        from speechtune.training.what_is_trained import preview

        plan = preview(loaded)
        return plan.to_json(), str(plan)
    checked = loaded.model_dump()
    return checked, yaml.safe_dump(checked, sort_keys=False, allow_unicode=True).rstrip()


@verb
def _draws(
    recipe: Annotated[Path, typer.Argument(help="The recipe (YAML).")],
    overrides: Annotated[list[str] | None, typer.Argument(help="Settings to change, as in training.seed=1.")] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="The file (JSON lines).")] = Path("draws.jsonl"),
    epoch: Annotated[list[int] | None, typer.Option("--epoch", help="Which epoch; repeatable. Default: 0.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Write what each training example of an epoch is made of: clips, joins, augmentation; reads no audio."""
    from speechtune.training.draws import write_draws
    from speechtune.training.recipe import load_recipe

    written = write_draws(load_recipe(recipe, overrides or []), out, epoch or [0], overwrite=overwrite)
    return written.to_json(), str(written)


app.command("explain")(_explain)
app.command("check")(_check)
app.command("draws")(_draws)
