"""The demo corpus: splits that share nothing, balanced terms, and a repeatable build."""

from __future__ import annotations

from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest

from speechtune.corpus.demo_corpus import (
    PLAIN,
    TEMPLATES,
    TERMS,
    TRAPS,
    VOICES,
    DemoSizes,
    build_demo_corpus,
    demo_sentences,
    filled_templates,
    terms_in,
)
from speechtune.corpus.table import Corpus

SPELLINGS = {term.spelling for term in TERMS}
SMALL = DemoSizes(train_terms=14, train_plain=3, dev_terms=2, dev_plain=1, test_terms=4, general=5)


def test_no_sentence_occurs_in_two_splits_and_none_is_listed_twice() -> None:
    texts = [text.casefold() for split in TEMPLATES for text in filled_templates(split)]
    texts += [text.casefold() for part in (*PLAIN.values(), TRAPS) for text in part]
    assert [text for text, times in Counter(texts).items() if times > 1] == []
    sentences = demo_sentences(DemoSizes(), seed=0)
    by_split = {split: {one.text for one in sentences if one.split == split} for split in VOICES}
    for one, other in combinations(by_split.values(), 2):
        assert not one & other


def test_every_template_has_a_term_and_no_ordinary_sentence_does() -> None:
    for split in TEMPLATES:
        filled = filled_templates(split)
        assert all(terms_in(text) for text in filled)
        assert {term for text in filled for term in terms_in(text)} == SPELLINGS
        assert not any("{" in text for text in filled)
    for text in (*(text for part in PLAIN.values() for text in part), *TRAPS):
        assert not any(term.casefold() in text.casefold() for term in SPELLINGS), text


def test_sentences_are_written_english() -> None:
    texts = [text for part in (*TEMPLATES.values(), *PLAIN.values(), TRAPS) for text in part]
    for text in texts:
        assert text[-1] in ".?!", text
        assert text[0].isupper() or text[0] == "{", text
        assert text.isascii()
        assert "  " not in text
        assert 4 <= len(text.split()) <= 12, text


def test_the_default_sizes_and_the_balance_of_terms() -> None:
    sentences = demo_sentences(DemoSizes(), seed=0)
    assert Counter(one.split for one in sentences) == {"train": 220, "dev": 40, "test": 80, "general": 60}
    for split, least in (("train", 13), ("dev", 2), ("test", 6)):
        spoken = Counter(term for one in sentences if one.split == split for term in one.terms)
        assert set(spoken) == SPELLINGS
        assert least <= min(spoken.values())
        assert max(spoken.values()) <= least + 5
    general = [one for one in sentences if one.split == "general"]
    assert not any(one.terms for one in general)
    assert len({one.text for one in general}) == 60
    assert sum(one.kind == "trap" for one in general) == len(TRAPS)


def test_test_and_general_have_voices_that_were_not_trained_on() -> None:
    seen = {*VOICES["train"], *VOICES["dev"]}
    assert not set(VOICES["train"]) & set(VOICES["dev"])
    assert len(set(VOICES["test"]) - seen) >= 3
    unseen = [voice for voice in VOICES["general"] if voice not in seen]
    assert len(unseen) > len(VOICES["general"]) / 2
    for voices in VOICES.values():
        assert len(set(voices)) == len(voices)


def test_a_build_is_complete_and_repeatable(tmp_path: Path) -> None:
    pytest.importorskip("espeakng_loader", reason="needs the PyPI package espeakng-loader (extra: demo)")
    one = build_demo_corpus(tmp_path / "one", seed=5, sizes=SMALL)
    build_demo_corpus(tmp_path / "two", seed=5, sizes=SMALL)
    build_demo_corpus(tmp_path / "three", seed=6, sizes=SMALL)
    corpus, again, other = (Corpus.load(tmp_path / name) for name in ("one", "two", "three"))
    assert one.clips == {"train": 17, "general": 5, "test": 4, "dev": 3}
    assert set(one.terms) == SPELLINGS
    assert one.terms == tuple(corpus.card["terms"])
    assert corpus.card["dropped_by_reason"] == {}
    assert corpus.card["kept"] == len(corpus) == 29
    assert corpus.fingerprint() == again.fingerprint() != other.fingerprint()
    for row in corpus:
        assert (tmp_path / "one" / row.file_name).read_bytes() == (tmp_path / "two" / row.file_name).read_bytes()
        assert 1.0 < row.duration_s <= 10.0
        assert (row.language, row.source) == ("en", "synthetic:espeak-ng")
        assert row.speaker_id in VOICES[row.split or ""]
        assert row.extra["term"] == ("; ".join(terms_in(row.text)) or None)


def test_every_pronunciation_is_valid_in_every_voice() -> None:
    pytest.importorskip("espeakng_loader", reason="needs the PyPI package espeakng-loader (extra: demo)")
    from speechtune.corpus.synthesis import check_pronunciation

    for voice in sorted({voice for voices in VOICES.values() for voice in voices}):
        for term in TERMS:
            check_pronunciation(term.spelling, term.phonemes, voice)
