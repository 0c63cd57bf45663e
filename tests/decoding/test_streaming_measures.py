"""Latency, lagging and flicker against numbers computed by hand; what is printed; where live audio comes from."""

from __future__ import annotations

import io
import json
import os
import sys
import time
import types
from pathlib import Path

import numpy as np
import pytest
from spoken_blocks import LevelVoice, Listener, spoken

from speechtune.audio.io import resample, write_audio
from speechtune.core.errors import InputError
from speechtune.corpus.segmentation.cuts import TimedWord
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.streaming.inputs import Captured, file_blocks, microphone_blocks, pcm_blocks
from speechtune.decoding.streaming.measures import Flicker, average_lagging, latency_of
from speechtune.decoding.streaming.measuring import join_utterances, run_live
from speechtune.decoding.streaming.printing import EventLines, Lines, Terminal
from speechtune.decoding.streaming.streaming_config import StreamingConfig
from speechtune.decoding.streaming.transcriber import Committed, Segment, StreamingTranscriber, Update


def test_latency_is_summed_up() -> None:
    found = latency_of([1.0, 2.0, 3.0, 6.0])
    assert (found.words, found.mean_s, found.median_s) == (4, 3.0, 2.5)
    assert found.p95_s == pytest.approx(5.55)  # 0.85 of the way from 3 to 6
    assert latency_of([]).to_json() == {"words": 0, "mean_s": None, "median_s": None, "p95_s": None}


def test_average_lagging_is_the_papers() -> None:
    # 4 words in 4 s: the ideal times are 0, 1, 2, 3; the third word is the first one committed after the end
    assert average_lagging([1.0, 2.5, 4.0, 4.5], 4.0, 4) == pytest.approx((1.0 + 1.5 + 2.0) / 3)
    assert average_lagging([1.0, 2.0, 3.0, 3.9], 4.0, 4) == pytest.approx((1 + 1 + 1 + 0.9) / 4)
    assert average_lagging([], 4.0, 4) is None


def test_flicker_counts_words_taken_back() -> None:
    flicker = Flicker()
    for words in (["a", "b"], ["a", "c", "d"], ["a"]):
        flicker.show(words)
    flicker.end()
    assert (flicker.erased, flicker.final, flicker.normalised_erasure) == (1 + 2, 1, 3.0)
    growing = Flicker()
    for count in range(5):
        growing.show(["w"] * count)
    growing.end()
    assert growing.normalised_erasure == 0.0
    assert Flicker().normalised_erasure is None


def begin_with_times(**settings: float) -> object:
    def timer(waveform: np.ndarray, text: str) -> list[TimedWord]:
        return [TimedWord(word, 0.5 * n, 0.5 * n + 0.4, 1.0) for n, word in enumerate(text.split())]

    config = StreamingConfig(margin_s=0.0, **settings)
    return lambda clock: StreamingTranscriber(Listener(), config, clock=clock, timer=timer, voice=LevelVoice())


def test_a_run_measures_delays_lagging_and_flicker() -> None:
    audio = spoken(range(100, 104), 16_000)
    run = run_live("one", [audio], begin_with_times(agreement=1), 0.1)  # type: ignore[arg-type]
    assert run.transcript.text == "w100 w101 w102 w103"
    assert run.delays_s == pytest.approx([1.1 - 0.4, 1.1 - 0.9, 2.2 - 1.4, 2.2 - 1.9])
    assert run.flicker.normalised_erasure == 0.0  # drafts end between words: nothing was ever taken back
    assert run.audio_s == 3.0 and run.guessed_times == 0
    assert run.transcript.segments[0]["words"][3] == {"word": "w103", "start_s": 1.5, "end_s": 1.9, "confidence": 1.0}
    shaky = run_live("two", [audio], begin_with_times(step_s=0.75, agreement=99), 0.1)  # type: ignore[arg-type]
    assert shaky.flicker.erased == 1  # the second word, which the first draft cuts
    assert shaky.transcript.text == run.transcript.text


def test_utterances_of_a_speaker_are_joined(tmp_path: Path) -> None:
    rows = []
    for number, speaker in enumerate("aabaa"):
        write_audio(tmp_path / f"{number}.wav", np.full(16_000, 0.1, np.float32))
        rows.append(
            Utterance(
                utterance_id=str(number), file_name=f"{number}.wav", text=f"t{number}", duration_s=1, speaker_id=speaker
            )
        )
    (tmp_path / "joined").mkdir()
    made = join_utterances(Corpus(tmp_path, rows), 4.0, tmp_path / "joined")
    assert [(one.text, one.duration_s, one.speaker_id) for one in made] == [
        ("t0 t1", 4.0, "a"), ("t3 t4", 4.0, "a"), ("t2", 2.0, "b"),
    ]  # fmt: skip


def committed(text: str) -> list[Committed]:
    return [Committed(word, 1.0, 1.0) for word in text.split()]


UPDATES = [
    Update("draft", 1.0, 1.0, committed("one two"), ["thre"]),
    Update("draft", 2.0, 2.0, committed("three"), ["four", "five", "sicks"]),
    Update("final", 3.0, 3.0, committed("four five six"), [], segment=Segment(0, 3, "one ... six", [], [])),
    Update("draft", 4.0, 4.0, committed("seven"), ["ate"]),
]  # fmt: skip


def screen(text: str) -> list[str]:
    """What a terminal shows: a carriage return and ``\\x1b[K`` empty the line."""
    lines = [""]
    for part in (
        text.replace("\x1b[2m", "").replace("\x1b[0m", "").replace("\r\x1b[K", "\x00").splitlines(keepends=True)
    ):
        lines[-1] += part.rstrip("\n")
        lines[-1] = lines[-1].rpartition("\x00")[2]
        if part.endswith("\n"):
            lines.append("")
    return lines


@pytest.mark.parametrize("columns", [20, 80])
def test_a_terminal_keeps_what_is_committed_and_rewrites_the_tail(columns: int) -> None:
    stream = io.StringIO()
    terminal = Terminal(stream, False, columns)
    seen = []
    for update in UPDATES:
        terminal.show(update)
        seen.append(screen(stream.getvalue()))
    assert seen[0] == ["one two thre"]
    assert all(len(line) < columns for shown in seen for line in shown)
    if columns == 80:
        assert seen[1] == ["one two three four five sicks"]
        assert seen[3] == ["one two three four five six", "seven ate"]
    else:
        assert seen[3] == ["one two three four", "five six", "seven ate"]
    terminal.end()
    assert screen(stream.getvalue())[-2:] == ["seven", ""]


def test_a_pipe_gets_a_line_a_segment_and_json_an_event_a_line() -> None:
    stream, events = io.StringIO(), io.StringIO()
    lines, rows = Lines(stream, False), EventLines(events, False)
    for update in UPDATES:
        lines.show(update)
        rows.show(update)
    lines.end()
    assert stream.getvalue() == "one two three four five six\nseven\n"
    found = [json.loads(line) for line in events.getvalue().splitlines()]
    assert [one["event"] for one in found] == ["update", "update", "update", "segment", "update"]
    assert found[1] == {
        "event": "update", "kind": "draft", "at_s": 2.0, "heard_s": 2.0, "committed": "three",
        "tentative": "four five sicks",
    }  # fmt: skip


def piped(data: bytes, **options: int) -> np.ndarray:
    reading, writing = os.pipe()
    os.write(writing, data)
    os.close(writing)
    try:
        return np.concatenate(list(pcm_blocks(reading, **options)))
    finally:
        os.close(reading)


def test_pcm_from_a_pipe_is_read_to_its_last_whole_sample(capsys: pytest.CaptureFixture[str]) -> None:
    samples = np.array([0, 16384, -32768], "<i2")
    assert piped(samples.tobytes() + b"\x01").tolist() == [0.0, 0.5, -1.0]
    assert "1 bytes left out" in capsys.readouterr().err
    stereo = np.repeat(samples, 2)
    assert piped(stereo.tobytes(), channels=2).tolist() == [0.0, 0.5, -1.0]
    tone = np.rint(9_000 * np.sin(np.arange(20_000) * 0.05)).astype("<i2")
    found = piped(tone.tobytes(), rate_hz=8_000)
    np.testing.assert_allclose(found, resample((tone / 32768).astype(np.float32), 8_000, 16_000), atol=1e-4)
    with pytest.raises(InputError, match="WAV file"):
        piped(b"RIFF0000WAVE")


def test_a_file_is_read_whole_and_at_its_pace(tmp_path: Path) -> None:
    audio = np.rint(np.random.default_rng(0).uniform(-1e4, 1e4, 12_345)) / 32768
    write_audio(tmp_path / "a.wav", audio.astype(np.float32))
    assert np.array_equal(np.concatenate(list(file_blocks(tmp_path / "a.wav", 0))), audio.astype(np.float32))
    began_s = time.monotonic()
    captured = Captured(file_blocks(tmp_path / "a.wav", 2.0))
    assert np.array_equal(np.concatenate(list(captured)), audio.astype(np.float32))
    assert time.monotonic() - began_s >= len(audio) / 16_000 / 2 * 0.99
    assert captured.captured_s() == len(audio) / 16_000


def test_a_microphone_is_read_until_the_reader_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stream:
        def __init__(self, **options: object) -> None:
            if options["device"] == 7:
                raise ValueError("no device 7")

        def __enter__(self) -> Stream:
            return self

        def __exit__(self, *_: object) -> None:
            closed.append(True)

        def read(self, frames: int) -> tuple[bytes, bool]:
            return np.full(frames, 8_192, "<i2").tobytes(), False

    closed: list[bool] = []
    fake = types.SimpleNamespace(RawInputStream=Stream, PortAudioError=RuntimeError)
    monkeypatch.setitem(sys.modules, "sounddevice", fake)
    blocks = microphone_blocks()
    assert next(blocks).tolist() == [0.25] * 1_600
    blocks.close()  # type: ignore[attr-defined]
    assert closed == [True]
    with pytest.raises(InputError, match="no device 7"):
        next(microphone_blocks("7"))
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    with pytest.raises(InputError, match=r"speechtune\[live\]"):
        next(microphone_blocks())


def test_what_goes_wrong_while_audio_is_taken_reaches_the_one_who_waits(tmp_path: Path) -> None:
    (tmp_path / "no.wav").write_bytes(b"nothing")
    with pytest.raises(InputError, match=r"no\.wav"):
        list(Captured(file_blocks(tmp_path / "no.wav", 1.0)))
