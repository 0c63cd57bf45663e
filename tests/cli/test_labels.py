from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from speechtune.corpus.table import Corpus

Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def corpus(tmp_path: Path, tiny_corpus: Path) -> Path:
    return Path(shutil.copytree(tiny_corpus, tmp_path / "corpus"))


def transcripts(corpus: Path, path: Path, wrong: int = 0) -> Path:
    rows = [
        {"utterance_id": row.utterance_id, "text": "an elephant walked by" if place < wrong else row.text}
        for place, row in enumerate(Corpus.load(corpus))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_check_labels_applies_tiers_and_takes_them_back(speechtune: Command, corpus: Path, tmp_path: Path) -> None:
    before = (corpus / "metadata.jsonl").read_bytes()
    ready = transcripts(corpus, tmp_path / "judge.jsonl", wrong=2)
    done = speechtune("check-labels", corpus, "--transcripts", ready, "--apply", "--group-by", "split", "--json")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["tiers"] == {"0.7": 18, "0.9": 0, "all": 2} and result["probably_wrong"] == 2
    assert result["wer_bands"]["split"]["dev"]["0"] == 4
    kept = [row.extra["label_tier"] for row in Corpus.load(corpus)]
    assert kept[:3] == ["all", "all", "0.7"]
    assert len((corpus / "label_check" / "labels.jsonl").read_text().splitlines()) == 20
    again = speechtune("check-labels", corpus, "--transcripts", ready)
    assert again.returncode == 2 and "--resume" in again.stderr and "Traceback" not in again.stderr
    undone = speechtune("check-labels", corpus, "--undo", "--json")
    assert json.loads(undone.stdout)["changed"] == 20
    assert (corpus / "metadata.jsonl").read_bytes() == before


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--model or --transcripts"),
        (["--transcripts", "{ready}", "--thresholds", "high"], "is not a list of numbers"),
        (["--transcripts", "{ready}", "--group-by", "dialect"], "no utterance of"),
        (["--transcripts", "{ready}", "--normaliser", "mine"], "there is no normaliser"),
        (["--transcripts", "{ready}", "--limit", "wrong_cr=1"], "did you mean wrong_cer"),
        (["--transcripts", "{ready}", "--split", "other"], "has no split 'other'"),
        (["--undo"], "nothing to undo"),
    ],
)
def test_wrong_input_is_one_sentence(
    speechtune: Command, corpus: Path, tmp_path: Path, words: list[str], message: str
) -> None:
    ready = transcripts(corpus, tmp_path / "judge.jsonl")
    done = speechtune("check-labels", corpus, *[word.format(ready=ready) for word in words], "--json")
    assert done.returncode == 2 and message in json.loads(done.stdout)["error"] and "Traceback" not in done.stderr
    assert not (corpus / "label_check").exists()


def test_label_that_keeps_nothing_says_why_and_writes_nothing(
    speechtune: Command, corpus: Path, tmp_path: Path, tiny_model: Path
) -> None:
    out = tmp_path / "labelled"
    words = ["label", corpus, "--model", tiny_model, "--context", "fit", "--out", out, "--min-log-prob=-0.000001"]
    done = speechtune(*words, "--split", "train", "--json")
    assert done.returncode == 2, done.stderr
    assert "no label of" in json.loads(done.stdout)["error"]
    assert not out.exists()
