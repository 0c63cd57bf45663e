"""Killed at any moment and resumed, a run ends with the very weights of an uninterrupted one."""

from __future__ import annotations

import hashlib
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from forked import Started

from speechtune.training.trainer import MANIFEST, checkpoints, is_complete, newest_complete


def weights(run: Path) -> str:
    return hashlib.sha256((run / "model" / "model.safetensors").read_bytes()).hexdigest()


def start(recipe: Path, run: Path, *words: str, hook: str = "") -> Started:
    """The real command; ``hook`` is Python that runs before it, to kill it at a chosen moment."""
    return Started(["train", recipe, "--out", run, "--quiet", *words], hook)


KILL_INSIDE_CHECKPOINT = """
import speechtune.training.trainer as t
from transformers import Trainer
original = Trainer._save_optimizer_and_scheduler
def save(self, folder):
    original(self, folder)
    if self.state.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
Trainer._save_optimizer_and_scheduler = save
"""

KILL_WHILE_PRUNING = """
import speechtune.training.trainer as t
import shutil
original = shutil.rmtree
def rmtree(path, *a, **k):
    if 'checkpoint-' in str(path):
        next(path.glob('*.safetensors')).unlink()
        os.kill(os.getpid(), signal.SIGKILL)
    return original(path, *a, **k)
t.shutil.rmtree = rmtree
"""

KILL_AT_STEP = """
import transformers
original = transformers.Trainer.training_step
def step(self, *a, **k):
    if self.state.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *a, **k)
transformers.Trainer.training_step = step
"""

KILL_WHILE_WRITING_MODEL = """
import speechtune.models.whisper as w
original = w.WhisperFamily.save
def save(self, folder):
    original(self, folder)
    os.kill(os.getpid(), signal.SIGKILL)
w.WhisperFamily.save = save
"""


DRAWS: dict[str, dict[str, object]] = {
    "none": {"spec_augment": {"time_prob": 0.1, "time_length": 4, "feature_prob": 0.1, "feature_length": 4}},
    "lora": {
        "spec_augment": {"time_masks": 2, "time_width": 20, "feature_masks": 1, "feature_width": 10},
        "augment": {
            "effects": [
                {"kind": "gain", "gain_db": [-6, 6], "probability": 0.5},
                {"kind": "noise", "snr_db": [5, 20], "sources": ["white", "babble"], "probability": 0.5},
            ]
        },
    },
}


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_the_weights_are_bit_identical_after_kills_at_every_kind_of_moment(
    write_recipe: Callable[..., Path], tmp_path: Path, adapter: str
) -> None:
    recipe = write_recipe(
        training={
            "epochs": 3,
            "learning_rate": 1e-3,
            "batch": {"utterances": 4, "accumulate": 2},
            "audio_context": {"jitter_s": 0.2, "full_share": 0.2},
            "checkpoint_every_steps": 1,
            "average_last": 2,
            "dropout": 0.1,
            "trackers": [],
            **DRAWS[adapter],
        },
        adapter={"kind": adapter, "rank": 4, "alpha": 8, "dropout": 0.2},
    )
    whole = start(recipe, tmp_path / "whole")
    assert whole.wait() == 0, whole.stderr()
    interrupted = tmp_path / "interrupted"
    for hook in (
        KILL_AT_STEP.format(step=1),
        KILL_INSIDE_CHECKPOINT.format(step=4),
        KILL_AT_STEP.format(step=5),
        KILL_WHILE_PRUNING,
        KILL_WHILE_WRITING_MODEL,
    ):
        process = start(recipe, interrupted, "--resume", hook=hook)
        assert process.wait() == -signal.SIGKILL, (hook, process.stderr())
        assert not (interrupted / "run.json").exists()
    last = start(recipe, interrupted, "--resume")
    assert last.wait() == 0, last.stderr()
    assert weights(interrupted) == weights(tmp_path / "whole")
    assert (interrupted / "metrics.jsonl").read_text().count('"dev"') == 3
    assert not list(interrupted.glob(".*"))


def test_an_interrupt_from_the_keyboard_leaves_a_run_that_resumes(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe, run = write_recipe(training={"epochs": 60, "batch": {"utterances": 4}, "trackers": []}), tmp_path / "run"
    process = start(recipe, run)
    deadline = time.monotonic() + 120
    while not list(run.glob("checkpoints/checkpoint-*/complete.json")) and time.monotonic() < deadline:
        time.sleep(0.1)
    os.kill(process.pid, signal.SIGINT)
    assert process.wait() == 130
    assert "interrupted" in process.stderr()
    assert newest_complete(run / "checkpoints") is not None


def test_a_checkpoint_counts_only_with_its_manifest_and_every_byte(tmp_path: Path) -> None:
    for step in (2, 10):
        folder = tmp_path / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "weights").write_bytes(b"1234")
        (folder / MANIFEST).write_text('{"weights": 4}')
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-10"
    (tmp_path / "checkpoint-10" / "weights").write_bytes(b"123")
    assert not is_complete(tmp_path / "checkpoint-10")
    assert newest_complete(tmp_path) == tmp_path / "checkpoint-2"
    assert [step for step, _ in checkpoints(tmp_path)] == [2]


def test_resume_refuses_another_recipe_and_another_corpus(
    write_recipe: Callable[..., Path], tmp_path: Path, speechtune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    run = tmp_path / "run"
    recipe = write_recipe()
    assert speechtune("train", recipe, "--out", run, "--quiet", "training.epochs=1").returncode == 0
    again = speechtune("train", recipe, "--out", run, "--quiet", "training.epochs=1")
    assert again.returncode == 2
    assert "--resume" in again.stderr
    (run / "run.json").unlink()
    other = speechtune("train", recipe, "--out", run, "--resume", "--quiet", "training.epochs=2")
    assert other.returncode == 2
    assert "training.epochs=1" in other.stderr
    assert "training.epochs=2" in other.stderr
