"""Near-duplicates against exhaustive comparison, planted copies, and laws."""

from __future__ import annotations

import itertools
import random

import numpy as np
import numpy.typing as npt
import pytest
from rapidfuzz.distance import Indel

from speechtune.core.errors import InputError
from speechtune.corpus.duplicates import duplicate_groups, duplicate_texts, groups_across, near_duplicate_pairs
from speechtune.corpus.text_keys import text_key

Frames = npt.NDArray[np.uint32]


def sentences(count: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    words = ["".join(rng.choice("abcdefghijklmnoprstuw") for _ in range(rng.randint(2, 8))) for _ in range(800)]
    return [" ".join(rng.choice(words) for _ in range(rng.randint(5, 14))) for _ in range(count)]


def edited(text: str, rng: random.Random) -> str:
    position = rng.randrange(len(text))
    return text[:position] + rng.choice(["", "x", text[position] * 2]) + text[position + 1 :]


def test_equal_texts_are_grouped_whatever_their_case_and_punctuation() -> None:
    rows = [
        ("a", "Hello, World!"),
        ("b", "hello world"),
        ("c", "HELLO WORLD."),
        ("d", "other"),
        ("e", "..."),
        ("f", ""),
    ]
    found = duplicate_texts(rows)
    assert found.same == [("a", "b", "c")]
    assert (found.rows, found.without_text, found.near) == (6, 2, [])


def test_near_pairs_are_those_of_exhaustive_comparison() -> None:
    rng = random.Random(5)
    texts = sentences(300)
    for edits in (1, 2, 3, 4):
        for text in texts[edits * 50 : edits * 50 + 50]:
            for _ in range(edits):
                text = edited(text, rng)
            texts.append(text)
    rows = [(f"u{number}", text) for number, text in enumerate(texts)]
    keys = {name: text_key(text) for name, text in rows}
    expected = {
        (first, second)
        for (first, _), (second, _) in itertools.combinations(rows, 2)
        if keys[first] != keys[second] and Indel.normalized_similarity(keys[first], keys[second]) >= 0.9
    }
    found = {(pair.first, pair.second) for pair in duplicate_texts(rows).near}
    assert found <= expected
    assert len(expected) > 150
    assert len(found) / len(expected) > 0.97


def test_no_two_unrelated_texts_are_near() -> None:
    assert duplicate_texts((f"u{n}", text) for n, text in enumerate(sentences(2000))).near == []


@pytest.mark.parametrize("text", ["a", "ab", "abc", "नमस्ते दुनिया", "今天天气很好", "\U0001f600 x"])
def test_short_and_foreign_texts_are_compared(text: str) -> None:
    found = duplicate_texts([("a", text), ("b", text + " "), ("c", "something else entirely")])
    assert found.same == [("a", "b")]


def test_a_cluster_hangs_together() -> None:
    base = sentences(1)[0] + " and then some more words"
    rows = [(f"u{number}", f"{base} {chr(97 + number % 26)}{chr(97 + number // 26)}") for number in range(60)]
    assert [len(group) for group in duplicate_texts(rows).groups()] == [60]


def test_similarity_one_finds_equal_texts_only() -> None:
    rows = [
        ("a", "the cat sat on the mat today"),
        ("b", "the cat sat on the mat todau"),
        ("c", "the cat sat on the mat today"),
    ]
    assert duplicate_texts(rows, similarity=1.0).near == []
    assert len(duplicate_texts(rows).near) == 1


def test_no_rows_and_a_wrong_similarity() -> None:
    assert duplicate_texts([]).same == []
    with pytest.raises(InputError, match="between"):
        duplicate_texts([], similarity=0.2)


def test_groups_and_splits() -> None:
    groups = duplicate_groups([("a", "b"), ("c", "d"), ("b", "e")])
    assert groups == [("a", "b", "e"), ("c", "d")]
    splits = {"a": "train", "b": "test", "c": "train", "d": "train", "e": None}
    assert groups_across(groups, splits) == [{"train": ["a"], "test": ["b"]}]


def fingerprint(frames: int, rng: np.random.Generator) -> Frames:
    """Frames that resemble the one before them, as those of speech do."""
    values = rng.integers(0, 2**32, frames, dtype=np.uint64).astype(np.uint32)
    for index in range(1, frames):
        keep = np.uint32(rng.integers(0, 2**32, dtype=np.uint64)) | np.uint32(rng.integers(0, 2**32, dtype=np.uint64))
        values[index] = (values[index - 1] & keep) | (values[index] & ~keep)
    return values


def flipped(values: Frames, share: float, rng: np.random.Generator) -> Frames:
    flips = np.packbits(rng.random((len(values), 32)) < share, axis=1).view("<u4")[:, 0]
    return values ^ flips


@pytest.mark.parametrize(("share", "recall"), [(0.0, 1.0), (0.05, 1.0), (0.1, 0.98), (0.15, 0.9)])
def test_copies_are_found_at_their_offset(share: float, recall: float) -> None:
    rng = np.random.default_rng(7)
    originals = [fingerprint(int(rng.integers(40, 110)), rng) for _ in range(200)]
    rows = [(f"u{number}", values.tobytes()) for number, values in enumerate(originals)]
    cut = {f"u{number}": int(rng.integers(0, min(30, len(originals[number]) - 30))) for number in range(50)}
    rows += [(f"d{name}", flipped(originals[int(name[1:])][by:], share, rng).tobytes()) for name, by in cut.items()]
    found = {(pair.first, pair.second): pair for pair in near_duplicate_pairs(rows, 0.25)}
    assert all(second == f"d{first}" for first, second in found)
    assert len(found) >= recall * len(cut)
    for (first, _), pair in found.items():
        assert abs(pair.offset_frames - cut[first]) <= (share > 0.1)  # neighbouring frames are alike
        assert abs(pair.distance - share) < 0.08


def test_an_offset_beyond_the_limit_is_no_pair() -> None:
    values = fingerprint(120, np.random.default_rng(1))
    rows = [("a", values.tobytes()), ("b", values[40:].tobytes())]
    assert near_duplicate_pairs(rows, 0.25) == []
    assert near_duplicate_pairs(rows, 0.25, max_offset_frames=40)[0].offset_frames == 40
    assert near_duplicate_pairs(rows[::-1], 0.25, max_offset_frames=40)[0].offset_frames == -40


def test_silence_makes_no_pairs() -> None:
    silent = np.zeros(100, dtype=np.uint32).tobytes()
    steady = np.full(100, 0x12345678, dtype=np.uint32)
    noise = fingerprint(60, np.random.default_rng(2))
    rows = [("a", silent), ("b", silent), ("c", np.concatenate([steady[:50], noise]).tobytes()), ("d", b"")]
    assert near_duplicate_pairs(rows, 0.25) == []


def test_pauses_are_not_compared() -> None:
    """One copy lost half of its words to pauses, as a quieter copy would."""
    values = fingerprint(60, np.random.default_rng(4))
    masked = values.copy()
    masked[10:40] = 0
    (pair,) = near_duplicate_pairs([("a", values.tobytes()), ("b", masked.tobytes())], 0.25)
    assert (pair.distance, pair.offset_frames) == (0.0, 0)


def test_fingerprints_that_cannot_be_read() -> None:
    assert near_duplicate_pairs([], 0.25) == []
    with pytest.raises(InputError, match="'a'"):
        near_duplicate_pairs([("a", b"12345")], 0.25)
    with pytest.raises(InputError, match="max_distance"):
        near_duplicate_pairs([], 0.5)
