"""``speechtune upload RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, verb


@verb
def command(
    run: Annotated[Path, typer.Argument(help="A finished run.")],
    repo: Annotated[str | None, typer.Option("--repo", help="owner/name; as the run's recipe says by default.")] = None,
    public: Annotated[bool | None, typer.Option("--public/--private", help="Who may read a new repository.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Upload a run's model to the Hugging Face hub, with a card that says how it was measured."""
    from speechtune.training.upload import upload_run

    found = upload_run(run, repo, None if public is None else not public)
    return found, f"uploaded to {found['url']}"
