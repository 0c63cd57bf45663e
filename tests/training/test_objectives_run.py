"""Objectives in whole runs: columns, guards, several processes, stages, resume, mixed precision."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from safetensors.numpy import load_file

Command = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]

QUICK = ["--quiet", "evaluation.contexts=[fit]"]
TERMS: dict[str, Any] = {
    "kl": {"weight": 0.5, "anneal": "linear"},
    "l2sp": {"weight": 0.1},
    "acft": {"weight": 0.3},
    "layer_drop": {"encoder": 0.3, "decoder": 0.3},
    "encoder_masks": {"time_masks": 1},
}
GUARDS = [{"name": "dev", "split": "dev"}, {"name": "general", "split": "train", "role": "guard"}]


def rows(run: Path, kind: str) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] == kind]


def weights(run: Path) -> dict[str, Any]:
    return load_file(run / "model" / "model.safetensors")


def test_every_term_and_forgetting_are_columns_and_a_killed_run_continues_to_the_same_bits(
    write_recipe: Write, tmp_path: Path, speechtune: Command, tiny_corpus: Path
) -> None:
    terms = {**TERMS, "ewc": {"weight": 1.0, "corpus": str(tiny_corpus), "split": "dev", "utterances": 3}}
    recipe = write_recipe(
        training={"epochs": 2, "batch": {"utterances": 4, "accumulate": 2}, "trackers": [], "objectives": terms},
        evaluation={"sets": GUARDS, "guard_each": 5, "scoring": {"resamples": 50}},
    )
    done = speechtune("train", recipe, "--out", tmp_path / "whole", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    train = rows(tmp_path / "whole", "train")
    assert train
    for row in train:
        assert {"label_loss", "kl", "kl_weight", "l2sp", "acft", "ewc"} <= set(row)
    last = train[-1]
    by_hand = last["label_loss"] + 0.1 * last["l2sp"] + 0.3 * last["acft"] + last["ewc"]
    assert by_hand - 0.01 <= last["loss"] <= by_hand + 0.5 * last["kl"] + 0.01
    assert last["kl"] > 0
    assert last["l2sp"] > 0
    dev = rows(tmp_path / "whole", "dev")
    summary = json.loads(done.stdout)
    assert all(row["guard_wer"] >= 0 and "forgetting" in row for row in dev)
    guard = next(row for row in summary["comparisons"] if row["role"] == "guard")
    assert summary["forgetting"] == pytest.approx(100 * (guard["wer_after"] - guard["wer_before"]), abs=1e-3)

    killer = (
        "import os, signal, sys, transformers\n"
        "original = transformers.Trainer.training_step\n"
        "def step(self, *a, **k):\n"
        "    if self.state.global_step == 3: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return original(self, *a, **k)\n"
        "transformers.Trainer.training_step = step\n"
        "from speechtune.cli.app import main\nmain()"
    )
    parts = tmp_path / "parts"
    killed = subprocess.run(
        [sys.executable, "-c", killer, "train", str(recipe), "--out", str(parts), *QUICK], capture_output=True
    )
    assert killed.returncode == -9
    again = speechtune("train", recipe, "--out", parts, "--resume", *QUICK)
    assert again.returncode == 0, again.stderr
    one, two = weights(tmp_path / "whole"), weights(parts)
    assert all((one[name] == two[name]).all() for name in one)


def test_two_processes_with_objectives_equal_one_with_accumulation(write_recipe: Write, tmp_path: Path) -> None:
    terms = {name: TERMS[name] for name in ("kl", "l2sp", "acft")}
    recipe = str(write_recipe(training={"epochs": 1, "batch": {"utterances": 4}, "trackers": [], "objectives": terms}))
    common = ["training.audio_context.full_share=0", "training.audio_context.jitter_s=0", *QUICK]
    one, two = tmp_path / "one", tmp_path / "two"
    command = ["-m", "speechtune.cli", "train", recipe, *common]
    single = [sys.executable, *command, "training.batch.accumulate=2", "--out", str(one)]
    alone = subprocess.run(single, check=False, capture_output=True, text=True)
    assert alone.returncode == 0, alone.stderr[-3000:]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *command]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([*launch, "--out", str(two)], check=False, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-3000:]
    for first, second in zip(rows(one, "train"), rows(two, "train"), strict=True):
        for name in ("loss", "label_loss", "kl", "l2sp", "acft"):
            assert second[name] == pytest.approx(first[name], rel=1e-3, abs=1e-6), name
    left, right = weights(one), weights(two)
    assert max(float(abs(left[name] - right[name]).max()) for name in left) < 1e-5


def test_two_processes_with_an_adapter_skipped_blocks_and_no_labels(write_recipe: Write, tmp_path: Path) -> None:
    terms = {"label_weight": 0.0, "acft": {"weight": 1.0}, "layer_drop": {"encoder": 0.5, "decoder": 0.5}}
    recipe = str(
        write_recipe(
            training={"epochs": 1, "batch": {"utterances": 4}, "trackers": [], "objectives": terms},
            adapter={"kind": "lora", "rank": 2, "alpha": 4},
        )
    )
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, "-m", "speechtune.cli", "train", recipe, *QUICK, "--out", str(tmp_path / "run")],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    row = rows(tmp_path / "run", "train")[-1]
    assert row["loss"] == pytest.approx(row["acft"], rel=1e-2)


def test_bf16_checkpointing_consistency_and_distillation_run(
    write_recipe: Write, tmp_path: Path, speechtune: Command, tiny_model: Path
) -> None:
    terms = {
        "consistency": {"weight": 0.5},
        "distil": {"teacher": str(tiny_model), "kl": {"weight": 0.8}, "hidden": {"weight": 0.1}},
        "encoder_masks": {"time_masks": 2},
        "layer_drop": {"encoder": 0.2},
    }
    training = {
        "epochs": 1,
        "batch": {"utterances": 4, "accumulate": 2},
        "trackers": [],
        "precision": "bf16",
        "gradient_checkpointing": True,
        "objectives": terms,
    }
    done = speechtune("train", write_recipe(training=training), "--out", tmp_path / "run", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    row = rows(tmp_path / "run", "train")[-1]
    total = row["label_loss"] + 0.5 * row["consistency"] + 0.8 * row["distil_kl"] + 0.1 * row["distil_hidden"]
    assert row["loss"] == pytest.approx(total, rel=1e-2)


def test_a_student_is_trained_on_its_teacher_by_the_documented_way(
    write_recipe: Write, tmp_path: Path, speechtune: Command, tiny_model: Path, tiny_corpus: Path
) -> None:
    """shrink, then a recipe with the teacher's name."""
    student = tmp_path / "student"
    made = speechtune("models", "shrink", tiny_model, "--encoder-layers", "1", "--out", student, "--quiet")
    assert made.returncode == 0, made.stderr
    distil = {"teacher": str(tiny_model), "kl": {"weight": 0.8}, "hidden": {"weight": 1.0}}
    terms = {"label_weight": 0.0, "distil": distil}  # the teacher is random: its texts are not the labels
    recipe = write_recipe(
        data={"corpus": str(tiny_corpus)},
        model={"base": str(student)},
        training={"epochs": 8, "trackers": [], "objectives": terms},
    )
    done = speechtune("train", recipe, "--out", tmp_path / "run", "--json", *QUICK, "training.learning_rate=1e-3")
    assert done.returncode == 0, done.stderr
    found = rows(tmp_path / "run", "train")
    assert all(row["distil_hidden"] > 0 and row["distil_kl"] > 0 for row in found)
    half = len(found) // 2
    for name in ("distil_hidden", "distil_kl"):
        early, late = (sum(row[name] for row in part) / len(part) for part in (found[:half], found[half:]))
        assert late < early, f"{name}: the student does not come nearer to its teacher ({early} to {late})"


def test_guards_without_a_guard_set_are_refused(write_recipe: Write, tmp_path: Path, speechtune: Command) -> None:
    done = speechtune("train", write_recipe(), "--out", tmp_path / "run", "evaluation.guard_each=4", "--quiet")
    assert done.returncode == 2
    assert "role guard" in done.stderr


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("training.objectives.ewc.weight=1", "ewc.corpus"),
        ("training.objectives.distil.kl.weight=1", "distil.teacher"),
        ("training.objectives.label_weight=0", "nothing would be learnt"),
    ],
)
def test_half_a_block_is_refused(
    write_recipe: Write, tmp_path: Path, speechtune: Command, override: str, words: str
) -> None:
    done = speechtune("recipe", "check", write_recipe(), override, "--quiet")
    assert done.returncode == 2
    assert words in done.stderr
