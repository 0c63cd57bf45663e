"""A tiny run with a planted NaN batch, one with a huge rate, and one that is killed after a rollback."""

from __future__ import annotations

import hashlib
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PLANT = """
import torch, transformers
import speechtune.training.data as d
original = d.TrainingSet.__getitem__
def item(self, pick):
    example, seconds = original(self, pick)
    if self.utterances[pick.index].utterance_id == 'u05' and pick.epoch == 1:
        example.waveform[:] = float('nan')
    return example, seconds
d.TrainingSet.__getitem__ = item
"""
KILL_AFTER_ROLLBACK = """
import os, signal
import speechtune.training.monitor.record as r
carry_out = r.Actions._carry_out
def later(self):
    if any(not one.done for one in self.all):
        os.kill(os.getpid(), signal.SIGKILL)
    carry_out(self)
r.Actions._carry_out = later
"""


def start(recipe: Path, run: Path, *words: str, hook: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys\n{hook}\nsys.argv[0] = 'speechtune'\nfrom speechtune.cli.app import main\nmain()"
    command = [sys.executable, "-c", code, "train", str(recipe), "--out", str(run), *words]
    return subprocess.run(command, capture_output=True, text=True)


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


@pytest.mark.parametrize("auto", [False, True])
def test_a_batch_that_gives_no_number_is_named_and_with_auto_survived(
    write_recipe: Callable[..., Path], tmp_path: Path, auto: bool
) -> None:
    recipe = write_recipe(
        training={"epochs": 2, "batch": {"utterances": 4}, "trackers": [], "monitor": {"auto": auto}, "dropout": 0.1}
    )
    run = tmp_path / "run"
    done = start(recipe, run, hook=PLANT)
    assert done.returncode == 0, done.stderr
    bad = json.loads((run / "bad_batch.json").read_text())
    assert "u05" in [row["utterance_id"] for row in bad["utterances"]]
    found = [row for row in rows(run / "monitor.jsonl") if row["kind"] == "not_finite"]
    assert found
    assert found[0]["step"] == bad["step"]
    assert "not a finite number" in done.stderr
    assert len({row["step"] for row in rows(run / "samples.jsonl")}) == 2
    if not auto:
        assert not (run / "monitor_actions.json").exists()
        return
    actions = json.loads((run / "monitor_actions.json").read_text())
    assert [(one["kind"], one["factor"]) for one in actions] == [("rollback", 0.5), ("rollback", 1.0)]
    metrics = [row for row in rows(run / "metrics.jsonl") if row["kind"] == "train"]
    assert all(row["loss"] == row["loss"] for row in metrics)
    assert "passing this step over" in done.stderr

    killed = start(recipe, tmp_path / "killed", hook=PLANT + KILL_AFTER_ROLLBACK)
    assert killed.returncode == -signal.SIGKILL
    again = start(recipe, tmp_path / "killed", "--resume", hook=PLANT)
    assert again.returncode == 0, again.stderr
    assert weights(tmp_path / "killed") == weights(run)


def test_a_huge_rate_is_called_divergence_and_halved_until_the_training_holds(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = write_recipe(
        training={
            "epochs": 8,
            "learning_rate": 2.0,
            "warmup_share": 0.0,
            "batch": {"utterances": 4},
            "trackers": [],
            "preflight": False,
            "max_grad_norm": 1e9,
            "monitor": {"rate_factor": 0.001},
        }
    )
    run = tmp_path / "run"
    done = start(recipe, run, "--auto")
    assert done.returncode == 0, done.stderr
    actions = json.loads((run / "monitor_actions.json").read_text())
    assert actions[0]["kind"] == "rollback"
    assert actions[0]["reason"] in ("divergence", "not_finite")
    metrics = [row for row in rows(run / "metrics.jsonl") if row["kind"] == "train"]
    assert metrics[-1]["loss"] < metrics[0]["loss"] + 1
    assert metrics[0]["learning_rate"] <= 2.0 * 0.001 ** len(actions) * 1.001
    assert {"memory_gib", "utterances_per_s", "audio_s_per_s"} <= set(metrics[-1])
    dev = [row for row in rows(run / "metrics.jsonl") if row["kind"] == "dev"]
    assert all(row["loss"] > 0 for row in dev)
    assert any("drift" in row for row in rows(run / "layers.jsonl"))
    assert any("grad_norm" in row for row in rows(run / "layers.jsonl"))
