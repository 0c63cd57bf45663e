"""Several trainings in one run: each from the weights of the one before, resumable inside any of them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from speechtune.core.errors import InputError
from speechtune.training.recipe import Recipe, load_recipe
from speechtune.training.stages import stage_seed, stages_of

STAGES: list[dict[str, Any]] = [
    {"name": "decoder", "model": {"train": "decoder"}, "training": {"epochs": 1, "learning_rate": 2e-3}},
    {
        "name": "all",
        "training": {
            "epochs": 2,
            "schedule": "cosine",
            "augment": {"effects": [{"kind": "gain", "gain_db": [-6, 6], "probability": 0.5}]},
        },
    },
]


def recipe_with(write_recipe: Callable[..., Path], stages: list[dict[str, Any]], **training: Any) -> Path:
    path = write_recipe(training={"epochs": 1, "batch": {"utterances": 4}, "trackers": [], **training})
    values = json.loads(path.read_text())
    path.write_text(json.dumps({**values, "stages": stages}))
    return path


def test_a_stage_is_the_recipe_with_its_own_keys(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = load_recipe(recipe_with(write_recipe, STAGES, dropout=0.1, learning_rate=5e-4))
    first, second = stages_of(recipe, tmp_path)
    assert first.directory == tmp_path / "stages" / "01-decoder"
    assert first.recipe.model.train == "decoder"
    assert second.recipe.model.train == "all"
    assert (first.recipe.training.learning_rate, second.recipe.training.learning_rate) == (2e-3, 5e-4)
    assert first.recipe.training.dropout == second.recipe.training.dropout == 0.1
    assert second.recipe.training.batch == recipe.training.batch
    assert not first.recipe.stages


def test_without_stages_a_run_is_one_training_in_its_own_directory(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = load_recipe(write_recipe())
    (only,) = stages_of(recipe, tmp_path)
    assert only.directory == tmp_path
    assert only.recipe is recipe


def test_stages_draw_differently_and_reproducibly() -> None:
    seeds = [stage_seed(3, number) for number in range(50)]
    assert seeds[0] == 3
    assert len(set(seeds)) == 50
    assert seeds == [stage_seed(3, number) for number in range(50)]
    assert not set(seeds[1:]) & {stage_seed(4, number) for number in range(50)}
    values = {"data": {"corpus": "x"}, "training": {"seed": 3}, "stages": [{"name": "a"}, {"name": "b"}]}
    assert [stage.recipe.training.seed for stage in stages_of(Recipe.model_validate(values), Path())] == seeds[:2]
    values["stages"] = [{"name": "a"}, {"name": "b", "training": {"seed": 9}}]
    assert stages_of(Recipe.model_validate(values), Path())[1].recipe.training.seed == 9


@pytest.mark.parametrize(
    ("stages", "sentence"),
    [
        (
            [{"name": "a", "training": {"learning_rat": 1}}],
            r"stages\.0 \(a\): unknown key 'training.learning_rat'; did",
        ),
        ([{"name": "a"}, {"name": "b", "training": {"epochs": 0}}], r"stages\.1 \(b\): training\.epochs"),
        ([{"name": "a"}, {"name": "a"}], "two stages are called 'a'"),
        ([{"name": "a", "model": {"base": "other"}}], r"model\.base cannot change between stages"),
        ([{"name": "a", "evaluation": {}}], "unknown key"),
    ],
)
def test_a_wrong_stage_is_one_sentence_before_anything_is_done(
    write_recipe: Callable[..., Path], stages: list[dict[str, Any]], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        load_recipe(recipe_with(write_recipe, stages))


KILL = """
import transformers
original = transformers.Trainer.training_step
def step(self, *a, **k):
    if '{stage}' in self.args.output_dir and self.state.global_step == {step}:
        os.kill(os.getpid(), signal.SIGKILL)
    return original(self, *a, **k)
transformers.Trainer.training_step = step
"""

KILL_BETWEEN = """
import speechtune.models.whisper as w
original = w.WhisperFamily.save
def save(self, folder):
    original(self, folder)
    os.kill(os.getpid(), signal.SIGKILL)
w.WhisperFamily.save = save
"""


def start(recipe: Path, run: Path, *words: str, hook: str = "") -> subprocess.CompletedProcess[str]:
    code = f"import sys, os, signal\n{hook}\nsys.argv[0] = 'speechtune'\nfrom speechtune.cli.app import main\nmain()"
    arguments = [sys.executable, "-c", code, "train", str(recipe), "--out", str(run), *words]
    return subprocess.run(arguments, text=True, capture_output=True, env={**os.environ, "OMP_NUM_THREADS": "1"})


def digest(folder: Path) -> str:
    return hashlib.sha256((folder / "model" / "model.safetensors").read_bytes()).hexdigest()


def test_killed_in_a_stage_and_resumed_the_weights_are_bit_identical(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = recipe_with(write_recipe, STAGES, checkpoint_every_steps=1, dropout=0.1, learning_rate=1e-3)
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    done = start(recipe, whole)
    assert done.returncode == 0, done.stderr
    for hook in (KILL.format(stage="02-all", step=0), KILL.format(stage="02-all", step=3)):
        killed = start(recipe, cut, "--resume", hook=hook)
        assert killed.returncode == -signal.SIGKILL, killed.stderr
        assert (cut / "stages" / "01-decoder" / "model" / "config.json").is_file()
        assert not (cut / "model").exists()
    before = (cut / "stages" / "01-decoder" / "model" / "model.safetensors").stat().st_mtime_ns
    assert start(recipe, cut, "--resume").returncode == 0
    assert (cut / "stages" / "01-decoder" / "model" / "model.safetensors").stat().st_mtime_ns == before
    assert digest(cut) == digest(whole) == digest(cut / "stages" / "02-all")
    assert digest(cut / "stages" / "01-decoder") == digest(whole / "stages" / "01-decoder") != digest(cut)
    for run in (whole, cut):
        rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        assert [row["epoch"] for row in rows if row["kind"] == "dev"] == [1.0, 2.0, 3.0]
        assert [row["stage"] for row in rows if row["kind"] == "dev"] == ["decoder", "all", "all"]
        steps = [row["step"] for row in rows]
        assert steps == sorted(steps)
        assert len(list((run / "transcripts").glob("*.before.*"))) == 2  # one set, two contexts: measured once
        assert (run / "report.html").is_file()
        assert json.loads((run / "preflight.json").read_text())["checks"]["all: loss"].startswith("loss ")
    summary = json.loads((whole / "run.json").read_text())
    assert [stage["name"] for stage in summary["stages"]] == ["decoder", "all"]
    # What the first stage froze was moved by the second only.
    first, last = (load_file(folder / "model" / "model.safetensors") for folder in (whole / "stages/01-decoder", whole))
    moved = [name for name in last if ".encoder." in name and not torch.equal(first[name], last[name])]
    assert moved
    base = load_file(Path(load_recipe(recipe).model.base) / "model.safetensors")
    assert all(torch.equal(first[name], base[name]) for name in first if ".encoder." in name and name in base)


def test_an_adapter_is_merged_before_a_full_stage(
    write_recipe: Callable[..., Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from speechtune.training.run import train

    stages = [
        {"name": "lora", "adapter": {"kind": "lora", "rank": 4, "alpha": 8}},
        {"name": "full", "training": {"learning_rate": 1e-12}},
    ]
    recipe = load_recipe(recipe_with(write_recipe, stages, learning_rate=1e-2, warmup_share=0))
    run = train(recipe, tmp_path / "run")
    assert "from what lora kept, its adapter merged into the weights" in capsys.readouterr().err
    adapted = load_file(tmp_path / "run/stages/01-lora/model/model.safetensors")
    base = load_file(Path(recipe.model.base) / "model.safetensors")
    final = load_file(Path(run.summary["model"]) / "model.safetensors")
    changed = [name for name in base if name in adapted and not torch.equal(base[name], adapted[name])]
    assert changed  # a vanishing rate in the second stage: the final weights are the merged ones
    assert all(torch.allclose(adapted[name], final[name], atol=1e-6) for name in adapted)
    assert not any("lora" in name for name in final)
