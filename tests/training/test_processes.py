"""Two processes over one plan train what one process with twice the accumulation trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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
