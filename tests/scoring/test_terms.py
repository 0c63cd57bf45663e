from __future__ import annotations

from pathlib import Path

import pytest

from speechtune.core.errors import InputError
from speechtune.scoring.alignment import Edit
from speechtune.scoring.terms import NOTHING, _heard, read_terms, term_recall


def test_counts_of_a_hand_made_table() -> None:
    references = ["Call Jitendra now", "jitendra, jitendra!", "nobody", "ask jitendra"]
    hypotheses = ["call jit and rah now", "jitendra gitendra", "jitendra", "ask"]
    one = term_recall(references, hypotheses, ["Jitendra"]).terms[0]
    assert (one.reference, one.hits, one.false_alarms) == (4, 1, 1)
    assert one.recall == 0.25 and one.precision == 0.5
    assert one.confusions == {"jit and rah": 1, "gitendra": 1, NOTHING: 1}


def test_no_more_confusions_than_misses() -> None:
    one = term_recall(["cat cat a b c"], ["a b c cat"], ["cat"]).terms[0]
    assert (one.reference, one.hits) == (2, 1) and one.confusions == {NOTHING: 1}


def test_insertions_beside_a_wrong_word_belong_to_it() -> None:
    insert, wrong, right = Edit("insert", None, "i"), Edit("substitute", "term", "s"), Edit("equal", "x", "x")
    assert _heard([right, wrong, insert, right], 1, 2) == ["s", "i"]
    assert _heard([right, insert, wrong, right], 1, 2) == ["i", "s"]
    assert _heard([insert, right, insert], 0, 1) == ["x"]


def test_multi_word_terms_need_every_word_in_order() -> None:
    score = term_recall(["new york city", "york new"], ["new york city", "new york"], ["New York", "new york city"])
    york, city = score.terms
    assert (york.reference, york.hits, york.false_alarms) == (1, 1, 1)
    assert (city.reference, city.hits, city.false_alarms) == (1, 1, 0)


def test_a_term_is_whole_words() -> None:
    one = term_recall(["the category"], ["the cat"], ["cat"]).terms[0]
    assert (one.reference, one.hits, one.false_alarms) == (0, 0, 1)
    assert one.recall is None and one.precision == 0


def test_variants_count_as_the_term() -> None:
    args = (["qwen is here"], ["q wen is here"], ["Qwen"])
    assert term_recall(*args).recall == 0
    assert term_recall(*args, {"Qwen": ["q wen"]}).recall == 1


def test_occurrences_do_not_overlap() -> None:
    one = term_recall(["da da da"], ["da da da da"], ["da da"]).terms[0]
    assert (one.reference, one.hits, one.false_alarms) == (1, 1, 1)


def test_totals_are_micro_and_counts_never_exceed_what_was_said() -> None:
    score = term_recall(["a a a", "b"], ["a a", "b b"], ["a", "b"])
    assert score.recall == pytest.approx(3 / 4) and score.precision == pytest.approx(3 / 4)


def test_terms_are_normalised_like_the_texts() -> None:
    score = term_recall(["colour twenty one"], ["color 21"], ["Colour", "twenty-one"], None, "whisper-english")
    assert [one.hits for one in score.terms] == [1, 1]


def test_terms_that_cannot_be_counted_are_named() -> None:
    score = term_recall(["cat"], ["cat"], ["cat", "Cat!", "..."])
    assert score.dropped_by_reason == {
        "same as an earlier term once normalised": ["Cat!"],
        "empty once normalised": ["..."],
    }
    assert score.to_json()["kept"] == 1


def test_devanagari_terms() -> None:
    one = term_recall(["मेरा किताब"], ["मेरा कताब"], ["किताब"]).terms[0]
    assert (one.reference, one.hits) == (1, 0) and one.confusions == {"कताब": 1}


def test_wrong_input() -> None:
    with pytest.raises(InputError, match="1 references but 2"):
        term_recall(["a"], ["a", "b"], ["a"])
    with pytest.raises(InputError, match="'b', which is not a term"):
        term_recall(["a"], ["a"], ["a"], {"b": ["c"]})


def test_read_terms(tmp_path: Path) -> None:
    path = tmp_path / "terms.txt"
    path.write_text("Qwen\tq wen\tqueen\n\n x \n", encoding="utf-8")
    assert read_terms(path) == (["Qwen", "x"], {"Qwen": ["q wen", "queen"]})
    path.write_text("\n", encoding="utf-8")
    with pytest.raises(InputError, match="holds no term"):
        read_terms(path)
    with pytest.raises(InputError, match="does not exist"):
        read_terms(tmp_path / "nothing")


def test_text_lists_confusions() -> None:
    assert "gitendra x1" in term_recall(["jitendra"], ["gitendra"], ["jitendra"]).to_text()


def test_what_was_said_where_a_term_was_recognised_wrongly() -> None:
    score = term_recall(["the cat sat", "a dog"], ["the cap sat", "a cap dog"], ["cap"])
    assert score.to_json()["terms"][0]["recognised_for"] == [
        {"text": "(nothing)", "count": 1},
        {"text": "cat", "count": 1},
    ]
    assert score.terms[0].false_alarms == 2
