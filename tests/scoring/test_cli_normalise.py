from __future__ import annotations

import json
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from speechtune.cli.normalise import command
from speechtune.scoring.normalisers import NORMALISERS


def _run(*args: str) -> tuple[int, str, str]:
    app = typer.Typer()
    app.command()(command)
    result = CliRunner().invoke(app, args)
    return result.exit_code, result.stdout, result.stderr


def test_a_text_rule_by_rule() -> None:
    code, out, _ = _run('שָׁלוֹם, צה"ל', "--language", "he", "--json")
    result = json.loads(out)
    assert code == 0 and (result["normaliser"], result["normalised"]) == ("hebrew", "שלום צהל")
    assert [one["rule"] for one in result["steps"] if one["changed"]] == [
        "niqqud",
        "gershayim",
        "punctuation",
    ]
    code, out, _ = _run("He's gonna see 21 colours", "--normaliser", "whisper-english")
    assert code == 0 and out.rstrip().endswith("he is going to see 21 colors") and "spellings" in out


def test_a_file_of_lines_and_of_rows(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("Hello!\n\num\n")
    code, out, _ = _run(str(tmp_path / "a.txt"), "--language", "en", "--json")
    result = json.loads(out)
    assert code == 0 and [row["normalised"] for row in result["rows"]] == ["hello", "", ""]
    assert result["changed_by"]["fillers"] == 1 and result["empty_once_normalised"] == 1 and result["kept"] == 3
    (tmp_path / "a.jsonl").write_text('{"utterance_id": "a", "orthographic_text": "Hello!"}\n')
    code, out, _ = _run(str(tmp_path / "a.jsonl"), "--language", "en")
    assert code == 0 and out == "hello\n"


def test_list_and_variants(tmp_path: Path) -> None:
    code, out, _ = _run("--list", "--json")
    assert code == 0 and set(json.loads(out)["normalisers"]) == set(NORMALISERS)
    (tmp_path / "v.json").write_text('{"Macolet": ["Mekolet"]}')
    code, out, _ = _run("The Mekolet", "--variants", str(tmp_path / "v.json"), "--json")
    assert code == 0 and json.loads(out)["normalised"] == "the macolet"


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ([], "nothing to normalise"),
        (["x", "--normaliser", "english"], "there is no normaliser 'english'"),
        (["x", "--variants", "none.yaml"], "none.yaml does not exist"),
    ],
)
def test_wrong_input_is_one_sentence_and_exit_code_2(args: list[str], message: str) -> None:
    code, out, err = _run(*args, "--json")
    assert code == 2 and message in json.loads(out)["error"] and "Traceback" not in err
