"""``speechtune score``: error rates of transcripts, with intervals, slices and a paired comparison."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, Seed, verb


@verb
def command(
    corpus: Annotated[
        Path | None, typer.Argument(help="Corpus directory, JSONL of references, or text with one a line.")
    ] = None,
    transcripts: Annotated[
        Path | None, typer.Argument(help="Transcripts: JSONL, or text with one hypothesis a line.")
    ] = None,
    against: Annotated[
        Path | None, typer.Option(help="Baseline transcripts: report the difference, its interval and p-value.")
    ] = None,
    normaliser: Annotated[str, typer.Option(help="auto, or a name that speechtune normalise --list prints.")] = "auto",
    variants: Annotated[
        Path | None, typer.Option(help="YAML or JSON of other spellings that count as a word: {form: [spelling, ...]}.")
    ] = None,
    metrics: Annotated[
        list[str] | None, typer.Option(help="More metrics: names, all, or list to see them; repeat it or use commas.")
    ] = None,
    tokenizer: Annotated[
        Path | None, typer.Option(help="Model directory whose tokenizer counts the token error rate.")
    ] = None,
    slice_by: Annotated[
        list[str] | None, typer.Option(help="Columns to report value by value; repeat it or separate by commas.")
    ] = None,
    terms: Annotated[
        Path | None, typer.Option(help="Terms whose recall is reported: one a line, other spellings after tabs.")
    ] = None,
    causes: Annotated[
        bool, typer.Option("--causes", help="Also put every word error into a class; list confusions and speakers.")
    ] = False,
    training_corpus: Annotated[
        Path | None, typer.Option(help="With --causes: the corpus trained on, to tell words that it does not hold.")
    ] = None,
    training_split: Annotated[str | None, typer.Option(help="Only this split of the training corpus.")] = None,
    phones: Annotated[
        str, typer.Option(help="How words sound, for --causes and phonetic-wer: spelling, or espeak.")
    ] = "spelling",
    calibration: Annotated[
        bool, typer.Option("--calibration", help="Also judge the transcripts' confidences: ECE, NLL, reliability.")
    ] = False,
    fit_split: Annotated[
        str | None, typer.Option(help="With --calibration and --split: also scale confidences as fitted on this split.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Score only this split of the corpus.")] = None,
    allow_missing: Annotated[
        bool, typer.Option("--allow-missing", help="Score utterances without a transcript as empty ones.")
    ] = False,
    resamples: Annotated[int, typer.Option(help="Bootstrap resamples behind every interval; 0: none.")] = 1000,
    resample_by: Annotated[
        str, typer.Option(help="Column resampled as a block, where it has 5 values or more, as in session_id.")
    ] = "speaker_id",
    workers: Annotated[int, typer.Option(help="Processes, used from 50,000 utterances on; 0: one for each core.")] = 0,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Also write one row per utterance (JSONL).")] = None,
    seed: Seed = 0,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Word and character error rates with counts, intervals, slices, and a paired comparison."""
    from speechtune.scoring.score_options import (
        ScoreOptions,
        calibration_options,
        cause_options,
        listed_metrics,
        need_both,
        scoring_config,
    )
    from speechtune.scoring.score_report import score_files

    chosen = split_names(metrics)
    if chosen == ["list"]:
        return listed_metrics()
    reference, hypothesis = need_both(corpus, transcripts)
    options = ScoreOptions(
        normaliser,
        variants,
        chosen,
        tokenizer,
        split_names(slice_by),
        terms,
        resamples,
        workers,
        seed,
        resample_by,
        phones,
    )
    why = cause_options(causes, training_corpus, training_split)
    config = scoring_config(options)
    result = score_files(
        reference,
        hypothesis,
        config,
        against=against,
        split=split,
        allow_missing=allow_missing,
        causes=why,
        calibration=calibration_options(calibration, fit_split, split),
    )
    if out:
        result.score.write_utterances(out)
    return result.to_json(), result.to_text()


def split_names(given: list[str] | None) -> list[str]:
    """Names that were given by repeating an option or with commas."""
    return [name.strip() for one in given or [] for name in one.split(",") if name.strip()]
