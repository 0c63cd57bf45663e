"""The average of checkpoints is their arithmetic mean, and replaces a single one only where it is no worse."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from speechtune.training.averaging import average_weights, evaluated_steps, set_weights

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_the_mean_is_over_trainable_weights_and_in_double_precision() -> None:
    model = torch.nn.Linear(2, 1)
    model.bias.requires_grad_(False)
    tiny = 1e-7
    stored = {1: 1.0, 2: 1.0 + tiny, 3: 1.0 - tiny}

    def load(step: int) -> None:
        with torch.no_grad():
            model.weight.fill_(stored[step])
            model.bias.fill_(step)

    mean = average_weights(model, [1, 2, 3], load)
    assert set(mean) == {"weight"}
    assert mean["weight"].dtype == torch.float32
    expected = torch.tensor([stored[step] for step in (1, 2, 3)]).double().mean()
    assert torch.allclose(mean["weight"].double(), expected.expand(1, 2), atol=1e-9)
    set_weights(model, {"weight": torch.full((1, 2), 7.0)})
    assert model.weight.tolist() == [[7.0, 7.0]]
    assert model.bias.item() == 3


def test_the_last_evaluations_are_taken_in_order() -> None:
    history = [{"step": 1, "loss": 2.0}, *({"step": step, "eval_wer": 1.0} for step in (2, 4, 6)), {"step": 6}]
    assert evaluated_steps(history, 2) == [4, 6]
    assert evaluated_steps(history, 9) == [2, 4, 6]


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_a_run_keeps_the_average_or_the_best_single_checkpoint(
    write_recipe: Callable[..., Path], speechtune: Command, tmp_path: Path, adapter: str
) -> None:
    recipe = write_recipe(
        training={"epochs": 3, "average_last": 3, "batch": {"utterances": 4}, "trackers": []},
        adapter={"kind": adapter, "rank": 4, "alpha": 8},
    )
    run = tmp_path / "run"
    done = speechtune("train", recipe, "--out", run, "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    average = json.loads((run / "average.json").read_text())
    assert len(average["steps"]) == 3
    assert average["chosen"] == (average["wer"] <= average["best_single_wer"])
    summary = json.loads((run / "run.json").read_text())
    assert summary["averaged_steps"] == (average["steps"] if average["chosen"] else None)
    folders = [run / "checkpoints" / f"checkpoint-{step}" for step in average["steps"]]
    name = "model.safetensors" if adapter == "none" else "adapter_model.safetensors"
    stored = [load_file(folder / name) for folder in folders]
    kept = load_file(run / ("model" if adapter == "none" else "adapter") / name)
    if average["chosen"]:
        for key, value in kept.items():
            expected = torch.stack([weights[key].double() for weights in stored]).mean(0).to(value.dtype)
            assert torch.equal(value, expected), key
    else:
        best = load_file(run / "checkpoints" / f"checkpoint-{summary['best_step']}" / name)
        assert all(torch.equal(kept[key], best[key]) for key in kept)
