from __future__ import annotations

import unicodedata

import pytest

from speechtune.core.errors import InputError
from speechtune.scoring.normalisers import (
    MARKED_LANGUAGES,
    NORMALISERS,
    choose_normaliser,
    default_normaliser,
    get_normaliser,
    language_code,
)

# Outputs of the scorer of the "On Top of Pasketti" competition, noted down from running it.
ENGLISH = [
    ("one two three", "123"),
    ("one one", "11"),
    ("twenty one", "21"),
    ("oh no", "0 no"),
    ("uh oh", "0"),
    ("o'clock", "0 clock"),
    ("st", "saint"),
    ("mommy's", "mommy is"),
    ("gonna", "going to"),
    ("ok", "ok"),
    ("okay", "okay"),
    ("xxx", "xxx"),
    ("uh-huh", "huh"),
    *((text, "") for text in ("um", "mm", "hmm", "mhm", "[laughs]", "(noise)", "<unk>")),
]


@pytest.mark.parametrize(("text", "expected"), ENGLISH)
def test_whisper_english_table(text: str, expected: str) -> None:
    assert get_normaliser("whisper-english")(text) == expected


def test_whisper_english_is_not_idempotent() -> None:
    normalise = get_normaliser("whisper-english")
    assert normalise("oh oh") == "00"
    assert normalise(normalise("oh oh")) == "0"


def test_unicode_keeps_devanagari_signs_that_basic_deletes() -> None:
    assert get_normaliser("unicode")("नमस्ते, दुनिया।") == "नमस्ते दुनिया"
    assert get_normaliser("whisper-basic")("नमस्ते") == "नमस त"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Straße — GROSS", "strasse gross"),
        ("e\u0301te\u0301", "été"),
        ("می\u200cخواهم", "میخواهم"),  # noqa: RUF001
        ("बच्चे\u200d!", "बच्चे"),
        ("5 € + 3", "5 3"),
        ("\u0958", "\u0915\u093c"),
    ],
)
def test_unicode_table(text: str, expected: str) -> None:
    assert get_normaliser("unicode")(text) == unicodedata.normalize("NFC", expected)


def test_none_changes_white_space_only() -> None:
    assert get_normaliser("none")("  A,\t b\n") == "A, b"


@pytest.mark.parametrize("name", sorted(NORMALISERS))
def test_white_space_of_every_normaliser(name: str) -> None:
    assert get_normaliser(name)("  hello \t  dog ") == "hello dog"
    assert get_normaliser(name).name == name


def test_unknown_name_lists_the_valid_ones() -> None:
    with pytest.raises(InputError, match="none, unicode, whisper-basic, whisper-english"):
        get_normaliser("english")


@pytest.mark.parametrize(
    ("language", "expected"),
    [
        *((name, "whisper-english") for name in ("en", "en-GB", "en_US", "eng", "English")),
        *((name, "unicode") for name in ("hi", "Hindi", "hin", "pa-IN", "Yoruba", "he", "th")),
        *((name, "whisper-basic") for name in ("it", "de", "vi", "ja", "xx", None)),
    ],
)
def test_default_normaliser(language: str | None, expected: str) -> None:
    assert default_normaliser(language) == expected


def test_unknown_language_of_an_english_only_model() -> None:
    assert default_normaliser(None, english_only=True) == "whisper-english"


# Independent of the table: "hello" or a greeting in the language, as people write it.
MARKED_WORDS = {
    **{"hi": "नमस्ते", "bn": "নমস্কার", "gu": "નમસ્તે", "pa": "ਸਤਿ", "or": "ନମସ୍କାର", "ta": "வணக்கம்", "te": "నమస్తే"},
    **{"kn": "ನಮಸ್ತೆ", "ml": "നമസ്തേ", "si": "ආයුබෝවන්", "th": "ที่", "lo": "ສະບາຍດີ", "km": "ជំរាបសួរ", "my": "မင်္ဂလာပါ"},
    **{"bo": "བཀྲ", "he": "שָׁלוֹם", "ar": "مَرْحَبًا", "dv": "އައް", "yo": "ẹ́", "ln": "ɛ́", "gn": "g̃"},
}


@pytest.mark.parametrize("language", sorted(MARKED_WORDS))
def test_listed_languages_lose_marks_in_basic_and_keep_them_in_unicode(language: str) -> None:
    word = unicodedata.normalize("NFC", MARKED_WORDS[language])
    assert language in MARKED_LANGUAGES
    assert get_normaliser("unicode")(word) == word
    assert get_normaliser("whisper-basic")(word) != word


def test_auto_never_cuts_the_references() -> None:
    assert choose_normaliser([None], ["ciao", "नमस्ते"])[0] == "unicode"
    assert choose_normaliser(["it"], ["perché", "perche\u0301"])[0] == "whisper-basic"
    assert choose_normaliser([None, "hi"], ["a"])[0] == "unicode"
    assert choose_normaliser(["en", "it"], ["a"])[0] == "unicode"
    assert choose_normaliser(["en", "eng"], ["a"])[0] == "whisper-english"


def test_language_code_of_an_unlisted_tag_is_its_first_part() -> None:
    assert language_code("QU-PE") == "qu"
