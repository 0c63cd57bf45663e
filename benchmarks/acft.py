"""ACFT makes a stock Whisper usable at fitted context, without labels: WER before and after a short stage.

A stock model loops when its window is cut to the clip. The stage matches its decoder's hidden states at the fitted
context to its own at the full one (`objectives.acft`, `label_weight: 0`; the method of futo-org/whisper-acft). The
measured clips are of speakers that the stage has not heard. Both systems are decoded at both contexts; what is
expected is that fitted after comes near full before, and that full after stays there.

The same command again continues where it stopped.

    python benchmarks/acft.py --corpus CORPUS --model whisper-tiny.en --train 160 --measure 40 --out DIR
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from drawing import drawn_corpus

from speechtune.core.files import read_json, write_json
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus
from speechtune.training.recipe import Recipe
from speechtune.training.run import train


def recipe(corpus: Path, options: argparse.Namespace) -> Recipe:
    """One epoch of ACFT without labels."""
    return Recipe.model_validate(
        {
            "data": {"corpus": str(corpus), "case": "lower"},
            "model": {"base": options.model},
            "training": {
                "epochs": options.epochs,
                "learning_rate": options.learning_rate,
                "batch": {"utterances": options.batch},
                "audio_context": {"jitter_s": 1.0, "full_share": 0.0},
                "objectives": {"label_weight": 0.0, "acft": {"weight": 1.0, "parts": options.parts.split(",")}},
                "trackers": [],
                "seed": options.seed,
            },
            "decoding": {"max_new_tokens": options.max_new_tokens},
            "evaluation": {"contexts": ["fit", "full"], "baseline_contexts": ["fit", "full"]},
        }
    )


def main() -> None:
    """Draw the clips, run the stage, print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", default="whisper-tiny.en")
    parser.add_argument("--train", type=int, default=160, help="clips of the train split")
    parser.add_argument("--measure", type=int, default=40, help="clips of the dev split")
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--parts", default="decoder", help="encoder, decoder, or both with a comma")
    parser.add_argument("--max-new-tokens", type=int, default=224, help="where loops are cut, before and after")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    corpus = drawn_corpus(
        Corpus.load(options.corpus),
        options.out / "corpus",
        {"train": options.train, "dev": options.measure},
        options.seed,
    )
    start_s = time.monotonic()
    train(recipe(corpus, options), options.out / "run", resume=True)
    rows = read_json(options.out / "run" / "scores.json")["measurements"]
    found = {
        f"{row['system']} {row['context']}": {"wer": row["score"]["wer"], "interval": row["score"]["interval"]}
        for row in rows
    }
    facts = {"options": {key: str(value) for key, value in vars(options).items()}, "wer": found}
    seconds = round(time.monotonic() - start_s, 1)
    write_json(options.out / "acft.json", {**facts, "seconds": seconds, "provenance": provenance(options.seed)})
    print(f"{'system':8} {'context':8} {'WER':>8}")
    for name, row in found.items():
        system, context = name.split()
        print(f"{system:8} {context:8} {100 * row['wer']:7.1f} %")
    print(f"{seconds} s, with decoding")


if __name__ == "__main__":
    main()
