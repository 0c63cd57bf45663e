"""What every verb keeps: fast help, one JSON object, exit codes, one sentence for an error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

import pytest

from speechtune.cli.app import GROUPS, VERBS

Command = Callable[..., subprocess.CompletedProcess[str]]
GROUP_VERBS = {
    "corrections": ["export", "import", "undo"],
    "lm": ["get", "mix", "perplexity", "train", "tune"],
    "models": ["describe", "get", "list", "merge", "recommend", "shrink"],
    "recipe": ["check", "draws", "explain"],
}
LEAVES = [*([verb] for verb in VERBS), *([group, verb] for group, verbs in GROUP_VERBS.items() for verb in verbs)]


def one_sentence(done: subprocess.CompletedProcess[str]) -> str:
    """The error a user sees: exit code 2, one line, no traceback."""
    assert done.returncode == 2, done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("speechtune: ")]
    assert len(lines) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return lines[0]


def test_help_takes_less_than_half_a_second(speechtune: Command) -> None:
    """The fastest of three, because a shared machine can stall any one of them."""
    times_s = []
    for _ in range(3):
        start_s = time.monotonic()
        assert "import" in speechtune("--help").stdout
        times_s.append(time.monotonic() - start_s)
    assert min(times_s) < 0.5


def test_nothing_heavy_is_imported_before_a_verb_runs() -> None:
    code = "import sys; from speechtune.cli.app import build; build(); print(','.join(sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split(",")
    assert not {"torch", "transformers", "numpy", "pydantic", "omegaconf", "soundfile", "rich.console"} & set(loaded)


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_verb_has_help_and_json(speechtune: Command, words: list[str]) -> None:
    done = speechtune(*words, "--help", env={**os.environ, "COLUMNS": "200"})
    assert done.returncode == 0
    assert "--json" in done.stdout
    assert "--quiet" in done.stdout


def test_the_groups_have_the_verbs_that_are_tested() -> None:
    for group, module in GROUPS.items():
        commands = import_module(f"speechtune.cli.{module}").app.registered_commands
        assert sorted(str(command.name) for command in commands) == GROUP_VERBS[group]


def test_recipe_explain_gives_every_key_its_help(speechtune: Command) -> None:
    rows = json.loads(speechtune("recipe", "explain", "--json").stdout)["keys"]
    assert len(rows) > 40
    assert all(len(row["help"]) > 10 for row in rows), [row["key"] for row in rows if len(row["help"]) <= 10]


def test_an_unknown_recipe_key_names_the_nearest_valid_ones(
    speechtune: Command, write_recipe: Callable[..., Path], tmp_path: Path
) -> None:
    recipe = write_recipe()
    sentence = one_sentence(speechtune("train", recipe, "--out", tmp_path / "run", "training.learning_rat=1"))
    assert "unknown key 'training.learning_rat'" in sentence
    assert "did you mean training.learning_rate" in sentence
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize(
    ("override", "part"),
    [
        ("training.epochs=0", "training.epochs: input should be greater than or equal to 1, not 0"),
        ("training.epochs", "is not key=value"),
        ("model.train=nothing", "model.train: 'nothing' names nothing in this whisper model: there are all, encoder,"),
        ("data.corpus=/nowhere", "/nowhere is not a speechtune corpus"),
        ("data.train_split=other", "has no split 'other' (it has: dev, train)"),
        ("model.base=whisper-tinny.en", "whisper-tiny.en"),
        ("training.audio_context.full=1", "did you mean training.audio_context.full_share"),
    ],
)
def test_wrong_settings_get_one_sentence_and_leave_nothing(
    speechtune: Command, write_recipe: Callable[..., Path], tmp_path: Path, override: str, part: str
) -> None:
    done = speechtune("train", write_recipe(), override, "--out", tmp_path / "run", "--json")
    assert part in one_sentence(done)
    assert json.loads(done.stdout)["exit_code"] == 2
    assert not (tmp_path / "run").exists()


def test_a_recipe_that_is_missing_or_is_not_yaml(speechtune: Command, tmp_path: Path) -> None:
    assert "does not exist" in one_sentence(speechtune("train", tmp_path / "no.yaml", "--out", tmp_path / "run"))
    (tmp_path / "bad.yaml").write_text("data: [1, 2\nmodel: :")
    assert "not valid YAML" in one_sentence(speechtune("train", tmp_path / "bad.yaml", "--out", tmp_path / "run"))
    (tmp_path / "list.yaml").write_text("- 1\n- 2\n")
    assert "must be a mapping" in one_sentence(speechtune("train", tmp_path / "list.yaml", "--out", tmp_path / "run"))


def test_a_reader_that_has_seen_enough_ends_a_verb_without_a_traceback() -> None:
    code = """
import sys
from speechtune.cli.common import verb
stream = sys.stdout
@verb
def work(as_json, quiet):
    for number in range(100_000):
        print(number, file=stream)
    return {}, ""
work(as_json=False, quiet=True)
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stderr is not None
        assert process.stdout.readline() == "0\n"
        process.stdout.close()
        complaints = process.stderr.read()
    assert "BrokenPipe" not in complaints
