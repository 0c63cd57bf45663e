"""What each way of training gains on children it has never heard, cross-validated over speakers.

Every row is one training per fold. A fold is a share of the children, balanced by age, held out whole: nothing is
chosen on them. The best epoch is chosen on a few adults, who are in no training either unless the row says so (then
on the other adults). Fold k is trained with seed k, so that the spread over folds is that of speakers and seeds. Rows
are compared on the same clips, paired, with intervals over speakers.

The same command again continues where it stopped; with ``--jobs 2`` two trainings run side by side, a thread each.

    python benchmarks/children_ablation.py --children CORPUS --adults CORPUS --folds 1 2 --rows recipe plain --out DIR
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from speechtune.core.files import write_json
from speechtune.core.provenance import provenance
from speechtune.corpus.split_lists import SplitOptions, split_folds
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import read_transcripts
from speechtune.scoring.alignment import word_counts
from speechtune.scoring.bootstrap import bootstrap_interval, paired_difference
from speechtune.scoring.normalisers import get_normaliser

FOLDS = 5
ADULTS_TO_LEARN = 8
RECIPE = Path(__file__).parents[1] / "recipes" / "children.yaml"
BEAMS = ["decoding.beams=8", "decoding.search.n_best=8", "decoding.search.early_stopping=true"]

ROWS: dict[str, dict[str, Any]] = {
    "recipe": {},
    "32-bit arithmetic": {"training": {"precision": "fp32"}},
    "16-bit arithmetic": {"training": {"precision": "bf16"}},
    "plain": {"training": {"speed": {"share": 0.0}, "spec_augment": {"time_prob": 0.0, "feature_prob": 0.0}}},
    "no speed": {"training": {"speed": {"share": 0.0}}},
    "no SpecAugment": {"training": {"spec_augment": {"time_prob": 0.0, "feature_prob": 0.0}}},
    "fitted only": {"training": {"audio_context": {"full_share": 0.0}}},
    "a tenth at 30 s": {"training": {"audio_context": {"full_share": 0.1}}},
    "with adults": {},
    "joins": {"training": {"format": {"join_share": 0.4, "pack": {"same": "any"}}}},
    "LoRA 64": {
        "adapter": {"kind": "rslora", "rank": 64, "alpha": 16, "dropout": 0.0, "targets": ["attention", "mlp"]},
        "training": {"learning_rate": 5e-4},
    },
    "KL to the start": {"training": {"objectives": {"kl": {"weight": 0.2}}}},
    "L2-SP": {"training": {"objectives": {"l2sp": {"weight": 0.01}}}},
    "layer-wise rates": {"training": {"rates": {"decay": 0.85}}},
    "encoder only": {"model": {"train": "encoder"}, "training": {"learning_rate": 1e-4}},
    "EMA": {"training": {"averages": {"ema_decay": 0.99}}},
    "wide speed": {"training": {"speed": {"share": 1.0, "range": 0.2}}},
    "strong SpecAugment": {"training": {"spec_augment": {"time_prob": 0.2, "feature_prob": 0.2}}},
    "label smoothing": {"training": {"label_smoothing": 0.05}},
    "rate 5e-5": {"training": {"learning_rate": 5e-5}},
    "rate 1.5e-5": {"training": {"learning_rate": 1.5e-5}},
}


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """A nested dictionary with some leaves replaced."""
    found = deepcopy(base)
    for name, value in changes.items():
        found[name] = merged(found.get(name) or {}, value) if isinstance(value, dict) else value
    return found


def folded(options: argparse.Namespace, fold: int, with_adults: bool) -> Path:
    """A fold as a corpus: ``test`` the held-out children, ``dev`` a few adults, ``train`` the rest."""
    root = options.out / f"fold{fold}{'-adults' if with_adults else ''}"
    if (root / "corpus.json").is_file():
        return root
    children, adults = Corpus.load(options.children), Corpus.load(options.adults)
    for row in children:
        row.split = None
    split_folds(children, FOLDS, fold, SplitOptions(dev_frac=0.0, test_frac=0.0, overwrite=True))
    speakers = sorted({str(row.speaker_id) for row in adults})
    order = np.random.default_rng(0).permutation(len(speakers))
    learnt = {speakers[place] for place in order[:ADULTS_TO_LEARN]}
    rows: list[Utterance] = []
    for corpus in (children, adults):
        for row in corpus:
            if corpus is adults:
                row.split = "dev" if str(row.speaker_id) not in learnt else "train" if with_adults else None
            if row.split:
                row.file_name = str(corpus.path_of(row).resolve())
                rows.append(row)
    root.mkdir(parents=True)
    Corpus(root, rows, {"kept": len(rows), "fold": fold, "folds": FOLDS}).save()
    return root


def command(options: argparse.Namespace, *words: str) -> None:
    """One verb of speechtune in a process of its own."""
    threads = str(max(1, (os.cpu_count() or 1) // options.jobs))
    environment = {**os.environ, "OMP_NUM_THREADS": threads, "TOKENIZERS_PARALLELISM": "false"}
    done = subprocess.run([sys.executable, "-m", "speechtune.cli", *words], env=environment, capture_output=True)
    if done.returncode:
        raise SystemExit(f"speechtune {' '.join(words)}: {done.stderr.decode(errors='replace')[-2000:]}")


def trained(options: argparse.Namespace, name: str, fold: int) -> Path:
    """One training of a row; one that is complete stays."""
    place = folded(options, fold, name == "with adults" or options.adults_too)
    run = options.out / f"{name.replace(' ', '-')}-{options.epochs}-{fold}"
    if (run / "model").is_dir() and (run / "train_s.json").is_file():
        return run
    told = merged(
        yaml.safe_load(RECIPE.read_text(encoding="utf-8")),
        {
            "data": {"corpus": str(place)},
            "training": {"epochs": options.epochs, "seed": fold, "trackers": [], "monitor": {"enabled": False}},
            "evaluation": {"contexts": ["fit"], "baseline_contexts": ["fit"], "sets": [], "scoring": {"slice_by": []}},
            "decoding": {"max_new_tokens": 80},
        },
    )
    if options.full_share is not None:
        told["training"]["audio_context"]["full_share"] = options.full_share
    told["training"]["precision"] = options.precision
    file = run.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(merged(told, ROWS[name]), sort_keys=False), encoding="utf-8")
    began_s = time.monotonic()
    command(options, "train", str(file), "--out", str(run), "--resume", "--quiet")
    write_json(run / "train_s.json", time.monotonic() - began_s)
    return run


def decoded(options: argparse.Namespace, model: str, label: str, fold: int, *overrides: str, context: str) -> Path:
    """Transcripts of the held-out children by a run, a soup or a stock model."""
    out = options.out / "test" / f"{label.replace(' ', '-')}-{fold}-{context}"
    if not out.is_dir():
        corpus = str(folded(options, fold, False))
        words = ["--split", "test", "--context", context, "--out", str(out), "--quiet", *overrides]
        command(options, "evaluate", model, corpus, *words, "decoding.max_new_tokens=80")
    return out / "transcripts.jsonl"


class Table:
    """Word errors of every held-out utterance by row, and what is said about them."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.options, self.normaliser = options, get_normaliser("whisper-english")
        self.rows: dict[str, dict[int, np.ndarray]] = {}
        self.tests = {fold: Corpus.load(folded(options, fold, False)).split("test") for fold in options.folds}

    def add(self, name: str, fold: int, transcripts: Path) -> None:
        """The errors of one fold."""
        held = {one.utterance_id: one.text for one in read_transcripts(transcripts)}
        self.rows.setdefault(name, {})[fold] = np.array(
            [
                word_counts(self.normaliser(one.text), self.normaliser(held[one.utterance_id])).errors
                for one in self.tests[fold]
            ]
        )

    def lengths(self, folds: list[int]) -> np.ndarray:
        """Reference words of every utterance."""
        return np.array([len(self.normaliser(one.text).split()) for fold in folds for one in self.tests[fold]])

    def to_json(self, name: str, base: str) -> dict[str, Any]:
        """WER over the folds that this row has, by fold, and the paired difference to the row ``base``."""
        errors, folds = self.rows[name], sorted(self.rows[name])
        own = np.concatenate([errors[fold] for fold in folds])
        speakers = [str(one.speaker_id) for fold in folds for one in self.tests[fold]]
        lengths = self.lengths(folds)
        interval = bootstrap_interval(own, lengths, speakers)
        found: dict[str, Any] = {
            "name": name,
            "errors": int(own.sum()),
            "words": int(lengths.sum()),
            "wer": float(own.sum() / lengths.sum()),
            "interval": interval.to_json() if interval else None,
            "by_fold": {fold: float(errors[fold].sum() / self.lengths([fold]).sum()) for fold in folds},
        }
        if name != base and set(folds) <= set(self.rows.get(base, {})):
            against = np.concatenate([self.rows[base][fold] for fold in folds])
            found["from_base"] = paired_difference(against, own, lengths, speakers).to_json()
        return found

    def write(self, base: str) -> str:
        """``ablation.json`` and its Markdown."""
        rows = [self.to_json(name, base) for name in self.rows]
        facts = {name: str(value) for name, value in vars(self.options).items()}
        write_json(self.options.out / "ablation.json", {"rows": rows, "options": facts, **provenance(0)})
        lines = [f"| row | WER % [95 %] | by fold | against {base} |", "|---|---|---|---|"]
        for row in rows:
            sure, gap = "", ""
            if row["interval"]:
                sure = f" [{100 * row['interval']['low']:.1f}, {100 * row['interval']['high']:.1f}]"
            if change := row.get("from_base"):
                low, high = (100 * change["interval"][end] for end in ("low", "high"))
                gap = f"{100 * change['difference']:+.1f} [{low:+.1f}, {high:+.1f}]"
            folds = ", ".join(f"{100 * value:.1f}" for value in row["by_fold"].values())
            lines.append(f"| {row['name']} | {100 * row['wer']:.1f}{sure} | {folds} | {gap} |")
        text = "\n".join(lines) + "\n"
        (self.options.out / "ablation.md").write_text(text, encoding="utf-8")
        return text


def searches(options: argparse.Namespace, fold: int) -> dict[str, list[str]]:
    """Ways of decoding the fold: greedy, beams, and beams with a language model of the fold's training text."""
    found: dict[str, list[str]] = {"": []}
    if options.beams:
        found[", 8 beams"] = BEAMS
    if options.lm:
        place = folded(options, fold, False)
        arpa = options.out / f"fold{fold}.arpa"
        if not arpa.is_file():
            command(options, "lm", "train", str(place), "--split", "train", "--out", str(arpa), "--quiet")
        found[", 8 beams, language model"] = [*BEAMS, f"decoding.lm.model={arpa}:0.5+{options.lm}:0.5"]
    return found


def place_of(label: str, names: list[str]) -> int:
    """Where a row stands: in the order that was asked for, its ways of decoding together."""
    return next((place for place, name in enumerate(names) if label.startswith(name)), len(names))


def main() -> None:
    """Train what is missing, decode, and write the table after every row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--children", type=Path, required=True)
    parser.add_argument("--adults", type=Path, required=True)
    parser.add_argument("--folds", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=["recipe", "plain"])
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument(
        "--full-share", type=float, help="another share of the clips at 30 s; 0.03 takes two thirds of the time"
    )
    parser.add_argument("--precision", default="fp32", choices=["fp32", "bf16"], help="arithmetic of the trainings")
    parser.add_argument("--contexts", nargs="+", default=["fit"], choices=["fit", "full"])
    parser.add_argument("--beams", action="store_true", help="also decode with eight beams")
    parser.add_argument("--lm", help="a general language model to mix with the training transcripts', as in english")
    parser.add_argument("--adults-too", action="store_true", help="every row learns from the adults, too")
    parser.add_argument("--stock", action="store_true", help="also the stock model at full context")
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    for fold in options.folds:
        for with_adults in (False, True):
            folded(options, fold, with_adults)
    table = Table(options)

    def one(job: tuple[str, int]) -> list[tuple[str, int, Path]]:
        name, fold = job
        found = []
        if name == "stock":
            for way, words in searches(options, fold).items():
                label = f"stock at full context{way}"
                done = decoded(options, "whisper-tiny.en", label, fold, *words, context="full")
                found.append((label, fold, done))
        else:
            run = trained(options, name, fold)
            short = run.name.rpartition("-")[0]
            for context in options.contexts:
                for way, words in searches(options, fold).items():
                    done = decoded(options, str(run), f"{short}{way}", fold, *words, context=context)
                    found.append((f"{name}{way}{', full context' if context == 'full' else ''}", fold, done))
        print(json.dumps({"done": name, "fold": fold}), flush=True)
        return found

    names = [*(["stock"] if options.stock else []), *options.rows]
    jobs = [(name, fold) for name in names for fold in options.folds]
    with ThreadPoolExecutor(options.jobs) as pool:
        for done in [pool.submit(one, job) for job in jobs]:
            for label, fold, transcripts in done.result():
                table.add(label, fold, transcripts)
            table.write(options.rows[0])
    table.rows = dict(sorted(table.rows.items(), key=lambda row: place_of(row[0], names)))
    print(table.write(options.rows[0]))


if __name__ == "__main__":
    main()
