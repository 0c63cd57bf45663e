"""What a teacher gives a student with fewer decoder layers: WER with and without distillation, side by side.

The teacher is a fine-tuned Whisper. The student is the same model with some decoder layers left out (`models shrink`,
Distil-Whisper's rule: as far apart as can be). Two trainings of the same student on the same clips in the same order:
on the transcripts alone, and with the teacher's distribution and hidden states beside them (`objectives.distil`).
Measured are clips of speakers that neither has heard. What is expected: the distilled student makes fewer errors.

The same command again continues where it stopped.

    python benchmarks/distil.py --corpus CORPUS --teacher RUN --train 460 --measure 120 --epochs 2 --seeds 2 --out DIR
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from drawing import drawn_corpus

from speechtune.core.files import write_json
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus
from speechtune.decoding.transcript import read_transcripts
from speechtune.models.shrinking import shrink
from speechtune.scoring.score import Score, compare, score_transcripts
from speechtune.training.recipe import Recipe
from speechtune.training.run import train


def recipe(corpus: Path, student: Path, teacher: str | None, options: argparse.Namespace, seed: int) -> Recipe:
    """Both trainings; only the distilled one has a teacher."""
    objectives: dict[str, Any] = {}
    if teacher:
        terms = {"kl": {"weight": options.kl}, "hidden": {"weight": options.hidden}}
        objectives = {"distil": {"teacher": teacher, "context": "fit", "hidden_parts": ["encoder"], **terms}}
    return Recipe.model_validate(
        {
            "data": {"corpus": str(corpus), "case": "lower"},
            "model": {"base": str(student)},
            "training": {
                "epochs": options.epochs,
                "learning_rate": options.learning_rate,
                "batch": {"utterances": options.batch},
                "audio_context": {"jitter_s": 1.0, "full_share": 0.0},
                "objectives": objectives,
                "trackers": [],
                "seed": seed,
            },
            "decoding": {"max_new_tokens": 80},
            "evaluation": {"contexts": ["fit"], "baseline_contexts": ["fit"]},
        }
    )


def measured(run: Path, dev: Corpus, system: str) -> Score:
    """The score of a run's dev transcripts, before or after."""
    file = next((run / "transcripts").glob(f"*.{system}.fit.jsonl"))
    return score_transcripts(dev, read_transcripts(file), language="en")


def main() -> None:
    """Train every seed both ways, print a table, write ``distil.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--teacher", required=True, help="a run, or a model that was trained for fitted context")
    parser.add_argument("--decoder-layers", type=int, default=2)
    parser.add_argument("--train", type=int, default=460, help="clips of the train split")
    parser.add_argument("--measure", type=int, default=120, help="clips of the dev split")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=1e-4)
    parser.add_argument("--kl", type=float, default=0.8, help="Distil-Whisper's (arXiv 2311.00430)")
    parser.add_argument("--hidden", type=float, default=1.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    clips = {"train": options.train, "dev": options.measure}
    corpus = drawn_corpus(Corpus.load(options.corpus), options.out / "corpus", clips, 0)
    dev = Corpus.load(corpus).split("dev")
    student = options.out / "student"
    if not (student / "config.json").is_file():
        shrink(options.teacher, student, decoder_layers=options.decoder_layers)
    rows: list[dict[str, Any]] = []
    for seed in range(options.seeds):
        scores = {}
        for name, teacher in (("transcripts only", None), ("distilled", options.teacher)):
            run = options.out / f"{name.replace(' ', '-')}-{seed}"
            train(recipe(corpus, student, teacher, options, seed), run, resume=True)
            scores[name] = measured(run, dev, "after")
            if not rows:
                rows.append({"system": "student before", **scored(measured(run, dev, "before"))})
            rows.append({"system": name, "seed": seed, **scored(scores[name])})
        rows[-1]["difference"] = compare(scores["transcripts only"], scores["distilled"]).wer.to_json()
    facts = {key: str(value) for key, value in vars(options).items()}
    write_json(options.out / "distil.json", {"rows": rows, "options": facts, **provenance(0)})
    for row in rows:
        words = f"{row['system']:18} seed {row.get('seed', '-')}: {100 * row['wer']:.1f} %, {row['errors']} errors"
        if change := row.get("difference"):
            low, high = (100 * change["interval"][end] for end in ("low", "high"))
            words += f", {100 * change['difference']:+.1f} [{low:+.1f}, {high:+.1f}] points"
        print(words)


def scored(score: Score) -> dict[str, Any]:
    """Rate, errors and interval."""
    return {name: score.to_json()[name] for name in ("wer", "errors", "reference_words", "interval")}


if __name__ == "__main__":
    main()
