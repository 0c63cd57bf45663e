"""Two processes train what one process trains: by accumulation, by an effective batch, and with divided weights."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file

COMMAND = ["-m", "speechtune.cli", "train"]


def test_two_processes_equal_one_with_accumulation(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = str(write_recipe(evaluation={"contexts": ["fit"]}))
    # 16 utterances in batches of 4 without draws of the full window: an even number of batches an epoch.
    common = ["training.audio_context.full_share=0", "training.audio_context.jitter_s=0", "--quiet"]
    one, two = tmp_path / "one", tmp_path / "two"
    single = [sys.executable, *COMMAND, recipe, *common, "training.batch.accumulate=2", "--out", str(one)]
    subprocess.run(single, check=True, capture_output=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *COMMAND]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [*launch, recipe, *common, "--out", str(two)], check=False, capture_output=True, text=True, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    losses = [
        [row["loss"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row]
        for run in (one, two)
    ]
    assert len(losses[0]) == len(losses[1]) > 2
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, two)]
    assert max(float(abs(weights[0][name] - weights[1][name]).max()) for name in weights[0]) < 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("sharding", ["none", "fsdp"])
def test_an_effective_batch_is_the_same_for_one_process_and_for_two(
    write_recipe: Callable[..., Path], tmp_path: Path, sharding: str
) -> None:
    recipe = str(write_recipe(evaluation={"contexts": ["fit"]}))
    # Full context: at fit the context is the micro-batch's longest clip's, and the model sees it.
    common = ["training.audio_context.mode=full", "training.batch.effective=8", "training.average_last=2", "--quiet"]
    one, two = tmp_path / "one", tmp_path / "two"
    single = [sys.executable, *COMMAND, recipe, *common, "training.batch.utterances=3", "--out", str(one)]
    subprocess.run(single, check=True, capture_output=True)
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", *COMMAND]
    done = subprocess.run(
        [*launch, recipe, *common, f"training.sharding={sharding}", "--out", str(two)],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    divided = list(two.glob("checkpoints/checkpoint-*/pytorch_model_fsdp.bin"))
    assert bool(divided) == (sharding == "fsdp")
    losses = [
        [row["loss"] for row in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if "loss" in row]
        for run in (one, two)
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    weights = [load_file(run / "model" / "model.safetensors") for run in (one, two)]
    assert weights[0].keys() == weights[1].keys()
    assert max(float(abs(weights[0][name] - weights[1][name]).max()) for name in weights[0]) < 2e-6
