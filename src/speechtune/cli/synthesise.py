"""``speechtune synthesise``: a corpus spoken by machine voices, for words that recordings do not have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, Seed, verb


@verb
def command(
    out: Out,
    texts: Annotated[
        Path | None, typer.Argument(help="Texts to speak: one a line, or JSONL rows with text (prompts.jsonl).")
    ] = None,
    engine: Annotated[str, typer.Option("--engine", help="espeak or piper.")] = "espeak",
    voices: Annotated[int, typer.Option("--voices", min=1, help="How many voices speak.")] = 4,
    language: Annotated[str, typer.Option("--language", help="Language code, such as en, hi or en-us.")] = "en",
    terms: Annotated[
        Path | None, typer.Option("--terms", help="Words to be learnt, one a line; behind a tab their phonemes.")
    ] = None,
    carriers: Annotated[
        Path | None, typer.Option("--carriers", help="Sentences with {term} in them, one a line.")
    ] = None,
    per_term: Annotated[int, typer.Option("--per-term", min=1, help="Sentences for each term.")] = 5,
    piper_model: Annotated[
        list[Path] | None, typer.Option("--piper-model", help="Voice file (.onnx) of Piper; repeat for several.")
    ] = None,
    split: Annotated[str, typer.Option("--split", help="Split of every clip.")] = "train",
    workers: Annotated[int | None, typer.Option("--workers", min=1, help="Processes. Default: one per core.")] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Speak texts, or terms in carrier sentences, into a corpus marked as synthetic."""
    from speechtune.corpus.synthesis import EngineChoice, SynthesisOrder, synthesise_corpus

    choice = EngineChoice(engine, tuple(map(str, piper_model or ())))
    order = SynthesisOrder(texts, terms, carriers, per_term, language, voices, choice, split, seed)
    result = synthesise_corpus(order, out, overwrite=overwrite, workers=workers)
    return result.to_json(), str(result)
