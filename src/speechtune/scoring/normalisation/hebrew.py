"""Hebrew: points removed, maqaf and geresh treated as they are read, numbers as digits; final letters stay."""

# ruff: noqa: RUF001, RUF002, SIM905

from __future__ import annotations

import re

from speechtune.scoring.normalisation.rules import (
    BRACKETS,
    CASEFOLD,
    DIGIT_GROUPS,
    DIGITS,
    NFKC,
    PARENTHESES,
    PUNCTUATION,
    Normaliser,
    Rule,
    replace_characters,
)

GERESH = "\u05f3"
_POINTS = frozenset(map(chr, range(0x0591, 0x05C8))) - frozenset("\u05be\u05c0\u05c3\u05c6")
_GERSHAYIM = re.compile("(?<=[א-ת])(?:[\"\u05f4\u201c\u201d\u201e]|''|\u05f3\u05f3|\u2019\u2019)(?=[א-ת])")
_SOUND_GERESH = re.compile("(?<=[גזצץ])['\u05f3\u2019\u2018\u00b4`](?!['\u05f3\u2019])")
_OTHER_GERESH = re.compile("(?<=[א-ת])['\u05f3\u2019\u2018\u00b4`]")

_UNITS = {
    word: number
    for number, words in enumerate(
        (
            "אחת אחד",
            "שתיים שניים שתים שנים שתי שני",
            "שלוש שלושה שלושת",
            "ארבע ארבעה ארבעת",
            "חמש חמישה חמשה חמשת",
            "שש שישה ששה ששת",
            "שבע שבעה שבעת",
            "שמונה שמונת",
            "תשע תשעה תשעת",
        ),
        start=1,
    )
    for word in words.split()
}
_TENS = {
    word: 10 * number
    for number, words in enumerate(
        "עשר|עשרים|שלושים|ארבעים|חמישים חמשים|שישים ששים|שבעים|שמונים|תשעים".split("|"), start=1
    )
    for word in words.split()
} | {"עשרה": 10, "עשרת": 10}
_HUNDREDS = {"מאה": 100, "מאתיים": 200, "מאתים": 200}
_THOUSANDS = {"אלפיים": 2000, "אלף": 1000, "מיליון": 10**6, "מליון": 10**6, "מיליארד": 10**9, "מליארד": 10**9}
_TEEN_ENDS = frozenset({"עשרה", "עשר"})
_ALONE = frozenset("אחת אחד שתי שני שנים עשרת".split())
"""Not numbers where they stand alone: one (somebody), Monday, years."""


def standardise_numbers(text: str) -> str:
    """Hebrew number words to digits in a text of bare words; gender is lost: שלוש and שלושה are both 3.

    A number word with "and" (ו) before it that continues no number becomes two words: ושלושים is "ו 30".
    """
    words = text.split()
    done: list[str] = []
    position = 0
    while position < len(words):
        and_before, bare = _without_and(words[position])
        used, value = _number([bare, *words[position + 1 :]])
        if not used or (used == 1 and bare in _ALONE):
            done.append(words[position])
            position += 1
            continue
        done += ["ו"] * and_before + [str(value)]
        position += used
    return " ".join(done)


def _without_and(word: str) -> tuple[bool, str]:
    bare = word[1:]
    known = bare in _UNITS or bare in _TENS or bare in _HUNDREDS or bare in _THOUSANDS
    return (True, bare) if word.startswith("ו") and known else (False, word)


def _number(words: list[str]) -> tuple[int, int]:
    """How many of the words make one number, and its value: magnitudes must fall (20 then 3, not 3 then 4)."""
    total = group = used = 0
    room = 10**12  # what follows must be smaller than this
    while used < len(words):
        word = _without_and(words[used])[1] if used else words[used]
        following = words[used + 1] if used + 1 < len(words) else ""
        if word in _UNITS and following in _TEEN_ENDS and room > 19:
            step, magnitude, taken = _UNITS[word] + 10, 1, 2
        elif word in _UNITS and following == "מאות" and room > 900:
            step, magnitude, taken = 100 * _UNITS[word], 100, 2
        elif word in _UNITS and room > 9:
            step, magnitude, taken = _UNITS[word], 1, 1
        elif word in _TENS and room > 90:
            step, magnitude, taken = _TENS[word], 10 if _TENS[word] > 10 else 1, 1
        elif word in _HUNDREDS and room > 900:
            step, magnitude, taken = _HUNDREDS[word], 100, 1
        elif (word in _THOUSANDS or word == "אלפים") and _fits(word, group, total):
            scale = _THOUSANDS.get(word, 1000)
            total += max(group, 1) * scale
            group, room, used = 0, 1000, used + 1
            continue
        else:
            break
        group, room, used = group + step, magnitude, used + taken
    return used, total + group


def _fits(word: str, group: int, total: int) -> bool:
    scale = _THOUSANDS.get(word, 1000)
    if word in ("אלפים", "אלפיים"):
        return bool(group) == (word == "אלפים") and total % 10**6 == 0
    return total % (scale * 1000) == 0


def hebrew() -> Normaliser:
    """The Hebrew pipeline."""
    points = replace_characters(lambda char: None if char in _POINTS else char)
    maqaf = replace_characters(lambda char: " " if char in "\u05be-\u2010\u2011\u2013\u2014" else char)
    return Normaliser(
        "hebrew",
        'Hebrew: niqqud removed, final letters kept, צה"ל one word, maqaf a space, numbers as digits',
        (
            BRACKETS,
            PARENTHESES,
            NFKC,
            Rule("niqqud", "vowel points and cantillation marks are removed; final letters stay", points),
            Rule("maqaf", "maqaf and hyphens become spaces", maqaf),
            Rule("gershayim", 'gershayim or " inside a word are removed: צה"ל is צהל', lambda t: _GERSHAYIM.sub("", t)),
            Rule("geresh", "a geresh or ' after ג, ז, צ or ץ stays as ׳ (it is heard); others are removed", _geresh),
            CASEFOLD,
            DIGIT_GROUPS,
            DIGITS,
            Rule("punctuation", "punctuation and symbols become spaces, invisible characters go", _punctuation),
            Rule("numbers", "number words become digits, without their gender", standardise_numbers),
        ),
    )


def _geresh(text: str) -> str:
    return _OTHER_GERESH.sub(
        lambda m: m[0] if m[0] == GERESH and text[m.start() - 1] in "גזצץ" else "", _SOUND_GERESH.sub(GERESH, text)
    )


def _punctuation(text: str) -> str:
    return GERESH.join(PUNCTUATION.apply(part) for part in text.split(GERESH))
