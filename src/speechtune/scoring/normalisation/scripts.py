"""Pipelines by script: Indic, Arabic, Latin with apostrophes, Chinese and Japanese, and the one for all (unicode)."""

# ruff: noqa: RUF001, SIM905

from __future__ import annotations

import re
from collections.abc import Callable

from speechtune.scoring.normalisation.rules import (
    BRACKETS,
    CASEFOLD,
    DIGIT_GROUPS,
    DIGITS,
    NFC,
    NFKC,
    PARENTHESES,
    PUNCTUATION,
    Normaliser,
    Rule,
    by_word,
    replace_characters,
)

_VIRAMA_ML, _VIRAMA_BN, _ZWJ = "\u0d4d", "\u09cd", "\u200d"
_JOINED = {
    **{
        f"{base}{_VIRAMA_ML}{_ZWJ}": chillu
        for base, chillu in zip("ണനരലളക", "\u0d7a\u0d7b\u0d7c\u0d7d\u0d7e\u0d7f", strict=True)
    },
    f"ত{_VIRAMA_BN}{_ZWJ}": "ৎ",
}
_JOINED_PATTERN = re.compile("|".join(map(re.escape, _JOINED)))

_HARAKAT = frozenset(
    map(
        chr,
        (
            *range(0x0610, 0x061B),
            *range(0x064B, 0x0660),
            0x0670,
            *range(0x06D6, 0x06DD),
            *range(0x06DF, 0x06E5),
            0x06E7,
            0x06E8,
            *range(0x06EA, 0x06EE),
        ),
    )
)
_ARABIC_FORMS = {"\u0640": "", "أ": "ا", "إ": "ا", "ٱ": "ا", "ی": "ي", "ک": "ك"}

_APOSTROPHES = frozenset("'\u2019\u2018\u02bc\u00b4`\u2032\u02b9")
_TYPED_ACCENT = re.compile(r"\b([^\W\d_]*)([aeiouAEIOU])'(?!\w)")
_OPENING_QUOTE = re.compile(r"(?:^|\s)'\w")
_TRUNCATED = frozenset("po mo fa da di sta va be to ca de que co".split())
_GRAVE = dict(zip("aeiouAEIOU", "àèìòùÀÈÌÒÙ", strict=True))
_ACUTE_ENDINGS = ("ch", "tr")
_ACUTE_WORDS = frozenset({"n", "s", "vicer"})

_CHARACTER = re.compile(
    "([\u3005-\u3007\u3040-\u30ff\u3100-\u312f\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff])"
)


def unicode_pipeline() -> Normaliser:
    """The pipeline that is safe for every script."""
    rules = (NFC, CASEFOLD, PUNCTUATION)
    return Normaliser(
        "unicode",
        "safe for every script: NFC, case folded, punctuation and symbols to spaces, marks kept",
        rules,
        by_word(_chain(rules)),
    )


def _chain(rules: tuple[Rule, ...]) -> Callable[[str], str]:
    def run(word: str) -> str:
        for rule in rules:
            word = rule.apply(word)
        return word

    return run


def indic() -> Normaliser:
    """The pipeline for scripts of India, Nepal and Sri Lanka."""
    joined = Rule(
        "joined-forms",
        "letter, virama and joiner that spell a Malayalam chillu or Bengali khanda ta become that letter",
        lambda text: _JOINED_PATTERN.sub(lambda match: _JOINED[match[0]], text) if _ZWJ in text else text,
    )
    return Normaliser(
        "indic",
        "Indic scripts: vowel signs and virama kept, joiners removed, danda a space, digits 0-9",
        (BRACKETS, PARENTHESES, joined, NFKC, CASEFOLD, DIGIT_GROUPS, DIGITS, PUNCTUATION),
    )


def arabic() -> Normaliser:
    """The pipeline for Arabic, Persian, Urdu, Pashto and others in Arabic script."""
    marks = replace_characters(lambda char: None if char in _HARAKAT else char)
    forms = replace_characters(lambda char: _ARABIC_FORMS.get(char, char))
    return Normaliser(
        "arabic",
        "Arabic script: short vowels and tatweel removed, alef with hamza is alef, one yeh and kaf, digits 0-9",
        (
            BRACKETS,
            PARENTHESES,
            NFKC,
            Rule("harakat", "short vowels, shadda, sukun and Koranic marks are removed", marks),
            Rule("letters", "tatweel goes; أ إ ٱ become ا (آ stays); Persian ی and ک become ي and ك", forms),
            CASEFOLD,
            DIGIT_GROUPS,
            DIGITS,
            PUNCTUATION,
        ),
    )


def _apostrophes(text: str) -> str:
    return "".join("'" if char in _APOSTROPHES else char for char in text)


_ELISION = Rule(
    "apostrophes",
    "every apostrophe, straight or curly, becomes a space: l'acqua, l\u2019acqua and l' acqua are two words",
    lambda text: _apostrophes(text).replace("'", " "),
)


def latin() -> Normaliser:
    """The pipeline for languages in Latin script that write elisions: French, Catalan, Occitan."""
    return Normaliser(
        "latin",
        "Latin script: accents kept, elisions (l', qu') are words, ligatures and full width letters plain",
        (BRACKETS, PARENTHESES, _ELISION, NFKC, CASEFOLD, PUNCTUATION),
    )


def italian() -> Normaliser:
    """As `latin`, and accents typed as apostrophes become accents."""
    typed = Rule(
        "typed-accents",
        "an apostrophe typed for an accent becomes it: perche' is perché, citta' is città; po', fa', da' stay",
        _typed_accents,
    )
    return Normaliser(
        "italian",
        "Italian: accents kept, typed accents (perche') restored, elisions (l', un') are words",
        (BRACKETS, PARENTHESES, typed, _ELISION, NFKC, CASEFOLD, PUNCTUATION),
    )


def _typed_accents(text: str) -> str:
    text = _apostrophes(text)
    # With quotation marks of the same shape in the text, an apostrophe after a word may be one of them.
    return text if _OPENING_QUOTE.search(text) else _TYPED_ACCENT.sub(_accent, text)


def _accent(match: re.Match[str]) -> str:
    stem, vowel = match[1], match[2]
    if (stem + vowel).lower() in _TRUNCATED:
        return match[0]
    before = stem.lower()
    if vowel in "eE" and (before.endswith(_ACUTE_ENDINGS) or before in _ACUTE_WORDS):
        return stem + ("é" if vowel == "e" else "É")
    return stem + _GRAVE[vowel]


def cjk() -> Normaliser:
    """The pipeline for Chinese and Japanese: every Chinese character and kana is a word."""
    return Normaliser(
        "cjk",
        "Chinese and Japanese: each character is a word, Latin words and numbers stay words, full width is plain",
        (
            BRACKETS,
            PARENTHESES,
            NFKC,
            CASEFOLD,
            DIGIT_GROUPS,
            PUNCTUATION,
            Rule("characters", "spaces around each Han character and kana", lambda t: _CHARACTER.sub(r" \1 ", t)),
        ),
        characters_are_words=True,
    )
