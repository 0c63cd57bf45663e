"""The verb: its JSON, its exit codes, its policy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import typer
import yaml
from typer.testing import CliRunner, Result

from speechtune.corpus.audit.policy import Policy


@pytest.fixture
def run() -> Callable[..., Result]:
    from speechtune.cli import audit

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("audit")(audit.command)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])


def test_json_is_one_object_with_the_problems(run, noise_corpus: Path, tmp_path: Path) -> None:
    result = run(noise_corpus, "--out", tmp_path / "a", "--workers", 1, "--json", "--quiet")
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert {"check", "severity", "count", "utterance_ids"} <= set(found["problems"][0])
    assert found["problems"] == json.loads(Path(found["summary"]).read_text())["problems"]
    assert Path(found["table"]).is_file()


def test_fail_on_decides_the_exit_code(run, noise_corpus: Path, tmp_path: Path) -> None:
    words = [noise_corpus, "--out", tmp_path / "a", "--workers", 1, "--quiet"]
    assert [run(*words, *more).exit_code for more in ([], ["--fail-on", "error"])] == [0, 1]
    problems = json.loads(run(*words, "--json").stdout)["problems"]
    notes = {problem["check"]: "note" for problem in problems}
    (tmp_path / "p.yaml").write_text(yaml.safe_dump({"severity": notes}))
    quiet = [*words, "--policy", tmp_path / "p.yaml", "--fail-on"]
    assert [run(*quiet, level).exit_code for level in ("error", "warning")] == [0, 0]
    assert run(*words, "--fail-on", "often").exit_code == 2


def test_the_default_place_is_in_the_corpus(run, noise_corpus: Path) -> None:
    assert run(noise_corpus, "--workers", 1, "--quiet").exit_code == 0
    assert (noise_corpus / "audit" / "audit.json").is_file()


def test_show_policy_prints_yaml(run) -> None:
    result = run("--show-policy")
    assert result.exit_code == 0
    assert yaml.safe_load(result.stdout) == Policy().model_dump()


def test_token_counts_of_a_model(run, noise_corpus: Path, tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel({"[UNK]": 0}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    (tmp_path / "my-model").mkdir()
    tokenizer.save(str(tmp_path / "my-model/tokenizer.json"))
    words = [noise_corpus, "--out", tmp_path / "a", "--workers", 1, "--quiet", "--tokens-of", tmp_path / "my-model"]
    (tmp_path / "p.yaml").write_text("text: {max_tokens: 3}")
    result = run(*words, "--policy", tmp_path / "p.yaml", "--json")
    problems = {one["check"]: one["count"] for one in json.loads(result.stdout)["problems"]}
    assert problems["tokens_many"] == 10  # four words each
    assert "tokens_my_model" in json.loads((tmp_path / "a/audit.json").read_text())["distributions"]
    assert run(*words[:-1], tmp_path).exit_code == 2
