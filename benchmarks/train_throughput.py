"""Training speed and quality against the plain Hugging Face recipe, side by side in one run.

The plain recipe is the one in Hugging Face's Whisper tutorials: ``Seq2SeqTrainer``, features padded to
30 s by ``WhisperFeatureExtractor``, a collator that pads labels with -100. (With the collator's known
fault corrected: labels begin after ``<|startoftranscript|>``, which the model adds itself.) Its features
are computed before the clock starts, as the tutorials do; ours are computed inside it. Same utterances,
same weights, same batch size, same optimiser, same cores.

Speed: both train on the same draws of utterances in turn, several rounds; utterances per second of each
round, and the ratio of each pair. Quality: both train for the same epochs; WER on held-out speakers with
intervals, and the paired difference.

    python benchmarks/train_throughput.py speed --corpus CORPUS --model whisper-tiny.en
    python benchmarks/train_throughput.py quality --corpus CORPUS --model whisper-tiny.en --epochs 2
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.files import write_json
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus, Utterance


def plain_dataset(corpus: Corpus, utterances: list[Utterance], processor: Any) -> list[dict[str, Any]]:
    """The tutorial's ``prepare_dataset``: 30 s features and label ids of every utterance."""
    from speechtune.audio.io import load_audio

    rows = []
    for utterance in utterances:
        waveform = load_audio(corpus.path_of(utterance))
        features = processor.feature_extractor(waveform, sampling_rate=16_000).input_features[0]
        rows.append({"input_features": features, "labels": processor.tokenizer(utterance.text.lower()).input_ids})
    return rows


class PlainCollator:
    """The tutorial's ``DataCollatorSpeechSeq2SeqWithPadding``, without the doubled start token."""

    def __init__(self, processor: Any, start: int) -> None:
        self.processor = processor
        self.start = start

    def __call__(self, rows: list[dict[str, Any]]) -> dict[str, Any]:
        """Pad features (already 30 s) and labels; padding becomes -100, the first start token is cut."""
        batch = self.processor.feature_extractor.pad(
            [{"input_features": row["input_features"]} for row in rows], return_tensors="pt"
        )
        labels = self.processor.tokenizer.pad([{"input_ids": row["labels"]} for row in rows], return_tensors="pt")
        ids = labels["input_ids"].masked_fill(labels.attention_mask.ne(1), -100)
        if (ids[:, 0] == self.start).all():
            ids = ids[:, 1:]
        batch["labels"] = ids
        return dict(batch)


def train_plain(model: Path, corpus: Corpus, utterances: list[Utterance], settings: Any, out: Path) -> dict[str, Any]:
    """Train the plain recipe; seconds exclude feature extraction and saving."""
    import torch
    from transformers import (
        PrinterCallback,
        Seq2SeqTrainer,
        Seq2SeqTrainingArguments,
        WhisperForConditionalGeneration,
        WhisperProcessor,
    )

    network = WhisperForConditionalGeneration.from_pretrained(model, dtype=torch.float32)
    processor = WhisperProcessor.from_pretrained(model)
    rows = plain_dataset(corpus, utterances, processor)
    arguments = Seq2SeqTrainingArguments(
        output_dir=str(out),
        per_device_train_batch_size=settings.batch,
        num_train_epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        warmup_steps=0.1,
        weight_decay=0.01,
        optim="adamw_torch_fused",
        use_cpu=not torch.cuda.is_available(),
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        remove_unused_columns=False,
        seed=settings.seed,
    )
    trainer = Seq2SeqTrainer(
        model=network,
        args=arguments,
        train_dataset=rows,
        data_collator=PlainCollator(processor, network.config.decoder_start_token_id),
    )
    trainer.remove_callback(PrinterCallback)
    start_s = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - start_s
    if settings.keep:
        network.save_pretrained(out / "model")
        processor.save_pretrained(out / "model")
        processor.feature_extractor.save_pretrained(out / "model")
    return {"seconds": seconds, "seen": len(utterances) * settings.epochs}


def train_ours(model: Path, corpus: Corpus, utterances: list[Utterance], settings: Any, out: Path) -> dict[str, Any]:
    """Train with speechtune's own loop and default audio context; seconds include decoding and features."""
    from transformers import PrinterCallback, set_seed

    from speechtune.corpus.config import DataConfig
    from speechtune.models.family import load_family
    from speechtune.training.config import TrainingConfig
    from speechtune.training.data import TrainingSet, sampler_for
    from speechtune.training.trainer import SpeechTrainer, training_arguments

    config = TrainingConfig(
        epochs=settings.epochs,
        learning_rate=settings.learning_rate,
        batch={"utterances": settings.batch},
        seed=settings.seed,
        trackers=[],
    )
    family: Any = load_family(model)
    data = TrainingSet(corpus, utterances, family, DataConfig(corpus=str(corpus.root), case="lower"))
    sampler = sampler_for(config, data)
    arguments = training_arguments(config, out, family.model.device.type, len(sampler))
    set_seed(settings.seed)
    trainer = SpeechTrainer(family.model, arguments, data, sampler, evaluate=dict, callbacks=[])
    trainer.remove_callback(PrinterCallback)
    start_s = time.monotonic()
    trainer.train()
    seconds = time.monotonic() - start_s
    if settings.keep:
        family.save(out / "model")
    return {"seconds": seconds, "seen": len(utterances) * settings.epochs}


def child(settings: argparse.Namespace) -> None:
    """One training in a process of its own, so that peak memory is its own."""
    corpus = Corpus.load(settings.corpus)
    utterances = corpus.split("train").utterances
    if settings.utterances:
        draw = random.Random(settings.seed)
        utterances = draw.sample(utterances, settings.utterances)
    function = train_plain if settings.system == "plain" else train_ours
    result = function(settings.model_path, corpus, utterances, settings, settings.out)
    peak_gib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps({**result, "peak_memory_gib": round(peak_gib, 2)}))


def run_child(system: str, settings: argparse.Namespace, **changes: Any) -> dict[str, Any]:
    """Start `child` for one system and read its result."""
    values = {**vars(settings), **changes}
    arguments = [sys.executable, __file__, "child", "--system", system, "--corpus", str(values["corpus"])]
    for name in ("model_path", "utterances", "epochs", "batch", "learning_rate", "seed", "out"):
        arguments += [f"--{name.replace('_', '-')}", str(values[name])]
    if values.get("keep"):
        arguments.append("--keep")
    done = subprocess.run(arguments, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def speed(settings: argparse.Namespace) -> dict[str, Any]:
    """Rounds of both systems in turn (the order alternates); each round another draw of utterances."""
    settings.utterances = settings.utterances or 96
    rounds = []
    for number in range(settings.rounds):
        order = ["plain", "speechtune"] if number % 2 == 0 else ["speechtune", "plain"]
        found: dict[str, Any] = {}
        with tempfile.TemporaryDirectory() as scratch:
            for system in order:
                found[system] = run_child(system, settings, seed=number, epochs=1, out=Path(scratch), keep=False)
        for result in found.values():
            result["utterances_per_s"] = round(result["seen"] / result["seconds"], 3)
        found["ratio"] = round(found["speechtune"]["utterances_per_s"] / found["plain"]["utterances_per_s"], 2)
        rounds.append(found)
        print(json.dumps(found), file=sys.stderr)
    ratios = [one["ratio"] for one in rounds]
    return {"rounds": rounds, "ratio": {"median": float(np.median(ratios)), "min": min(ratios), "max": max(ratios)}}


def quality(settings: argparse.Namespace) -> dict[str, Any]:
    """Same epochs, then WER on the dev split: plain at full context (its own), ours at both."""
    from speechtune.decoding.sources import open_model, transcribe_to
    from speechtune.scoring.score import compare, score_transcripts

    results: dict[str, Any] = {"trained": {}, "wer": {}}
    dev = Corpus.load(settings.corpus).split("dev")
    scores = {}
    for system in ("plain", "speechtune"):
        folder = settings.out / system
        model = folder / "model"
        if not (model / "config.json").is_file():
            results["trained"][system] = run_child(
                system, settings, out=folder, utterances=settings.utterances or 0, keep=True
            )
        for context in ["full"] if system == "plain" else ["fit", "full"]:
            opened = open_model(str(model), context=context)
            transcripts = transcribe_to(opened, dev, folder / f"dev.{context}.jsonl")
            score = score_transcripts(dev, transcripts, language="en")
            scores[system, context] = score
            interval = score.interval
            results["wer"][f"{system} {context}"] = {
                "wer": score.wer,
                "interval": [interval.low, interval.high] if interval else None,
            }
    results["difference"] = {
        context: compare(scores["plain", "full"], scores["speechtune", context]).wer.to_json()
        for context in ("fit", "full")
    }
    return results


def main() -> None:
    """Read the command line and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", choices=["speed", "quality", "child"])
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--model", default="whisper-tiny.en")
    parser.add_argument("--model-path", type=Path)
    parser.add_argument("--utterances", type=int, help="training utterances (speed: 96 a round; quality: all)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("runs/train_throughput"))
    parser.add_argument("--system", choices=["plain", "speechtune"])
    parser.add_argument("--keep", action="store_true")
    settings = parser.parse_args()
    if settings.part == "child":
        child(settings)
        return
    from speechtune.models.obtaining import resolve_model

    settings.model_path = resolve_model(settings.model)
    result = {settings.part: (speed if settings.part == "speed" else quality)(settings), **provenance(settings.seed)}
    write_json(settings.out / f"{settings.part}.json", result)
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
