"""``speechtune models``: obtain models, describe them, choose among them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, verb

app = typer.Typer(help="Obtain models, describe them, choose among them.", no_args_is_help=True)


@app.command("get")
@verb
def get(
    model: Annotated[str, typer.Argument(help="A name from the list, hf:owner/name[@revision], or a directory.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Write here instead of below $SPEECHTUNE_HOME.")
    ] = None,
    language: Annotated[
        str | None, typer.Option("--language", help="Fetch this language's adapter too (MMS: 1,000 of them).")
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Obtain a model, check it, and make it ready to use; a CTranslate2 model is converted exactly."""
    from speechtune.models.obtaining import get_model

    result = get_model(model, out, overwrite, language)
    state = "is already there" if result.already_there else "is ready"
    return result.to_json(), f"{result.name} {state}: {result.path}\nchecked: {result.verified}"


@app.command("list")
@verb
def list_all(
    everything: Annotated[
        bool, typer.Option("--all", help="Also those of the catalogue that other toolkits load.")
    ] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """List the models known by name and those already on this machine."""
    from speechtune.models.catalogue.rows import catalogue_rows
    from speechtune.models.catalogue.text import list_as_text

    rows = catalogue_rows(everything)
    return {"models": rows}, list_as_text(rows)


@app.command("describe")
@verb
def describe_one(
    model: Annotated[str, typer.Argument(help="A name from the list, hf:owner/name, a run, or a model directory.")],
    clips: Annotated[int, typer.Option("--clips", min=1, help="Clips of the training batch.")] = 8,
    seconds: Annotated[float, typer.Option("--seconds", min=0.1, help="Length of a clip.")] = 10.0,
    tokens: Annotated[int, typer.Option("--tokens", min=1, help="Label tokens of a clip.")] = 64,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Say what a model is, what it can, and what memory it takes; one on this machine is loaded and counted."""
    from speechtune.models.catalogue.describe import describe
    from speechtune.models.catalogue.memory import Batch
    from speechtune.models.catalogue.text import description_as_text

    found = describe(model, Batch(clips, seconds, tokens))
    return found.to_json(), description_as_text(found)


@app.command("recommend")
@verb
def recommend_some(
    corpus: Annotated[Path | None, typer.Option("--corpus", help="Read hours, languages, speakers and ages.")] = None,
    purpose: Annotated[
        str | None, typer.Option("--purpose", help="general, server, phone, dictation, personal, children, …")
    ] = None,
    hours: Annotated[float | None, typer.Option("--hours", min=0, help="Hours of training audio.")] = None,
    language: Annotated[list[str] | None, typer.Option("--language", help="Once for each language.")] = None,
    speakers: Annotated[int | None, typer.Option("--speakers", min=1, help="Different speakers.")] = None,
    code_switching: Annotated[bool, typer.Option("--code-switching", help="Languages change in a sentence.")] = False,
    gpu_gb: Annotated[float | None, typer.Option("--gpu-gb", min=0.1, help="Memory of the GPU.")] = None,
    ram_gb: Annotated[float | None, typer.Option("--ram-gb", min=0.1, help="Memory of a machine without GPU.")] = None,
    commercial: Annotated[bool, typer.Option("--commercial", help="Leave out what may not be sold.")] = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Say which models to try first, how sure that is and why; the last line measures them on your data."""
    from speechtune.models.catalogue.recommend import Needs, recommend, with_corpus
    from speechtune.models.catalogue.rows import exports_of, is_loadable
    from speechtune.models.catalogue.text import recommendation_as_text

    needs = Needs(
        purpose=purpose, hours=hours, languages=tuple(language or ()), speakers=speakers,
        corpus=str(corpus) if corpus else None,
        code_switching=code_switching, gpu_gb=gpu_gb, ram_gb=ram_gb, commercial=commercial,
    )  # fmt: skip
    if corpus is not None:
        from speechtune.corpus.table import Corpus

        needs = with_corpus(needs, Corpus.load(corpus))
    found = recommend(needs, is_loadable, exports_of)
    return found.to_json(), recommendation_as_text(found, needs)


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
