"""The law: exported and imported again, a corpus has the same utterances and the same transcripts byte for byte."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer
from nasty_corpus import ONLY_JSON, PLAIN_LINES, nasty_corpus
from typer.testing import CliRunner

from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.corpus.exporters import EXPORTERS
from speechtune.corpus.exporting import export_corpus
from speechtune.corpus.importing import import_corpus
from speechtune.corpus.table import Corpus, Utterance

STANDARD = ("speaker_id", "session_id", "language", "split", "age", "gender")


@pytest.fixture
def nasty(tmp_path: Path, make_audio: Any) -> Corpus:
    return nasty_corpus(tmp_path / "nasty", make_audio, PLAIN_LINES)


def samples_of(corpus: Corpus, row: Utterance) -> bytes:
    return load_audio(corpus.path_of(row), row.start_s, row.end_s).tobytes()


def back(corpus: Corpus, layout: str, tmp_path: Path, audio: Any = None, **options: Any) -> Corpus:
    result = export_corpus(corpus, layout, tmp_path / "out", audio=audio, overwrite=True)
    assert result.kept == len(corpus)
    imported = import_corpus(tmp_path / "out", tmp_path / "back", allow_empty=True, overwrite=True, **options)
    assert imported.format == layout
    return Corpus.load(tmp_path / "back")


@pytest.mark.parametrize("spans", [True, False])
@pytest.mark.parametrize("audio", ["copy", "reference"])
@pytest.mark.parametrize("layout", list(EXPORTERS))
def test_export_then_import_is_the_identity(
    tmp_path: Path, make_audio: Any, layout: str, audio: str, spans: bool
) -> None:
    nasty = nasty_corpus(tmp_path / "nasty", make_audio, PLAIN_LINES, spans=spans)
    if layout == "qwen3_asr" and audio == "reference" and spans:
        with pytest.raises(InputError, match="--audio copy"):
            export_corpus(nasty, layout, tmp_path / "out", audio="reference")
        return
    again = back(nasty, layout, tmp_path, audio)
    mine, theirs = {row.utterance_id: row for row in nasty}, {row.utterance_id: row for row in again}
    assert mine.keys() == theirs.keys()
    carried = [name for name in STANDARD if name in EXPORTERS[layout].carries]
    assert len(carried) >= 5
    for name, row in mine.items():
        other = theirs[name]
        assert other.text.encode() == row.text.encode(), name
        assert {key: other.column(key) for key in carried} == {key: row.column(key) for key in carried}, name
        assert other.duration_s == row.duration_s
        assert samples_of(again, other) == samples_of(nasty, row)
        if EXPORTERS[layout].extra:
            assert other.extra == row.extra


@pytest.mark.parametrize("layout", list(EXPORTERS))
def test_blanks_at_the_ends_and_line_breaks(tmp_path: Path, make_audio: Any, layout: str) -> None:
    for text in ONLY_JSON:
        corpus = nasty_corpus(tmp_path / "nasty", make_audio, ("good", text), spans=False)
        if layout == "kaldi":
            with pytest.raises(InputError, match=r"row 2 \(utterance 'u01'\): its text .*, which kaldi cannot carry"):
                export_corpus(corpus, layout, tmp_path / "out")
            assert not (tmp_path / "out").exists()
        else:
            assert [row.text for row in back(corpus, layout, tmp_path)] == ["good", text]


@pytest.mark.parametrize("layout", list(EXPORTERS))
@pytest.mark.parametrize("text", ["   ", "\ud800", 7])
def test_what_no_layout_carries_is_refused(tmp_path: Path, make_audio: Any, layout: str, text: Any) -> None:
    corpus = nasty_corpus(tmp_path / "nasty", make_audio, ("good",), spans=False)
    corpus.utterances[0].text = text
    with pytest.raises(InputError, match="'u00'"):
        export_corpus(corpus, layout, tmp_path / "out")


@pytest.mark.parametrize("layout", list(EXPORTERS))
def test_a_copy_needs_nothing_of_the_original(tmp_path: Path, nasty: Corpus, layout: str) -> None:
    export_corpus(nasty, layout, tmp_path / "out", audio="copy")
    texts = {row.utterance_id: row.text for row in nasty}
    (tmp_path / "nasty").rename(tmp_path / "gone")
    import_corpus(tmp_path / "out", tmp_path / "back", allow_empty=True, audio="reference")
    again = Corpus.load(tmp_path / "back")
    assert {row.utterance_id: row.text for row in again} == texts
    assert all(Path(row.file_name).is_relative_to(tmp_path / "out") for row in again)


def test_kaldi_files_are_what_kaldi_wants(tmp_path: Path, nasty: Corpus) -> None:
    export_corpus(nasty, "kaldi", tmp_path / "out")
    for folder in ("train", "dev", "test", "unsplit"):
        tables = {path.name: path.read_bytes().split(b"\n")[:-1] for path in (tmp_path / "out" / folder).iterdir()}
        assert {"wav.scp", "text", "utt2spk", "spk2utt", "utt2dur"} <= tables.keys()
        assert ("segments" in tables) == (folder in ("dev", "unsplit"))
        for name, lines in tables.items():
            keys = [line.split(b" ")[0] for line in lines]
            assert keys == sorted(set(keys)), name  # bytewise, as LC_ALL=C sort does
        utterances = {line.split()[0] for line in tables["text"]}
        assert utterances == {line.split()[0] for line in tables["utt2spk"]}
        assert utterances == {key for line in tables["spk2utt"] for key in line.split()[1:]}
        recordings = {line.split()[0] for line in tables["wav.scp"]}
        assert recordings == ({line.split()[1] for line in tables["segments"]} if "segments" in tables else utterances)
    gone = export_corpus(nasty, "kaldi", tmp_path / "out", overwrite=True).columns_not_carried
    assert gone == ["session_id", "mood", "score", "words"]


def test_lhotse_itself_reads_and_validates_what_is_written(tmp_path: Path, nasty: Corpus) -> None:
    lhotse = pytest.importorskip("lhotse", reason="lhotse is not installed")
    export_corpus(nasty, "lhotse", tmp_path / "out")
    found = {}
    for split in ("_train", "_dev", "_test", ""):
        recordings = lhotse.RecordingSet.from_file(tmp_path / f"out/recordings{split}.jsonl.gz")
        supervisions = lhotse.SupervisionSet.from_file(tmp_path / f"out/supervisions{split}.jsonl.gz")
        cuts = lhotse.CutSet.from_file(tmp_path / f"out/cuts{split}.jsonl.gz")
        lhotse.validate_recordings_and_supervisions(recordings, supervisions, read_data=True)
        for cut in cuts:
            lhotse.validate(cut, read_data=True)
            found[cut.id] = (cut.supervisions[0].text, cut.supervisions[0].speaker, cut.load_audio()[0])
    assert found.keys() == {row.utterance_id for row in nasty}
    for row in nasty:
        text, speaker, samples = found[row.utterance_id]
        assert (text, speaker) == (row.text, row.speaker_id)
        assert samples.astype("float32").tobytes() == samples_of(nasty, row)


def test_nemo_and_qwen_rows_have_the_keys_their_tools_read(tmp_path: Path, nasty: Corpus) -> None:
    export_corpus(nasty, "nemo", tmp_path / "nemo", audio="copy")
    rows = [json.loads(line) for line in (tmp_path / "nemo/train_manifest.json").read_text().splitlines() if line]
    assert all((tmp_path / "nemo" / row["audio_filepath"]).is_file() for row in rows)
    assert [("offset" in row, row["duration"]) for row in rows[:4]] == [
        (False, 0.2),
        (False, 0.2),
        (False, 0.2),
        (False, 0.2),
    ]
    result = export_corpus(nasty, "qwen3_asr", tmp_path / "qwen", audio="copy")
    lines = [json.loads(line) for path in sorted((tmp_path / "qwen").glob("*.jsonl")) for line in path.open()]
    texts = {row["utterance_id"]: row["text"] for row in lines}
    assert texts["u01"] == "language English<asr_text>None"
    assert texts["u04"].startswith("language None<asr_text>")
    assert result.notes == ["language None was written for: unknown", "Qwen3-ASR was not trained on: Hebrew, Telugu"]


def test_datasets_finds_the_audiofolder_as_one_split(tmp_path: Path, nasty: Corpus) -> None:
    patterns = pytest.importorskip("datasets.data_files")
    export_corpus(nasty, "audiofolder", tmp_path / "c/out")
    found = patterns.get_data_patterns(str(tmp_path / "c/out"))
    assert list(found) == ["train"]
    rows = [json.loads(line) for line in (tmp_path / "c/out/metadata.jsonl").read_bytes().decode().split("\n") if line]
    assert all((tmp_path / "c/out" / row["file_name"]).is_file() for row in rows)


def test_out_never_replaces_the_corpus_or_its_audio(tmp_path: Path, nasty: Corpus) -> None:
    for out in (nasty.root, tmp_path, nasty.root / "audio"):
        with pytest.raises(InputError, match="choose another"):
            export_corpus(nasty, "nemo", out, overwrite=True)
    (nasty.root / "audio/ü 0.wav").unlink()
    with pytest.raises(InputError, match=r"'u00'.*does not exist"):
        export_corpus(nasty, "nemo", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_numbers_and_misleading_columns_of_a_table_made_by_hand(tmp_path: Path, make_audio: Any) -> None:
    for layout in EXPORTERS:
        corpus = nasty_corpus(tmp_path / "nasty", make_audio, ("good", "also good"), spans=False)
        row = corpus.utterances[1]
        row.age, row.speaker_id, row.extra = 6, 12, {"offset": 0.1, "duration": 0.05, "mood": "glad"}  # type: ignore[assignment]
        again = back(corpus, layout, tmp_path).utterances[1]
        assert (again.text, again.age, again.speaker_id, again.duration_s) == ("also good", "6", "12", 0.2)
        assert "mood" not in again.extra or again.extra["mood"] == "glad"
    corpus.utterances[1].utterance_id = " u01"
    with pytest.raises(InputError, match="its id is empty or begins or ends with a blank"):
        export_corpus(corpus, "nemo", tmp_path / "out", overwrite=True)


def test_the_verb(tmp_path: Path, nasty: Corpus) -> None:
    from speechtune.cli import export_corpus as verb

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(verb.command)
    words = [str(nasty.root), "--to", "nemo", "--out", str(tmp_path / "out"), "--json", "--quiet"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0
    assert json.loads(done.stdout)["kept"] == len(nasty)
    assert CliRunner().invoke(app, [*words[:2], "tape", *words[3:]]).exit_code == 2
