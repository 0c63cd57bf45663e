"""``speechtune listen`` and ``speechtune live-report`` as a user runs them."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from spoken_blocks import LevelVoice, Listener, spoken
from typer.testing import CliRunner

from speechtune.audio.io import load_audio
from speechtune.cli.app import build
from speechtune.corpus.table import Corpus
from speechtune.decoding.streaming.listening import _run
from speechtune.decoding.streaming.streaming_config import StreamingConfig
from speechtune.decoding.streaming.transcriber import StreamingTranscriber

pytest.importorskip("silero_vad")
Command = Callable[..., subprocess.CompletedProcess[str]]
FAST = ("decoding.max_new_tokens=8", "decoding.streaming.max_buffer_s=3")


def voiced(corpus: Path) -> bytes:
    """Some of the corpus's audio as raw PCM, with silence behind it and half a sample too many."""
    paths = sorted(corpus.rglob("*.wav"))[:3] or sorted(corpus.rglob("*.flac"))[:3]
    audio = np.concatenate([*(load_audio(one) for one in paths), np.zeros(16_000, np.float32)])
    return np.rint(audio * 32767).astype("<i2").tobytes() + b"\x00"


def test_listening_to_a_pipe_prints_events_and_ends_when_it_does(
    speechtune: Command, tiny_model: Path, tiny_corpus: Path, tmp_path: Path
) -> None:
    data = voiced(tiny_corpus)
    words = [sys.executable, "-m", "speechtune.cli", "listen", tiny_model, "-", *FAST, "--json", "--context", "fit"]
    done = subprocess.run(
        [*map(str, words), "--out", str(tmp_path / "a.txt")], input=data, capture_output=True, check=False
    )
    assert done.returncode == 0, done.stderr.decode()
    rows = [json.loads(line) for line in done.stdout.decode().splitlines()]
    assert rows[-1]["event"] == "end" and not rows[-1]["interrupted"]
    assert rows[-1]["seconds_of_audio"] == pytest.approx(len(data) // 2 / 16_000, abs=1e-3)
    updates = [one for one in rows if one["event"] == "update"]
    assert rows[-1]["text"] == " ".join(one["committed"] for one in updates if one["committed"])
    assert (tmp_path / "a.txt").is_file()
    assert "1 bytes left out" in done.stderr.decode()


def test_an_interrupt_ends_the_audio_and_keeps_what_was_heard(tiny_model: Path) -> None:
    words = [sys.executable, "-m", "speechtune.cli", "listen", str(tiny_model), "-", *FAST, "--json"]
    signal.signal(signal.SIGINT, signal.default_int_handler)  # children inherit that it is ignored
    process = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    limit = threading.Timer(120, process.kill)
    limit.start()
    assert process.stdin and process.stdout and process.stderr
    process.stdin.write(b"\x00" * 64_000)
    process.stdin.flush()
    assert any(b"listening" in line for line in iter(process.stderr.readline, b""))
    process.send_signal(signal.SIGINT)
    assert any(b"interrupted" in line for line in iter(process.stderr.readline, b""))  # while the pipe is open
    out, errors = process.communicate(timeout=120)
    assert process.returncode == 0, errors.decode()
    limit.cancel()
    last = json.loads(out.decode().splitlines()[-1])
    assert last["event"] == "end" and last["interrupted"] and last["text"] == ""


def test_an_interrupt_commits_what_is_in_the_buffer(capsys: pytest.CaptureFixture[str]) -> None:
    live = StreamingTranscriber(Listener(), StreamingConfig(), voice=LevelVoice())

    def blocks() -> object:
        yield spoken(range(100, 105))
        raise KeyboardInterrupt

    shown: list[str] = []
    assert _run(blocks(), live, lambda updates: shown.extend(w.text for one in updates for w in one.committed))  # type: ignore[arg-type]
    assert shown == [f"w{one}" for one in range(100, 105)]
    assert "interrupted" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (["nowhere.wav"], "nowhere.wav is not a file"),
        (["-", "decoding.streaming.agrement=3"], "did you mean decoding.streaming.agreement"),
        (["-", "decoding.streaming.max_buffer_s=9"], "the model's window 3 s"),
        (["-", "decoding.search.prefix=so", *FAST], "decoding.search.prefix does not work with live"),
    ],
)
def test_wrong_input_gets_one_sentence(tiny_model: Path, words: list[str], part: str) -> None:
    done = CliRunner().invoke(build(), ["listen", str(tiny_model), *words])
    assert done.exit_code == 2 and part in done.stderr and len(done.stderr.strip().splitlines()) == 1


def test_live_is_compared_with_batch(speechtune: Command, tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    corpus = Corpus.load(tiny_corpus)
    part = Corpus(tiny_corpus, corpus.utterances[:3])
    some = tmp_path / "some"
    some.mkdir()
    (some / "metadata.jsonl").write_text("".join(json.dumps(one.to_row()) + "\n" for one in part))
    (some / "corpus.json").write_text((tiny_corpus / "corpus.json").read_text())
    for one in part:
        (some / one.file_name).parent.mkdir(parents=True, exist_ok=True)
        (some / one.file_name).write_bytes(corpus.path_of(one).read_bytes())
    places = ["--html", tmp_path / "page.html", "--out", tmp_path / "out"]
    done = speechtune("live-report", tiny_model, some, *FAST, "--compute", "0.1", "--json", "--context", "fit", *places)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kept"] == 3 and result["compute"] == "0.1 s per second decoded"
    assert {"batch", "live", "difference"} == set(result["wer"])
    assert result["live"]["longest_buffer_s"] <= 3.0
    assert result["wer"]["difference"]["difference"] == pytest.approx(
        result["wer"]["live"]["wer"] - result["wer"]["batch"]["wer"]
    )
    assert "normalised erasure" in (tmp_path / "page.html").read_text()
    kept = [json.loads(line) for line in (tmp_path / "out" / "live.jsonl").read_text().splitlines()]
    assert [one["text"] for one in kept] == [one["live"] for one in result["recordings"]]
    again = speechtune("live-report", tiny_model, some, *FAST, *places)
    assert again.returncode == 2 and "exists already" in again.stderr


@pytest.mark.slow
def test_whisper_live_is_near_whisper_at_once(shared_speech: Path) -> None:
    """15 s of a reading: the words that live transcription commits are nearly those of one decoding of it."""
    from speechtune.core.errors import InputError
    from speechtune.corpus.table import Utterance
    from speechtune.corpus.text_keys import text_key
    from speechtune.decoding.batched import transcribe
    from speechtune.decoding.sources import open_model
    from speechtune.decoding.streaming.clock import steady
    from speechtune.decoding.streaming.opening import open_streams
    from speechtune.models.obtaining import resolve_model
    from speechtune.scoring.alignment import count

    try:
        resolve_model("whisper-tiny.en")
    except InputError as error:
        pytest.skip(f"whisper-tiny.en is not here ({error})")
    waveform = load_audio(shared_speech / "long_form" / "sonnet_1.ogg", 0.0, 15.0)
    opened = open_model("whisper-tiny.en", overrides=["decoding.streaming.words=true"])
    live = open_streams(opened)(steady(0.1))
    updates = [*live.feed(waveform), *live.finish()]
    utterance = Utterance(utterance_id="a", file_name="a.wav", text="", duration_s=15.0)
    batch = transcribe(opened.family, [utterance], lambda one: waveform, opened.decoding)[0]
    expected, found = text_key(batch.text).split(), text_key(live.text).split()
    assert len(expected) > 20
    assert count(expected, found).errors <= 0.2 * len(expected)
    early = [word for one in updates if one.kind == "draft" for word in one.committed]
    assert len(early) > 0.3 * len(found)
    ends_s = [time.end_s for one in updates if one.segment for time in one.segment.times]
    delays = [word.at_s - end_s for word, end_s in zip(live.committed, ends_s, strict=True)]
    assert 0.3 < float(np.median(delays)) < 5.0
