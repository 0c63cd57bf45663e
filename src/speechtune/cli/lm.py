"""``speechtune lm``: language models for decoding."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Out, Outcome, Overwrite, Quiet, Seed, verb

app = typer.Typer(help="Language models for decoding: get, train, mix, judge, tune.", no_args_is_help=True)
Words = Annotated[str, typer.Option("--words", help="How text is cut: spoken (no case, no punctuation) or none.")]
Split = Annotated[str | None, typer.Option("--split", help="Only this split of a corpus.")]


@app.command("get")
@verb
def get(
    name: Annotated[str, typer.Argument(help="english: the general trigram model of CMU Sphinx.")] = "english",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Obtain a general language model and check it."""
    from speechtune.decoding.lm import verbs

    return verbs.get(name, overwrite)


@app.command("train")
@verb
def train(
    source: Annotated[list[Path], typer.Argument(help="Corpora or text files (one sentence a line).")],
    out: Out,
    order: Annotated[int, typer.Option("--order", min=1, max=6, help="Length of the longest n-grams.")] = 3,
    smoothing: Annotated[str, typer.Option("--smoothing", help="auto, kneser-ney or witten-bell.")] = "auto",
    split: Split = None,
    words: Words = "spoken",
    tokens: Annotated[str | None, typer.Option("--tokens", help="Count the tokens of this model, not words.")] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Train an n-gram model from transcripts or text; writes ARPA (.arpa, .arpa.gz) or .npz."""
    from speechtune.decoding.lm import verbs

    return verbs.train(source, out, order, smoothing, split, words, tokens, overwrite)


@app.command("mix")
@verb
def mix(
    models: Annotated[list[str], typer.Argument(help="Language models: files, or english.")],
    out: Out,
    weight: Annotated[list[float] | None, typer.Option("--weight", help="One for each model; repeat.")] = None,
    tune: Annotated[Path | None, typer.Option("--tune", help="Corpus or text that the weights shall fit best.")] = None,
    split: Split = None,
    words: Words = "spoken",
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Interpolate models into one."""
    from speechtune.decoding.lm import verbs

    return verbs.mix(models, out, weight, tune, split, words, overwrite)


@app.command("perplexity")
@verb
def perplexity(
    model: Annotated[str, typer.Argument(help="A file, english, or several as in child.arpa:0.6+english:0.4.")],
    source: Annotated[Path, typer.Argument(help="A corpus, or a text file.")],
    split: Split = None,
    words: Words = "spoken",
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """How well a model predicts a text: perplexity and unknown words."""
    from speechtune.decoding.lm import verbs

    return verbs.judge(model, source, split, words)


@app.command("tune")
@verb
def tune(
    model: Annotated[str, typer.Argument(help="A run, a model directory, or a catalogue name.")],
    corpus: Annotated[Path, typer.Argument(help="A speechtune corpus.")],
    lm: Annotated[str, typer.Option("--lm", help="The language model, as in child.arpa:0.5+english:0.5.")],
    out: Out,
    split: Split = "dev",
    beams: Annotated[int, typer.Option("--beams", min=2, help="Hypotheses of each clip.")] = 8,
    folds: Annotated[int, typer.Option("--folds", min=0, help="Groups of speakers; 0: every speaker is one.")] = 0,
    language: Annotated[str | None, typer.Option("--language", help="Language of the speech, as in en.")] = None,
    words: Words = "spoken",
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Tune the language model's weights for rescoring, judged on speakers that they were not tuned on."""
    from speechtune.scoring.lm_tuning import TuneOptions, tune_model

    result = tune_model(model, corpus, lm, out, TuneOptions(split, beams, folds, language, words, seed), overwrite)
    return result.to_json(), f"{result.to_text()}\nwrote {out} (N-best lists beside it)"
