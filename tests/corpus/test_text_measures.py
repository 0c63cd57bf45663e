"""What is measured on a transcript, against texts whose faults are known."""

# ruff: noqa: RUF001

from __future__ import annotations

import json
import unicodedata
from typing import Any

import pytest

pytest.importorskip("py3langid", reason="needs the extra 'audit'")
pytest.importorskip("unicodedataplus", reason="needs the extra 'audit'")
pytest.importorskip("ftfy", reason="needs the extra 'audit'")

from speechtune.corpus.alphabets import ALPHABETS, alphabet, is_foreign
from speechtune.corpus.language_codes import short_code
from speechtune.corpus.speaking_rates import RATE_CLASSES
from speechtune.corpus.text_keys import text_key
from speechtune.corpus.text_language import identify_language
from speechtune.corpus.text_measures import TextMeasures, measure_text, measure_texts
from speechtune.corpus.text_patterns import INVENTED_PHRASES

CLEAN = {
    "en": "The quick brown fox jumps over the lazy dog, and then it sleeps.",
    "de": "Der schnelle braune Fuchs springt über den großen faulen Hund.",
    "fr": "Je ne sais pas encore où nous irons passer l'été prochain.",
    "tr": "Işıl bugün İstanbul'a gidip arkadaşlarıyla buluşacakmış.",
    "vi": "Hôm nay trời đẹp quá, chúng ta đi dạo công viên nhé.",
    "hi": "नमस्ते, आप कैसे हैं? मैं बिल्कुल ठीक हूँ।",
    "ta": "நான் இன்று காலை பள்ளிக்குச் சென்றேன்.",
    "he": "אני הולך היום לשוק לקנות לחם וחלב.",
    "ar": "أنا ذاهب إلى السوق اليوم لشراء الخبز والحليب.",
    "ru": "Сегодня очень хорошая погода, пойдём гулять в парк.",
    "ja": "今日はとても天気がいいので、公園に散歩に行きましょう。",
    "zh": "今天天气很好，我们去公园散步吧。",
    "ko": "오늘은 날씨가 정말 좋아서 공원에 산책하러 갑니다.",
    "yo": "Ẹ káàárọ̀, ṣé dáadáa ni ẹ jí lónìí?",
}


def measured(text: str, language: str | None = "en", duration_s: float = 4.0) -> TextMeasures:
    return measure_text(text, duration_s=duration_s, language=language)


@pytest.mark.parametrize("language", CLEAN)
def test_a_clean_sentence_has_no_fault(language: str) -> None:
    one = measured(CLEAN[language], language)
    faults = {
        name: getattr(one, name)
        for name in (
            *("alphabet_violations", "urls", "emails", "markup", "control_chars", "zero_width", "bidi_marks", "digits"),
            *("symbols", "replacement_chars", "mojibake", "not_nfc", "all_caps", "no_punctuation", "repeated_phrase"),
            *("invented_phrase", "mixed_script_words", "language_mismatch"),
        )
    }
    assert not any(faults.values()), faults
    assert one.rate_verdict == "plausible"
    assert one.scripts and sum(one.scripts.values()) == pytest.approx(1)


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        ("hello [noise] there", "markup", ("[noise]",)),
        ("hello <unk> <i>there</i>", "markup", ("<unk>", "<i>", "</i>")),
        ("<|en|> hello", "markup", ("<|en|>",)),
        ("fish &amp; chips", "markup", ("&amp;",)),
        ("SPEAKER 1: hello", "markup", ("SPEAKER 1:",)),
        ("*CHI: more juice", "markup", ("*CHI:",)),
        ("00:00:01,500 hello", "markup", ("00:00:01,500",)),
        ("well (laughs) yes", "markup", ("(laughs)",)),
        ("♪ la la", "markup", ("♪",)),
        ("see https://a.b/c?d=1 now", "urls", ("https://a.b/c?d=1",)),
        ("write to jo.doe@mail.example.org now", "emails", ("jo.doe@mail.example.org",)),
        ("room 12b costs 5 euros", "digits", 3),
        ("a + b & c", "symbols", 2),
        ("a\tb\x07", "control_chars", 2),
        ("ab\u200bcd\ufeff", "zero_width", 2),
        ("ab\u202ecd", "bidi_marks", 1),
        ("caf\ufffd au lait", "replacement_chars", 1),
        ("schÃ¶n dass du da bist", "mojibake", True),
        ("cafe\u0301", "not_nfc", True),
        ("TURN IT OFF", "all_caps", True),
        ("don't well-known", "no_punctuation", True),
        ("thank you thank you thank you", "repeated_phrase", "thank you"),
        ("no no no no no no", "repeats", 6),
        ("aaaaaaaaah", "repeated_phrase", "a"),
        ("はいはいはいはいはいはい", "repeated_phrase", "はい"),
        ("So. Thanks for watching!", "invented_phrase", "thanks for watching"),
        ("ご視聴ありがとうございました。", "invented_phrase", "ご視聴ありがとうございました"),
        ("hello w\u043erld", "mixed_script_words", ("w\u043erld",)),
        ("hello w\u043erld", "alphabet_violations", "\u043e"),
    ],
)
def test_a_planted_fault_is_found(text: str, name: str, value: Any) -> None:
    assert getattr(measured(text), name) == value


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("GPU (G-P-U) is fast", "markup"),
        ("He said: come in.", "markup"),
        ("It is at 10:30 today", "markup"),
        ("no no no", "repeated_phrase"),
        ("no no no i said no no no", "repeated_phrase"),
        ("very very good, very very good", "repeated_phrase"),
        ("thank you", "invented_phrase"),
        ("OK", "all_caps"),
        ("e.g. this, i.e. that", "urls"),
        ("naïve café", "mojibake"),
    ],
)
def test_what_people_write_is_no_fault(text: str, name: str) -> None:
    assert not getattr(measured(text), name)


def test_joiners_are_spelling_in_persian_and_dirt_in_english() -> None:
    assert measured("می\u200cخواهم", "fa").zero_width == 0
    assert measured("wo\u200crd").zero_width == 1


@pytest.mark.parametrize("text", CLEAN.values())
def test_nfd_changes_nothing_but_its_own_flag(text: str) -> None:
    composed, decomposed = measured(text).to_json(), measured(unicodedata.normalize("NFD", text)).to_json()
    differing = {name for name in composed if composed[name] != decomposed[name]}
    assert differing <= {"not_nfc"}


def test_rates_are_counts_over_the_duration() -> None:
    one = measured("one two three", duration_s=2.0)
    assert (one.chars, one.words, one.chars_per_s, one.words_per_s) == (11, 3, 5.5, 1.5)
    assert measured("one two three", duration_s=0.0).chars_per_s is None
    assert measured("今天天气很好", "zh").words_per_s is None


def test_the_rate_is_judged_by_the_script() -> None:
    # 18 units in a second: read English, impossible Chinese.
    assert measured("abc def ghi jkl mno pqr", duration_s=1.0).rate_verdict == "plausible"
    assert measured("今天天气很好我们去公园散步吧今天天气", "zh", 1.0).rate_verdict == "too fast"
    assert measured("yes", duration_s=20.0).rate_verdict == "too slow"
    assert measured("", duration_s=2.0).rate_verdict == "unknown"
    assert all(kind.fastest_chars_per_s == 10 * kind.chars_per_syllable for kind in RATE_CLASSES.values())


@pytest.mark.parametrize("language", sorted(set(CLEAN) - {"yo"}))
def test_a_sentence_is_never_given_a_wrong_language(language: str) -> None:
    assert identify_language(CLEAN[language]).language in (language, None)


def test_language_contradicts_only_when_it_is_sure() -> None:
    assert measured(CLEAN["fr"], "en").language_mismatch is True
    assert measured(CLEAN["fr"], "fr-CA").language_mismatch is False
    assert measured(CLEAN["fr"], None).language_mismatch is None
    assert measured("ok", "de").text_language is None
    assert measured("yes", "de").language_mismatch is None


def test_a_script_that_the_model_does_not_know_is_no_language() -> None:
    assert identify_language("\u182e\u1823\u1829\u182d\u1823\u182f \u182c\u1821\u182f\u1821 " * 4).language is None
    assert identify_language("\u13e3\u13b3\u13a9 \u13a6\u13ec\u13c2\u13af\u13cd\u13d7 " * 4).language is None


def test_capitals_do_not_change_the_language() -> None:
    assert measured(CLEAN["en"].upper()).text_language == measured(CLEAN["en"]).text_language == "en"


def test_many_texts_measure_as_one_by_one() -> None:
    rows = [(text, 1.0 + number, code) for number, (code, text) in enumerate(CLEAN.items())] * 2
    assert measure_texts(rows) == [measure_text(text, duration_s=s, language=code) for text, s, code in rows]


def test_measures_are_json_ready() -> None:
    one = measured("hello [noise] 5 €")
    assert json.loads(json.dumps(one.to_json())) == one.to_json()


@pytest.mark.parametrize("code", ALPHABETS)
def test_alphabets_are_lower_case_and_composed(code: str) -> None:
    letters = alphabet(code)
    assert letters and len(letters) >= 18
    for char in letters:
        assert unicodedata.category(char)[0] in "LM"
        assert is_foreign(char, code) is False


def test_alphabets_agree_with_the_sentences() -> None:
    for code, text in CLEAN.items():
        assert not any(is_foreign(char, code) for char in text), code
    assert is_foreign("\u0436", "en") is True
    assert is_foreign("x", "zh") is True
    assert is_foreign("x", "no such language") is None


@pytest.mark.parametrize(
    ("name", "code"), [("English", "en"), ("en-GB", "en"), ("HIN", "hi"), ("pt_BR", "pt"), ("qq", "qq")]
)
def test_names_of_languages(name: str, code: str) -> None:
    assert short_code(name) == code


def test_the_key_keeps_vowel_signs_and_drops_what_is_not_heard() -> None:
    assert text_key(" It’s  A-B; \u200bfine!") == "its a b fine"
    assert text_key("नमस्ते।") == "नमस्ते"
    assert text_key(text_key("Straße №5")) == text_key("Straße №5")


def test_every_listed_phrase_is_found() -> None:
    for phrase in INVENTED_PHRASES:
        assert measured(f"… {phrase}!").invented_phrase is not None
