"""Speed and peak memory of every way to train, as ratios to the plain Hugging Face recipe, in one run.

Each method is recipe keys over one base (full fine-tuning at fitted context) and goes through the whole road of
``speechtune train`` in a process of its own, on the same drawn utterances, weights, batch and cores. Methods come in
another order in every round. The plain recipe is that of `train_throughput` (``Seq2SeqTrainer``, 30 s features made
before the clock starts).

Utterances per second: those of the steps after the first, over the time of these steps (decoding audio, features, and
what the monitor measures included; evaluations left out). Memory: the most this process held resident, and on a GPU
torch's peak.

    python benchmarks/training.py --corpus CORPUS --model whisper-tiny.en --utterances 48 --rounds 3 --out DIR

The same command again measures only what is not there yet.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
from drawing import drawn_corpus

from speechtune.core.files import read_json, read_jsonl, write_json, write_text
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus

PLAIN = "plain Hugging Face recipe"

METHODS: dict[str, list[str]] = {
    "full fine-tuning, fitted context": [],
    "full fine-tuning, 30 s context": ["training.audio_context.mode=full"],
    "a tenth of the utterances at 30 s": ["training.audio_context.full_share=0.1"],
    "encoder only": ["model.train=encoder"],
    "decoder only": ["model.train=decoder"],
    "upper half of both sides": ["model.train={encoder: [0.5, 1.0], decoder: [0.5, 1.0]}"],
    "LayerNorms only": ["model.train=norms"],
    "LoRA, rank 16, attention": ["adapter.kind=lora", "adapter.rank=16", "adapter.targets=[attention]"],
    "LoRA, rank 16, attention and MLP": ["adapter.kind=lora", "adapter.rank=16", "adapter.targets=[attention, mlp]"],
    "DoRA, rank 16, attention": ["adapter.kind=dora", "adapter.rank=16", "adapter.targets=[attention]"],
    "gradient checkpointing": ["training.gradient_checkpointing=true"],
    "bf16": ["training.precision=bf16"],
    "Adafactor": ["training.optimiser.kind=adafactor"],
    "Muon": ["training.optimiser.kind=muon"],
    "8-bit AdamW": ["training.optimiser.kind=adamw_8bit"],
    "EMA": ["training.averages.ema_decay=0.99"],
    "SpecAugment and speed": ["training.spec_augment.time_prob=0.1", "training.speed.share=1.0"],
    "layer drop 0.2": ["training.objectives.layer_drop={encoder: 0.2, decoder: 0.2}"],
    "L2-SP": ["training.objectives.l2sp.weight=0.01"],
    "KL to the base": ["training.objectives.kl.weight=0.5"],
    "ACFT": ["training.objectives.label_weight=0", "training.objectives.acft.weight=1"],
    "consistency of two views": [
        "training.objectives.consistency.weight=0.2",
        "training.spec_augment.time_prob=0.1",
    ],
    "distillation from its own base": [
        "training.objectives.distil.teacher=MODEL",
        "training.objectives.distil.kl.weight=0.8",
    ],
    "GRPO, 4 samples": [
        "training.objectives.label_weight=0",
        "training.objectives.grpo={weight: 1.0, samples: 4, max_new_tokens: 40}",
        "training.batch={utterances: 4}",
    ],
}
"""Name and recipe keys of each method."""


def child(settings: argparse.Namespace) -> dict[str, Any]:
    """One short training in this process; what ``metrics.jsonl`` and the kernel say of it."""
    import torch
    from transformers.utils import logging

    from speechtune.core.progress import set_quiet
    from speechtune.training.recipe import load_recipe
    from speechtune.training.run import train

    logging.set_verbosity_error()
    set_quiet(True)
    overrides = [one.replace("MODEL", settings.model) for one in METHODS[settings.method]]
    train(load_recipe(settings.recipe, overrides), settings.out)
    rows = [row for row in read_jsonl(settings.out / "metrics.jsonl") if "utterances_per_s" in row][1:]
    # Rows cover the same number of utterances, so the rate of the whole is the harmonic mean.
    rate = len(rows) / sum(1 / row["utterances_per_s"] for row in rows)
    found = {"utterances_per_s": rate, "memory_gib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20}
    if torch.cuda.is_available():
        found["cuda_gib"] = torch.cuda.max_memory_allocated() / 2**30
    return found


def measured(name: str, settings: argparse.Namespace, corpus: Path, recipe: Path, out: Path) -> dict[str, Any]:
    """One method in a process of its own; one that cannot run here has the reason as its result."""
    script = Path(__file__)
    if name == PLAIN:
        command = [sys.executable, str(script.with_name("train_throughput.py")), "child", "--system", "plain"]
        command += ["--corpus", str(corpus), "--model-path", settings.model, "--utterances", "0", "--epochs", "1"]
        command += ["--batch", str(settings.batch), "--learning-rate", "3e-5", "--out", str(out)]
    else:
        command = [sys.executable, str(script), "--child", "--method", name, "--recipe", str(recipe)]
        command += ["--model", settings.model, "--out", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    shutil.rmtree(out, ignore_errors=True)
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or ["no message"])[-1][:300]}
    found: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    if name == PLAIN:
        return {"utterances_per_s": found["seen"] / found["seconds"], "memory_gib": found["peak_memory_gib"]}
    return found


def table(rounds: list[dict[str, dict[str, Any]]]) -> str:
    """Markdown: median and range over the rounds of speed and of its ratio to the plain recipe, greatest memory."""
    lines = ["| method | utterances/s | ratio to plain | peak memory, GiB |", "|---|---|---|---|"]
    for name in [PLAIN, *METHODS]:
        found = [(one[name], one[PLAIN]) for one in rounds if name in one and PLAIN in one]
        reasons = {str(own["failed"]) for own, _ in found if "failed" in own}
        if reasons:
            lines.append(f"| {name} | not run here: {'; '.join(sorted(reasons))} | | |")
        elif found:
            speeds = [own["utterances_per_s"] for own, _ in found]
            ratios = [own["utterances_per_s"] / plain["utterances_per_s"] for own, plain in found]
            memory = max(own.get("cuda_gib", own["memory_gib"]) for own, _ in found)
            ratio = f"{np.median(ratios):.1f} ({min(ratios):.1f} to {max(ratios):.1f})"
            lines.append(f"| {name} | {np.median(speeds):.2f} | {ratio} | {memory:.2f} |")
    return "\n".join(lines)


def main() -> None:
    """Measure what is missing, then print the table and write ``training.json`` and ``training.md``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path)
    parser.add_argument("--model", default="whisper-tiny.en")
    parser.add_argument("--utterances", type=int, default=48)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="*", help="only methods whose name has one of these words in it")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--method", help=argparse.SUPPRESS)
    parser.add_argument("--recipe", type=Path, help=argparse.SUPPRESS)
    settings = parser.parse_args()
    if settings.child:
        print(json.dumps(child(settings)))
        return
    if settings.corpus is None:
        parser.error("--corpus is missing")
    from speechtune.models.obtaining import resolve_model
    from speechtune.training.recipe import load_recipe

    settings.model = str(resolve_model(settings.model))
    chosen = [name for name in METHODS if not settings.only or any(word in name for word in settings.only)]
    file = settings.out / "training.json"
    rounds: list[dict[str, dict[str, Any]]] = read_json(file)["rounds"] if file.is_file() else []
    for number in range(settings.rounds):
        if number == len(rounds):
            rounds.append({})
        clips = {"train": settings.utterances, "dev": 1}
        corpus = drawn_corpus(Corpus.load(settings.corpus), settings.out / f"corpus-{number}", clips, number)
        recipe = settings.out / f"recipe-{number}.yaml"
        write_text(recipe, base_recipe(corpus, settings))
        for name in chosen:  # a key that is wrong ends the benchmark; only what this machine lacks becomes a row
            load_recipe(recipe, [one.replace("MODEL", settings.model) for one in METHODS[name]])
        order = [PLAIN, *chosen]
        random.Random(number).shuffle(order)
        for name in order:
            if name not in rounds[number]:
                rounds[number][name] = measured(name, settings, corpus, recipe, settings.out / "scratch")
                print(number, name, rounds[number][name], file=sys.stderr, flush=True)
                facts = {"utterances": settings.utterances, "batch": settings.batch, "model": settings.model}
                write_json(file, {"rounds": rounds, **facts, **provenance(None)})
    write_text(settings.out / "training.md", table(rounds) + "\n")
    print(table(rounds))


def base_recipe(corpus: Path, settings: argparse.Namespace) -> str:
    """The recipe that every method changes: one epoch, no trackers, as little evaluation as there can be."""
    values = {
        "data": {"corpus": str(corpus.resolve()), "case": "lower"},
        "model": {"base": settings.model},
        "training": {
            "epochs": 1,
            "learning_rate": 3e-5,
            "batch": {"utterances": settings.batch},
            "audio_context": {"jitter_s": 1.0, "full_share": 0.0},
            "trackers": [],
        },
        "decoding": {"max_new_tokens": 20},
        "evaluation": {"contexts": ["fit"], "baseline_contexts": ["fit"]},
    }
    return json.dumps(values, indent=1)


if __name__ == "__main__":
    main()
