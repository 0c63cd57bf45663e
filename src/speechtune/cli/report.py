"""``speechtune report RUN``."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, verb


@verb
def command(
    run: Annotated[Path, typer.Argument(help="Directory of a finished run.")],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="The page; RUN/report.html when not given.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Write one self-contained HTML page about a run."""
    from speechtune.report.run_report import write_report

    page = write_report(run, out)
    return {"report": str(page), "bytes": page.stat().st_size}, f"report: {page}"
