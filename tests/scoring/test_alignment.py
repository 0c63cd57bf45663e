from __future__ import annotations

import random

import jiwer
import pytest

from speechtune.scoring.alignment import Counts, Edit, align, char_counts, count, total, word_counts


def _random_pairs(seed: int, number: int) -> list[tuple[str, str]]:
    draw = random.Random(seed)
    words = ["a", "b", "cat", "dog", "doge", "ले", "ली", "x"]
    pick = lambda low: " ".join(draw.choices(words, k=draw.randint(low, 9)))  # noqa: E731
    return [(pick(0), pick(0)) for _ in range(number)]


def test_counts_equal_jiwer_on_random_texts() -> None:
    for reference, hypothesis in _random_pairs(1, 400):
        answer = jiwer.process_words(reference, hypothesis)
        ours = word_counts(reference, hypothesis)
        assert (ours.hits, ours.substitutions, ours.deletions, ours.insertions) == (
            answer.hits,
            answer.substitutions,
            answer.deletions,
            answer.insertions,
        )
        answer_chars = jiwer.process_characters(reference, hypothesis)
        chars = char_counts(reference, hypothesis)
        assert (chars.hits, chars.substitutions, chars.deletions, chars.insertions) == (
            answer_chars.hits,
            answer_chars.substitutions,
            answer_chars.deletions,
            answer_chars.insertions,
        )


def test_corpus_rates_equal_jiwer() -> None:
    pairs = _random_pairs(2, 200)
    references, hypotheses = [one for one, _ in pairs], [one for _, one in pairs]
    assert total(word_counts(*pair) for pair in pairs).rate == pytest.approx(jiwer.wer(references, hypotheses))
    assert total(char_counts(*pair) for pair in pairs).rate == pytest.approx(jiwer.cer(references, hypotheses))


def _distance(reference: list[str], hypothesis: list[str]) -> int:
    row = list(range(len(hypothesis) + 1))
    for i, ref in enumerate(reference, start=1):
        diagonal, row[0] = row[0], i
        for j, hyp in enumerate(hypothesis, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (ref != hyp))
    return row[-1]


def test_edits_rebuild_both_texts_and_are_minimal() -> None:
    for reference_text, hypothesis_text in _random_pairs(3, 300):
        reference, hypothesis = reference_text.split(), hypothesis_text.split()
        edits = align(reference, hypothesis)
        assert [one.ref for one in edits if one.ref is not None] == reference
        assert [one.hyp for one in edits if one.hyp is not None] == hypothesis
        assert sum(one.op != "equal" for one in edits) == _distance(reference, hypothesis)
        assert all((one.op == "equal") == (one.ref == one.hyp) for one in edits)
        assert count(reference, hypothesis).errors == _distance(reference, hypothesis)


def test_hand_made_alignment() -> None:
    assert align(["the", "cat", "sat"], ["the", "hat", "sat", "down"]) == [
        Edit("equal", "the", "the"),
        Edit("substitute", "cat", "hat"),
        Edit("equal", "sat", "sat"),
        Edit("insert", None, "down"),
    ]


def test_rate_of_an_empty_reference_is_none_and_its_insertions_count() -> None:
    empty = word_counts("", "a b c")
    assert empty.rate is None
    assert (empty + word_counts("x y", "x y")).rate == 1.5


def test_space_is_a_character_and_runs_are_one() -> None:
    assert char_counts("ab cd", "abcd") == Counts(hits=4, deletions=1)
    assert char_counts(" ab   cd ", "ab cd") == Counts(hits=5)


def test_a_rate_can_exceed_one() -> None:
    assert word_counts("a", "b c d").rate == 3.0
