"""Several adapters from one recipe: each learns from its own slice and from nothing else."""

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

from speechtune.core.errors import InputError
from speechtune.training.adapter_set import slices_of
from speechtune.training.recipe import load_recipe

A = {"name": "odd", "where": ["speaker_id=s1,s3,s5"]}
B = {"name": "even", "where": ["speaker_id=s0,s2,s4"]}
FAST: dict[str, Any] = {
    "training": {"epochs": 1, "trackers": [], "batch": {"utterances": 4}, "learning_rate": 0.01},
    "evaluation": {"contexts": ["fit"], "scoring": {"resamples": 10}},
}


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_training_one_adapter_leaves_the_other_and_the_base_bit_identical(
    write_recipe: Callable[..., Path],
    tmp_path: Path,
    tiny_model: Path,
    tiny_corpus: Path,
    speechtune: Callable[..., subprocess.CompletedProcess[str]],
) -> None:
    """Trained after another adapter or alone, an adapter is the same; so is one that was killed and resumed."""
    base = digest(tiny_model / "model.safetensors")
    both = write_recipe(adapter={"kind": "lora", "rank": 2, "per": [A, B]}, **FAST)
    done = speechtune("train", both, "--out", tmp_path / "both", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    alone = write_recipe(adapter={"kind": "lora", "rank": 2, "per": [B]}, **FAST)
    assert speechtune("train", alone, "--out", tmp_path / "alone", "--quiet").returncode == 0
    weights = "adapter_model.safetensors"
    even, odd = (tmp_path / "both" / "adapters" / name / weights for name in ("even", "odd"))
    assert digest(even) == digest(tmp_path / "alone" / "adapters" / "even" / weights) != digest(odd)
    assert digest(tiny_model / "model.safetensors") == base
    summary = json.loads(done.stdout)
    assert summary["adapters"]["even"]["kept"] + summary["adapters"]["odd"]["kept"] == summary["kept"] == 16
    rows = (tmp_path / "both" / "slices" / "odd" / "metadata.jsonl").read_text().splitlines()
    assert {json.loads(row)["speaker_id"] for row in rows} == {"s1", "s3", "s5"}
    heard = speechtune("transcribe", even.parent, tiny_corpus, "--split", "dev", "--json", "--quiet")
    assert heard.returncode == 0, heard.stderr
    refused = speechtune("transcribe", tmp_path / "both", tiny_corpus)
    assert refused.returncode == 2 and "several adapters (even, odd)" in refused.stderr


def test_a_set_killed_in_its_second_adapter_is_resumed_to_the_same_adapters(
    write_recipe: Callable[..., Path], tmp_path: Path, speechtune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    recipe = write_recipe(
        adapter={"kind": "adalora", "rank": 2, "per": [A, B]}, **{**FAST, "training": {**FAST["training"], "epochs": 3}}
    )
    assert speechtune("train", recipe, "--out", tmp_path / "whole", "--quiet").returncode == 0
    hook = (
        "import os, signal, sys, transformers\noriginal = transformers.Trainer.training_step\n"
        "def step(self, *a, **k):\n"
        "    if 'parts/even' in self.args.output_dir and self.state.global_step == 4:\n"
        "        os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return original(self, *a, **k)\n"
        "transformers.Trainer.training_step = step\nsys.argv[0] = 'speechtune'\n"
        "from speechtune.cli.app import main\nmain()"
    )
    words = ["train", str(recipe), "--out", str(tmp_path / "killed"), "--quiet"]
    killed = subprocess.run([sys.executable, "-c", hook, *words], env=os.environ, capture_output=True)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert not (tmp_path / "killed" / "run.json").exists()
    done = speechtune(*words, "--resume")
    assert done.returncode == 0, done.stderr
    for name in ("odd", "even"):
        one, other = (tmp_path / run / "adapters" / name / "adapter_model.safetensors" for run in ("whole", "killed"))
        assert digest(one) == digest(other)


@pytest.mark.parametrize(
    ("per", "words"),
    [
        ("shoe_size", "has the column 'shoe_size'"),
        ([A, {**B, "name": "odd"}], "two adapters would be called 'odd'"),
        ([{"name": "x", "where": ["speaker_id=nobody"]}], "has no utterance in the train split"),
    ],
)
def test_slices_that_cannot_be_are_refused(write_recipe: Callable[..., Path], per: Any, words: str) -> None:
    from speechtune.corpus.table import Corpus

    recipe = load_recipe(write_recipe(adapter={"kind": "lora", "per": per}))
    with pytest.raises(InputError, match=words):
        slices_of(recipe, Corpus.load(recipe.data.corpus))
