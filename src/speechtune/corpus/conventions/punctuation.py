# ruff: noqa: RUF001 - characters that look alike are what this file is about
"""Which punctuation stays, and which letters are capitals."""

from __future__ import annotations

import re
import unicodedata

from speechtune.corpus.conventions.config import TextConventions

_SENTENCE = frozenset(".,?!،؟。、！？।॥۔՞։፧።")
_INSIDE_WORDS = frozenset("'’-‐‑־׳״·")
_INSIDE_NUMBERS = frozenset(".,:/-")
_HEBREW_LETTER = re.compile("[\u05d0-\u05ea]")


def punctuation(text: str, how: TextConventions) -> str:
    """Keep all marks, only those of sentences, or none; what is inside a word or a number always stays."""
    if how.punctuation == "keep":
        return text
    result = []
    for place, char in enumerate(text):
        if (
            unicodedata.category(char)[0] != "P"
            or _belongs(text, place)
            or (how.punctuation == "sentence" and char in _SENTENCE)
        ):
            result.append(char)
        elif char in "-–—―/…_־" or _between_words(text, place):
            result.append(" ")
    joined = re.sub(r"\s+([.,?!،؟।॥])(?=\s|$)", r"\1", " ".join("".join(result).split()))
    return re.sub(r"^[.,?!]+\s+", "", joined)


def _belongs(text: str, place: int) -> bool:
    """Whether a mark is part of the word or number around it, or of a Hebrew abbreviation (a geresh may end it)."""
    char = text[place]
    before, after = text[place - 1 : place] if place else "", text[place + 1 : place + 2]
    if char in _INSIDE_NUMBERS and before.isdigit() and after.isdigit():
        return True
    if char == '"' or char in "׳'":
        hebrew = bool(_HEBREW_LETTER.match(before))
        if hebrew and (char == "׳" or _HEBREW_LETTER.match(after)):
            return True
    return char in _INSIDE_WORDS and _in_word(before) and _in_word(after)


def _between_words(text: str, place: int) -> bool:
    before, after = text[place - 1 : place] if place else "", text[place + 1 : place + 2]
    return _in_word(before) and _in_word(after)


def _in_word(char: str) -> bool:
    return bool(char) and unicodedata.category(char)[0] in "LMN"


def casing(text: str, how: TextConventions, language: str, own_case: re.Pattern[str] | None) -> str:
    """Letter case; what ``own_case`` matches (targets of the tables) keeps the case it has."""
    if how.casing == "keep":
        return text
    parts = re.split(own_case, text) if own_case else [text]
    turn = _upper if how.casing == "upper" else _lower
    turned = "".join(part if number % 2 else turn(part, language) for number, part in enumerate(parts))
    if how.casing == "sentence":
        turned = _sentence_case(turned, language, own_case)
    return unicodedata.normalize("NFC", turned) if how.unicode == "NFC" else turned  # the small letter of İ is two


def _lower(text: str, language: str) -> str:
    if language in ("tr", "az"):
        text = text.replace("I", "ı").replace("İ", "i")
    return text.lower()


def _upper(text: str, language: str) -> str:
    return (text.replace("i", "İ") if language in ("tr", "az") else text).upper()


def _sentence_case(text: str, language: str, own_case: re.Pattern[str] | None) -> str:
    if language == "en":
        text = re.sub(r"(?<![\w'’-])i(?=$|[\s.,!?;:…]|['’](?:m|ll|d|ve|s|re)\b)", "I", text)
    held = {match.start() for match in own_case.finditer(text)} if own_case else set()

    def raise_first(match: re.Match[str]) -> str:
        return match[0] if match.end() - 1 in held else match[1] + _upper(match[2], language)

    return re.sub(r"((?:^|[.!?…]\s+)[\"'“‘(¿¡]*)([^\W\d_])", raise_first, text)
