"""Reading row by row gives what reading all at once gives, and names the bad line."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.stream import card_of, count_rows, iter_utterances, table_sha256
from speechtune.corpus.table import Corpus, Utterance

GOOD = {"utterance_id": "a", "file_name": "a.wav", "text": 'None, \u2028 "123" مرحبا \U0001f600', "duration_s": 1.5}


def write(root: Path, *lines: str) -> Path:
    (root / "metadata.jsonl").write_text("\n".join(lines), encoding="utf-8")
    return root


def test_the_rows_are_those_of_the_whole_table(tmp_path: Path) -> None:
    rows = [Utterance(**{**GOOD, "utterance_id": f"u{n}"}, age="8", extra={"x": [n]}) for n in range(5)]
    Corpus(tmp_path, rows, {"kept": 5}).save()
    assert list(iter_utterances(tmp_path)) == Corpus.load(tmp_path).utterances
    assert (count_rows(tmp_path), card_of(tmp_path)) == (5, {"kept": 5})


def test_nothing_is_read_ahead(tmp_path: Path) -> None:
    write(tmp_path, json.dumps(GOOD), "", "{broken")
    assert [one.utterance_id for one in itertools.islice(iter_utterances(tmp_path), 1)] == ["a"]


@pytest.mark.parametrize(
    ("line", "sentence"),
    [
        ("{broken", "line 2 is not valid JSON"),
        ("[1]", "line 2 is not a JSON object"),
        (json.dumps({"utterance_id": "b"}), "line 2 has no file_name, text, duration_s"),
        (json.dumps({**GOOD, "text": 123}), "line 2: text must be text, not 123"),
        (json.dumps({**GOOD, "start_s": "0"}), "line 2: start_s must be a number"),
    ],
)
def test_a_bad_line_is_named(line: str, sentence: str, tmp_path: Path) -> None:
    write(tmp_path, json.dumps(GOOD), line)
    with pytest.raises(InputError, match=sentence.replace("[", "\\[")):
        list(iter_utterances(tmp_path))


def test_a_directory_without_a_table_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not a speechtune corpus"):
        list(iter_utterances(tmp_path))


def test_the_hash_changes_with_the_table(tmp_path: Path) -> None:
    first = table_sha256(write(tmp_path, json.dumps(GOOD)))
    assert table_sha256(write(tmp_path, json.dumps({**GOOD, "text": "x"}))) != first
