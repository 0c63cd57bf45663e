"""A sweep: which combinations, what is kept and gone on with, and the table."""

from __future__ import annotations

import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from speechtune.cli.app import build
from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.training.recipe import Recipe, load_recipe
from speechtune.training.run import Run, train
from speechtune.training.sweep import SweepOptions, over_seeds, sweep
from speechtune.training.sweep_space import Searcher, read_space

FAST: dict[str, Any] = {
    "training": {"epochs": 1, "trackers": [], "batch": {"utterances": 8}, "preflight": False},
    "evaluation": {"contexts": ["fit"], "baseline_contexts": ["fit"], "scoring": {"resamples": 10}},
}


class Pretend:
    """A training whose WER is a formula of its settings, written as a run writes it."""

    def __init__(self, wer: Callable[[Recipe], float]) -> None:
        self.wer = wer
        self.seen: list[Recipe] = []

    def __call__(self, recipe: Recipe, directory: Path, *, resume: bool) -> Run:
        self.seen.append(recipe)
        value = self.wer(recipe)
        if math.isnan(value):
            raise SpeechtuneError("it diverged")
        directory.mkdir(parents=True, exist_ok=True)
        score = {"wer": value, "interval": {"low": value - 0.01, "high": value + 0.01}}
        row = {"set": "dev", "role": "target", "system": "after", "context": "fit", "score": score}
        (directory / "scores.json").write_text(json.dumps({"measurements": [row]}))
        (directory / "recipe.yaml").write_text(json.dumps(recipe.model_dump()))
        (directory / "run.json").write_text("{}")
        return Run(directory, {})


def rate_of(recipe: Recipe) -> float:
    """Least at a rate of 1e-4."""
    return 0.2 + abs(math.log10(recipe.training.learning_rate) + 4) / 10


def test_values_are_cut_at_commas_outside_brackets_and_combined_in_order() -> None:
    space = read_space(["adapter.targets=[attention],[attention,mlp]", "training.seed=0,1"], [])
    assert space.grid["adapter.targets"] == ["[attention]", "[attention,mlp]"]
    wanted = list(itertools.product(["[attention]", "[attention,mlp]"], ["0", "1"]))
    assert [tuple(one.values()) for one in space.combinations()] == wanted


@pytest.mark.parametrize(
    ("grid", "ranges", "says"),
    [
        (["training.seed"], [], "is not key=values"),
        (["training.seed=0,0"], [], "names a value twice"),
        (["a=[1"], [], "not closed"),
        (["a=1"], ["a=1:2"], "varied twice"),
        ([], ["a=2:1"], "must rise"),
        ([], ["a=0:1:log"], "begin above 0"),
        ([], ["a=1"], "is not low:high"),
        ([], [], "nothing is varied"),
    ],
)
def test_what_cannot_be_varied_is_one_sentence(grid: list[str], ranges: list[str], says: str) -> None:
    with pytest.raises(InputError, match=says):
        read_space(grid, ranges)


def test_every_combination_is_trained_once_and_the_best_stands_first(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """With a training that fails, one call finishes what it can, and the next tries only the failed one again."""
    grid = ["training.learning_rate=1e-5,1e-4,1e-3", "training.seed=0,1"]
    options = SweepOptions(write_recipe(), ["training.epochs=1"], grid)
    broken = Pretend(lambda one: math.nan if one.training.learning_rate == 1e-3 else rate_of(one))
    found = sweep(options, tmp_path / "s", broken)
    assert len(broken.seen) == 6 and all(one.training.epochs == 1 for one in broken.seen)
    assert found["rows"][0]["wer"] == pytest.approx(0.2) and found["rows"][-1]["error"] == "it diverged"
    whole = Pretend(rate_of)
    again = sweep(options, tmp_path / "s", whole)
    assert [one.training.learning_rate for one in whole.seen] == [1e-3, 1e-3]
    assert [round(one["mean"], 6) for one in again["seeds"]] == [0.2, 0.3, 0.3] and again["seeds"][0]["runs"] == 2
    with pytest.raises(InputError, match="holds a sweep with grid"):
        sweep(SweepOptions(options.recipe, options.overrides, grid[:1]), tmp_path / "s", whole)


def test_a_wrong_value_is_said_before_anything_is_trained(write_recipe: Callable[..., Path], tmp_path: Path) -> None:
    pretend = Pretend(rate_of)
    with pytest.raises(InputError, match="epochs"):
        sweep(SweepOptions(write_recipe(), grid=["training.epochs=1,0"]), tmp_path / "s", pretend)
    assert not pretend.seen


@pytest.mark.parametrize("method", ["random", "tpe"])
def test_an_interrupted_search_goes_on_with_the_same_draws(
    method: str, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    pytest.importorskip("optuna")
    ranges = ["training.learning_rate=1e-6:1e-2:log", "training.warmup_steps=0:5"]
    options = SweepOptions(
        write_recipe(), ranges=ranges, grid=["training.schedule=linear,cosine"], trials=6, method=method
    )
    whole = sweep(options, tmp_path / "whole", Pretend(rate_of))
    count = iter(range(3))

    def killed(recipe: Recipe) -> float:
        if next(count, None) is None:
            raise KeyboardInterrupt
        return rate_of(recipe)

    with pytest.raises(KeyboardInterrupt):
        sweep(options, tmp_path / "cut", Pretend(killed))
    assert sweep(options, tmp_path / "cut", Pretend(rate_of))["rows"] == whole["rows"]
    rates = [float(one["params"]["training.learning_rate"]) for one in whole["rows"]]
    assert all(1e-6 <= rate <= 1e-2 for rate in rates) and len(set(rates)) == 6


def test_tpe_finds_the_valley_that_chance_does_not() -> None:
    pytest.importorskip("optuna")
    space = read_space([], ["x=-10:10"])
    best = {}
    for method in ("random", "tpe"):
        searcher, found = Searcher(read_space([], ["x=-10.5:10.5"]), method, 0, 5), []
        for number in range(40):
            values = searcher.draw(number)
            found.append((values["x"] - 3) ** 2)
            searcher.learn(values, found[-1])
        best[method] = sorted(found)[5]
    assert best["tpe"] < best["random"] and space.ranges["x"].whole


def test_one_row_alone_is_no_mean_over_seeds() -> None:
    assert over_seeds([]) == []


def test_the_verb_trains_and_takes_the_stock_transcripts_from_the_first_run(
    write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    """Two real trainings: the weights are those of ``train``, and only the first decodes the stock model."""
    recipe = write_recipe(**FAST)
    words = ["sweep", str(recipe), "--grid", "training.learning_rate=1e-9,1e-3", "--out", str(tmp_path / "s"), "--json"]
    done = CliRunner().invoke(build(), [*words, "--quiet"])
    assert done.exit_code == 0, done.output
    found = json.loads(done.stdout)
    assert {one["params"]["training.learning_rate"] for one in found["rows"]} == {"1e-9", "1e-3"}
    first, second = sorted((tmp_path / "s" / "runs").iterdir())
    name = "transcripts/dev.before.fit.jsonl"
    assert (first / name).read_bytes() == (second / name).read_bytes()
    assert os.stat(second / name).st_mtime_ns < os.stat(second / "provenance.json").st_mtime_ns
    train(load_recipe(recipe, ["training.learning_rate=1e-3"]), tmp_path / "alone")
    weights = "model/model.safetensors"
    assert (tmp_path / "alone" / weights).read_bytes() == (second / weights).read_bytes()
    again = CliRunner().invoke(build(), [*words, "--quiet"])
    assert json.loads(again.stdout) == found
    refused = CliRunner().invoke(build(), ["sweep", str(recipe), "--out", str(tmp_path / "t")])
    assert refused.exit_code == 2 and "nothing is varied" in refused.output
