"""Running averages against a computation by hand, and through a kill and a resume bit for bit."""

from __future__ import annotations

import functools
import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from speechtune.training.averaging import best_steps, candidates, inverse_weights
from speechtune.training.averaging_config import AveragesConfig
from speechtune.training.config import TrainingConfig
from speechtune.training.ema import RateChange, WeightAverage, ema_share, running_averages, swa_start

HISTORY = [{"step": 10 * (n + 1), "eval_wer": wer, "eval_loss": 2 * wer} for n, wer in enumerate((0.5, 0.2, 0.4, 0.3))]


def run_of(average: WeightAverage, values: list[float], steps: int) -> float:
    model = torch.nn.Linear(1, 1, bias=False)
    for place, value in enumerate(values, start=1):
        with torch.no_grad():
            model.weight.fill_(value)
        state: Any = SimpleNamespace(global_step=place, max_steps=steps)
        average.on_step_end(None, state, None, model=model)  # type: ignore[arg-type]
    return float(average.average["weight"])


def test_ema_and_swa_are_what_their_definitions_say() -> None:
    values = [1.0, 4.0, 2.0, 8.0, 5.0]
    (ema,) = running_averages(AveragesConfig(ema_decay=0.9, ema_warmup=False))
    expected = values[0]
    for value in values[1:]:
        expected = 0.9 * expected + 0.1 * value
    assert run_of(ema, values, 5) == pytest.approx(expected, rel=1e-6)
    (swa,) = running_averages(AveragesConfig(swa_from=0.4))
    assert run_of(swa, values, 5) == pytest.approx(sum(values[2:]) / 3, rel=1e-6)


def test_warm_up_forgets_the_start_and_ends_at_the_decay() -> None:
    share = ema_share(0.999, warmup=True)
    assert share(0) == pytest.approx(0.9)
    assert share(10**6) == pytest.approx(0.001)
    assert ema_share(0.999, warmup=False)(0) == pytest.approx(0.001)
    assert [swa_start(one)(10) for one in (0.0, 0.75, 0.99)] == [1, 8, 10]


def test_the_schedule_is_changed_at_once_and_only_once(tmp_path: Path) -> None:
    parameter = torch.nn.Parameter(torch.zeros(1))
    groups = [{"params": [parameter], "lr": 0.1}, {"params": [torch.nn.Parameter(torch.zeros(1))], "lr": 0.2}]
    optimiser = torch.optim.SGD(groups)
    decay = functools.partial(lambda step, of: 1 - step / of, of=10)
    scheduler = torch.optim.lr_scheduler.LambdaLR(optimiser, decay)
    factor = {"now": 1.0}
    change = RateChange(AveragesConfig(swa_from=0.5, swa_rate=0.05), 0.1, lambda: factor["now"])
    state: Any = SimpleNamespace(max_steps=10, global_step=0)
    seen = []
    for step in range(10):
        if step in (0, 7):
            factor["now"] = 1.0 if step == 0 else 0.5
            change.on_train_begin(None, state, None, lr_scheduler=scheduler)  # type: ignore[arg-type]
        seen.append([round(group["lr"], 6) for group in optimiser.param_groups])
        optimiser.step()
        scheduler.step()
        torch.save(scheduler.state_dict(), tmp_path / "scheduler.pt")
        torch.load(tmp_path / "scheduler.pt", weights_only=True)
    assert [row[0] for row in seen] == [0.1, 0.09, 0.08, 0.07, 0.06, 0.05, 0.05, 0.025, 0.025, 0.025]
    assert all(second == pytest.approx(2 * first) for first, second in seen)


def test_candidates_are_named_and_weighted() -> None:
    assert best_steps(HISTORY, 3) == [20, 30, 40]
    weights = inverse_weights([0.2, 0.4])
    assert sum(weights) == pytest.approx(1)
    assert weights[0] / weights[1] == pytest.approx(0.401 / 0.201)
    config = TrainingConfig(average_last=2, averages=AveragesConfig(best=2, weigh_by="loss"))
    found = candidates(HISTORY, config, None)
    assert [(one.name, one.steps) for one in found] == [
        ("last 2", (30, 40)),
        ("best 2", (20, 40)),
        ("best 2 weighted by dev loss", (20, 40)),
    ]
    assert all(sum(one.weights) == pytest.approx(1) for one in found)
    same = TrainingConfig(average_last=4, averages=AveragesConfig(best=4))
    assert [one.name for one in candidates(HISTORY, same, None)] == ["last 4"]
    assert candidates(HISTORY, TrainingConfig(), None) == []


KILL = """
import os, transformers
original = transformers.Trainer.training_step
def step(self, *a, **k):
    if self.state.global_step == {step}:
        os.kill(os.getpid(), 9)
    return original(self, *a, **k)
transformers.Trainer.training_step = step
"""


def test_every_candidate_is_compared_and_survives_a_kill(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    recipe = write_recipe(
        training={
            "epochs": 3,
            "batch": {"utterances": 4},
            "trackers": [],
            "preflight": False,
            "average_last": 2,
            "averages": {"best": 3, "weigh_by": "wer", "ema_decay": 0.9, "swa_from": 0.5, "swa_rate": 5e-4},
        }
    )

    def start(run: Path, *words: str, hook: str = "") -> int:
        code = f"import sys\n{hook}\nsys.argv[0] = 'speechtune'\nfrom speechtune.cli.app import main\nmain()"
        command = [sys.executable, "-c", code, "train", str(recipe), "--out", str(run), "--quiet", *words]
        return subprocess.run(command).returncode

    whole, killed = tmp_path / "whole", tmp_path / "killed"
    assert start(whole) == 0
    average = json.loads((whole / "average.json").read_text())
    names = [row["name"] for row in average["candidates"]]
    assert names[0] == "single"
    assert set(names[1:]) >= {"last 2", "best 3", "ema", "swa"}
    lowest = min(row["wer"] for row in average["candidates"])
    winner = next(row for row in average["candidates"] if row["name"] == average["winner"])
    assert winner["wer"] == lowest
    rates = [json.loads(line).get("learning_rate") for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert [one for one in rates if one is not None][-1] == pytest.approx(5e-4)
    assert start(killed, hook=KILL.format(step=9)) == -signal.SIGKILL
    assert start(killed, "--resume") == 0
    last = max((whole / "checkpoints").glob("checkpoint-*"), key=lambda path: int(path.name[11:]))
    for name in ("ema.safetensors", "swa.safetensors"):
        one, other = load_file(last / name), load_file(killed / "checkpoints" / last.name / name)
        assert all(torch.equal(one[key], other[key]) for key in one)
    files = [path / "model" / "model.safetensors" for path in (whole, killed)]
    assert files[0].read_bytes() == files[1].read_bytes()
