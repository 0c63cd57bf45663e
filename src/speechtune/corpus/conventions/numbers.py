# ruff: noqa: RUF001 - characters that look alike are what this file is about
"""Numbers in words, where there is only one way to say them."""

from __future__ import annotations

import re
from functools import lru_cache

from speechtune.core.errors import InputError, missing_extra
from speechtune.corpus.conventions.config import TextConventions

INDIC = frozenset(("as", "bn", "gu", "hi", "ml", "mr", "or", "pa", "ta", "te", "kn", "ur"))
"""Languages that indic_numtowords speaks (MIT; it comes with whisper-normalizer); whole numbers only."""

_POINT_LANGUAGES = frozenset(("en", "he"))
"""Languages in which 1,234.5 has a thousands comma and a decimal point and num2words says decimals as they are read."""

_WHOLE = r"\d{1,3}(?:,\d{3})+|\d{1,3}(?:,\d{2})*,\d{3}|\d+"
_EDGE_BEFORE = r"(?<![\w.,:/$€£₪₹¥#+\-–−'’%°@])"
_EDGE_AFTER = r"(?![\w%°$€£₪₹¥@/#'’])(?![.,:\-–]\w)"
_NUMBER = re.compile(rf"{_EDGE_BEFORE}(?P<whole>{_WHOLE})(?P<fraction>\.\d+)?{_EDGE_AFTER}", re.ASCII)
_ORDINAL = re.compile(rf"{_EDGE_BEFORE}(?P<whole>\d+)(?P<ending>st|nd|rd|th){_EDGE_AFTER}", re.ASCII | re.IGNORECASE)
_YEARS = range(1100, 2100)
_LARGEST_DIGITS = 12


def check_language(language: str) -> None:
    """Refuse a language whose numbers no library here can say.

    Raises:
        InputError: it is not supported, or num2words is not installed.
    """
    if language in INDIC:
        return
    try:
        from num2words import CONVERTER_CLASSES
    except ImportError as error:
        raise missing_extra("num2words", "prepare") from error
    if language not in CONVERTER_CLASSES:
        raise InputError(
            f"numbers: spell is not possible for the language {language or '(unknown)'!r}: set numbers to keep for it "
            f"under languages (num2words speaks {', '.join(sorted(CONVERTER_CLASSES))})"
        )


def spell_numbers(text: str, how: TextConventions, language: str) -> str:
    """Numbers in words; what is ambiguous stays in digits."""
    if how.numbers == "keep" or not any(char.isdigit() for char in text):
        return text
    if language == "en":
        text = _ORDINAL.sub(lambda match: _ordinal(match) or match[0], text)
    return _NUMBER.sub(lambda match: _words(match, how, language) or match[0], text)


def _ordinal(match: re.Match[str]) -> str | None:
    whole, value = match["whole"], int(match["whole"])
    teen = value % 100 in (11, 12, 13)
    right = "th" if teen else {1: "st", 2: "nd", 3: "rd"}.get(value % 10, "th")
    if whole.startswith("0") or match["ending"].lower() != right or len(whole) > _LARGEST_DIGITS:
        return None
    return _say(value, "en", "ordinal")


def _words(match: re.Match[str], how: TextConventions, language: str) -> str | None:
    whole, fraction = match["whole"], match["fraction"]
    plain = whole.replace(",", "")
    comma = "," in whole
    if comma and language not in _POINT_LANGUAGES | INDIC:
        return None
    if comma and language in _POINT_LANGUAGES and not re.fullmatch(r"\d{1,3}(,\d{3})+", whole):
        return None
    if len(plain) > _LARGEST_DIGITS or (plain.startswith("0") and len(plain) > 1):
        return None
    if fraction:
        return _decimal(plain, fraction[1:], language) if language in _POINT_LANGUAGES else None
    value = int(plain)
    if value in _YEARS and not comma:
        if how.years == "keep":
            return None
        if how.years == "year" and language not in INDIC:
            return _say(value, language, "year")
    return _say(value, language, "cardinal")


def _decimal(whole: str, fraction: str, language: str) -> str:
    """English and Hebrew read the digits after the point one by one."""
    point = {"en": "point", "he": "נקודה"}[language]
    digits = " ".join(_say(int(digit), language, "cardinal") for digit in fraction)
    return f"{_say(int(whole), language, 'cardinal')} {point} {digits}"


@lru_cache(maxsize=65_536)
def _say(value: int, language: str, kind: str) -> str:
    if language in INDIC:
        from indic_numtowords import num2words as indic  # type: ignore[import-untyped]

        said = indic(value, language)
        return str(said[0] if isinstance(said, list) else said)
    try:
        from num2words import num2words
    except ImportError as error:
        raise missing_extra("num2words", "prepare") from error
    try:
        said = num2words(value, lang=language, to=kind)
    except (NotImplementedError, OverflowError):
        said = num2words(value, lang=language)
    return " ".join(str(said).replace(",", " ").split())  # "one thousand, two hundred": nobody says the comma
