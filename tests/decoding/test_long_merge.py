"""The merge of overlapping windows: on any true text, whatever the edges do to the words they cut, the text."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from speechtune.corpus.segmentation.cuts import TimedWord, fixed_windows
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
