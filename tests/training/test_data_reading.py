"""``data.split`` and ``data.deduplicate``: the splits of the verb, in memory; rows that say the same once."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechtune.core.errors import InputError
from speechtune.corpus import mixing_audio, reading
from speechtune.corpus.config import DataConfig
from speechtune.corpus.reading import load_corpus, repeated_rows
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.family import Family, load_family
from speechtune.training.pool import training_pool


@pytest.fixture(scope="module")
def family(tiny_model: Path) -> Family:
    return load_family(tiny_model)


@pytest.fixture
def make_rows(tmp_path: Path) -> Callable[..., Corpus]:
    """A corpus of (id, text, number that decides the samples, file suffix, split)."""

    def make(name: str, rows: list[tuple[str, str, int, str, str]]) -> Corpus:
        root = tmp_path / name
        root.mkdir()
        made = []
        for key, text, sound, suffix, split in rows:
            pcm = (2000 * np.random.default_rng(sound).standard_normal(8000 + sound % 2)).astype(np.int16)
            soundfile.write(root / f"{key}.{suffix}", pcm, 16_000)
            one = Utterance(utterance_id=key, file_name=f"{key}.{suffix}", text=text, duration_s=len(pcm) / 16_000)
            one.split, one.speaker_id = split, f"{name}-{key}"
            made.append(one)
        corpus = Corpus(root, made)
        corpus.save()
        return corpus

    return make


def test_a_recipe_divides_like_the_verb_and_writes_nothing(
    tmp_path: Path, make_rows: Callable[..., Corpus], speechtune: Callable[..., Any]
) -> None:
    corpus = make_rows("c", [(f"u{n}", "sing", n, "wav", "train") for n in range(40)])
    table = (corpus.root / "metadata.jsonl").read_bytes()
    (tmp_path / "list.txt").write_text("u3\nc-u7\n")
    for data, options in (
        ({"dev": 0.2, "seed": 3}, ["--dev", "0.2", "--seed", "3"]),
        ({"test_list": str(tmp_path / "list.txt")}, ["--test-list", tmp_path / "list.txt"]),
        ({"folds": 4, "fold": 2}, ["--folds", "4", "--fold", "2"]),
    ):
        (corpus.root / "metadata.jsonl").write_bytes(table)
        mine = load_corpus(DataConfig(corpus=str(corpus.root), split=data))
        again = load_corpus(DataConfig(corpus=str(corpus.root), split=data))
        assert [one.split for one in mine] == [one.split for one in again]
        assert (corpus.root / "metadata.jsonl").read_bytes() == table
        assert speechtune("split", corpus.root, *options, "--overwrite", "--quiet").returncode == 0
        assert [one.split for one in Corpus.load(corpus.root)] == [one.split for one in mine]
        assert {"train", "dev", "test"} <= {one.split for one in mine}
        assert mine.fingerprint() == Corpus.load(corpus.root).fingerprint()
    with pytest.raises(InputError, match=r"data\.split: --folds and --fold belong together"):
        load_corpus(DataConfig(corpus=str(corpus.root), split={"folds": 4}))


def test_only_the_same_samples_with_the_same_text_are_repeated_and_few_are_decoded(
    make_rows: Callable[..., Corpus], monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [
        ("a", "I sing", 0, "wav", "train"),
        ("b", "i sing!", 0, "flac", "train"),  # the same
        ("c", "I sang", 0, "wav", "train"),  # another text
        ("d", "I sing", 2, "wav", "train"),  # other samples
        ("e", "alone", 4, "wav", "train"),
    ]
    corpus = make_rows("c", rows)
    decoded = []
    real = mixing_audio.load_audio
    monkeypatch.setattr(mixing_audio, "load_audio", lambda path, *span: decoded.append(path.stem) or real(path, *span))
    assert repeated_rows((corpus, row) for row in corpus) == [False, True, False, False, False]
    assert decoded == ["a", "b", "d"]
    for row in corpus:
        row.duration_s += 0.02 * (row.utterance_id == "b")  # too different to be one recording: not even decoded
    assert not any(repeated_rows((corpus, row) for row in corpus))
    assert reading.SAME_LENGTH_S < 0.02


def test_a_mixture_learns_once_from_what_two_corpora_hold_and_not_from_dev(
    make_rows: Callable[..., Corpus], family: Family
) -> None:
    own = make_rows(
        "own", [("a", "sing", 0, "wav", "train"), ("b", "sing", 1, "wav", "dev"), ("c", "sing", 2, "wav", "train")]
    )
    other = make_rows(
        "other",
        [
            ("x", "SING", 0, "flac", "train"),
            ("y", "sing", 1, "flac", "train"),
            ("z", "sing", 5, "flac", "train"),
            ("v", "sing", 5, "wav", "train"),
        ],
    )
    mix = [{"weight": 1}, {"corpus": str(other.root), "weight": 1}]
    kept = training_pool(own, family, DataConfig(corpus=str(own.root), mix=mix, deduplicate=True))
    assert [row.utterance_id for row in kept.utterances] == ["a", "c", "z"]
    assert kept.dropped == {reading.SAID_TWICE: 2, reading.SAID_IN_DEV: 1}
    assert kept.to_json()["mix"][1]["kept"] == 1
    everything = training_pool(own, family, DataConfig(corpus=str(own.root), mix=mix))
    assert len(everything.utterances) == 6
    overlapping = [{"weight": 1}, {"weight": 1, "where": ["duration_s>=0"]}]
    with pytest.raises(InputError, match="leaves nothing of"):
        training_pool(own, family, DataConfig(corpus=str(own.root), mix=overlapping, deduplicate=True))
    alone = training_pool(other, family, DataConfig(corpus=str(other.root), dev_split="train", deduplicate=False))
    assert len(alone.utterances) == 4


def test_a_run_with_its_own_split_measures_and_reports_it(
    write_recipe: Callable[..., Path], tiny_corpus: Path, tmp_path: Path, speechtune: Callable[..., Any]
) -> None:
    table = (tiny_corpus / "metadata.jsonl").read_bytes()
    data = {"corpus": str(tiny_corpus), "split": {"dev": 0.25, "test": 0.25, "seed": 5}, "deduplicate": True}
    training = {"epochs": 1, "batch": {"utterances": 4}, "trackers": []}
    sets = [{"name": "test", "split": "test"}, {"name": "dev", "corpus": str(tiny_corpus), "split": "dev"}]
    evaluation = {"contexts": ["fit"], "scoring": {"resamples": 50}, "sets": sets}
    run = tmp_path / "run"
    done = speechtune(
        "train", write_recipe(data=data, training=training, evaluation=evaluation), "--out", run, "--quiet"
    )
    assert done.returncode == 0, done.stderr
    assert (tiny_corpus / "metadata.jsonl").read_bytes() == table
    divided = load_corpus(DataConfig(**data))
    for name in ("test", "dev"):
        lines = (run / f"transcripts/{name}.after.fit.jsonl").read_text().splitlines()
        ids = {json.loads(line)["utterance_id"] for line in lines}
        assert ids == {row.utterance_id for row in divided.split(name)}
        assert ids != {row.utterance_id for row in Corpus.load(tiny_corpus) if row.split == name}
    facts = json.loads((run / "provenance.json").read_text())["data"]
    assert facts["fingerprint"] == divided.fingerprint()
    assert speechtune("report", run, "--quiet").returncode == 0
    page = (run / "report.html").read_text()
    assert "the corpus has changed" not in page
    assert "could not be read" not in page
