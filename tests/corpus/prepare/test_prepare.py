"""From a corpus to a prepared one and back: texts, samples, records, resumption, locks, full disks."""

from __future__ import annotations

import errno
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
import soundfile

from speechtune.audio.io import load_audio, write_audio
from speechtune.core.errors import InputError
from speechtune.corpus.importing import import_corpus
from speechtune.corpus.prepare import chunks, run
from speechtune.corpus.prepare.policy import PreparePolicy
from speechtune.corpus.prepare.run import PrepareOptions, prepare_corpus
from speechtune.corpus.prepare.undo import original_texts, undo
from speechtune.corpus.table import Corpus, Utterance

TEXTS = (
    'a, "b"',
    "None",
    "123",
    "🙂 ok",
    "שָׁלוֹם עולם",
    "cafe\u0301",
    "it's",
    "x\ty",
    "a\u2028b",
    "NaN",
    "true",
    "I  SAY",
)

MakeCorpus = Callable[..., Path]


@pytest.fixture
def make_corpus(tmp_path: Path) -> MakeCorpus:
    def make(count: int = 12, name: str = "corpus") -> Path:
        root = tmp_path / name
        (root / "audio").mkdir(parents=True)
        rng = np.random.default_rng(1)
        rows = []
        for number in range(count):
            samples = rng.uniform(-0.2, 0.2, int(rng.integers(1_600, 8_000))).astype(np.float32)
            write_audio(root / f"audio/u{number:03d}.wav", samples)
            rows.append(
                Utterance(
                    utterance_id=f"u{number:03d}",
                    file_name=f"audio/u{number:03d}.wav",
                    text=TEXTS[number % len(TEXTS)],
                    duration_s=len(samples) / 16_000,
                    speaker_id=f"s{number % 3}",
                    language="en",
                    age=str(6 + number % 4),
                    split="dev" if number % 4 == 0 else "train",
                    extra={"snr_db": float(number), "take": number, "odd": None},
                )
            )
        Corpus(root, rows).save()
        return root

    return make


def policy(**keys: Any) -> PreparePolicy:
    return PreparePolicy.model_validate(keys)


KEEP = {"unicode": "keep", "whitespace": "keep", "invisible": "keep"}


def files_of(root: Path) -> dict[str, bytes]:
    paths = (path for path in root.rglob("*") if path.is_file() and path.name != "provenance.json")
    return {path.relative_to(root).as_posix(): path.read_bytes() for path in paths}


@pytest.mark.parametrize("format", ["flac", "parquet", "arrow", "webdataset"])
def test_texts_samples_and_columns_survive_every_format(tmp_path: Path, make_corpus: MakeCorpus, format: str) -> None:
    root = make_corpus()
    prepare_corpus(root, tmp_path / "new", policy(text=KEEP, output={"format": format, "shard_minutes": 0.01}))
    back = Corpus.load(import_corpus(tmp_path / "new", tmp_path / "back").out)
    by_id = {one.utterance_id: one for one in back}
    source = Corpus.load(root)
    assert len(by_id) == len(source)
    for one in source:
        other = by_id[one.utterance_id]
        assert other.text == one.text
        assert np.array_equal(load_audio(back.path_of(other)), load_audio(source.path_of(one)))
        for column in ("speaker_id", "age", "split", "language", "snr_db", "take"):
            assert other.column(column) == one.column(column), column
    if format != "flac":
        shards = sorted(path.name for path in (tmp_path / "new/data").iterdir())
        assert len(shards) > 3
        assert shards[0].startswith("dev-00000-of-0000")


@pytest.mark.parametrize("format", ["parquet", "arrow"])
def test_datasets_loads_the_shards(tmp_path: Path, make_corpus: MakeCorpus, monkeypatch: Any, format: str) -> None:
    datasets = pytest.importorskip("datasets", reason="datasets is not installed")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    root = make_corpus()
    prepare_corpus(root, tmp_path / "new", policy(output={"format": format, "license": "cc-by-4.0"}))
    loaded = datasets.load_dataset(str(tmp_path / "new"), cache_dir=str(tmp_path / "cache"))
    assert {name: len(part) for name, part in loaded.items()} == {"dev": 3, "train": 9}
    assert isinstance(loaded["train"].features["audio"], datasets.Audio)
    first = loaded["train"].cast_column("audio", datasets.Audio(decode=False))[0]
    (tmp_path / "x.flac").write_bytes(first["audio"]["bytes"])
    assert np.array_equal(load_audio(tmp_path / "x.flac"), load_audio(root / f"audio/{first['utterance_id']}.wav"))
    assert 'license: "cc-by-4.0"' in (tmp_path / "new/README.md").read_text()


def test_the_record_leads_back_and_preparing_again_changes_no_text(tmp_path: Path, make_corpus: MakeCorpus) -> None:
    root = make_corpus()
    wanted = policy(
        text={"casing": "lower", "punctuation": "strip", "hebrew_niqqud": "remove"},
        languages={"en": {"numbers": "spell"}},
        audio={"level": {"mode": "peak"}, "trim": {"mode": "energy"}},
        where=[{"column": "take", "max": 10}],
    )
    result = prepare_corpus(root, tmp_path / "new", wanted)
    assert (result.kept, result.dropped_by_reason) == (11, {"take is above 10": 1})
    new = {one.utterance_id: one.text for one in Corpus.load(tmp_path / "new")}
    assert new["u002"] == "one hundred and twenty-three"
    assert undo(tmp_path / "new", tmp_path / "table.jsonl").rows == 12
    assert (tmp_path / "table.jsonl").read_bytes() == (root / "metadata.jsonl").read_bytes()
    before = {one.utterance_id: one.text for one in Corpus.load(root)}
    walked = original_texts(tmp_path / "new")
    assert {name: walked.get(name, text) for name, text in new.items()} == {name: before[name] for name in new}
    again = prepare_corpus(tmp_path / "new", tmp_path / "again", wanted)
    assert not [rule for rule in again.changed_by_rule if rule.startswith("text")]
    assert {one.utterance_id: one.text for one in Corpus.load(tmp_path / "again")} == new
    with (tmp_path / "new/original.jsonl").open("a") as stream:
        stream.write("{}\n")
    with pytest.raises(InputError, match="not as prepare left it"):
        undo(tmp_path / "new")


def test_filters_read_the_audit_and_count_their_reasons(tmp_path: Path, make_corpus: MakeCorpus) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    from pyarrow import parquet

    root = make_corpus()
    names = [f"u{number:03d}" for number in range(11)]
    table = {
        "utterance_id": names,
        "snr_db": [float(5 * number) for number in range(10)] + [None],
        "tier": list("aabbccddeef")[:11],
    }
    parquet.write_table(pyarrow.table(table), tmp_path / "audit.parquet")
    rules = [
        {"column": "snr_db", "min": 10},
        {"column": "tier", "not_in": ["e"]},
        {"column": "age", "in": [6, 7, 8]},
    ]
    result = prepare_corpus(root, tmp_path / "new", policy(where=rules), PrepareOptions(audit=tmp_path))
    # snr 0, 5 fall; u010 and u011 have none; tier e: u008, u009; age 9: u003, u007
    assert result.dropped_by_reason == {
        "snr_db is below 10": 2,
        "snr_db is unknown": 2,
        "tier is e": 2,
        "age is not 6 or 7 or 8": 2,
    }
    assert [one.utterance_id for one in Corpus.load(tmp_path / "new")] == ["u002", "u004", "u005", "u006"]
    with pytest.raises(InputError, match="no column 'snr'"):
        prepare_corpus(root, tmp_path / "x", policy(where=[{"column": "snr", "min": 1}]))
    with pytest.raises(InputError, match="'s0', which is not a number"):
        prepare_corpus(root, tmp_path / "x", policy(where=[{"column": "speaker_id", "min": 1}]))


def test_long_recordings_are_cut_by_their_sentence_times(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 48_000).astype(np.float32)
    write_audio(root / "long.wav", samples)
    parts = [{"start_s": 0.0, "end_s": 1.25, "text": "ONE,"}, {"start_s": 1.25, "end_s": 3.0, "text": "[noise] Two"}]
    row = Utterance(
        utterance_id="l", file_name="long.wav", text="ONE, [noise] Two", duration_s=3.0, extra={"segments": parts}
    )
    Corpus(root, [row]).save()
    wanted = policy(
        segmentation={"mode": "sentences", "max_s": 2.0, "target_s": 1.0, "margin_before_s": 0, "margin_after_s": 0},
        text={"casing": "lower", "noise_tags": "remove"},
    )
    result = prepare_corpus(root, tmp_path / "new", wanted)
    made = Corpus.load(tmp_path / "new")
    assert result.kept == len(made) == 2
    assert " ".join(one.text for one in made) == "one, two"
    joined = np.concatenate([load_audio(made.path_of(one)) for one in made])
    assert np.array_equal(joined, load_audio(root / "long.wav"))
    assert [one.extra["parent_id"] for one in made] == ["l", "l"]
    assert "segments" not in made.utterances[0].extra


class EvenAligner:
    """Gives every word an equal share of the recording."""

    def align(self, waveform: np.ndarray, text: str, language: str | None) -> list[Any]:
        from speechtune.corpus.segmentation.pieces import TimedWord

        words = text.split()
        share_s = len(waveform) / 16_000 / len(words)
        return [TimedWord(word, one * share_s, (one + 1) * share_s, 0.9) for one, word in enumerate(words)]


def test_an_aligned_recording_keeps_every_word_and_its_conventions(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 96_000).astype(np.float32)
    write_audio(root / "long.wav", samples)
    text = "ONE two 3 four five six seven eight nine ten"
    Corpus(root, [Utterance(utterance_id="l", file_name="long.wav", text=text, duration_s=6.0, language="en")]).save()
    wanted = policy(
        segmentation={"mode": "align", "max_s": 2.0, "target_s": 1.5}, text={"casing": "lower", "numbers": "spell"}
    )
    with pytest.raises(InputError, match="--align-with"):
        prepare_corpus(root, tmp_path / "none", wanted)
    prepare_corpus(root, tmp_path / "new", wanted, PrepareOptions(aligner=EvenAligner(), aligner_name="even"))
    made = Corpus.load(tmp_path / "new")
    assert len(made) >= 3
    assert " ".join(one.text for one in made) == "one two three four five six seven eight nine ten"
    assert all(len(load_audio(made.path_of(one))) <= 32_000 for one in made)
    assert undo(tmp_path / "new").table == (root / "metadata.jsonl").read_text()
    assert original_texts(tmp_path / "new") == {"l": text}


def test_a_bad_recording_stops_the_work_or_is_counted(tmp_path: Path, make_corpus: MakeCorpus) -> None:
    root = make_corpus(200)
    (root / "audio/u199.wav").write_bytes(b"no audio here " * 30)
    with pytest.raises(InputError, match=r"u199: .*not readable as audio.*--drop-bad"):
        prepare_corpus(root, tmp_path / "new", policy())
    assert not (tmp_path / "new").exists()
    assert len(list((tmp_path / "new.partial/chunks").iterdir())) == 3  # the finished part is intact
    result = prepare_corpus(root, tmp_path / "new", policy(), PrepareOptions(drop_bad=True))
    assert result.resumed
    assert (result.kept, result.dropped_by_reason) == (199, {"unreadable audio": 1})
    assert not (tmp_path / "new.partial").exists()


@pytest.mark.parametrize("format", ["flac", "parquet", "arrow", "webdataset"])
def test_killed_and_continued_gives_the_same_bytes(tmp_path: Path, make_corpus: MakeCorpus, format: str) -> None:
    root = make_corpus(400)
    wanted = policy(text={"casing": "lower"}, output={"format": format, "shard_minutes": 0.1})
    prepare_corpus(root, tmp_path / "whole", wanted)
    words = [
        sys.executable,
        "-m",
        "speechtune.cli",
        "prepare",
        str(root),
        "--out",
        str(tmp_path / "new"),
        "--jobs",
        "2",
    ]
    words += ["--set", "text.casing=lower", "--set", f"output.format={format}", "--set", "output.shard_minutes=0.1"]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    marks = tmp_path / "new.partial/chunks"
    until = time.monotonic() + 120
    while process.poll() is None and time.monotonic() < until and not (marks.is_dir() and any(marks.glob("*.jsonl"))):
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (tmp_path / "new").exists(), "it was not killed in time"
    assert any(marks.glob("*.jsonl"))
    stray = "audio/.audio-x" if format == "flac" else "shards/.shard-x"  # as a killed writer leaves it
    (tmp_path / "new.partial/corpus" / stray).write_bytes(b"")
    result = prepare_corpus(root, tmp_path / "new", wanted, PrepareOptions(jobs=2) if format == "flac" else None)
    assert result.resumed
    assert files_of(tmp_path / "new") == files_of(tmp_path / "whole")


def test_killed_during_assembly_is_continued(tmp_path: Path, make_corpus: MakeCorpus, monkeypatch: Any) -> None:
    root = make_corpus()
    wanted = policy(output={"format": "parquet", "shard_minutes": 0.01})
    prepare_corpus(root, tmp_path / "whole", wanted)
    real = os.replace
    count = [0]

    def replace(first: Any, second: Any) -> None:
        if "data" in str(second):
            count[0] += 1
            if count[0] == 3:
                raise KeyboardInterrupt
        real(first, second)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(KeyboardInterrupt):
        prepare_corpus(root, tmp_path / "new", wanted)
    monkeypatch.undo()
    prepare_corpus(root, tmp_path / "new", wanted)
    assert files_of(tmp_path / "new") == files_of(tmp_path / "whole")


def test_another_policy_does_not_continue_what_was_begun(
    tmp_path: Path, make_corpus: MakeCorpus, monkeypatch: Any
) -> None:
    root = make_corpus()

    def fail(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(run, "assemble", fail)
    with pytest.raises(KeyboardInterrupt):
        prepare_corpus(root, tmp_path / "new", policy())
    monkeypatch.undo()
    with pytest.raises(InputError, match="begun with another policy"):
        prepare_corpus(root, tmp_path / "new", policy(text={"casing": "lower"}))
    result = prepare_corpus(root, tmp_path / "new", policy(text={"casing": "lower"}), PrepareOptions(overwrite=True))
    assert (result.resumed, result.kept) == (False, 12)
    with pytest.raises(InputError, match="exists and is not empty"):
        prepare_corpus(root, tmp_path / "new", policy())
    with pytest.raises(InputError, match="would replace the corpus"):
        prepare_corpus(root, root, policy(), PrepareOptions(overwrite=True))


def test_two_at_once_on_one_target(tmp_path: Path, make_corpus: MakeCorpus, monkeypatch: Any) -> None:
    root = make_corpus()
    real, met = run.run_chunk, []

    def meanwhile(chunk: Any, work: Any) -> Any:
        words = [sys.executable, "-m", "speechtune.cli", "prepare", str(root), "--out", str(tmp_path / "new")]
        met.append(subprocess.run(words, capture_output=True, text=True))
        return real(chunk, work)

    monkeypatch.setattr(run, "run_chunk", meanwhile)
    assert prepare_corpus(root, tmp_path / "new", policy()).kept == 12
    assert met[0].returncode == 2
    assert "another speechtune prepare is writing" in met[0].stderr


def test_a_full_disk_is_one_sentence_and_the_work_continues_later(
    tmp_path: Path, make_corpus: MakeCorpus, monkeypatch: Any
) -> None:
    root = make_corpus(100)
    real = chunks.write_audio

    def write(path: Path, samples: Any) -> None:
        if "u090" in str(path):
            from speechtune.core.errors import explain_write_errors

            with explain_write_errors(path):
                raise OSError(errno.ENOSPC, "No space left on device")
        real(path, samples)

    monkeypatch.setattr(chunks, "write_audio", write)
    with pytest.raises(InputError, match=r"^the disk is full while writing [^\n]*$"):
        prepare_corpus(root, tmp_path / "new", policy())
    assert len(list((tmp_path / "new.partial/chunks").iterdir())) == 1
    monkeypatch.undo()
    assert prepare_corpus(root, tmp_path / "new", policy()).kept == 100


def test_stereo_of_another_rate_becomes_mono_at_16_khz(tmp_path: Path) -> None:
    root = tmp_path / "corpus"
    root.mkdir()
    tone = 0.3 * np.sin(2 * np.pi * 440 * np.arange(22_050) / 44_100)
    soundfile.write(root / "x.wav", np.stack([tone, -tone], axis=1), 44_100)
    Corpus(root, [Utterance(utterance_id="x", file_name="x.wav", text="a", duration_s=0.5)]).save()
    result = prepare_corpus(root, tmp_path / "new", policy())
    assert set(result.changed_by_rule) == {"audio: channels", "audio: resample"}
    samples = load_audio(tmp_path / "new/audio/x.flac")
    assert len(samples) == 8_000
    assert abs(float(np.abs(samples[1000:7000]).max()) - 0.3) < 0.01


def test_an_upload_makes_a_private_data_set_and_fails_in_one_sentence(tmp_path: Path) -> None:
    """With a stand-in for `huggingface_hub.HfApi`; no hub is reached."""
    from speechtune.core.errors import SpeechtuneError
    from speechtune.corpus.prepare.push import check_repository, push

    class Api:
        calls: list[Any] = []  # noqa: RUF012

        def create_repo(self, name: str, **keys: Any) -> None:
            self.calls.append((name, keys))

        def upload_folder(self, **keys: Any) -> None:
            self.calls.append(keys)

    assert push(tmp_path, "me/data", api=Api()) == "https://huggingface.co/datasets/me/data"
    assert Api.calls[0] == ("me/data", {"repo_type": "dataset", "private": True, "exist_ok": True})
    assert Api.calls[1]["folder_path"] == str(tmp_path)

    class Broken(Api):
        def upload_folder(self, **keys: Any) -> None:
            raise ConnectionError("no route")

    with pytest.raises(SpeechtuneError, match=r"is complete, but its upload to me/data failed .no route."):
        push(tmp_path, "me/data", api=Broken())
    with pytest.raises(InputError, match="not owner/name"):
        check_repository("me")


def test_the_verb(tmp_path: Path, make_corpus: MakeCorpus, speechtune: Callable[..., Any]) -> None:
    root = make_corpus()
    shown = speechtune("prepare", "--show-policy")
    (tmp_path / "policy.yaml").write_text(shown.stdout)
    done = speechtune("prepare", root, "--policy", tmp_path / "policy.yaml", "--out", tmp_path / "new", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == 12
    assert json.loads((tmp_path / "new/policy.json").read_text()) == PreparePolicy().model_dump(by_alias=True)
    back = speechtune("prepare", "--undo", tmp_path / "new")
    assert back.stdout == (root / "metadata.jsonl").read_text()
    wrong = speechtune("prepare", root, "--out", tmp_path / "x", "--set", "text.csing=lower")
    assert wrong.returncode == 2
    assert "did you mean" in wrong.stderr
    assert "Traceback" not in wrong.stderr
    assert speechtune("prepare", root).returncode == 2
