"""``speechtune export MODEL_OR_RUN --to FORMAT --out DIR``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, Seed, verb


@verb
def command(
    model: Annotated[str, typer.Argument(help="A run, a model or adapter directory, or a catalogue name.")],
    *,
    to: Annotated[str, typer.Option("--to", help="transformers, adapter, ctranslate2, ggml, onnx or openai.")],
    out: Out,
    dtype: Annotated[
        str | None, typer.Option("--dtype", "--quantisation", help="As float16, int8, q5_0; with --ladder a,b,c.")
    ] = None,
    ladder: Annotated[bool, typer.Option("--ladder", help="Several types side by side, with advice.")] = False,
    corpus: Annotated[
        Path | None, typer.Option("--corpus", help="Speech to check on; else the run's dev set, else made audio.")
    ] = None,
    split: Annotated[str | None, typer.Option("--split", help="Which split of it; '' for all of it.")] = "dev",
    clips: Annotated[int, typer.Option("--clips", min=1, help="Utterances to check on.")] = 48,
    context: Annotated[
        list[str] | None, typer.Option("--context", help="Audio context to check: fit or full; repeatable.")
    ] = None,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    max_wer_rise: Annotated[
        float | None,
        typer.Option("--max-wer-rise", min=0, help="Tolerated rise of WER, as a fraction (0.01: a point)."),
    ] = None,
    shard: Annotated[str, typer.Option("--shard", help="transformers: largest weight file, as in 2GB.")] = "5GB",
    python: Annotated[
        str, typer.Option("--runtime-python", help="Interpreter that holds the target's runtime.")
    ] = sys.executable,
    threads: Annotated[int, typer.Option("--threads", min=1, help="Threads of the runtime.")] = 2,
    upload: Annotated[str | None, typer.Option("--upload", help="owner/name on the Hugging Face hub.")] = None,
    private: Annotated[bool, typer.Option("--private/--public", help="Who may read a repository made anew.")] = True,
    data_licence: Annotated[
        str | None, typer.Option("--data-licence", help="Of the training data, for the card.")
    ] = None,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Write a model for another runtime, and prove in that runtime that it is the same model."""
    from speechtune.export import exporting
    from speechtune.export import ladder as rungs

    how: dict[str, Any] = {"to": to, "dtype": dtype, "corpus": corpus, "split": split or None, "clips": clips}
    how |= {"contexts": tuple(context or ()), "language": language, "max_wer_rise": max_wer_rise, "shard": shard}
    how |= {"python": python, "threads": threads, "seed": seed, "overwrite": overwrite}
    how |= {"upload": upload, "private": private, "data_licence": data_licence}
    options = exporting.ExportOptions(**how)
    if ladder:
        found = rungs.run_ladder(model, out, options)
        return found, rungs.ladder_text(found)
    found = exporting.export_model(model, out, options)
    return found, exporting.export_text(found)
