# ruff: noqa: RUF001

from __future__ import annotations

import random

import numpy as np
import pytest
from generated_texts import pair

from speechtune.scoring.alignment import Counts, align, count, count_many, count_words, units_of
from speechtune.scoring.alignment_weighted import UNIT, TimedUnit, align_by_cost, align_by_sound, align_by_time
from speechtune.scoring.phones import phone_distance, spelled_phones, word_distance


def _documented(reference: list[str], hypothesis: list[str]) -> list[str]:
    """The alignment that the documentation describes, by the textbook's table."""
    first = 0
    while first < min(len(reference), len(hypothesis)) and reference[first] == hypothesis[first]:
        first += 1
    last = 0
    while last < min(len(reference), len(hypothesis)) - first and reference[-1 - last] == hypothesis[-1 - last]:
        last += 1
    a, b = reference[first : len(reference) - last], hypothesis[first : len(hypothesis) - last]
    table = [[i + j for j in range(len(b) + 1)] for i in range(len(a) + 1)]
    for i in range(1, len(a) + 1):
        for j in range(1, len(b) + 1):
            pair_cost = table[i - 1][j - 1] + (a[i - 1] != b[j - 1])
            table[i][j] = min(table[i - 1][j] + 1, table[i][j - 1] + 1, pair_cost)
    ops = []
    i, j = len(a), len(b)
    while i or j:
        here = table[i][j]
        if i and here == table[i - 1][j] + 1:
            ops, i = [*ops, "delete"], i - 1
        elif i and j and a[i - 1] != b[j - 1] and here == table[i - 1][j - 1] + 1:
            ops, i, j = [*ops, "substitute"], i - 1, j - 1
        elif j and here == table[i][j - 1] + 1:
            ops, j = [*ops, "insert"], j - 1
        else:
            ops, i, j = [*ops, "equal"], i - 1, j - 1
    return ["equal"] * first + ops[::-1] + ["equal"] * last


def test_ties_are_broken_as_documented() -> None:
    draw = random.Random(1)
    for _ in range(3000):
        letters = "abcde"[: draw.randint(2, 5)]
        reference, hypothesis = (draw.choices(letters, k=draw.randint(0, 20)) for _ in range(2))
        assert [one.op for one in align(reference, hypothesis)] == _documented(reference, hypothesis)


def test_many_pairs_are_counted_as_one_by_one() -> None:
    draw = random.Random(2)
    pairs = [pair(draw) for _ in range(2000)]
    words = count_many([one.split() for one, _ in pairs], [one.split() for _, one in pairs])
    chars = count_many([one for one, _ in pairs], [one for _, one in pairs])
    for (reference, hypothesis), by_word, by_char in zip(pairs, words.tolist(), chars.tolist(), strict=True):
        assert Counts(*by_word) == count(reference.split(), hypothesis.split())
        assert Counts(*by_char) == count(reference, hypothesis)
    assert count_many([], []).shape == (0, 4)
    with pytest.raises(ValueError, match="one for each"):
        count_many(["a"], [])


def test_words_in_pieces_are_counted_as_words() -> None:
    draw = random.Random(3)
    pairs = [tuple(text.split() for text in pair(draw)) for _ in range(2000)]
    pieces = [[_in_pieces(words, draw) for words in side] for side in zip(*pairs, strict=True)]
    plain = count_many([one for one, _ in pairs], [one for _, one in pairs])
    assert (count_words(*pieces) == plain).all()


def _in_pieces(words: list[str], draw: random.Random) -> list[str]:
    pieces, rest = [], list(words)
    while rest:
        size = draw.randint(0, 3)
        pieces.append(" ".join(rest[:size]))
        rest = rest[size:]
    return pieces


def test_more_distinct_words_than_one_alphabet_has_letters() -> None:
    words = [f"w{number}" for number in range(90_000)]
    references = [words[start : start + 30_000] for start in range(0, 90_000, 30_000)]
    hypotheses = [[*one[1:], "w1"] for one in references]
    assert count_many(references, hypotheses)[:, :3].sum(axis=1).tolist() == [30_000] * 3
    assert (count_many(references, hypotheses)[:, 3] == 1).all()


def test_grapheme_clusters_are_letters_with_their_marks() -> None:
    assert units_of(" नि  क ", "graphemes") == ["नि", " ", "क"]
    assert units_of("e\u0301a", "graphemes", spaces=False) == ["e\u0301", "a"]
    assert units_of("a b", "characters", spaces=False) == ["a", "b"]


def test_mer_and_wil_of_a_hand_made_case() -> None:
    counts = Counts(hits=2, substitutions=1, deletions=1, insertions=0)
    assert counts.match_error_rate == 0.5
    assert counts.information_lost == pytest.approx(1 - (2 / 4) * (2 / 3))
    assert Counts().information_lost is None and Counts().match_error_rate is None
    assert Counts(deletions=2).information_lost == 1.0 == Counts(insertions=1).information_lost


def test_uniform_costs_give_the_edit_distance() -> None:
    draw = random.Random(3)
    for _ in range(300):
        reference, hypothesis = (draw.choices("abcd", k=draw.randint(0, 12)) for _ in range(2))
        costs = np.array([[UNIT * (a != b) for b in hypothesis] for a in reference], dtype=np.int64)
        edits, cost = align_by_cost(reference, hypothesis, costs.reshape(len(reference), len(hypothesis)))
        assert cost == UNIT * count(reference, hypothesis).errors
        assert [one.ref for one in edits if one.ref] == reference and [
            one.hyp for one in edits if one.hyp
        ] == hypothesis
        assert UNIT * sum(one.op != "equal" for one in edits) == cost


def test_a_repeated_word_is_matched_where_it_was_said() -> None:
    reference = [TimedUnit("go", 0.0, 0.5), TimedUnit("go", 5.0, 5.5)]
    edits, cost = align_by_time(reference, [TimedUnit("go", 5.1, 5.6)])
    assert [one.op for one in edits] == ["delete", "equal"] and cost == UNIT
    late = align_by_time(reference[:1], [TimedUnit("go", 3.0, 3.5)])[0]
    assert sorted(one.op for one in late) == ["delete", "insert"]
    assert align_by_time(reference[:1], [TimedUnit("go", 0.9, 1.3)], collar_s=1.0)[1] == 0


def test_words_that_sound_alike_are_paired() -> None:
    edits, cost = align_by_sound(["the", "pear", "fell"], ["the", "old", "bear", "fell"], word_distance)
    assert ("pear", "bear") in [(one.ref, one.hyp) for one in edits]
    assert UNIT < cost < 1.3 * UNIT
    assert [one.op for one in align_by_sound(["x", "pear"], ["bear"], word_distance)[0]] == ["delete", "substitute"]


def test_distances_of_sounds() -> None:
    assert word_distance("pear", "bear") < word_distance("pear", "mere") < word_distance("pear", "table")
    assert word_distance("night", "knight") == 0 and word_distance("", "a") == 1
    draw = random.Random(4)
    phones = "pbtdkɡmnfvszʃʒlrjwiuaeo"
    for _ in range(300):
        a, b = draw.choices(phones, k=2)
        assert phone_distance(a, b) == phone_distance(b, a) and (phone_distance(a, b) == 0) == (a == b)
        assert phone_distance(a, b) <= 1
    assert phone_distance("p", "b") < phone_distance("p", "z") < phone_distance("p", "a")
    assert spelled_phones("Shine") == ("ʃ", "ɪ", "n") and spelled_phones("café") == spelled_phones("cafe\u0301")
