"""The ``speechtune`` command: a table of verbs, in the order of the work."""

from __future__ import annotations

from importlib import import_module
from typing import Annotated

import typer

import speechtune

VERBS = {
    "import": "import_corpus",
    "audit": "audit",
    "check-labels": "check_labels",
    "likelier": "likelier",
    "label": "label",
    "export-corpus": "export_corpus",
    "prepare": "prepare",
    "split": "split",
    "mix": "mix",
    "plan": "plan",
    "augment": "augment",
    "synthesise": "synthesise",
    "train": "train",
    "sweep": "sweep",
    "soup": "soup",
    "upload": "upload",
    "export": "export",
    "transcribe": "transcribe",
    "listen": "listen",
    "live-report": "live_report",
    "submit": "submit",
    "score": "score",
    "normalise": "normalise",
    "evaluate": "evaluate",
    "compare": "compare",
    "baseline": "baseline",
    "combine": "combine",
    "tune-decoding": "tune_decoding",
    "diagnose-repetition": "diagnose_repetition",
    "report": "report",
    "demo": "demo",
}
GROUPS = {"corrections": "corrections", "lm": "lm", "models": "models", "recipe": "recipe"}


def build() -> typer.Typer:
    """The application with every verb registered."""
    app = typer.Typer(
        name="speechtune",
        help="From a folder of recordings to a measurably better speech recogniser.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode=None,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_root)
    for name, module in VERBS.items():
        app.command(name)(import_module(f"speechtune.cli.{module}").command)
    for name, module in GROUPS.items():
        app.add_typer(import_module(f"speechtune.cli.{module}").app, name=name)
    return app


def _show_version(wanted: bool) -> None:
    if wanted:
        print(f"speechtune {speechtune.__version__}")
        raise typer.Exit


def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


def main() -> None:
    """Entry point of the console script."""
    build()()
