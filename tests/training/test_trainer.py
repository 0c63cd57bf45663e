"""Which step is best, when patience is over, and which checkpoints are kept."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from speechtune.training.trainer import best_step, checkpoints, evaluations_since_best, mark_complete, prune


def log(*wers: float) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [{"step": 1, "loss": 2.0}]
    return rows + [{"step": 10 * (number + 1), "eval_wer": wer} for number, wer in enumerate(wers)]


@pytest.mark.parametrize(
    ("wers", "best", "since"),
    [
        ((), None, 0),
        ((0.5,), 10, 0),
        ((0.5, 0.4, 0.45, 0.6), 20, 2),
        ((0.5, 0.4, 0.4), 20, 1),
        ((0.3, 0.4, 0.2), 30, 0),
    ],
)
def test_the_best_is_the_lowest_wer_and_the_earliest_of_equals(
    wers: tuple[float, ...], best: int | None, since: int
) -> None:
    assert best_step(log(*wers)) == best
    assert evaluations_since_best(log(*wers)) == since


@pytest.mark.parametrize(("keep", "newest", "left"), [(20, 1, [20, 50]), (50, 2, [40, 50]), (10, 3, [10, 30, 40, 50])])
def test_the_best_and_the_newest_checkpoints_are_kept(tmp_path: Path, keep: int, newest: int, left: list[int]) -> None:
    for step in (10, 20, 30, 40, 50):
        (tmp_path / f"checkpoint-{step}").mkdir()
        (tmp_path / f"checkpoint-{step}" / "weights").write_text("1")
        mark_complete(tmp_path / f"checkpoint-{step}")
    prune(tmp_path, {keep}, newest)
    assert [step for step, _ in checkpoints(tmp_path)] == left


def test_a_run_stops_when_patience_is_over_and_keeps_the_best_epoch(
    write_recipe: Callable[..., Path], tmp_path: Path, speechtune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    """With a vanishing learning rate nothing changes, so the first epoch stays the best."""
    recipe = write_recipe(training={"epochs": 9, "learning_rate": 1e-12, "patience": 2, "trackers": []})
    done = speechtune("train", recipe, "--out", tmp_path / "run", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    dev = [row for row in rows if row["kind"] == "dev"]
    assert [row["epoch"] for row in dev] == [1.0, 2.0, 3.0]
    assert json.loads(done.stdout)["best_step"] == dev[0]["step"]
