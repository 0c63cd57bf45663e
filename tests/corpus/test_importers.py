"""Every layout, read as the tools that write it leave it on a disk."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.importers import IMPORTERS, find_importer
from speechtune.corpus.importing import Fill, import_corpus
from speechtune.corpus.table import Corpus, Utterance

SHARED = Path(__file__).parents[3] / "shared" / "data"


def write_jsonl(path: Path, *rows: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def imported(source: Path | str, out: Path, expected_format: str, **options: Any) -> dict[str, Utterance]:
    result = import_corpus(source, out, **options)
    corpus = Corpus.load(out)
    assert result.format == expected_format
    assert result.kept == len(corpus)
    assert result.seconds_of_audio == pytest.approx(sum(row.duration_s for row in corpus), abs=1e-3)
    assert all(corpus.path_of(row).is_file() for row in corpus)
    return {row.utterance_id: row for row in corpus}


def test_audiofolder_jsonl_with_split_folders(tmp_path: Path, make_audio: Any) -> None:
    source = tmp_path / "in"
    for name in ("train/a.wav", "validation/a.wav", "b.wav"):
        make_audio(source / name)
    write_jsonl(source / "metadata.jsonl", {"file_name": "b.wav", "text": " root "})
    write_jsonl(source / "train/metadata.jsonl", {"file_name": "a.wav", "transcription": "one", "speaker": 7})
    write_jsonl(
        source / "validation/metadata.jsonl",
        {"file_name": "a.wav", "sentence": "two", "duration": 99.0, "age_bucket": "5-7", "mood": "glad"},
    )
    rows = imported(source, tmp_path / "out", "audiofolder")
    assert {name: (row.text, row.split) for name, row in rows.items()} == {
        "b": ("root", None),
        "train-a": ("one", "train"),
        "validation-a": ("two", "dev"),
    }
    assert rows["train-a"].speaker_id == "7"
    assert (rows["validation-a"].age, rows["validation-a"].extra) == ("5-7", {"mood": "glad"})
    assert rows["validation-a"].duration_s == 0.2
    assert rows["b"].source == "b.wav"


@pytest.mark.parametrize("mark", [",", ";", "\t"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_audiofolder_csv_dialects(tmp_path: Path, make_audio: Any, mark: str, newline: str) -> None:
    make_audio(tmp_path / "in/clips/größe 1.wav")
    make_audio(tmp_path / "in/clips/b.wav")
    text = newline.join(
        [
            mark.join(["file_name", "text", "gender"]),
            mark.join(["clips\\größe 1.wav", f'"say ""hi""{mark} then go"', "f"]),
            mark.join(["clips/b.wav", "zwei", ""]),
            "",
        ]
    )
    (tmp_path / "in/metadata.csv").write_bytes(b"\xef\xbb\xbf" + text.encode())
    rows = imported(tmp_path / "in", tmp_path / "out", "audiofolder")
    assert rows["größe_1"].text == f'say "hi"{mark} then go'
    assert rows["größe_1"].file_name == "audio/größe_1.flac"
    assert (rows["b"].text, rows["b"].gender) == ("zwei", None)


def test_a_line_separator_inside_a_text_is_text(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/a.wav")
    write_jsonl(tmp_path / "in/metadata.jsonl", {"file_name": "a.wav", "text": "one\u2028two\x85three"})
    import_corpus(tmp_path / "in", tmp_path / "out")
    line = (tmp_path / "out/metadata.jsonl").read_text(encoding="utf-8").rstrip("\n")
    assert json.loads(line)["text"] == "one\u2028two\x85three"


def test_nemo_manifest_offsets_are_spans(tmp_path: Path, make_audio: Any) -> None:
    audio = make_audio(tmp_path / "in/long.wav", seconds=2.0)
    rows = [{"audio_filepath": str(audio), "text": "x", "offset": at, "duration": 0.5} for at in (0.0, 1.25)]
    write_jsonl(tmp_path / "in/manifest.json", *rows)
    found = imported(tmp_path / "in/manifest.json", tmp_path / "out", "nemo", audio="reference")
    assert [(row.start_s, row.end_s, row.duration_s) for row in found.values()] == [(0.0, 0.5, 0.5), (1.25, 1.75, 0.5)]
    assert Path(next(iter(found.values())).file_name) == audio


def test_parquet_metadata(tmp_path: Path, make_audio: Any) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    make_audio(tmp_path / "in/a.wav")
    parquet.write_table(
        pyarrow.table({"file_name": ["a.wav"], "text": ["x"], "raw": [b"\x00"]}), tmp_path / "in/metadata.parquet"
    )
    assert imported(tmp_path / "in", tmp_path / "out", "audiofolder")["a"].extra == {"raw": "b'\\x00'"}


def test_paired_files_hidden_files_and_speaker_folders(tmp_path: Path, make_audio: Any) -> None:
    source = tmp_path / "in"
    for name in ("ann/x.wav", "ann/x.1.wav", "bob/x.FLAC"):
        make_audio(source / name.replace("FLAC", "flac"))
        (source / name).with_suffix(".txt").write_text(f"\ufeff {name}\r\n", encoding="utf-8")
    (source / "ann/._x.wav").write_bytes(b"resource fork")
    (source / "README.txt").write_text("about this set")
    rows = imported(source, tmp_path / "out", "paired", fill=Fill(speaker_from="folder", language="en"))
    assert {name: (row.text, row.speaker_id, row.language) for name, row in rows.items()} == {
        "ann-x": ("ann/x.wav", "ann", "en"),
        "ann-x.1": ("ann/x.1.wav", "ann", "en"),
        "bob-x": ("bob/x.FLAC", "bob", "en"),
    }


def kaldi(root: Path, **files: str) -> Path:
    root.mkdir(parents=True, exist_ok=True)
    for name, text in files.items():
        (root / name.replace("wav_scp", "wav.scp")).write_text(text, encoding="utf-8")
    return root


def test_kaldi_with_segments_and_speaker_tables(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/wav/r 1.wav", seconds=3.0)
    source = kaldi(
        tmp_path / "in",
        wav_scp="r1 wav/r 1.wav\n",
        segments="u1 r1 0.5 1.5\nu2 r1 2.0 -1\n",
        text="u1 HELLO\u00a0THERE\nu2\tYOU  TWO\n",
        spk2utt="s1 u1 u2\n",
        spk2age="s1 6\n",
        spk2gender="s1 f\n",
        utt2lang="u2 te\n",
    )
    rows = imported(source, tmp_path / "out", "kaldi")
    assert (rows["u1"].text, rows["u2"].text) == ("HELLO\u00a0THERE", "YOU  TWO")
    assert [(row.duration_s, row.start_s, row.source) for row in rows.values()] == [
        (1.0, None, "wav/r 1.wav#t=0.5,1.5"),
        (1.0, None, "wav/r 1.wav#t=2"),
    ]
    assert (rows["u2"].speaker_id, rows["u2"].age, rows["u2"].gender, rows["u2"].language) == ("s1", "6", "f", "te")


@pytest.mark.parametrize("entry", ["sox a.wav -t wav - |", "cat a.wav|", "feats.ark:17"])
def test_kaldi_commands_and_archives_are_refused_and_never_run(tmp_path: Path, entry: str) -> None:
    source = kaldi(tmp_path / "in", wav_scp=f"u1 {entry}\n", text="u1 X\n")
    with pytest.raises(InputError, match=r"wav\.scp line 1"):
        import_corpus(source, tmp_path / "out", drop_bad=True)


def test_kaldi_faults_are_bad_rows(tmp_path: Path, make_audio: Any) -> None:
    for name in ("a", "b", "c"):
        make_audio(tmp_path / f"in/{name}.wav")
    source = kaldi(
        tmp_path / "in", wav_scp="a a.wav\nb b.wav\nc c.wav\n", text="a A\na AGAIN\nb\nghost BOO\n", utt2spk="a s\n"
    )
    result = import_corpus(source, tmp_path / "out", drop_bad=True)
    assert [row.text for row in Corpus.load(tmp_path / "out")] == ["A"]
    assert result.dropped_by_reason == {
        "empty transcript": 1,
        "audio without a row": 1,
        "missing audio": 1,
        "duplicate utterance id": 1,
    }


def test_children_challenge(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/audio/U_1.flac")
    row = {"utterance_id": "U_1", "child_id": "C_9", "session_id": "S_2", "audio_path": "audio/U_1.flac"}
    row |= {"audio_duration_sec": 9.9, "age_bucket": "8-11", "md5_hash": "ff", "orthographic_text": "a dog"}
    write_jsonl(tmp_path / "in/train_word_transcripts.jsonl", row)
    for source in (tmp_path / "in", tmp_path / "in/train_word_transcripts.jsonl"):
        found = imported(source, tmp_path / "out", "children", overwrite=True)["U_1"]
        assert (found.speaker_id, found.session_id, found.age, found.text) == ("C_9", "S_2", "8-11", "a dog")
        assert (found.duration_s, found.extra) == (0.2, {"md5_hash": "ff"})


def test_common_voice(tmp_path: Path, make_audio: Any) -> None:
    source = tmp_path / "cv/te"
    for name in ("a.mp3", "b.mp3", "other.mp3"):
        make_audio(source / "clips" / name)
    header = "client_id\tpath\tsentence\tup_votes\tage\tgender\tlocale\n"
    (source / "train.tsv").write_text(header + 'c1\ta.mp3\t"Unbalanced\t2\ttwenties\tmale\tte\n')
    (source / "test.tsv").write_text(header + "c2\tb\tTwo\t2\t\t\tte\n")
    (source / "other.tsv").write_text(header + "c3\tother.mp3\tUnvoted\t0\t\t\tte\n")
    rows = imported(source, tmp_path / "out", "common_voice")
    assert {name: (row.text, row.split, row.speaker_id, row.age) for name, row in rows.items()} == {
        "a": ('"Unbalanced', "train", "c1", "twenties"),
        "b": ("Two", "test", "c2", None),
    }
    make_audio(source / "clips/stray.mp3")
    with pytest.raises(InputError, match=r"stray\.mp3"):
        import_corpus(source, tmp_path / "again")
    only = imported(source / "other.tsv", tmp_path / "other", "common_voice")
    assert list(only) == ["other"]


def test_huggingface_bytes_are_decoded_without_torchcodec(tmp_path: Path, make_audio: Any) -> None:
    datasets = pytest.importorskip("datasets")
    features = datasets.Features({"audio": datasets.Audio(decode=False), "sentence": datasets.Value("string")})
    data = make_audio(tmp_path / "a.flac", seconds=0.5, rate_hz=48_000).read_bytes()
    rows = [{"audio": {"bytes": data, "path": "a.flac"}, "sentence": name} for name in ("one", "two")]
    (tmp_path / "set/data").mkdir(parents=True)
    datasets.Dataset.from_list(rows).cast(features).to_parquet(tmp_path / "set/data/validation-0.parquet")
    found = imported(f"hf:{tmp_path / 'set'}", tmp_path / "out", "huggingface")
    assert [(row.text, row.split, row.duration_s) for row in found.values()] == [
        ("one", "dev", 0.5),
        ("two", "dev", 0.5),
    ]
    with pytest.raises(InputError, match="--audio flac"):
        import_corpus(f"hf:{tmp_path / 'set'}@validation", tmp_path / "ref", audio="reference")
    with pytest.raises(InputError, match="cannot load"):
        import_corpus(f"hf:{tmp_path / 'set'}@nonsense", tmp_path / "none")


def test_a_corpus_imports_as_itself(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/test/x.wav", seconds=0.3, rate_hz=44_100)
    rows = [{"file_name": "x.wav", "text": "hi", "start_s": at, "end_s": at + 0.1, "mood": "glad"} for at in (0.0, 0.2)]
    write_jsonl(tmp_path / "in/test/metadata.jsonl", *rows)
    first = import_corpus(tmp_path / "in", tmp_path / "one")
    second = import_corpus(tmp_path / "one", tmp_path / "two")
    assert (tmp_path / "one/metadata.jsonl").read_bytes() == (tmp_path / "two/metadata.jsonl").read_bytes()
    assert first.fingerprint == second.fingerprint == Corpus.load(tmp_path / "two").fingerprint()
    for path in (tmp_path / "one/audio").iterdir():
        assert path.read_bytes() == (tmp_path / "two/audio" / path.name).read_bytes()


def test_audio_names_never_look_like_splits_to_datasets(tmp_path: Path, make_audio: Any) -> None:
    patterns = pytest.importorskip("datasets.data_files")
    for name in ("test-1.wav", "my_train_2.wav", "Dev.wav", "contest-3.wav", "..hidden.wav", "a b&c.wav"):
        make_audio(tmp_path / f"in/{name}")
        (tmp_path / f"in/{name}").with_suffix(".txt").write_text("x")
    import_corpus(tmp_path / "in", tmp_path / "c/out", format="paired", drop_bad=True)
    found = patterns.get_data_patterns(str(tmp_path / "c/out"))
    assert list(found) == ["train"]
    files = patterns.DataFilesDict.from_patterns(found, base_path=str(tmp_path / "c/out"))["train"]
    assert any(name.endswith("metadata.jsonl") for name in files)


def test_unknown_layouts_and_formats_are_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for source, format, expected in (
        (tmp_path / "nowhere", None, "does not exist"),
        (tmp_path / "empty", None, "empty folder"),
        (tmp_path, None, "--format"),
        (tmp_path, "tape", "choose one of"),
    ):
        with pytest.raises(InputError, match=expected):
            find_importer(str(source), format)
    file = tmp_path / "notes.txt"
    file.write_text("x")
    for name in IMPORTERS:
        for source in (file, tmp_path / "empty"):
            with pytest.raises(InputError):
                import_corpus(source, tmp_path / "out", format=name, drop_bad=True)


@pytest.mark.skipif(not SHARED.is_dir(), reason="shared/data is not beside this checkout")
@pytest.mark.parametrize(
    ("folder", "kept", "speakers"),
    [("multilingual/te", 60, 3), ("long_form", 4, 1), ("speechocean762/adults", 240, 12)],
)
def test_real_sets_import_completely(tmp_path: Path, folder: str, kept: int, speakers: int) -> None:
    result = import_corpus(SHARED / folder, tmp_path / "out", audio="reference")
    assert (result.kept, result.speakers, result.dropped_by_reason) == (kept, speakers, {})
