"""Vocabularies: every label reads back, nothing is lost in silence, Transformers loads what is saved."""

from __future__ import annotations

from pathlib import Path

import pytest

from speechtune.core.errors import InputError
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.ctc_vocabulary import (
    CtcVocabulary,
    build_vocabulary,
    character_tokenizer,
    check_coverage,
    without_punctuation,
)

ENGLISH = ["Hello, world!", "it's all   well-being", "zoo keeper"]
HINDI = ["नमस्ते दुनिया", "किताब"]


@pytest.mark.parametrize("units", ["characters", "graphemes", "bpe"])
@pytest.mark.parametrize("texts", [ENGLISH, HINDI, ["שָׁלוֹם עולם"], ["你好 世界"]])
def test_labels_read_back_as_the_text(units: str, texts: list[str], tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    vocabulary = build_vocabulary(texts, CtcConfig(head="new", units=units, bpe_size=60))
    assert check_coverage(vocabulary, texts) is None
    vocabulary.tokenizer.save_pretrained(tmp_path)
    again = CtcVocabulary(AutoTokenizer.from_pretrained(tmp_path), case="keep")
    for text in texts:
        tokens = vocabulary.encode(text)
        assert max(tokens) < len(vocabulary)
        assert vocabulary.blank not in tokens
        assert vocabulary.decode(tokens) == vocabulary.written(text) == vocabulary.spelled(text)
        assert again.encode(text) == tokens
        assert again.decode(tokens) == vocabulary.written(text)
    assert len(vocabulary) == len(vocabulary.tokenizer)  # no token beyond the output layer


def test_the_ids_are_blank_unknown_word_mark_and_the_units_in_order() -> None:
    vocabulary = build_vocabulary(["ba c"], CtcConfig(head="new"))
    assert vocabulary.tokenizer.get_vocab() == {"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4, "c": 5}
    assert vocabulary.encode("c  ab") == [5, 2, 3, 4]
    assert vocabulary.decode([3, 3, 2, 4]) == "aa b"


def test_grapheme_clusters_are_one_unit_and_characters_are_not() -> None:
    texts = ["कि"]
    assert len(build_vocabulary(texts, CtcConfig(units="graphemes")).encode("कि")) == 1
    assert len(build_vocabulary(texts, CtcConfig(units="characters")).encode("कि")) == 2


def test_what_a_vocabulary_lacks_is_counted_and_stops_a_run() -> None:
    vocabulary = CtcVocabulary(character_tokenizer({"<pad>": 0, "<unk>": 1, "|": 2, "A": 3, "B": 4}))
    assert vocabulary.encode("ab a") == [3, 4, 2, 3]  # capitals only
    assert vocabulary.written("ab a") == "AB A"
    with pytest.raises(InputError, match=r"lacks 3 characters in 2 of 3 training texts: ',' \(2\), 'C' \(1\)"):
        check_coverage(vocabulary, ["a, b,", "abc", "ab"])
    with pytest.raises(InputError, match=r"lacks 'C' \(1\) of the text 'ABC'"):
        vocabulary.encode("abc")


@pytest.mark.parametrize(("unknown", "tokens"), [("unk", [3, 1, 2, 1, 2, 4]), ("remove", [3, 2, 4])])
def test_unknown_characters_are_left_out_or_stand_as_unknown_but_are_said(unknown: str, tokens: list[int]) -> None:
    tokenizer = character_tokenizer({"<pad>": 0, "<unk>": 1, "|": 2, "a": 3, "b": 4})
    vocabulary = CtcVocabulary(tokenizer, unknown=unknown)  # type: ignore[arg-type]
    said = check_coverage(vocabulary, ["a, - b"])
    assert said is not None
    assert "2 characters in 1 of 1 training texts: ',' (1), '-' (1)" in said
    assert vocabulary.encode("a, - b") == tokens
    assert vocabulary.decode(tokens) == vocabulary.written("a, - b") == "a b"


def test_pieces_that_are_unknown_are_counted_too() -> None:
    vocabulary = build_vocabulary(["ab ab abc"], CtcConfig(units="bpe", bpe_size=16))
    with pytest.raises(InputError, match=r"lacks 2 characters in 1 of 1 training texts: 'x' \(2\)"):
        check_coverage(vocabulary, ["abx xc"])
    loose = CtcVocabulary(vocabulary.tokenizer, unknown="remove")
    assert loose.decode(loose.encode("abx xc")) == loose.written("abx xc") == "ab c"


def test_a_tokenizer_that_lowers_its_text_reads_back_lower() -> None:
    tokenizer = character_tokenizer({"<pad>": 0, "<unk>": 1, "|": 2, "A": 3, "B": 4})
    tokenizer.do_lower_case = True
    vocabulary = CtcVocabulary(tokenizer)
    assert vocabulary.encode("Ab") == [3, 4]
    assert vocabulary.decode([3, 4]) == vocabulary.written("Ab") == "ab"


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("Hello, world!", "Hello world"),
        ("it's a well-known 'quote'", "it's a well-known quote"),
        ("a - b… «c»", "a b c"),
        ("3 € + 4", "3 4"),
    ],
)
def test_punctuation_goes_but_not_inside_words(text: str, left: str) -> None:
    assert " ".join(without_punctuation(text).split()) == left


def test_what_cannot_become_a_vocabulary_is_refused() -> None:
    with pytest.raises(InputError, match="are empty"):
        build_vocabulary(["", " "], CtcConfig())
    with pytest.raises(InputError, match="stands between words"):
        build_vocabulary(["a | b"], CtcConfig())
