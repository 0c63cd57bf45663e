"""Shards that others wrote: a plain WebDataset tar, Parquet as the hub stores it, and what is not one."""

from __future__ import annotations

import io
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.corpus.importers import find_importer
from speechtune.corpus.importing import import_corpus
from speechtune.corpus.table import Corpus


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    info = tarfile.TarInfo(name)
    info.size = len(data)
    tar.addfile(info, io.BytesIO(data))


def test_a_tar_of_wav_and_txt(tmp_path: Path, make_audio: Any) -> None:
    paths = [make_audio(tmp_path / f"{name}.wav") for name in ("a", "b")]
    (tmp_path / "in").mkdir()
    with tarfile.open(tmp_path / "in/validation-0000.tar", "w") as tar:
        for path in paths:
            add(tar, f"set/{path.stem}.txt", f"  text of {path.stem}, é\n".encode())
            add(tar, f"set/{path.stem}.wav", path.read_bytes())
        add(tar, "set/c.txt", b"no audio")
    assert find_importer(str(tmp_path / "in"), None).name == "shards"
    corpus = Corpus.load(import_corpus(tmp_path / "in", tmp_path / "out").out)
    assert [(one.text, one.split) for one in corpus] == [("text of a, é", "dev"), ("text of b, é", "dev")]
    for one, path in zip(corpus, paths, strict=True):
        assert np.array_equal(load_audio(corpus.path_of(one)), load_audio(path))


def test_parquet_with_another_column_name_and_many_row_groups(tmp_path: Path, make_audio: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    paths = [make_audio(tmp_path / f"{number}.wav") for number in range(7)]
    rows = [
        {"clip": {"bytes": path.read_bytes(), "path": path.name}, "sentence": f"t {path.stem}", "client_id": None}
        for path in paths
    ]
    (tmp_path / "in/data").mkdir(parents=True)
    parquet.write_table(
        pyarrow.Table.from_pylist(rows), tmp_path / "in/data/test-00000-of-00001.parquet", row_group_size=2
    )
    corpus = Corpus.load(import_corpus(tmp_path / "in", tmp_path / "out").out)
    assert [one.text for one in corpus] == [f"t {number}" for number in range(7)]
    assert {one.split for one in corpus} == {"test"}
    for one, path in zip(corpus, paths, strict=True):
        assert np.array_equal(load_audio(corpus.path_of(one)), load_audio(path))


def test_what_datasets_saved_to_disk(tmp_path: Path, make_audio: Any) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    paths = [make_audio(tmp_path / f"{number}.wav") for number in range(5)]
    rows = [{"audio": {"bytes": one.read_bytes(), "path": one.name}, "text": f"t {one.stem}, é"} for one in paths]
    rows[1]["audio"] = {"bytes": None, "path": str(paths[1])}  # a row may only name its file
    parts = {"train": rows[:3], "validation": rows[3:]}
    saved = datasets.DatasetDict({name: datasets.Dataset.from_list(part) for name, part in parts.items()})
    saved.save_to_disk(tmp_path / "in")
    (tmp_path / "in/train/cache-1.arrow").write_bytes(b"what a map left behind")
    assert find_importer(str(tmp_path / "in"), None).name == "shards"
    corpus = Corpus.load(import_corpus(tmp_path / "in", tmp_path / "out").out)
    assert [(one.text, one.split) for one in corpus] == [
        (f"t {number}, é", "train" if number < 3 else "dev") for number in range(5)
    ]
    for one, path in zip(corpus, paths, strict=True):
        assert np.array_equal(load_audio(corpus.path_of(one)), load_audio(path))


def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, make_audio: Any) -> None:
    (tmp_path / "x.tar").write_bytes(b"not a tar" * 100)
    with pytest.raises(InputError, match=r"x\.tar is not a readable tar shard"):
        import_corpus(tmp_path / "x.tar", tmp_path / "out")
    (tmp_path / "x.arrow").write_bytes(b"not an arrow file" * 100)
    with pytest.raises(InputError, match=r"x\.arrow is not a readable Arrow file"):
        import_corpus(tmp_path / "x.arrow", tmp_path / "out", format="shards")
    with tarfile.open(tmp_path / "y.tar", "w") as tar:
        add(tar, "a.wav", make_audio(tmp_path / "a.wav").read_bytes())
    with pytest.raises(InputError, match=r"y\.tar row 1 has no transcript"):
        import_corpus(tmp_path / "y.tar", tmp_path / "out")
