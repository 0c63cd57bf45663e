"""Subtitles: weak labels, and why cues are left out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from timed_fixtures import rows_of, write

from speechtune.core.errors import InputError
from speechtune.corpus.importers.subtitle_files import read_cues
from speechtune.corpus.importers.subtitles import spoken_text
from speechtune.corpus.importing import Fill, import_corpus

SRT = """1
00:00:00,100 --> 00:00:01,500
<i>Good morning,</i>
dear children.

2
00:00:01,600 --> 00:00:03,000
\u266a la la la \u266a

3
00:00:03,100 --> 00:00:04,000
[applause]

4
00:00:04,000 --> 00:00:05,500
- Where is it?
- Over there.

5
00:00:05,600 --> 00:00:05,900
This is far too much to say in so short a time.

6
00:00:06,000 --> 00:00:09,000
TEACHER: (softly) It is 12 o'clock.

7
00:00:08,000 --> 00:00:09,500
It is noon, children.
"""
VTT = """WEBVTT

STYLE
::cue { color: red }

NOTE a note

first
00:00.100 --> 00:01.500 align:start
<v Ann>Good &amp; <c.x>well</c>

00:02.000 --> 00:03.500
second line here
"""


def test_srt_cues_and_the_filter(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/talk.wav", seconds=10.0)
    write(tmp_path / "in/talk.en.srt", "\ufeff" + SRT.replace("\n", "\r\n"))
    rows, result = rows_of(tmp_path / "in", tmp_path / "out", "subtitles")
    assert {text: (row.start_s, row.end_s, row.language) for text, row in rows.items()} == {
        "Good morning, dear children.": (0.1, 1.5, "en"),
        "It is 12 o'clock.": (6.0, 9.0, "en"),
    }
    assert all(row.extra["weak_label"] is True for row in rows.values())
    assert result.dropped_by_reason == {
        "music": 1,
        "sound description": 1,
        "two speakers in one cue": 1,
        "more characters per second than speech": 1,
        "overlapping cue": 1,
    }
    rows, result = rows_of(tmp_path / "in", tmp_path / "mark", "subtitles", ("filter=mark",))
    assert result.dropped_by_reason == {"sound description": 1}
    assert rows["It is noon, children."].extra["weak_reasons"] == ["overlapping cue"]
    assert "too short" in rows["This is far too much to say in so short a time."].extra["weak_reasons"]
    rows, _ = rows_of(tmp_path / "in", tmp_path / "slow", "subtitles", ("min_chars_per_s=10",))
    assert "It is 12 o'clock." not in rows


def test_vtt_and_pysubs2_agree(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/talk.wav", seconds=4.0)
    path = write(tmp_path / "in/talk.vtt", VTT)
    rows, _ = rows_of(tmp_path / "in", tmp_path / "out", "subtitles")
    assert {text: (row.start_s, row.end_s) for text, row in rows.items()} == {
        "Good & well": (0.1, 1.5),
        "second line here": (2.0, 3.5),
    }
    pysubs2 = pytest.importorskip("pysubs2", reason="pysubs2 is not installed")
    for file, text in ((path, VTT), (write(tmp_path / "x.srt", SRT), SRT)):
        theirs = [(event.start / 1000, event.end / 1000) for event in pysubs2.SSAFile.from_string(text)]
        assert [(start, end) for _, start, end, _ in read_cues(file)] == theirs


def test_faults(tmp_path: Path, make_audio: Any) -> None:
    make_audio(tmp_path / "in/talk.wav", seconds=2.0)
    write(
        tmp_path / "in/talk.srt",
        "0\n00:00:00,000 --> 00:00:00,900\ngood one here\n\n"
        "1\n00:00:01,000 --> 00:00:00,500\nbackwards\n\n2\n00:00:0x --> 1\nbroken\n\n"
        "3\n00:00:01,500 --> 00:00:02,500\nbeyond the end\n\n"
        "4\n00:00:02,600 --> 00:00:03,900\nwholly outside\n",
    )
    result = import_corpus(tmp_path / "in", tmp_path / "out", drop_bad=True)
    assert result.dropped_by_reason == {"span without length": 1, "malformed row": 1, "span outside audio": 2}
    with pytest.raises(InputError, match=r"talk\.srt line 6: its span from 1 s to 0\.5 s has no length"):
        import_corpus(tmp_path / "in", tmp_path / "no")
    write(tmp_path / "in/talk.vtt", VTT)
    with pytest.raises(InputError, match="--set language=en"):
        import_corpus(tmp_path / "in", tmp_path / "no")
    with pytest.raises(InputError, match="max_chars_per_s"):
        import_corpus(tmp_path / "in/talk.vtt", tmp_path / "no", fill=Fill(settings=("max_chars_per_s=-1",)))
    (tmp_path / "in/talk.wav").unlink()
    with pytest.raises(InputError, match=r"talk\.wav does not exist"):
        import_corpus(tmp_path / "in/talk.vtt", tmp_path / "no")


@pytest.mark.parametrize(
    ("lines", "text", "reasons"),
    [
        (["- Hello there."], "Hello there.", []),
        (["-5 degrees"], "-5 degrees", []),
        ([">> NEWS: hello"], "hello", []),
        (["\u266a sing with me"], "sing with me", ["music"]),
        (["Well [coughs] yes"], "Well yes", []),
        (["(door slams)"], "", ["sound description"]),
        (["..."], "", ["sound description"]),
        (["I like 2*3 and 4*5"], "I like 2*3 and 4*5", []),
        (["At 10:30 we go"], "At 10:30 we go", []),
    ],
)
def test_spoken_text(lines: list[str], text: str, reasons: list[str]) -> None:
    assert spoken_text(lines) == (text, reasons)
