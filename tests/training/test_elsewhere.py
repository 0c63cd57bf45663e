"""OWSM by a recipe: the room's side against a stand-in for ESPnet's process, and ESPnet itself where it is."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import stand_in_owsm
import tiny_ctc
import torch

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, read_jsonl
from speechtune.models import owsm
from speechtune.models.owsm import VARIABLE, Checkpoint
from speechtune.training.data import Pick
from speechtune.training.elsewhere import ElsewhereTraining, check_recipe, steps_of
from speechtune.training.recipe import load_recipe

ESPNET = os.environ.get(VARIABLE)
TEXTS = ("ab", "ba", "b", "ab")
LORA = {"kind": "lora", "rank": 4, "alpha": 8, "dropout": 0.1, "targets": ["attention", "mlp"]}


def invoked(*words: object) -> tuple[int, str]:
    from typer.testing import CliRunner

    from speechtune.cli.app import build

    done = CliRunner().invoke(build(), [str(word) for word in (*words, "--quiet", "--json")])
    return done.exit_code, done.output


@pytest.fixture
def stand_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkpoint that the stand-in opens."""
    monkeypatch.setenv(VARIABLE, str(stand_in_owsm.write_python(tmp_path / "python")))
    return stand_in_owsm.write_checkpoint(tmp_path / "base")


def recipe(base: Path, folder: Path, texts: tuple[str, ...] = TEXTS, **sections: dict[str, Any]) -> Path:
    """A recipe for the tones, which are written too."""
    corpus = folder / "tones"
    if not corpus.is_dir():
        tiny_ctc.write_tones(corpus, texts)
    training = {"batch": {"utterances": 2}, "epochs": 3, "warmup_steps": 1, **sections.pop("training", {})}
    model = {"language": "en", **sections.pop("model", {})}
    given = {"adapter": LORA, **sections}
    return tiny_ctc.write_recipe(folder / "recipe.yaml", base, corpus, training=training, model=model, **given)


def interrupt_at(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """End the process's training as Ctrl-C does before a step."""
    own = ElsewhereTraining._step

    def taken(self: ElsewhereTraining, number: int, batches: list[list[Pick]]) -> dict[str, float]:
        if number == step:
            raise KeyboardInterrupt
        return own(self, number, batches)

    monkeypatch.setattr(ElsewhereTraining, "_step", taken)


def test_a_run_keeps_its_best_epoch_and_proves_it(stand_in: Path, tmp_path: Path) -> None:
    """The stand-in hears what is said before training and after four steps: two epochs of three."""
    run = tmp_path / "run"
    code, said = invoked("train", recipe(stand_in, tmp_path), "--out", run)
    assert code == 0, said
    rows = read_jsonl(run / "metrics.jsonl")
    assert [(row["step"], row["epoch"], row["wer"]) for row in rows if row["kind"] == "dev"] == [
        (2, 1.0, 1.0),
        (4, 2.0, 0.5),
        (6, 3.0, 1.0),
    ]
    train = [row for row in rows if row["kind"] == "train"]
    assert [row["loss"] for row in train] == pytest.approx([3 / step for step in range(1, 7)])
    assert [row["learning_rate"] / 3e-3 for row in train] == pytest.approx([0, 1, 0.8, 0.6, 0.4, 0.2])
    assert [row["kind"] for row in rows].count("summary") == 1
    assert json.loads((run / "model" / "model.pth").read_text())["steps"] == 4
    assert sorted(one.name for one in (run / "checkpoints").iterdir()) == ["state.json", "update-4.pt", "update-6.pt"]
    scores, summary = read_json(run / "scores.json"), read_json(run / "run.json")
    assert [(one["system"], one["score"]["wer"]) for one in scores["measurements"]] == [("before", 0.5), ("after", 0.5)]
    assert scores["comparisons"] == summary["comparisons"] and summary["best_step"] == 4
    facts = read_json(run / "provenance.json")
    assert facts["data"]["kept"] == 4 and facts["base"]["path"] == str(stand_in)
    assert read_json(run / "preflight.json")["checks"].keys() == {"labels", "loss"}
    assert (run / "report.html").is_file()

    asked = stand_in_owsm.asked(stand_in)
    (adapt,) = [one for one in asked if one["op"] == "adapt"]
    wanted = {"roles": ["attention", "mlp"], "rank": 4, "alpha": 8, "dropout": 0.1, "seed": 0, "bf16": False}
    assert wanted | {"weight_decay": 0.01, "max_grad_norm": 1.0, "betas": [0.9, 0.999]} == {
        key: adapt[key] for key in (*wanted, "weight_decay", "max_grad_norm", "betas")
    }
    steps = [one for one in asked if one["op"] == "step"]
    assert {(one["language"], one["task"]) for one in steps} == {("eng", "asr")} and steps[0]["sizes"] == [2]
    for epoch in range(3):  # every utterance once in each, with its own text
        shown = [text for one in steps[2 * epoch : 2 * epoch + 2] for text in one["texts"]]
        assert sorted(shown) == sorted(TEXTS)
    length = {text: len(tiny_ctc.spoken(text, np.random.default_rng(0))) for text in TEXTS}
    assert all(length[text] == size for one in steps for text, size in zip(one["texts"], one["lengths"], strict=True))

    code, said = invoked("transcribe", run, tmp_path / "tones" / "audio")  # the language is the run's own
    assert code == 0 and {row["text"] for row in json.loads(said)["transcripts"]} == {"ab"}
    assert invoked("evaluate", run / "model", tmp_path / "tones", "--split", "dev")[0] == 0
    code, said = invoked("train", tmp_path / "recipe.yaml", "--out", run)
    assert code == 2 and "holds a run already" in said


@pytest.mark.parametrize("at", [1, 4])
def test_an_interrupted_run_ends_like_an_uninterrupted_one(
    stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    written, runs = recipe(stand_in, tmp_path), (tmp_path / "whole", tmp_path / "halves")
    assert invoked("train", written, "--out", runs[0])[0] == 0
    with monkeypatch.context() as changed:
        interrupt_at(at, changed)
        assert invoked("train", written, "--out", runs[1])[0] != 0
    assert not (runs[1] / "run.json").exists()
    code, said = invoked("train", written, "--out", runs[1], "training.epochs=4", "--resume")
    assert code == 2 and "training.epochs=4" in said
    code, said = invoked("train", written, "--out", runs[1], "--resume")
    assert code == 0, said
    assert (runs[0] / "model" / "model.pth").read_text() == (runs[1] / "model" / "model.pth").read_text()
    kept = [[row for row in read_jsonl(run / "metrics.jsonl") if row["kind"] != "summary"] for run in runs]
    assert kept[0] == kept[1]
    assert read_json(runs[0] / "scores.json") == read_json(runs[1] / "scores.json")


def test_patience_steps_and_evaluations_are_honoured(stand_in: Path, tmp_path: Path) -> None:
    settings = {"max_steps": 11, "patience": 2, "evaluations_per_epoch": 2, "keep_checkpoints": 2}
    code, said = invoked("train", recipe(stand_in, tmp_path, training=settings), "--out", tmp_path / "run")
    assert code == 0, said
    dev = [row["step"] for row in read_jsonl(tmp_path / "run" / "metrics.jsonl") if row["kind"] == "dev"]
    assert dev == [1, 2, 3]  # no better for two evaluations
    kept = sorted(one.name for one in (tmp_path / "run" / "checkpoints").glob("*.pt"))
    assert kept == ["update-1.pt", "update-2.pt", "update-3.pt"]


def test_batches_are_cut_within_the_window_and_accumulated(stand_in: Path, tmp_path: Path) -> None:
    """Every clip takes the window of 2 s, so that 4 s hold two of them."""
    settings = {"batch": {"utterances": 4, "seconds": 4, "effective": 4}, "epochs": 1}
    assert invoked("train", recipe(stand_in, tmp_path, training=settings), "--out", tmp_path / "run")[0] == 0
    (step,) = [one for one in stand_in_owsm.asked(stand_in) if one["op"] == "step"]
    assert step["sizes"] == [2, 2] and sorted(step["texts"]) == sorted(TEXTS)
    settings = {"batch": {"utterances": 1, "accumulate": 3}, "epochs": 1}
    changed = recipe(stand_in, tmp_path, training=settings)
    assert invoked("train", changed, "--out", tmp_path / "other")[0] == 0
    steps = [one for one in stand_in_owsm.asked(stand_in) if one["op"] == "step"][1:]
    assert [one["sizes"] for one in steps] == [[1, 1, 1], [1]]


def test_what_the_model_cannot_take_is_counted(stand_in: Path, tmp_path: Path) -> None:
    texts = ("ab", "abab abab abab abab", "ba")  # the second is longer than two seconds
    written = recipe(stand_in, tmp_path, texts, data={"train_split": "train"}, evaluation={"sets": [], "scoring": {}})
    code, said = invoked("train", written, "--out", tmp_path / "run")
    assert code == 2 and "is too long" in said and "the model's window is 2 s" in said and "data.unusable=drop" in said
    assert not (tmp_path / "run").exists()


REFUSED = {
    "adapter.kind=none": "adapter.kind is 'none'",
    "adapter.kind=dora": "adapter.kind is 'dora'",
    "adapter.bits=4": "adapter.bits is 4",
    "adapter.also_train=norms": "adapter.also_train is",
    "adapter.per=speaker_id": "adapter.per is 'speaker_id'",
    "model.train=encoder": "model.train is 'encoder'",
    "training.label_smoothing=0.1": "training.label_smoothing is 0.1",
    "training.dropout=0.1": "training.dropout is 0.1",
    "training.spec_augment.time_masks=2": "training.spec_augment.time_masks is 2",
    "training.optimiser.kind=muon": "training.optimiser.kind is 'muon'",
    "training.gradient_checkpointing=true": "training.gradient_checkpointing is True",
    "training.average_last=3": "training.average_last is 3",
    "training.precision=fp16": "training.precision is 'fp16'",
    "training.trackers=[wandb]": "training.trackers is",
    "training.schedule_shape.momentum=[0.85, 0.95]": "training.schedule_shape.momentum is",
    "stages=[{name: one}]": "stages is",
}


def test_what_is_not_honoured_is_refused_by_its_key(tmp_path: Path) -> None:
    written = recipe(tmp_path, tmp_path)
    check_recipe(load_recipe(written))
    for setting, named in REFUSED.items():
        with pytest.raises(InputError, match=f"^{re.escape(named)}"):
            check_recipe(load_recipe(written, [setting]))
    by_depth = load_recipe(written)
    by_depth.adapter.targets = {"encoder": [0.5, 1.0]}
    with pytest.raises(InputError, match=r"adapter\.targets is \{"):
        check_recipe(by_depth)


@pytest.mark.parametrize(
    ("setting", "named"),
    [
        ("training.average_last=3", "training.average_last is 3"),
        ("adapter.targets=[x]", "there is no role 'x'"),
        ("decoding.search.n_best=2", "do not work with a owsm model"),
        ("model.language=null", "an OWSM model needs a language"),
    ],
)
def test_a_refusal_leaves_nothing_behind(stand_in: Path, tmp_path: Path, setting: str, named: str) -> None:
    code, said = invoked("train", recipe(stand_in, tmp_path), "--out", tmp_path / "run", setting)
    assert code == 2 and named in said, said
    assert not (tmp_path / "run").exists()


def test_wrong_labels_and_numbers_stop_a_run(stand_in: Path, tmp_path: Path) -> None:
    written = recipe(stand_in, tmp_path, ("ab", "b"))
    table = tmp_path / "tones" / "metadata.jsonl"
    rows = table.read_text() if table.is_file() else ""
    assert '"text": "b"' in rows or '"text":"b"' in rows
    table.write_text(rows.replace('"b"', '"nan"'))
    code, said = invoked("train", written, "--out", tmp_path / "nan")
    assert code == 1 and "has loss nan" in said and "training.learning_rate" in said


@pytest.mark.usefixtures("stand_in")
def test_no_environment_is_one_sentence(stand_in: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE)
    code, said = invoked("train", recipe(stand_in, tmp_path), "--out", tmp_path / "run")
    assert code == 2 and f"{VARIABLE} is not set: install ESPnet" in said and not (tmp_path / "run").exists()


def test_steps_hold_what_they_accumulate() -> None:
    a, b, c = ([Pick(index, 1.0)] for index in range(3))
    assert list(steps_of([a, b, c], 2)) == [[a, b], [c]]  # type: ignore[arg-type]
    assert list(steps_of([[a, b], [c]], 1)) == [[a, b], [c]]  # type: ignore[arg-type]


@pytest.mark.skipif(not ESPNET, reason=f"{VARIABLE} names no Python with ESPnet")
def test_espnet_is_trained_by_a_recipe_and_resumed_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A tiny OWSM-CTC: the loss falls, dropout included, and a run in two halves ends with its weights."""
    base = tmp_path / "base"
    base.mkdir()
    worker = Path(owsm.__file__).with_name("owsm_worker.py")
    command = [str(ESPNET), str(Path(__file__).parents[1] / "tiny_owsm.py"), str(worker), str(base), "ctc"]
    subprocess.run(command, check=True, capture_output=True)
    written = recipe(base, tmp_path, training={"epochs": 4, "learning_rate": 2e-2})
    with monkeypatch.context() as changed:
        interrupt_at(6, changed)
        assert invoked("train", written, "--out", tmp_path / "halves")[0] != 0
    for name, words in (("whole", ()), ("halves", ("--resume",))):
        code, said = invoked("train", written, "--out", tmp_path / name, *words)
        assert code == 0, said
    rows = [read_jsonl(tmp_path / name / "metrics.jsonl") for name in ("whole", "halves")]
    losses = [row["loss"] for row in rows[0] if row["kind"] == "train"]
    assert losses[-1] < 0.8 * losses[0]
    assert [row for row in rows[0] if row["kind"] == "train"] == [row for row in rows[1] if row["kind"] == "train"]
    saved = [torch.load(Checkpoint.find(tmp_path / name / "model").weights) for name in ("whole", "halves")]
    assert all(torch.equal(saved[0][key], saved[1][key]) for key in saved[0])
