"""Subtitles: every word in order, sane lines and times, and back through the importer."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.importers.subtitle_files import read_cues
from speechtune.decoding.subtitles import LINE_CHARS, LINES, MAX_S, clock, cues_of, to_srt, to_vtt, wrap
from speechtune.decoding.transcript import Transcript
from speechtune.decoding.transcript_formats import check_target, format_of, write_as


def random_segments(rng: np.random.Generator, timed: bool) -> tuple[list[dict[str, Any]], float]:
    segments, at_s = [], 0.0
    for _ in range(12):
        at_s += float(rng.choice([0.0, 0.3, 2.5]))
        words, rows = [], []
        start_s = at_s
        for _ in range(int(rng.integers(1, 40))):
            word = "".join(rng.choice(list("abcdefgh"), int(rng.integers(1, 12)))) + str(
                rng.choice(["", "", "", ".", ","])
            )
            length_s = float(rng.uniform(0.15, 0.6))
            words.append(word)
            rows.append({"word": word, "start_s": at_s, "end_s": at_s + length_s})
            at_s += length_s + float(rng.choice([0.0, 0.0, 1.5]))
        segment = {"start_s": start_s, "end_s": rows[-1]["end_s"], "text": " ".join(words)}
        segments.append({**segment, "words": rows} if timed else segment)
    return segments, at_s + 1.0


@pytest.mark.parametrize("timed", [True, False])
@pytest.mark.parametrize("suffix", [".srt", ".vtt"])
def test_all_words_come_back_in_order_with_their_times(tmp_path: Path, timed: bool, suffix: str) -> None:
    for seed in range(20):
        segments, duration_s = random_segments(np.random.default_rng(seed), timed)
        cues = cues_of(segments, duration_s)
        path = tmp_path / f"a{suffix}"
        path.write_text(to_srt(cues) if suffix == ".srt" else to_vtt(cues), encoding="utf-8")
        back = list(read_cues(path))
        assert " ".join(line for *_, lines in back for line in lines) == " ".join(one["text"] for one in segments)
        assert [(a, b) for _, a, b, _ in back] == [(one.start_s, one.end_s) for one in cues]
        for one, following in zip(cues, [*cues[1:], None], strict=True):
            assert 0 <= one.start_s < one.end_s <= duration_s
            assert following is None or one.end_s <= following.start_s
            assert one.end_s - one.start_s <= MAX_S + 0.9  # the shortest word beyond it still belongs somewhere
            assert 1 <= len(one.lines) <= LINES
            assert max(map(len, one.lines)) <= LINE_CHARS


def test_a_word_stands_while_it_is_spoken() -> None:
    segments, duration_s = random_segments(np.random.default_rng(3), timed=True)
    rows = [row for one in segments for row in one["words"]]
    place = 0
    for cue in cues_of(segments, duration_s):
        for word in " ".join(cue.lines).split():
            row = rows[place]
            assert row["word"] == word
            assert cue.start_s - 0.9 <= row["start_s"] <= cue.end_s
            place += 1


def test_what_the_formats_mean_otherwise_is_escaped(tmp_path: Path) -> None:
    cues = cues_of([{"start_s": 0, "end_s": 3, "text": "R&D <b>costs</b> 1 --> 2"}], 3.0)
    (tmp_path / "a.vtt").write_text(to_vtt(cues))
    (one,) = read_cues(tmp_path / "a.vtt")
    assert one[3] == ["R&D <b>costs</b> 1 → 2"]


def test_lines_are_even_and_text_without_spaces_is_broken() -> None:
    assert wrap(["the quick brown fox", "jumps", "over the lazy dog", "today"]) == [
        "the quick brown fox jumps",
        "over the lazy dog today",
    ]
    cues = cues_of([{"start_s": 0, "end_s": 12, "text": "字" * 100}], 12.0)
    assert "".join(line.replace(" ", "") for cue in cues for line in cue.lines) == "字" * 100
    assert clock(3661.0005, ",") == "01:01:01,000"
    assert clock(3599.9996, ".") == "01:00:00.000"


def test_formats_of_one_recording_and_of_several(tmp_path: Path) -> None:
    one = Transcript(utterance_id="a/x.wav", text="hello there")
    two = Transcript(utterance_id="b.wav", text="", segments=[])
    assert format_of(tmp_path / "x.VTT", None) == "vtt"
    assert format_of(tmp_path / "x.vtt", "txt") == "txt"
    assert format_of(tmp_path / "x.anything", None) == format_of(None, None) == "jsonl"
    with pytest.raises(InputError, match="use jsonl, json, txt, srt, vtt"):
        format_of(None, "docx")
    write_as(tmp_path / "one.json", [one], [2.0], "json")
    assert json.loads((tmp_path / "one.json").read_text())["segments"] == [
        {"start_s": 0.0, "end_s": 2.0, "text": "hello there"}
    ]
    write_as(tmp_path / "all.txt", [one, two], [2.0, 1.0], "txt")
    assert (tmp_path / "all.txt").read_text() == "a/x.wav\thello there\nb.wav\t\n"
    write_as(tmp_path / "subs", [one, two], [2.0, 1.0], "srt")
    assert (tmp_path / "subs" / "a" / "x.srt").read_text() == "1\n00:00:00,000 --> 00:00:02,000\nhello there\n\n"
    assert (tmp_path / "subs" / "b.srt").read_text() == ""
    with pytest.raises(InputError, match="add --overwrite"):
        check_target(tmp_path / "subs", "srt", 2, overwrite=False)
    twins = [Transcript(utterance_id=name, text="x") for name in ("c.wav", "c.mp3")]
    with pytest.raises(InputError, match=r"c\.srt"):
        write_as(tmp_path / "twins", twins, [1.0, 1.0], "srt")
