from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from speechtune.cli.score import command


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    texts = {"ref": "a cat\nthe dog\nx\n", "hyp": "a cat\nthe dog\ny\n", "base": "a\nthe\ny\n", "short": "a\n"}
    for name, text in texts.items():
        (tmp_path / f"{name}.txt").write_text(text)
    (tmp_path / "terms.txt").write_text("dog\tdoggy\n")
    return {path.stem: str(path) for path in tmp_path.iterdir()}


def _run(*args: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, args)
    return result.exit_code, result.stdout, result.stderr


def test_json_is_one_object(files: dict[str, str], tmp_path: Path) -> None:
    rows = tmp_path / "rows.jsonl"
    args = ["--json", "--against", files["base"], "--terms", files["terms"], "--slice-by", "reference_words"]
    code, out, _ = _run(files["ref"], files["hyp"], *args, "--out", str(rows))
    result = json.loads(out)
    assert code == 0 and result["wer"] == pytest.approx(1 / 5)
    assert result["difference"]["wer"]["difference"] == pytest.approx(-2 / 5)
    assert result["terms"]["terms"][0]["hits"] == 1
    assert list(result["slices"]["reference_words"]) == ["1-2", "2-6"]
    assert len(rows.read_text().splitlines()) == 3


def test_text_for_a_person(files: dict[str, str]) -> None:
    code, out, _ = _run(files["ref"], files["hyp"])
    assert code == 0 and out.startswith("WER 20.00 %") and "1 errors / 5 (1 sub, 0 del, 0 ins)" in out


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["{ref}", "{short}"], "3 lines"),
        (["{ref}", "{hyp}", "--normaliser", "english"], "there is no normaliser 'english'"),
        (["{ref}", "{hyp}", "--slice-by", "age"], "has a 'age'"),
        (["{ref}", "{hyp}", "--split", "test"], "leave --split out"),
        (["{ref}", "{hyp}", "--seed", "-1"], "--seed -1 is negative"),
        (["{ref}", "{hyp}", "--metrics", "werr"], "there is no metric 'werr'"),
        (["{ref}"], "give two things to score"),
        (["{ref}", "{hyp}", "--variants", "nowhere.yaml"], "nowhere.yaml does not exist"),
        (["nowhere", "{hyp}"], "nowhere is not a speechtune corpus"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(files: dict[str, str], args: list[str], message: str) -> None:
    code, out, err = _run(*[one.format(**files) for one in args], "--json")
    assert code == 2 and message in json.loads(out)["error"] and "Traceback" not in err


def test_every_metric_is_listed_and_computed(files: dict[str, str]) -> None:
    code, out, _ = _run("--metrics", "list", "--json")
    listed = json.loads(out)["metrics"]
    assert code == 0 and "compound-wer" in listed
    code, out, _ = _run(files["ref"], files["hyp"], "--metrics", "all", "--json")
    result = json.loads(out)
    assert code == 0 and set(result["metrics"]) == set(listed)
    assert result["metrics"]["wer"]["value"] == result["wer"] == pytest.approx(1 / 5)
    assert {"wer", "cer", "errors", "reference_words", "interval"} <= set(result)
    code, out, _ = _run(files["ref"], files["hyp"], "--metrics", "mer,wil")
    assert code == 0 and "  mer  20.00 %" in out


def test_variants_are_no_errors(files: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("x: [y]\n")
    code, out, _ = _run(files["ref"], files["hyp"], "--variants", str(tmp_path / "v.yaml"), "--json")
    assert code == 0 and json.loads(out)["wer"] == 0 and json.loads(out)["variants"] == 1
