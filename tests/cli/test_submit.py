"""``speechtune submit`` from the outside."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_package_beyond_the_limit_is_written_and_refused(
    speechtune: Command, tiny_model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "submission.zip"
    words = ("--clips", "3", "--hours-limit", "0.000001", "decoding.max_new_tokens=4", "package.dtype=float32")
    done = speechtune("submit", tiny_model, "--out", out, *words, "--json", "--quiet")
    assert done.returncode == 1, done.stderr
    result = json.loads(done.stdout)
    assert not result["passed"] and not result["checks"]["time"]
    assert result["checks"]["format"] and result["checks"]["network"] and result["checks"]["self_contained"]
    assert [one for one in result["problems"] if one.startswith("time: 214274 utterances would take")]
    assert out.is_file() and json.loads((tmp_path / "submission.zip.verdict.json").read_text())["exit_code"] == 1


def test_wrong_wishes_are_one_sentence(speechtune: Command, tiny_model: Path, tmp_path: Path) -> None:
    (tmp_path / "wheels").mkdir()
    out = tmp_path / "s.zip"
    for words, part in (
        (("package.dtype=float8",), "package.dtype"),
        (("--wheels", tmp_path / "wheels"), "holds no wheels"),
    ):
        done = speechtune("submit", tiny_model, "--out", out, *words)
        assert done.returncode == 2 and part in done.stderr and "Traceback" not in done.stderr
    assert not out.exists()
