"""``speechtune normalise``: what a text becomes before it is scored, and which rule did it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, verb


@verb
def command(
    text: Annotated[str | None, typer.Argument(help="A text, or a file with one text a line (or JSONL).")] = None,
    language: Annotated[str | None, typer.Option(help="Language of the text, such as he or Hindi.")] = None,
    normaliser: Annotated[str, typer.Option(help="A name that --list prints, or auto: by language.")] = "auto",
    variants: Annotated[
        Path | None, typer.Option(help="YAML or JSON of other spellings: {form: [spelling, ...]}.")
    ] = None,
    show_list: Annotated[bool, typer.Option("--list", help="Show every normaliser and its rules.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Show what a text becomes before it is scored, rule by rule."""
    from speechtune.scoring.explain import explain_normalisation, list_normalisers, listed_as_text, need_text
    from speechtune.scoring.normalisation.variants import read_variants

    if show_list:
        listed = list_normalisers()
        return {"normalisers": listed}, listed_as_text(listed)
    spellings = read_variants(variants) if variants else {}
    result = explain_normalisation(need_text(text), language, normaliser, spellings)
    return result.to_json(), result.to_text()
