"""Published corpora, in the layout in which they are downloaded."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from timed_fixtures import rows_of, write

from speechtune.core.errors import InputError
from speechtune.corpus.importing import Fill, import_corpus
from speechtune.corpus.table import Corpus


def imported(source: Path, out: Path, layout: str, settings: tuple[str, ...] = ()) -> dict[str, Any]:
    result = import_corpus(source, out, fill=Fill(settings=settings), overwrite=True)
    assert result.format == layout
    return {row.utterance_id: row for row in Corpus.load(out)}


def test_librispeech(tmp_path: Path, make_audio: Any) -> None:
    root = tmp_path / "LibriSpeech"
    for subset, speaker in (("train-clean-100", "84"), ("test-other", "7")):
        for number in range(2):
            make_audio(root / f"{subset}/{speaker}/121/{speaker}-121-000{number}.flac")
        text = f"{speaker}-121-0000 GO DO YOU HEAR\n{speaker}-121-0001 BUT IN  LESS\n"
        write(root / f"{subset}/{speaker}/121/{speaker}-121.trans.txt", text)
    write(
        root / "SPEAKERS.TXT",
        ";ID |SEX| SUBSET\n84   | F | train-clean-100 | 25.03 | Kristin\n7 | M | test-other | 1 | X\n",
    )
    rows = imported(root, tmp_path / "out", "librispeech")
    row = rows["84-121-0001"]
    assert (row.text, row.speaker_id, row.session_id, row.gender, row.split) == (
        "BUT IN  LESS",
        "84",
        "84-121",
        "f",
        "train",
    )
    assert (rows["7-121-0000"].split, rows["7-121-0000"].extra) == ("test", {"subset": "test-other"})
    assert len(rows) == 4
    alone = imported(root / "test-other", tmp_path / "out2", "librispeech")
    assert (len(alone), alone["7-121-0000"].gender) == (2, "m")
    make_audio(root / "test-other/7/121/7-121-0009.flac")
    with pytest.raises(InputError, match="7-121-0009"):
        import_corpus(root, tmp_path / "out3")


def test_mls(tmp_path: Path, make_audio: Any) -> None:
    root = tmp_path / "mls_polish"
    make_audio(root / "train/audio/6892/10349/6892_10349_000000.flac")
    make_audio(root / "dev/audio/71/5/71_5_000001.opus")
    write(root / "train/transcripts.txt", "6892_10349_000000\tzażółć gęślą\n")
    write(root / "train/segments.txt", "6892_10349_000000\thttp://x/y.mp3\t100.5\t115.25\n")
    write(root / "dev/transcripts.txt", "71_5_000001\tjaźń\n")
    write(root / "metainfo.txt", "SPEAKER|GENDER|PARTITION\n 6892 | M | train | 1 | 10349 | T | C\n")
    rows = imported(root, tmp_path / "out", "mls")
    row = rows["6892_10349_000000"]
    assert (row.text, row.speaker_id, row.session_id) == ("zażółć gęślą", "6892", "6892_10349")
    assert (row.gender, row.language, row.split) == ("m", "pl", "train")
    assert row.extra == {"librivox_url": "http://x/y.mp3", "librivox_start_s": 100.5, "librivox_end_s": 115.25}
    assert rows["71_5_000001"].split == "dev"
    write(root / "dev/transcripts.txt", "71_5_000001 jaźń\n")
    with pytest.raises(InputError, match=r"dev/transcripts\.txt line 1"):
        import_corpus(root, tmp_path / "no")


def test_fleurs(tmp_path: Path, make_audio: Any) -> None:
    root = tmp_path / "hi_in"
    make_audio(root / "audio/train/123.wav")
    make_audio(root / "audio/dev/123.wav")
    line = '7\t123.wav\tHe said "go", twice.\the said go twice\th e |\t3200\tFEMALE\n'
    write(root / "train.tsv", line)
    write(root / "dev.tsv", line.replace("FEMALE", "MALE"))
    rows = imported(root, tmp_path / "out", "fleurs")
    assert list(rows) == ["train-123", "dev-123"]
    row = rows["train-123"]
    assert (row.text, row.gender, row.language, row.split) == ('He said "go", twice.', "female", "hi", "train")
    assert row.extra == {"sentence_id": "7", "normalised_text": "he said go twice"}
    assert imported(root, tmp_path / "out", "fleurs", ("text=normalised",))["dev-123"].text == "he said go twice"


SIDECAR = {
    "verbatim": [
        {"start": -0.01, "end": 0.9, "text": "uh ఒకటి", "speaker_id": 0},
        {"start": 0.9, "end": 1.2, "text": "ok?", "speaker_id": 1},
        {"start": 1.2, "end": 1.9, "text": "రెండు", "speaker_id": 0},
    ],
    "speaker_id": "S42",
    "scenario": "Extempore",
    "gender": "Female",
    "age_group": "18-30",
    "district": "Guntur",
}
SIDECAR["normalized"] = [{**piece, "text": str(piece["text"]).removeprefix("uh ")} for piece in SIDECAR["verbatim"]]  # type: ignore[attr-defined]


def test_indicvoices(tmp_path: Path, make_audio: Any) -> None:
    root = tmp_path / "in/Telugu/v1/valid"
    make_audio(root / "a_0.wav", seconds=2.0)
    write(root / "a_0.json", json.dumps(SIDECAR, ensure_ascii=False))
    rows, result = rows_of(tmp_path / "in", tmp_path / "out", "indicvoices")
    assert {text: (row.start_s, row.end_s) for text, row in rows.items()} == {"ఒకటి": (0.0, 0.9), "రెండు": (1.2, 1.9)}
    row = rows["ఒకటి"]
    assert (row.speaker_id, row.gender, row.age, row.language) == ("S42", "Female", "18-30", "te")
    assert (row.extra["verbatim_text"], row.extra["scenario"]) == ("uh ఒకటి", "Extempore")
    assert result.dropped_by_reason == {"another speaker": 1}
    rows, _ = rows_of(tmp_path / "in", tmp_path / "all", "indicvoices", ("others=keep", "text=verbatim"))
    assert rows["ok?"].speaker_id == "S42-interviewer"
    assert "uh ఒకటి" in rows


def test_kathbath(tmp_path: Path, make_audio: Any) -> None:
    root = tmp_path / "kb_data_clean_m4a/telugu"
    make_audio(root / "valid/audio/844424931537866-594-f.wav")
    make_audio(root / "test_known/audio/844424931537867-973-m.wav")
    write(root / "valid/transcription_n2w.txt", "844424931537866-594-f.m4a\tఒక వాక్యం\n")
    write(root / "test_known/transcription_n2w.txt", "844424931537867-973-m.m4a\tఒకటి\n")
    row = imported(root.parent, tmp_path / "out", "kathbath")["844424931537866-594-f"]
    assert (row.text, row.speaker_id, row.gender, row.language, row.split) == ("ఒక వాక్యం", "594", "f", "te", "dev")
    assert len(imported(root / "test_known", tmp_path / "out", "kathbath")) == 1


def test_fairseq_as_shrutilipi(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/news/sent_1.wav")
    write(tmp_path / "in/train.tsv", "/elsewhere/data\nnews/sent_1.wav\t3200\n")
    write(tmp_path / "in/train.wrd", "नमस्ते\n")
    row = imported(tmp_path / "in", tmp_path / "out", "fairseq")["news-sent_1"]
    assert (row.text, row.split) == ("नमस्ते", "train")
    write(tmp_path / "in/train.wrd", "one\ntwo\n")
    with pytest.raises(InputError, match=r"names 1 recordings, but train\.wrd has 2 lines"):
        import_corpus(tmp_path / "in", tmp_path / "no")


def test_voxforge(tmp_path: Path, make_audio: Any) -> None:
    for name, user in (("Ann-20080329-vf1", "Ann"), ("anonymous-20090101-abc", "anonymous")):
        make_audio(tmp_path / f"in/{name}/wav/a0001.wav")
        write(tmp_path / f"in/{name}/etc/PROMPTS", f"{name}/mfc/a0001 AUTHOR OF THE DANGER TRAIL\n")
        write(tmp_path / f"in/{name}/etc/prompts-original", "a0001 Author of the danger trail.\n")
        write(
            tmp_path / f"in/{name}/etc/README",
            f"User Name:{user}\n\nGender: Female;\nAge Range: Adult;\nLanguage: EN\n",
        )
    rows = imported(tmp_path / "in", tmp_path / "out", "voxforge")
    row = rows["Ann-20080329-vf1-a0001"]
    assert (row.text, row.speaker_id, row.gender) == ("AUTHOR OF THE DANGER TRAIL", "Ann", "female")
    assert (row.age, row.language) == ("adult", "en")
    assert rows["anonymous-20090101-abc-a0001"].speaker_id == "anonymous-20090101-abc"
    again = imported(tmp_path / "in/Ann-20080329-vf1", tmp_path / "out", "voxforge", ("prompts=prompts-original",))
    assert [row.text for row in again.values()] == ["Author of the danger trail."]


WHISPER = {
    "language": "en",
    "text": " hello there you",
    "segments": [
        {"id": 0, "start": 0.1, "end": 0.9, "text": " hello there", "avg_logprob": -0.2, "no_speech_prob": 0.01,
         "words": [{"word": " hello", "start": 0.1, "end": 0.4, "probability": 0.5},
                   {"word": " there", "start": 0.4, "end": 0.9, "probability": 1.0}]},
        {"id": 1, "start": 0.9, "end": 1.5, "text": " you", "speaker": "SPEAKER_01",
         "words": [{"word": "you", "score": 0.9}]},
        {"id": 2, "start": 1.5, "end": 1.6, "text": ""},
    ],
}  # fmt: skip
CPP = {
    "result": {"language": "en"},
    "transcription": [
        {
            "timestamps": {"from": "00:00:00,100", "to": "00:00:00,900"},
            "offsets": {"from": 100, "to": 900},
            "text": " hi",
        }
    ],
}


def test_whisper_json(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/talk.wav", seconds=2.0)
    write(tmp_path / "in/talk.json", json.dumps(WHISPER))
    rows, result = rows_of(tmp_path / "in", tmp_path / "out", "whisper_json")
    row = rows["hello there"]
    assert (row.start_s, row.end_s, row.language) == (0.1, 0.9, "en")
    assert (row.extra["label_source"], row.extra["avg_logprob"], row.extra["word_score_mean"]) == ("model", -0.2, 0.75)
    assert row.extra["words"][1] == {"word": "there", "start_s": 0.3, "end_s": 0.8, "score": 1.0}
    assert rows["you"].speaker_id == "talk-SPEAKER_01"
    assert rows["you"].extra["words"] == [{"word": "you", "score": 0.9}]
    assert result.dropped_by_reason == {"no words": 1}
    (tmp_path / "in/talk.json").unlink()
    write(tmp_path / "in/talk.wav.json", json.dumps(CPP))
    rows, _ = rows_of(tmp_path / "in", tmp_path / "cpp", "whisper_json")
    assert (rows["hi"].start_s, rows["hi"].end_s) == (0.1, 0.9)


def test_lhotse_cuts_recordings_and_what_it_refuses(tmp_path: Path, make_audio: Any) -> None:
    import gzip

    audio = make_audio(tmp_path / "a.wav", seconds=2.0)
    recording = {
        "id": "r",
        "sources": [{"type": "file", "channels": [0], "source": str(audio)}],
        "sampling_rate": 16000,
    }
    recording |= {"num_samples": 32000, "duration": 2.0, "channel_ids": [0]}
    one = {"id": "u", "recording_id": "r", "start": 0.25, "duration": 0.5, "channel": 0, "text": "hi", "speaker": "s"}
    cut = {"id": "c", "start": 1.0, "duration": 0.9, "channel": 0, "supervisions": [one], "recording": recording}
    folder = tmp_path / "in"
    folder.mkdir()
    (folder / "x_cuts_dev.jsonl.gz").write_bytes(
        gzip.compress((json.dumps({**cut, "type": "MonoCut"}) + "\n").encode())
    )
    rows, _ = rows_of(folder, tmp_path / "out", "lhotse")
    assert (rows["hi"].start_s, rows["hi"].end_s, rows["hi"].speaker_id) == (1.25, 1.75, "s")
    write(folder / "x_recordings_dev.jsonl", json.dumps(recording) + "\n" + json.dumps({**recording, "id": "silent"}))
    bad = [
        one,
        {**one, "id": "v", "recording_id": "gone"},
        {**one, "id": "w", "start": 1.9},
        {**one, "id": "x", "duration": 0},
    ]
    write(folder / "x_supervisions_dev.jsonl", "\n".join(json.dumps(row) for row in bad))
    result = import_corpus(folder, tmp_path / "sup", drop_bad=True)
    assert (result.format, result.kept) == ("lhotse", 1)
    assert result.dropped_by_reason == {
        "missing audio": 1,
        "span outside audio": 1,
        "span without length": 1,
        "audio without a row": 1,
    }
    recording["sources"] = [{"type": "command", "channels": [0], "source": "touch /tmp/x"}]
    write(folder / "x_recordings_dev.jsonl", json.dumps(recording))
    with pytest.raises(InputError, match="nothing is ever run"):
        import_corpus(folder, tmp_path / "no")


def test_nemo_folder_and_faults(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/wavs/a.wav", seconds=1.0)
    rows = [{"audio_filepath": "wavs/a.wav", "text": "one", "duration": 1.0}]
    write(tmp_path / "in/train_manifest.json", json.dumps(rows[0]) + "\n")
    rows = [{"audio_filepath": "wavs/a.wav", "text": f"t{at}", "offset": at, "duration": 0.4} for at in (0.0, 0.5)]
    write(tmp_path / "in/test_manifest.json", "\n".join(map(json.dumps, rows)))
    found, _ = rows_of(tmp_path / "in", tmp_path / "out", "nemo")
    assert {text: (row.start_s, row.split) for text, row in found.items()} == {
        "one": (None, "train"),
        "t0.0": (0.0, "test"),
        "t0.5": (0.5, "test"),
    }
    bad = [{**rows[0], "offset": at, "duration": long} for at, long in ((-1, 1.5), (0.2, 0), (0.9, 0.5), ("x", 1))]
    write(tmp_path / "in/bad_manifest.json", "\n".join(map(json.dumps, bad)))
    result = import_corpus(tmp_path / "in", tmp_path / "bad", drop_bad=True)
    assert (result.kept, result.overlapping_spans) == (3, 0)
    assert result.dropped_by_reason == {"span outside audio": 2, "span without length": 1, "malformed row": 1}
    twice = [{**rows[0], "utterance_id": name, "offset": at} for name, at in (("a", 0.0), ("b", 0.3), ("c", 0.6))]
    write(tmp_path / "two.json", "\n".join(json.dumps({**row, "audio_filepath": "in/wavs/a.wav"}) for row in twice[:2]))
    assert import_corpus(tmp_path / "two.json", tmp_path / "two").overlapping_spans == 2


def test_settings_are_refused_where_there_are_none(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/a.wav")
    write(tmp_path / "in/a.txt", "x")
    with pytest.raises(InputError, match="the format paired has no settings"):
        import_corpus(tmp_path / "in", tmp_path / "out", fill=Fill(settings=("a=b",)))
