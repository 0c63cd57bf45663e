"""The merge of overlapping windows: on any true text, whatever the edges do to the words they cut, the text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from speechtune.corpus.segmentation.cuts import TimedWord, fixed_windows
from speechtune.decoding.long.holes import fill_holes, find_holes
from speechtune.decoding.long.merge import Heard, merge_windows, same_words

RATE = 1000


def random_speech(rng: np.random.Generator, count: int, vocabulary: int) -> list[TimedWord]:
    """Words of 0.1 to 1 s with pauses, from few different ones, so that most of them repeat."""
    words, at_s = [], 0.0
    for _ in range(count):
        at_s += float(rng.choice([0.0, 0.0, 0.05, 0.4, 3.0]))
        length_s = float(rng.uniform(0.1, 1.0))
        words.append(TimedWord(f"w{rng.integers(vocabulary)}", at_s, at_s + length_s, 1.0))
        at_s += length_s
    return words


def window(words: list[TimedWord], start_s: float, end_s: float, rng: np.random.Generator, error: float) -> Heard:
    """What a right recogniser hears: whole words exactly, cut ones as anything (nothing, another word, two words)."""
    heard: list[TimedWord] = []
    for word in words:
        if word.end_s <= start_s or word.start_s >= end_s:
            continue
        if start_s <= word.start_s and word.end_s <= end_s:
            slack_s = error * (word.end_s - word.start_s)
            shift_s = float(rng.uniform(-slack_s, slack_s))
            heard.append(replace(word, start_s=word.start_s + shift_s, end_s=word.end_s + shift_s))
            continue
        low_s, high_s = max(start_s, word.start_s), min(end_s, word.end_s)
        parts = int(rng.integers(3))
        for number in range(parts):
            step_s = (high_s - low_s) / parts
            text = str(rng.choice([word.text, "w0", "w1", "cut"]))
            heard.append(TimedWord(text, low_s + number * step_s, low_s + (number + 1) * step_s, 0.5))
    return Heard(start_s, end_s, heard)


@pytest.mark.parametrize("vocabulary", [1, 2, 50])
@pytest.mark.parametrize("error", [0.0, 0.2])
def test_no_word_is_lost_doubled_or_split(vocabulary: int, error: float) -> None:
    for seed in range(60):
        rng = np.random.default_rng([seed, vocabulary])
        words = random_speech(rng, 80, vocabulary)
        length = round(words[-1].end_s * RATE) + 200
        overlap_s = float(rng.uniform(2.5, 5.0))
        spans = fixed_windows(length, round(float(rng.uniform(2.1, 4.0)) * overlap_s * RATE), round(overlap_s * RATE))
        windows = [window(words, a / RATE, b / RATE, rng, error) for a, b in spans]
        merged = merge_windows(windows)
        assert [one.text for one in merged] == [one.text for one in words], seed


def test_case_and_punctuation_do_not_hide_that_a_word_is_the_same() -> None:
    left = Heard(0, 10, [TimedWord("Now,", 7.0, 7.5, 1), TimedWord("go", 9.8, 10.0, 1)])
    right = Heard(5, 15, [TimedWord("now", 7.1, 7.6, 1), TimedWord("gone.", 9.8, 10.4, 1)])
    assert [one.text for one in merge_windows([left, right])] == ["Now,", "gone."]


def test_a_word_that_an_edge_cuts_is_taken_from_the_window_that_holds_it() -> None:
    # the left window hears "sea" of "seashore", and the right one goes on with "sea"
    left = Heard(0, 10, [TimedWord("the", 8.0, 8.4, 1), TimedWord("sea", 9.6, 10.0, 1)])
    right = Heard(
        5, 15, [TimedWord("the", 8.0, 8.4, 1), TimedWord("seashore", 9.6, 10.3, 1), TimedWord("sea", 10.3, 10.7, 1)]
    )
    assert [one.text for one in merge_windows([left, right])] == ["the", "seashore", "sea"]
    right = Heard(5, 15, list(right.words)[1:])
    left = Heard(0, 10, list(left.words)[1:])
    assert [one.text for one in merge_windows([left, right])] == ["seashore", "sea"]


def test_only_words_at_the_same_time_are_the_same() -> None:
    said = [TimedWord("no", at_s, at_s + 0.3, 1) for at_s in (0.0, 0.4, 0.8)]
    assert same_words(said, said[1:]) == [(1, 0), (2, 1)]
    assert same_words(said[:1], [replace(said[0], start_s=5.0, end_s=5.3)]) == []


def test_windows_that_heard_nothing_in_common_keep_what_is_on_their_side() -> None:
    left = Heard(0, 10, [TimedWord("one", 1, 2, 1), TimedWord("two", 6, 7, 1), TimedWord("lost", 9, 10, 1)])
    right = Heard(5, 15, [TimedWord("lost", 5, 6, 1), TimedWord("three", 8, 9, 1), TimedWord("four", 12, 13, 1)])
    assert [one.text for one in merge_windows([left, right])] == ["one", "two", "three", "four"]
    assert merge_windows([]) == []


def test_a_word_that_only_one_window_heard_stays_where_the_other_says_nothing() -> None:
    left = Heard(0, 10, [TimedWord("one", 5.2, 5.7, 1), TimedWord("two", 7.8, 8.2, 1), TimedWord("cut", 9.9, 10.0, 1)])
    right = Heard(5, 15, [TimedWord("on", 5.0, 5.2, 1), TimedWord("six", 9.9, 10.4, 1)])
    assert [one.text for one in merge_windows([left, right])] == ["one", "two", "six"]
    late = Heard(
        5, 15, [TimedWord("three", 6.3, 6.7, 1), TimedWord("two", 7.9, 8.3, 1), TimedWord("six", 9.9, 10.4, 1)]
    )
    assert [one.text for one in merge_windows([left, late])] == ["one", "three", "two", "six"]


def speech(words: list[TimedWord], length_s: float) -> np.ndarray:
    """A tone wherever there is a word."""
    time = np.arange(round(length_s * 16_000)) / 16_000
    on = sum((time >= one.start_s) & (time < one.end_s) for one in words)
    return (0.2 * np.sin(2 * np.pi * 300 * time) * on).astype(np.float32)


def test_holes_are_stretches_without_words_or_with_impossible_ones() -> None:
    said = [TimedWord("a", 0.5, 0.8, 1), TimedWord("b", 1.0, 1.4, 1), TimedWord("to", 2.0, 9.0, 1)]
    assert find_holes(said, 9.0) == [(1.4, 9.0)]
    assert find_holes(said[:2], 4.0) == []
    assert find_holes([], 10.0) == [(0.0, 10.0)]


@pytest.mark.parametrize("hole", [(5, 12), (0, 9), (40, 60), (1, 59), (0, 60)])
@pytest.mark.parametrize("shift_s", [-0.1, 0.1])
def test_a_hole_is_filled_with_what_is_there_and_nothing_else_changes(hole: tuple[int, int], shift_s: float) -> None:
    """Words of half a second in every 0.6 s (`w1` stands between all others: neighbours look alike); some left out."""
    true = [TimedWord("w1" if n % 2 else f"w{n}", 0.6 * n + 0.1, 0.6 * n + 0.6, 1) for n in range(60)]
    waveform = speech(true, 36.2)
    heard = [*true[: hole[0]], *true[hole[1] :]]
    asked: list[tuple[float, float]] = []

    def again(piece: np.ndarray) -> list[TimedWord]:
        energy = np.lib.stride_tricks.sliding_window_view(waveform, len(piece))[::1600]
        start_s = next(n * 0.1 for n, one in enumerate(energy) if np.array_equal(one, piece))
        asked.append((start_s, start_s + len(piece) / 16_000))
        inside = [one for one in true if one.start_s >= asked[-1][0] - 1e-6 and one.end_s <= asked[-1][1] + 1e-6]
        off = shift_s - start_s
        return [replace(one, start_s=one.start_s + off, end_s=one.end_s + off) for one in inside]

    filled, added = fill_holes(heard, waveform, again)
    assert [one.text for one in filled] == [one.text for one in true]
    assert added == hole[1] - hole[0]
    assert all(end_s - start_s <= 15.0 + 1e-6 for start_s, end_s in asked)


def test_a_pause_is_not_decoded_again_and_a_failure_changes_nothing() -> None:
    said = [TimedWord("a", 0.5, 0.8, 1), TimedWord("b", 8.0, 8.4, 1), TimedWord("to", 9.0, 14.0, 1)]

    def never(piece: np.ndarray) -> list[TimedWord]:
        raise AssertionError("asked for a pause")

    quiet = speech(said[:2], 14.0)
    assert fill_holes(said, quiet, never) == (said, 0)
    loud = speech([TimedWord("a", 0.0, 14.0, 1)], 14.0)
    assert fill_holes(said, loud, lambda piece: []) == (said, 0)
    filled, added = fill_holes(said, loud, lambda piece: [TimedWord("x", 3.0, 3.3, 1), TimedWord("y", 3.5, 3.9, 1)])
    assert [one.text for one in filled] == ["a", "x", "y", "b", "x", "y"]
    assert added == 3
