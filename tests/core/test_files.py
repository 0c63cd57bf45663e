"""A reader never sees half of a file or directory."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, read_jsonl, write_json, write_jsonl, write_text


def test_a_directory_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    target = tmp_path / "out"
    with pytest.raises(RuntimeError), new_directory(target) as draft:  # noqa: PT012
        (draft / "half").write_text("1")
        raise RuntimeError
    assert not list(tmp_path.iterdir())
    with new_directory(target) as draft:
        (draft / "whole").write_text("1")
        assert not target.exists()
    assert [path.name for path in target.iterdir()] == ["whole"]
    with pytest.raises(InputError, match="not empty"), new_directory(target):
        pass
    with new_directory(target, overwrite=True) as draft:
        (draft / "newer").write_text("2")
        assert (target / "whole").exists()
    assert [path.name for path in target.iterdir()] == ["newer"]
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_what_a_killed_process_left_is_swept_and_what_a_living_one_writes_is_not(tmp_path: Path) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    for process in (dead.pid, os.getppid()):
        (tmp_path / f".out.draft-{process}-x").mkdir()
    with new_directory(tmp_path / "out") as draft:
        (draft / "a").write_text("1")
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".out.draft-{os.getppid()}-x", "out"]


def test_a_failed_write_keeps_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.json"
    write_json(path, {"old": 1})

    def fail(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(InputError, match="disk is full"):
        write_text(path, "new")
    assert path.read_text() == '{\n  "old": 1\n}\n'
    assert [one.name for one in tmp_path.iterdir()] == ["a.json"]


def test_rows_survive_the_round_trip_and_bad_lines_are_numbered(tmp_path: Path) -> None:
    rows = [{"text": "one\u2028two\u0085three"}, {"text": "שלום"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert read_jsonl(tmp_path / "a.jsonl") == rows
    for text, part in (('{"a": 1}\n\n{"a": \n', "line 3 is not valid JSON"), ("[1]\n", "line 1 is not a JSON object")):
        (tmp_path / "b.jsonl").write_text(text)
        with pytest.raises(InputError, match=part):
            read_jsonl(tmp_path / "b.jsonl")
    with pytest.raises(InputError, match="does not exist"):
        read_jsonl(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="is a directory"):
        read_jsonl(tmp_path)
