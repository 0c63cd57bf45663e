"""A million files: one line each, whatever happens in between."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.audio.io import write_audio
from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import transcribe_corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.scale.inputs import Shard, Source
from speechtune.decoding.scale.output import GrowingFile, changed_settings
from speechtune.decoding.scale.running import StreamOptions, transcribe_stream
from speechtune.decoding.scale.workers import Opening
from speechtune.decoding.sources import open_source

Command = Callable[..., subprocess.CompletedProcess[str]]
FAST = ("decoding.max_new_tokens=6", "decoding.long=chunks", "--context", "fit", "--quiet", "--json")


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n")[:-1]]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Thirty-three tones in two folders, one of them broken, one of no length, one longer than the window."""
    root = tmp_path / "sounds"
    for number in range(30):
        tone = 0.3 * np.sin(np.arange(4_000 + 700 * (number * 7 % 11)) * (0.02 + 0.01 * number))
        write_audio(root / ("b" if number % 3 else "a") / f"t{number:02d}.wav", tone.astype(np.float32))
    (root / "a" / "broken.flac").write_bytes(b"fLaC nothing of the kind")
    (root / "a" / "empty.wav").write_bytes(b"")
    write_audio(root / "long.wav", (0.3 * np.sin(np.arange(80_000) * 0.05)).astype(np.float32))
    (root / "notes.txt").write_text("no audio")
    return root


def opening(model: Path, **options: Any) -> Opening:
    overrides = ["decoding.max_new_tokens=6", "decoding.long=chunks"]
    return Opening(str(model), {"context": "fit", "overrides": overrides, **options})


def test_every_input_has_one_line_in_order_and_bad_ones_are_flagged(
    tiny_model: Path, folder: Path, tmp_path: Path
) -> None:
    options = StreamOptions(tmp_path / "all.jsonl", chunk_inputs=7)
    result = transcribe_stream(opening(tiny_model), folder, options)
    said = rows(options.out)
    expected = sorted(str(path.relative_to(folder)) for path in folder.rglob("*.*") if path.suffix != ".txt")
    assert [one["utterance_id"] for one in said] == expected and len(expected) == 33
    failed = {one["utterance_id"]: one for one in said if "failed" in one.get("flags", [])}
    assert set(failed) == {"a/broken.flac", "a/empty.wav"}
    assert all(one["text"] == "" and Path(name).name in one["error"] for name, one in failed.items())
    assert result["exit_code"] == 1 and result["kept"] == 31 and result["dropped_by_reason"] == {"failed": 2}
    assert result["rtfx"] > 0 and result["utterances_per_s"] > 0
    assert not (tmp_path / "all.jsonl.journal").exists()
    whole = {one["utterance_id"]: one["text"] for one in said}
    assert len(whole["long.wav"]) > 0
    opened = opening(tiny_model, batch_size=1).open()
    alone = transcribe_corpus(opened.family, open_source(folder / "b", window_s=3.0), opened.decoding)
    assert len(alone) == 20  # at fit context a clip's text may depend on the length of its batch: only most agree
    assert sum(whole[f"b/{one.utterance_id}"] == one.text for one in alone) > 10
    again = transcribe_stream(opening(tiny_model), folder, options)
    assert again["new"] == 0 and rows(options.out) == said and again["exit_code"] == 1


def test_kill_and_restart_lose_nothing_and_double_nothing(
    speechtune: Command, tiny_model: Path, tmp_path: Path
) -> None:
    root = tmp_path / "sounds"
    for number in range(120):
        tone = 0.3 * np.sin(np.arange(3_000 + 97 * (number * 13 % 29)) * (0.02 + 0.002 * number))
        write_audio(root / f"t{number:03d}.wav", tone.astype(np.float32))
    out, journal = tmp_path / "out.jsonl", tmp_path / "out.jsonl.journal"
    words = ["transcribe", tiny_model, root, *FAST, "--stream", "--out", out, "--batch-size", "4"]
    command = [sys.executable, "-m", "speechtune.cli", *map(str, words)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not (journal.is_file() and journal.stat().st_size > 2_000):
        time.sleep(0.002)
    os.kill(process.pid, signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL, "it was done before it was killed"
    kept = journal.read_bytes().rpartition(b"\n")[0].count(b"\n") + 1
    with journal.open("ab") as stream:
        stream.write(b'{"input": 7, "row": {"utter')  # half a line, as a kill within a write leaves it
    finish = speechtune(*words)
    assert finish.returncode == 0, finish.stderr
    assert json.loads(finish.stdout)["new"] == 120 - kept < 120
    assert [one["utterance_id"] for one in rows(out)] == [f"t{number:03d}.wav" for number in range(120)]
    fresh = StreamOptions(tmp_path / "fresh.jsonl")
    transcribe_stream(opening(tiny_model, batch_size=4), root, fresh)
    assert [one["text"] for one in rows(fresh.out)] == [one["text"] for one in rows(out)]


def test_shards_and_workers_partition_the_inputs(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    parts = []
    for index, workers in ((1, 2), (2, 1)):
        options = StreamOptions(tmp_path / f"part{index}.jsonl", shard=Shard(index, 2), workers=workers)
        assert transcribe_stream(opening(tiny_model, batch_size=2), tiny_corpus, options)["exit_code"] == 0
        parts.append(rows(options.out))
    merged = [row["utterance_id"] for pair in zip(*parts, strict=True) for row in pair]
    assert merged == [one.utterance_id for one in Corpus.load(tiny_corpus)] and len(merged) == 20
    assert len({row["text"] for part in parts for row in part}) > 1


def test_rows_of_a_jsonl_may_share_files_and_ids(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    audio = str(tiny_corpus / "audio" / "u00.wav")
    table = tmp_path / "rows.jsonl"
    lines = [{"audio_path": audio, "start_s": 0.0, "end_s": 0.25}, {"audio_path": audio}, {"id": "x", "audio": audio}]
    table.write_text("\n".join([*map(json.dumps, lines), '{"no": "audio"}', "not json"]) + "\n")
    out = tmp_path / "out.jsonl"
    result = transcribe_stream(opening(tiny_model), table, StreamOptions(out))
    assert result["exit_code"] == 1
    said = rows(out)
    assert [one["utterance_id"] for one in said] == [audio, audio, "x", "line-4", "line-5"]
    assert said[0]["duration_s"] == 0.25 and said[1]["duration_s"] > 0.25
    assert said[1]["text"] == said[2]["text"]
    assert "line 4" in said[3]["error"] and "line 5" in said[4]["error"]


def test_other_settings_and_changed_inputs_are_refused(tiny_model: Path, folder: Path, tmp_path: Path) -> None:
    options = StreamOptions(tmp_path / "o.jsonl")
    same = Opening(str(tiny_model), {"context": "fit", "overrides": ["decoding.max_new_tokens=4"]})
    source = folder / "b"
    transcribe_stream(same, source, options)
    before = (tmp_path / "o.jsonl").read_bytes()
    other = Opening(str(tiny_model), {"context": "fit", "overrides": ["decoding.max_new_tokens=5"]})
    with pytest.raises(InputError, match="begun with another decoding"):
        transcribe_stream(other, source, options)
    (source / "t01.wav").rename(source / "t00b.wav")
    with pytest.raises(InputError, match=r"line 1 is of 't01\.wav' where the source now has 't00b\.wav'"):
        transcribe_stream(same, source, options)
    assert (tmp_path / "o.jsonl").read_bytes() == before
    hopeless = Opening(str(tiny_model), {"overrides": ["decoding.search.suppress_tokens=[260]"]})
    with pytest.raises(InputError, match=r"every clip fails: .*forbids the end of the text"):
        transcribe_stream(hopeless, source, StreamOptions(tmp_path / "h.jsonl"))


def test_a_file_is_written_by_one_process(tmp_path: Path) -> None:
    with (
        GrowingFile(tmp_path / "o.jsonl", {}),
        pytest.raises(InputError, match="being written by another process"),
        GrowingFile(tmp_path / "o.jsonl", {}),
    ):
        pass


def test_half_a_chunk_in_the_file_is_continued_from_the_journal(tmp_path: Path) -> None:
    with GrowingFile(tmp_path / "o.jsonl", {"a": 1}) as file:
        file.append([{"utterance_id": "0"}])
    killed = GrowingFile(tmp_path / "o.jsonl", {"a": 1}).__enter__()
    killed.note([(1, {"utterance_id": "1"}), (2, {"utterance_id": "2"})])
    killed.journal.close()
    with (tmp_path / "o.jsonl").open("a") as stream:
        stream.write('{"utterance_id": "1"}\n{"utterance_')
    with GrowingFile(tmp_path / "o.jsonl", {"a": 1}) as file:
        assert [row["utterance_id"] for row in file.finished()] == ["0", "1"]
        assert file.journalled()[2] == {"utterance_id": "2"}


def test_shards_are_disjoint_and_complete(tmp_path: Path) -> None:
    for name in "abcdefg":
        (tmp_path / f"{name}.wav").touch()
    parts = [[one.utterance_id for one in Shard(index, 3).of(iter(Source(tmp_path)))] for index in (1, 2, 3)]
    assert parts == [["a.wav", "d.wav", "g.wav"], ["b.wav", "e.wav"], ["c.wav", "f.wav"]]
    assert [Shard(index, 3).size(7) for index in (1, 2, 3)] == [3, 2, 2]
    for wrong in ("0/3", "4/3", "3", "a/b", "1/0"):
        with pytest.raises(InputError, match="as in 3/8"):
            Shard.parse(wrong)


def test_a_setting_that_did_not_exist_yet_had_its_default() -> None:
    own = {"decoding": DecodingConfig().model_dump(mode="json"), "model": "m"}
    held = {"decoding": {name: value for name, value in own["decoding"].items() if name != "margin_s"}, "model": "m"}
    assert changed_settings(held, own) == []
    other = {**own, "decoding": {**own["decoding"], "margin_s": 0.4}}
    assert changed_settings(held, other) == [("decoding.margin_s", 0.2)]
    deeper = {**own, "decoding": {**own["decoding"], "search": {**own["decoding"]["search"], "n_best": 3}}}
    assert changed_settings(held, deeper) == [("decoding.search.n_best", 1)]
    assert changed_settings({**held, "model": "other"}, own) == [("model", "other")]
