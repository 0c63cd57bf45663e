# ruff: noqa: RUF001

from __future__ import annotations

import random
import unicodedata
from itertools import pairwise
from pathlib import Path

import pytest
from generated_texts import english_text, pair

from speechtune.core.errors import InputError
from speechtune.scoring.normalisation.variants import read_variants, with_variants
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
        ("می\u200cخواهم", "میخواهم"),
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
        *((name, "indic") for name in ("hi", "Hindi", "hin", "pa-IN", "mai")),
        *((name, "arabic") for name in ("ar", "arb", "fa", "ur-PK")),
        *((name, "cjk") for name in ("ja", "zh-TW", "cmn")),
        *((name, "unicode") for name in ("Yoruba", "th", "yi", "ks")),
        *((name, "whisper-basic") for name in ("de", "vi", "xx", None)),
        *(("he", "hebrew"), ("iw", "hebrew"), ("it", "italian"), ("fr", "latin")),
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
    assert choose_normaliser(["es"], ["qué", "que\u0301"])[0] == "whisper-basic"
    assert choose_normaliser([None, "hi"], ["a"])[0] == "indic"
    assert choose_normaliser(["en", "it"], ["a"])[0] == "unicode"
    assert choose_normaliser(["en", "eng"], ["a"])[0] == "whisper-english"


def test_language_code_of_an_unlisted_tag_is_its_first_part() -> None:
    assert language_code("QU-PE") == "qu"


# What children say stands; what OpenAI's English rules do to it is noted down, not wished for.
CHILDREN = "goed tooths gooder foots mouses sheeps runned thinked brung bringed mines hisself gots catched ated bestest"


@pytest.mark.parametrize("name", [name for name in NORMALISERS if name not in ("ipa", "cjk")])
def test_childrens_forms_are_never_corrected(name: str) -> None:
    assert get_normaliser(name)(CHILDREN) == CHILDREN


def test_childrens_forms_that_the_english_rules_touch() -> None:
    normalise = get_normaliser("whisper-english")
    touched = {
        "ain't": "aint",
        "gonna": "going to",
        "'cause": "cause",
        "wanna": "want to",
        "axe": "ax",
        "firstest": None,
    }
    for form, expected in touched.items():
        assert normalise(f"he {form} it") == f"he {expected or form} it"
    assert normalise("kinda sorta dunno cause") == "kinda sorta dunno cause"


TABLE = {
    "hebrew": [
        ("שָׁלוֹם", "שלום"),
        ("מלך ים קוץ עץ כף", "מלך ים קוץ עץ כף"),
        ('צה"ל צה״ל צה\u201dל', "צהל צהל צהל"),
        ("ג'ירפה ג׳ירפה קולג' רח' פרופ'", "ג׳ירפה ג׳ירפה קולג׳ רח פרופ"),
        ("בית־ספר תל-אביב", "בית ספר תל אביב"),
        ("'שלום', אמר.", "שלום אמר"),
        ("עשרים ושלוש ילדים", "23 ילדים"),
        ("שלוש ארבע", "3 4"),
        ("חמש עשרה, שנים עשר", "15 12"),
        ("אלף תשע מאות ארבעים ושמונה", "1948"),
        ("שלושת אלפים מאתיים וחמישים", "3250"),
        ("מאה אלף ו-5", "100000 ו 5"),
        ("1,000 ₪", "1000"),
        ("אחד הילדים ביום שני", "אחד הילדים ביום שני"),
        ("שנים רבות ושלושים", "שנים רבות ו 30"),
    ],
    "indic": [
        ("नमस्ते, दुनिया।", "नमस्ते दुनिया"),
        ("क्‍ष क्‌ष", "क्ष क्ष"),
        ("\u0958लम", "\u0915\u093cलम"),
        ("१२३ ૪૫ ௬ 1,00,000", "123 45 6 100000"),
        ("ന്\u200d ല്\u200d", "\u0d7b \u0d7d"),
        ("ত্\u200dসব", "ৎসব"),
        ("ਸਤਿ ਸ੍ਰੀ॥", "ਸਤਿ ਸ੍ਰੀ"),
        ("Hello दुनिया [शोर]", "hello दुनिया"),
    ],
    "italian": [
        ("L’acqua l'acqua L' acqua", "l acqua l acqua l acqua"),
        ("un'amica", "un amica"),
        ("perche' citta' e' piu' VIRTU'", "perché città è più virtù"),
        ("un po' di, fa' presto", "un po di fa presto"),
        ("'ciao' disse", "ciao disse"),
        ("PERCHÉ perche\u0301", "perché perché"),
    ],
    "latin": [("J’ai l'été, œuvre ﬁn", "j ai l été œuvre fin"), ("¿Qué? señor", "qué señor"), ("Łódź", "łódź")],
    "cjk": [
        ("我用iPhone 15拍照。", "我 用 iphone 15 拍 照"),
        ("カタカナ、ﾊﾟﾝ", "カ タ カ ナ パ ン"),
        ("ラーメン１２", "ラ ー メ ン 12"),
        ("1,000円", "1000 円"),
        ("か\u3099", "が"),
    ],
    "arabic": [
        ("مَرْحَبًا", "مرحبا"),
        ("أهلا إلى ٱلكتـــاب آب", "اهلا الى الكتاب آب"),
        ("۱۲۳ ١٢٣؟", "123 123"),
        ("کی می\u200cخواهم", "كي ميخواهم"),
        ("ﻻ", "لا"),
    ],
    "ipa": [
        ("ˈt͡ʃɛɹi d\u0361ʒ", "ʧɛɹi ʤ"),
        ("bɝd ẽ ã", "bɚd e ã"),
        ("e:, a-b", "e ab"),
        ("d ʒ  tʃ", "d ʒ ʧ"),
    ],
}


@pytest.mark.parametrize(("name", "text", "expected"), [(name, *row) for name, rows in TABLE.items() for row in rows])
def test_table_of_every_pipeline(name: str, text: str, expected: str) -> None:
    assert get_normaliser(name)(text) == expected


@pytest.mark.parametrize("name", ["unicode", "indic", "latin", "arabic", "cjk", "none"])
def test_pipelines_are_idempotent(name: str) -> None:
    draw = random.Random(3)
    normalise = get_normaliser(name)
    for _ in range(1500):
        once = normalise(pair(draw)[0] + " " + english_text(draw))
        again = normalise(once)
        assert again == once, (once, again)


@pytest.mark.parametrize("name", sorted(NORMALISERS))
def test_the_steps_end_in_what_the_normaliser_returns(name: str) -> None:
    draw = random.Random(4)
    normalise = get_normaliser(name)
    for _ in range(1500):
        text = english_text(draw) if draw.random() < 0.7 else pair(draw)[0]
        steps = normalise.explain(text)
        assert steps[0].before == text and steps[-1].after == normalise(text)
        assert all(one.after == other.before for one, other in pairwise(steps))


def test_variants() -> None:
    normalise = with_variants(get_normaliser("whisper-english"), {"Macolet": ["Mekolet", "Makolet", "mac lot"]})
    assert normalise("The MEKOLET, makolet; mac lot!") == "the macolet macolet macolet"
    assert normalise("mac lottery") == "mac lottery"
    assert [step.rule for step in normalise.explain("mekolet") if step.changed] == ["variants"]


@pytest.mark.parametrize(
    ("variants", "message"),
    [
        ({"a": ["x"], "b": ["X"]}, "is listed under"),
        ({"a": ["um"]}, "empty once normalised"),
        ({"a": ["b"], "b": ["c"]}, "itself a spelling"),
    ],
)
def test_contradicting_variants(variants: dict[str, list[str]], message: str) -> None:
    with pytest.raises(InputError, match=message):
        with_variants(get_normaliser("whisper-english"), variants)


@pytest.mark.parametrize("content", ["- a", "a: 5", "5: [x]", "a: [", ""])
def test_a_bad_file_of_variants_is_one_sentence(tmp_path: Path, content: str) -> None:
    (tmp_path / "v.yaml").write_text(content)
    with pytest.raises(InputError, match=r"v\.yaml"):
        read_variants(tmp_path / "v.yaml")


def test_variants_from_yaml_and_json(tmp_path: Path) -> None:
    (tmp_path / "v.yaml").write_text("Macolet: [Mekolet, Makolet]\ncolour: color\n")
    assert read_variants(tmp_path / "v.yaml") == {"Macolet": ["Mekolet", "Makolet"], "colour": ["color"]}
    (tmp_path / "v.json").write_text('{"Macolet": ["Mekolet"]}')
    assert read_variants(tmp_path / "v.json") == {"Macolet": ["Mekolet"]}
