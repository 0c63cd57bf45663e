"""Cutting long recordings: nothing lost, nothing doubled, nothing over the limit."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.segmentation import pieces as segmentation
from speechtune.corpus.segmentation.cuts import (
    energy_spans,
    fixed_windows,
    frame_energy_db,
    group_words,
    lowest_point,
    pack_spans,
    snap_to_silence,
    split_long,
)
from speechtune.corpus.segmentation.pieces import Piece, SegmentationConfig, TimedWord, count_hows, segment
from speechtune.corpus.table import Utterance

RATE = 16_000


def spoken(regions: list[tuple[float, float]], seconds: float, seed: int = 0) -> np.ndarray:
    """Loud noise in the regions, faint noise elsewhere."""
    rng = np.random.default_rng(seed)
    waveform = 0.001 * rng.standard_normal(round(seconds * RATE))
    for start, end in regions:
        waveform[round(start * RATE) : round(end * RATE)] += 0.1 * rng.standard_normal(
            round(end * RATE) - round(start * RATE)
        )
    return waveform.astype(np.float32)


def utterance(text: str, waveform: np.ndarray, **extra: object) -> Utterance:
    return Utterance(
        utterance_id="u1", file_name="u1.wav", text=text, duration_s=len(waveform) / RATE, extra=dict(extra)
    )


class Told:
    """An aligner that was told the answer."""

    def __init__(self, words: list[TimedWord]) -> None:
        self.words = words
        self.calls = 0

    def align(self, waveform: np.ndarray, text: str, language: str | None) -> list[TimedWord]:
        self.calls += 1
        return self.words


def random_words(seed: int, seconds: float) -> tuple[list[TimedWord], np.ndarray]:
    """Words of 0.1 to 0.7 s with pauses of 0 to 1.5 s, and the sound they make."""
    rng = np.random.default_rng(seed)
    words, at = [], float(rng.uniform(0, 2))
    while at < seconds - 2:
        length = float(rng.uniform(0.1, 0.7))
        words.append(TimedWord(f"w{len(words)}", at, at + length, float(rng.uniform(0.3, 1))))
        at += length + (float(rng.uniform(0.05, 1.5)) if rng.random() < 0.3 else 0.0)
    return words, spoken([(word.start_s, word.end_s) for word in words], seconds, seed)


def samples(piece: Piece) -> int:
    return round(piece.end_s * RATE) - round(piece.start_s * RATE)


@pytest.mark.parametrize(
    ("seconds", "overlap", "expected"), [(12, 5, 1), (30, 5, 1), (55, 5, 2), (75, 0, 3), (75, 5, 3)]
)
def test_fixed_windows_stop_at_the_end(seconds: int, overlap: int, expected: int) -> None:
    """E-14: a 30 s file gave an extra 25-30, a 55 s one an extra 50-55; E-8: pieces of 30.016 s."""
    windows = fixed_windows(seconds * RATE, 30 * RATE, overlap * RATE)
    assert len(windows) == expected
    assert windows[0][0] == 0 and windows[-1][1] == seconds * RATE
    assert all(end - start <= 30 * RATE for start, end in windows)
    for left, right in pairwise(windows):
        assert left[1] - right[0] == overlap * RATE
        assert right[1] > left[1]


def test_fixed_windows_refuse_an_overlap_that_never_ends() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        fixed_windows(100, 10, 10)


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        ([(0, 12)], [(0, 12)]),  # E-15: a 12 s file gave no chunk
        ([(0, 10), (10, 20), (20, 30), (30, 38)], [(0, 30), (30, 38)]),  # E-15: the last was never appended
        ([(0, 10), (25, 35)], [(0, 10), (25, 35)]),  # E-15: gaps were not counted
    ],
)
def test_packing_flushes_the_end_and_counts_the_pauses(
    regions: list[tuple[int, int]], expected: list[tuple[int, int]]
) -> None:
    packed = pack_spans([(a * RATE, b * RATE) for a, b in regions], np.zeros(4_000), 30 * RATE, 30 * RATE)
    assert packed == [(a * RATE, b * RATE) for a, b in expected]


def test_a_long_region_is_split_where_it_is_quietest() -> None:
    """E-15: a 40 s region was kept whole, after an empty chunk."""
    waveform = spoken([(0, 18.0), (18.2, 40)], 40)
    parts = pack_spans([(0, 40 * RATE)], frame_energy_db(waveform), 30 * RATE, 30 * RATE)
    assert len(parts) == 2
    assert 18.0 * RATE < parts[0][1] < 18.2 * RATE
    assert parts[0][1] == parts[1][0]


@pytest.mark.parametrize("seconds", [31, 60, 61, 95.5, 200])
def test_a_split_leaves_no_part_over_the_limit(seconds: float) -> None:
    energy_db = np.random.default_rng(1).normal(size=round(seconds * 100))
    parts = split_long((0, round(seconds * RATE)), energy_db, 30 * RATE)
    assert parts[0][0] == 0 and parts[-1][1] == round(seconds * RATE)
    assert all(left[1] == right[0] for left, right in pairwise(parts))
    assert all(0 < end - start <= 30 * RATE for start, end in parts)
    assert len(parts) == -(-round(seconds * RATE) // (30 * RATE))


def test_the_lowest_point_is_in_the_gap_and_in_bounds() -> None:
    waveform = spoken([(0, 1.0), (1.3, 3)], 3)
    assert 1.0 * RATE < lowest_point(frame_energy_db(waveform), 0, 3 * RATE) < 1.3 * RATE
    assert 2.0 * RATE <= lowest_point(frame_energy_db(waveform), 2 * RATE, 2 * RATE + 10) <= 2 * RATE + 10


def test_energy_finds_the_sound() -> None:
    found = energy_spans(spoken([(1, 4), (6, 9)], 12), margin_s=0.0)
    assert np.allclose(np.array(found) / RATE, [(1, 4), (6, 9)], atol=0.03)
    assert energy_spans(np.zeros(RATE, np.float32)) == []


def test_frame_energy_is_the_mean_square() -> None:
    assert np.allclose(frame_energy_db(np.full(RATE, 0.1, np.float32)), -20.0, atol=1e-4)


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("max_s", [5.0, 12.0, 30.0])
def test_alignment_cuts_keep_every_word_once_and_whole(seed: int, max_s: float) -> None:
    words, waveform = random_words(seed, 70)
    text = " ".join(word.text for word in words)
    config = SegmentationConfig(mode="align", max_s=max_s, target_s=0.7 * max_s)
    pieces = segment(utterance(text, waveform), waveform, config, Told(words))
    assert " ".join(piece.text for piece in pieces) == text
    place = 0
    for piece in pieces:
        assert 0 < samples(piece) <= round(max_s * RATE)
        for _ in piece.text.split():
            middle = (words[place].start_s + words[place].end_s) / 2
            assert piece.start_s <= middle <= piece.end_s
            assert piece.start_s <= words[place].start_s + 0.09
            assert piece.end_s >= words[place].end_s - 0.09
            place += 1
    assert all(left.end_s <= right.start_s for left, right in pairwise(pieces))


def test_cuts_prefer_the_long_pauses_and_keep_the_margins() -> None:
    times = [(1, 9), (9.2, 17), (19, 25), (25.1, 38)]
    words = [TimedWord(name, a, b, 0.9) for name, (a, b) in zip("abcd", times, strict=True)]
    waveform = spoken([(float(a), float(b)) for a, b in times], 40)
    pieces = segment(utterance("a b c d", waveform), waveform, SegmentationConfig(mode="align"), Told(words))
    assert [piece.text for piece in pieces] == ["a b", "c d"]
    assert [(piece.start_s, piece.end_s) for piece in pieces] == [(0.95, 17.35), (18.95, 38.35)]
    assert {piece.how for piece in pieces} == {"align"}


def test_words_that_run_into_each_other_are_cut_at_the_quietest_place_nearby() -> None:
    times = [(0.5 * i, 0.5 * i + 0.5) for i in range(80)]
    words = [TimedWord(str(i), a, b, 0.9) for i, (a, b) in enumerate(times)]
    waveform = spoken([(0, 40)], 40)
    for a, _ in times:  # the true boundary is 50 ms after what the aligner says
        waveform[round((a + 0.04) * RATE) : round((a + 0.07) * RATE)] *= 0.01
    text = " ".join(map(str, range(80)))
    pieces = segment(utterance(text, waveform), waveform, SegmentationConfig(mode="align"), Told(words))
    cut = pieces[0].end_s
    assert 0.03 <= cut % 0.5 <= 0.08


def test_doubtful_stretches_are_marked_and_kept_apart() -> None:
    words, waveform = random_words(3, 100)
    bad = range(30, 50)
    words = [TimedWord(word.text, word.start_s, word.end_s, 1e-4 if i in bad else 0.6) for i, word in enumerate(words)]
    text = " ".join(word.text for word in words)
    config = SegmentationConfig(mode="align", target_s=10)
    pieces = segment(utterance(text, waveform), waveform, config, Told(words))
    marked = [word for piece in pieces if "low_confidence" in piece.marks for word in piece.text.split()]
    assert len({f"w{i}" for i in bad} & set(marked)) >= 12
    assert len(set(marked) - {f"w{i}" for i in bad}) <= 6
    assert count_hows(pieces)["align+low_confidence"] >= 1


def test_sound_without_words_is_marked() -> None:
    words = [TimedWord("a", 1.0, 2.0, 0.9), TimedWord("b", 30.0, 31.0, 0.9)]
    waveform = spoken([(1, 2), (25, 29), (30, 31)], 35)
    config = SegmentationConfig(mode="align", max_s=34, target_s=34)
    (piece,) = segment(utterance("a b", waveform), waveform, config, Told(words))
    assert piece.marks == ["untranscribed_speech"]


def test_a_word_longer_than_the_limit_is_clipped_and_marked() -> None:
    words = [TimedWord("a", 0.0, 40.0, 0.9), TimedWord("b", 40.0, 41.0, 0.9)]
    waveform = spoken([(0, 41)], 42)
    first, second = segment(utterance("a b", waveform), waveform, SegmentationConfig(mode="align"), Told(words))
    assert samples(first) == 30 * RATE and first.marks == ["word_over_limit"]
    assert second.text == "b"


def test_times_that_run_backwards_do_no_harm() -> None:
    words, waveform = random_words(5, 60)
    shaken = [
        TimedWord(word.text, word.start_s - 0.4 * (i % 2), word.end_s + 0.3 * (i % 3), word.confidence)
        for i, word in enumerate(words)
    ]
    text = " ".join(word.text for word in words)
    pieces = segment(utterance(text, waveform), waveform, SegmentationConfig(mode="align", max_s=8), Told(shaken))
    assert " ".join(piece.text for piece in pieces) == text
    assert all(0 < samples(piece) <= 8 * RATE for piece in pieces)


def test_short_recordings_and_mode_off_stay_whole() -> None:
    waveform = spoken([(0, 12)], 12)
    aligner = Told([])
    for mode in ("fixed", "vad", "sentences", "align"):
        (piece,) = segment(utterance("all of it", waveform), waveform, SegmentationConfig(mode=mode), aligner)
        assert (piece.start_s, piece.end_s, piece.text, piece.how) == (0.0, 12.0, "all of it", "whole")
    assert aligner.calls == 0
    long = np.zeros(40 * RATE, np.float32)
    assert len(segment(utterance("x", long), long, SegmentationConfig())) == 1


def test_a_transcribed_recording_is_not_cut_blindly() -> None:
    waveform = spoken([(0, 40)], 40)
    for mode in ("fixed", "vad", "align"):
        with pytest.raises(InputError, match=r"u1 is 40\.0 s long and transcribed.*give an aligner"):
            segment(utterance("some text", waveform), waveform, SegmentationConfig(mode=mode))


@pytest.mark.parametrize("mode", ["fixed", "vad", "align"])
def test_an_untranscribed_recording_is_covered(mode: str) -> None:
    regions = [(1.0, 12.0), (12.4, 55.0), (56.0, 70.0), (73.0, 74.5)]
    waveform = spoken(regions, 75)
    config = SegmentationConfig(mode=mode, detector="energy")
    pieces = segment(utterance("", waveform), waveform, config)
    assert all(0 < samples(piece) <= 30 * RATE and piece.text == "" for piece in pieces)
    for start, end in regions:
        for at in np.arange(start + 0.05, end - 0.05, 0.1):
            assert sum(piece.start_s <= at < piece.end_s for piece in pieces) == 1


def test_fixed_windows_with_an_aligner_mark_the_words_they_cut() -> None:
    words = [TimedWord("a", 1, 2, 0.9), TimedWord("b", 29, 31, 0.9), TimedWord("c", 40, 41, 0.9)]
    waveform = spoken([(1, 2), (29, 31), (40, 41)], 90)
    pieces = segment(utterance("a b c", waveform), waveform, SegmentationConfig(mode="fixed"), Told(words))
    assert [piece.how for piece in pieces] == ["fixed+cut_word", "fixed+cut_word", "fixed"]
    assert sorted(" ".join(piece.text for piece in pieces).split()) == ["a", "b", "c"]
    overlapping = SegmentationConfig(mode="fixed", overlap_s=5)
    pieces = segment(utterance("a b c", waveform), waveform, overlapping, Told(words))
    assert [piece.text for piece in pieces] == ["a", "b c", "", ""]


def test_vad_pieces_with_an_aligner_hold_every_word() -> None:
    words, waveform = random_words(2, 80)
    text = " ".join(word.text for word in words)
    config = SegmentationConfig(mode="vad", detector="energy")
    pieces = segment(utterance(text, waveform), waveform, config, Told(words))
    assert " ".join(piece.text for piece in pieces if piece.text) == text


def sentences(*times: tuple[float, float]) -> list[dict[str, object]]:
    return [{"start_s": a, "end_s": b, "text": f"s{i} said"} for i, (a, b) in enumerate(times)]


def test_sentences_are_packed_in_order_with_margins() -> None:
    waveform = spoken([(0, 100)], 100)
    rows = sentences((1, 10), (10.5, 19), (19, 33), (40, 69.9), (70, 99))
    pieces = segment(utterance("", waveform, segments=rows), waveform, SegmentationConfig(mode="sentences"))
    assert [piece.text for piece in pieces] == ["s0 said s1 said", "s2 said", "s3 said", "s4 said"]
    assert all(samples(piece) <= 30 * RATE for piece in pieces)
    assert pieces[0].start_s == 0.95 and pieces[1].end_s == 33.35
    assert all(left.end_s <= right.start_s for left, right in pairwise(pieces))


@pytest.mark.parametrize(
    ("rows", "problem"),
    [
        (None, "has no column segments"),
        ([{"start_s": 1, "text": "x"}], "segment 1 needs the numbers"),
        (sentences((5, 4)), "is not inside the recording"),
        (sentences((5, 99)), "is not inside the recording"),
        (sentences((5, 9), (2, 4)), "starts before segment 1"),
        (sentences((1, 38)), "longer than 30 s"),
    ],
)
def test_wrong_sentence_times_are_named(rows: object, problem: str) -> None:
    waveform = spoken([(0, 40)], 40)
    with pytest.raises(InputError, match=problem):
        segment(utterance("", waveform, segments=rows), waveform, SegmentationConfig(mode="sentences"))


def test_sentences_must_join_to_the_text() -> None:
    waveform = spoken([(0, 40)], 40)
    given = utterance("s0 said more", waveform, segments=sentences((1, 9)))
    with pytest.raises(InputError, match="do not join"):
        segment(given, waveform, SegmentationConfig(mode="sentences"))


def test_words_that_swallowed_a_pause_are_trimmed() -> None:
    waveform = spoken([(1.0, 1.5), (4.0, 4.6), (4.6, 5.0)], 6)
    words = [TimedWord("a", 0.0, 3.9, 0.9), TimedWord("b", 3.9, 4.6, 0.9), TimedWord("c", 4.6, 6.0, 0.9)]
    snapped = snap_to_silence(words, waveform)
    assert np.allclose([(w.start_s, w.end_s) for w in snapped], [(1.0, 1.5), (4.0, 4.6), (4.6, 5.0)], atol=0.03)
    assert [w.text for w in snapped] == ["a", "b", "c"]


def test_the_tail_of_a_word_beyond_a_pause_goes_to_the_next() -> None:
    waveform = spoken([(1.0, 1.8), (3.0, 4.0)], 5)
    words = [TimedWord("a", 1.0, 3.1, 0.9), TimedWord("b", 3.1, 4.0, 0.9)]
    first, second = snap_to_silence(words, waveform)
    assert abs(first.end_s - 1.8) < 0.03 and abs(second.start_s - 3.0) < 0.03


@pytest.mark.parametrize("seed", range(5))
def test_grouping_is_the_cheapest_of_all(seed: int) -> None:
    """Against every one of the 2^9 groupings of ten words, with the cost written out anew."""
    words, _ = random_words(seed, 12)
    words = words[:10]
    doubtful = np.random.default_rng(seed).random(len(words)) < 0.3

    def cost(ranges: list[tuple[int, int]]) -> float:
        total = 0.0
        for first, last in ranges:
            length = words[last - 1].end_s - words[first].start_s
            if length > 4.0 and last - first > 1:
                return np.inf
            spoken_s = [word.end_s - word.start_s for word in words[first:last]]
            doubted = sum(s for s, d in zip(spoken_s, doubtful[first:last], strict=True) if d)
            total += ((length - 3.0) / 3.0) ** 2 + 0.5 * min(doubted, sum(spoken_s) - doubted)
            if last < len(words):
                total += 0.025 / (0.05 + max(0.0, words[last].start_s - words[last - 1].end_s)) ** 2
        return total

    options = []
    for bits in range(2 ** (len(words) - 1)):
        cuts = [0, *(i + 1 for i in range(len(words) - 1) if bits >> i & 1), len(words)]
        options.append(list(pairwise(cuts)))
    found = group_words(words, 3.0, 4.0, doubtful)
    assert found[0][0] == 0 and found[-1][1] == len(words)
    assert cost(found) == pytest.approx(min(map(cost, options)))


def test_an_overlap_as_long_as_the_window_is_refused() -> None:
    with pytest.raises(ValueError, match="must be smaller"):
        SegmentationConfig(overlap_s=30)


def test_silero_is_asked_unless_energy_is_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("silero_vad", reason="the package with the detector's weights is not installed")
    assert segmentation.find_speech(spoken([(1, 2)], 3), "energy")
    assert segmentation.find_speech(np.zeros(RATE, np.float32)) == []
