"""What is strict, what is dropped, and what is never destroyed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile

from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.corpus.importing import import_corpus
from speechtune.corpus.naming import audio_stem, id_from_name
from speechtune.corpus.table import Corpus


@pytest.fixture
def messy(tmp_path: Path, make_audio: Any) -> Path:
    """An audiofolder with two good rows and one of each kind of bad row."""
    root = tmp_path / "messy"
    for name in ("good", "also", "silent", "twice", "orphan", "latin", "broken", "late"):
        make_audio(root / f"{name}.wav")
    (root / "zero.wav").write_bytes(b"")
    (root / "words.wav").write_text("no audio here " * 30)
    soundfile.write(root / "nan.wav", np.array([0, np.nan], np.float32), 16_000, subtype="FLOAT")
    soundfile.write(root / "cut.flac", np.random.default_rng(0).uniform(-1, 1, 30_000), 16_000)
    (root / "cut.flac").write_bytes((root / "cut.flac").read_bytes()[:20_000])
    names = ("good", "gone", "silent", "twice", "also", "zero", "words", "nan")
    rows: list[dict[str, Any]] = [{"file_name": f"{name}.wav", "text": name} for name in names]
    rows[2]["text"] = "  "
    rows[3]["utterance_id"] = "good"
    rows += [{"file_name": "cut.flac", "text": "cut"}, {"text": "no file"}]
    rows += [{"file_name": "late.wav", "text": "late", "start_s": 5.0, "end_s": 6.0}]
    lines = [json.dumps(row).encode() for row in rows]
    lines += [b'{"file_name": "latin.wav", "text": "caf\xe9"}', b'{"file_name": "broken.wav"']
    (root / "metadata.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines) + b"\r\n")
    return root


REASONS = {
    "missing audio": 2,
    "empty transcript": 1,
    "duplicate utterance id": 1,
    "empty audio": 1,
    "unreadable audio": 1,
    "non-finite audio": 1,
    "truncated audio": 1,
    "span outside audio": 1,
    "not UTF-8": 1,
    "malformed row": 1,
    "audio without a row": 2,  # orphan.wav, and broken.wav, whose row cannot be read
}


def test_strict_writes_nothing_and_says_everything_in_one_sentence(tmp_path: Path, messy: Path) -> None:
    with pytest.raises(InputError) as caught:
        import_corpus(messy, tmp_path / "out")
    message = str(caught.value)
    assert "metadata.jsonl line 2" in message
    assert "gone.wav" in message
    assert "13 of 15 rows are bad" in message
    assert all(f"{count} {reason}" in message for reason, count in REASONS.items())
    assert "--drop-bad" in message
    assert "\n" not in message
    assert sorted(path.name for path in tmp_path.iterdir()) == ["messy"]


def test_drop_bad_keeps_the_rest_and_accounts_for_every_row(tmp_path: Path, messy: Path) -> None:
    result = import_corpus(messy, tmp_path / "out", drop_bad=True)
    assert result.dropped_by_reason == REASONS
    assert [row.utterance_id for row in Corpus.load(tmp_path / "out")] == ["good", "also"]
    card = json.loads((tmp_path / "out/corpus.json").read_text())
    assert (card["kept"], card["dropped_by_reason"]) == (2, REASONS)
    assert card["seconds_of_audio"] == pytest.approx(0.4)
    assert card["fingerprint"] == Corpus.load(tmp_path / "out").fingerprint()
    dropped = [json.loads(line) for line in (tmp_path / "out/dropped.jsonl").read_text().splitlines()]
    assert len(dropped) == sum(REASONS.values())
    assert {path.name for path in (tmp_path / "out/audio").iterdir()} == {"good.flac", "also.flac"}


def test_nothing_left_is_an_error(tmp_path: Path, messy: Path) -> None:
    lines = (messy / "metadata.jsonl").read_bytes().split(b"\r\n")
    (messy / "metadata.jsonl").write_bytes(lines[1])
    with pytest.raises(InputError, match="no utterance"):
        import_corpus(messy, tmp_path / "out", drop_bad=True)
    assert not (tmp_path / "out").exists()


def test_allow_empty_keeps_empty_transcripts(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/a.wav")
    (tmp_path / "in/a.txt").write_text("")
    assert import_corpus(tmp_path / "in", tmp_path / "out", allow_empty=True).kept == 1
    assert Corpus.load(tmp_path / "out").utterances[0].text == ""


def test_flac_cuts_spans_and_reference_keeps_them(tmp_path: Path, make_audio: Any) -> None:
    audio = make_audio(tmp_path / "in/long.wav", seconds=3.0)
    rows = [{"file_name": "long.wav", "text": "x", "start_s": at, "end_s": at + 0.7} for at in (0.3, 2.0)]
    (tmp_path / "in/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_corpus(tmp_path / "in", tmp_path / "cut")
    import_corpus(tmp_path / "in", tmp_path / "named", audio="reference")
    cut, named = Corpus.load(tmp_path / "cut"), Corpus.load(tmp_path / "named")
    assert [row.utterance_id for row in cut] == ["long-0000300-0001000", "long-0002000-0002700"]
    assert not (tmp_path / "named/audio").exists()
    for one, other in zip(cut, named, strict=True):
        assert (one.start_s, one.end_s) == (None, None)
        assert other.start_s is not None
        assert named.path_of(other) == audio
        np.testing.assert_array_equal(load_audio(cut.path_of(one)), load_audio(audio, other.start_s, other.end_s))


def test_the_source_is_never_overwritten(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/a.wav")
    (tmp_path / "in/metadata.jsonl").write_text('{"file_name": "a.wav", "text": "x"}\n')
    table = tmp_path / "table.jsonl"
    table.write_text(json.dumps({"file_name": str(tmp_path / "in/a.wav"), "text": "x"}))
    for source, out in ((tmp_path / "in", tmp_path / "in"), (tmp_path / "in", tmp_path), (table, tmp_path / "in")):
        with pytest.raises(InputError, match="--out"):
            import_corpus(source, out, overwrite=True)
    with pytest.raises(InputError, match="inside"):
        import_corpus(tmp_path / "in", tmp_path / "in/corpus")
    assert (tmp_path / "in/a.wav").is_file()


def test_names_cannot_lead_out_of_the_corpus(tmp_path: Path, make_audio: Any) -> None:
    audio = make_audio(tmp_path / "a.wav")
    names = ["../../evil", "/etc/passwd", "A", "a", "x" * 500, "नमस्ते दुनिया", "..", "con:1"]
    rows = [{"file_name": "../a.wav", "text": "x", "utterance_id": name} for name in names]
    (tmp_path / "in").mkdir()
    (tmp_path / "in/metadata.jsonl").write_text("\n".join(map(json.dumps, rows)))
    import_corpus(tmp_path / "in", tmp_path / "c/out")
    corpus = Corpus.load(tmp_path / "c/out")
    assert [row.utterance_id for row in corpus] == names
    files = [corpus.path_of(row).resolve() for row in corpus]
    assert {path.parent for path in files} == {(tmp_path / "c/out/audio").resolve()}
    assert len({path.name.casefold() for path in files}) == len(names)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([audio.name, "c", "in"])


def test_linked_recordings_are_neither_missing_nor_orphans(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "store/a.wav")
    (tmp_path / "in").mkdir()
    (tmp_path / "in/audio").symlink_to(tmp_path / "store")
    (tmp_path / "in/loop").symlink_to(tmp_path / "in")
    (tmp_path / "in/metadata.jsonl").write_text('{"file_name": "audio/a.wav", "text": "x"}')
    assert import_corpus(tmp_path / "in", tmp_path / "out").dropped_by_reason == {}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ("file_name,words\na.wav,x\n", "no column of transcripts"),
        ("sound,text\na.wav,x\n", "no column of audio files"),
        ("", "is empty"),
        ("file_name,text\na.wav,x,y,z\n", "cells of the header"),
    ],
)
def test_tables_that_say_too_little(tmp_path: Path, make_audio: Any, table: str, expected: str) -> None:
    make_audio(tmp_path / "in/a.wav")
    (tmp_path / "in/metadata.csv").write_text(table)
    with pytest.raises(InputError, match=expected):
        import_corpus(tmp_path / "in", tmp_path / "out")


def test_utf16_tables_are_named(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/a.wav")
    (tmp_path / "in/metadata.csv").write_text("file_name,text\na.wav,x\n", encoding="utf-16")
    with pytest.raises(InputError, match="UTF-16"):
        import_corpus(tmp_path / "in", tmp_path / "out")


def test_an_interrupt_leaves_nothing(tmp_path: Path, make_audio: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in "abc":
        make_audio(tmp_path / f"in/{name}.wav")
        (tmp_path / f"in/{name}.txt").write_text("x")

    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("speechtune.corpus.importing.write_audio", stop)
    with pytest.raises(KeyboardInterrupt):
        import_corpus(tmp_path / "in", tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_ids_come_from_paths() -> None:
    assert id_from_name("wav/ann/x y.wav") == "ann-x_y"
    assert id_from_name("../x.1.flac", 0.5, None) == "x.1-0000500-end"
    taken: set[str] = set()
    assert audio_stem("ok-1", taken) == "ok-1"
    assert audio_stem("OK-1", taken) != "OK-1"


def test_the_verb(tmp_path: Path, messy: Path, run: Any) -> None:
    failed = run("import", messy, "--out", tmp_path / "out", "--json")
    assert failed.exit_code == 2
    assert json.loads(failed.stdout)["exit_code"] == 2
    done = run("import", messy, "--out", tmp_path / "out", "--drop-bad", "--json", "--quiet")
    assert done.exit_code == 0
    assert (json.loads(done.stdout)["kept"], done.stderr) == (2, "")
    again = run("import", messy, "--out", tmp_path / "out", "--drop-bad")
    assert (again.exit_code, "--overwrite" in again.stderr) == (2, True)
    assert run("import", messy, "--out", tmp_path / "x", "--audio", "mp3").exit_code == 2
