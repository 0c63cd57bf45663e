# ruff: noqa: RUF001 - characters that look alike are what this file is about
"""Characters: normal form, invisible ones, quotes, dashes, digits, and the marks of Hebrew and Indic scripts.

Every function takes a text and the conventions, and returns the text as they want it.
"""

from __future__ import annotations

import re
import unicodedata

from speechtune.corpus.conventions.config import TextConventions

_INVISIBLE = re.compile("[\u00ad\u180e\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u2069\ufeff]")
_JOINERS = "\u200c\u200d"
_JOINING_SCRIPTS = (
    *("DEVANAGARI", "BENGALI", "GURMUKHI", "GUJARATI", "ORIYA", "TAMIL", "TELUGU", "KANNADA", "MALAYALAM", "SINHALA"),
    *("ARABIC", "SYRIAC", "MONGOLIAN", "KHMER", "MYANMAR", "TIBETAN"),
)
_QUOTES: dict[str, str | int | None] = {
    **dict.fromkeys("“”„‟«»〝〞＂", '"'),
    **dict.fromkeys("‘’‚‛‹›ʼ＇`´", "'"),
}
_DASHES: dict[str, str | int | None] = dict.fromkeys("‐‑‒–—―−﹘﹣－", "-")
_NIQQUD = re.compile("[\u0591-\u05bd\u05bf\u05c1\u05c2\u05c4\u05c5\u05c7]")
_HEBREW = "\u05d0-\u05ea\u0591-\u05bd\u05bf-\u05c7"
_QUOTED_INSIDE = re.compile(f'(?<=[{_HEBREW}])["“”„](?=[{_HEBREW}])')
_QUOTED_ONCE = re.compile(f"(?<=[{_HEBREW}])['’‘]")
_DOUBLE = str.maketrans(dict.fromkeys('"“”„‟«»〝〞＂', None))


def unicode_form(text: str, how: TextConventions) -> str:
    """Canonical composition."""
    return unicodedata.normalize("NFC", text) if how.unicode == "NFC" else text


def invisible(text: str, how: TextConventions) -> str:
    """Remove what has no width, except the joiners that shape the letters around them."""
    if how.invisible == "keep":
        return text
    return _INVISIBLE.sub(lambda match: match[0] if _joins(text, match.start()) else "", text)


def _joins(text: str, place: int) -> bool:
    """Whether the character at ``place`` is a joiner that has something to join (in Indic: a cluster to end)."""
    if text[place] not in _JOINERS or place == 0:
        return False
    before = text[place - 1]
    if before == "\ufe0f" or unicodedata.category(before) in ("So", "Sk"):
        return text[place] == "\u200d" and place + 1 < len(text)
    return unicodedata.category(before)[0] in "LM" and unicodedata.name(before, "").startswith(_JOINING_SCRIPTS)


def whitespace(text: str, how: TextConventions) -> str:
    """Single blanks."""
    return " ".join(text.split()) if how.whitespace == "single" else text


def quotes(text: str, how: TextConventions) -> str:
    """Typographic quotes as ASCII, or no double quotes (those inside a Hebrew word are letters, not quotes)."""
    if how.quotes == "ascii":
        return text.translate(str.maketrans(_QUOTES))
    if how.quotes == "remove":
        parts = re.split(f'((?<=[{_HEBREW}])["”](?=[{_HEBREW}]))', text)
        return "".join(part if number % 2 else part.translate(_DOUBLE) for number, part in enumerate(parts))
    return text


def dashes(text: str, how: TextConventions) -> str:
    """Every dash as a hyphen."""
    return text.translate(str.maketrans(_DASHES)) if how.dashes == "hyphen" else text


def ellipsis(text: str, how: TextConventions) -> str:
    """Three dots or one character."""
    if how.ellipsis == "dots":
        return text.replace("…", "...")
    return re.sub(r"(?<!\.)\.{3}(?!\.)", "…", text) if how.ellipsis == "single" else text


def digits(text: str, how: TextConventions) -> str:
    """Decimal digits of any script as 0-9."""
    if how.digits == "keep" or text.isascii():
        return text
    return "".join(str(unicodedata.decimal(char)) if char.isdecimal() else char for char in text)


def niqqud(text: str, how: TextConventions) -> str:
    """Hebrew points (the marks only; maqaf, paseq and sof pasuq are punctuation)."""
    return _NIQQUD.sub("", text) if how.hebrew_niqqud == "remove" else text


def maqaf(text: str, how: TextConventions) -> str:
    """The Hebrew hyphen."""
    marks = {"hyphen": "-", "space": " "}
    return text.replace("\u05be", marks[how.hebrew_maqaf]) if how.hebrew_maqaf in marks else text


def gershayim(text: str, how: TextConventions) -> str:
    """The marks of Hebrew abbreviations, in one of their two spellings."""
    if how.hebrew_gershayim == "hebrew":
        return _QUOTED_ONCE.sub("\u05f3", _QUOTED_INSIDE.sub("\u05f4", text))
    if how.hebrew_gershayim == "ascii":
        return text.replace("\u05f4", '"').replace("\u05f3", "'")
    return text


def danda(text: str, how: TextConventions) -> str:
    """Indic full stops."""
    if how.danda == "keep":
        return text
    return re.sub(r"\s*[\u0964\u0965]+", "." if how.danda == "period" else "", text)
