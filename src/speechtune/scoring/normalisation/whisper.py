"""OpenAI's English and basic normalisers (Radford et al. 2022, arXiv 2212.04356, appendix C), rewritten for speed.

Results equal those of ``transformers.models.whisper.english_normalizer`` up to white space at the ends (see the tests).
Nearly every English rule looks at one word at a time, so the result of each distinct word is computed once; the rest
(numbers over several words, "'s been", text in brackets, an apostrophe after a space) is looked for in each text, and a
text that holds it takes the full road. The spelling map is the one in the package ``whisper-normalizer`` (MIT), whose
own English rules differ from OpenAI's ("kinda", "sorta", "dunno", "cause") and are not used.
"""

from __future__ import annotations

import functools
import importlib.resources
import json
import re
import unicodedata

from speechtune.scoring.normalisation.english_numbers import INERT, WORDS, standardise_numbers
from speechtune.scoring.normalisation.rules import (
    BRACKETS,
    LOWER,
    PARENTHESES,
    Normaliser,
    Rule,
    by_word,
    remove_brackets,
    remove_parentheses,
    replace_characters,
    single_spaces,
)

_MAX_CACHED_WORDS = 400_000

_FILLERS = re.compile(r"\b(hmm|mm|mhm|mmm|uh|um)\b")
_SPACE_APOSTROPHE = re.compile(r"\s+'")
_TITLES = {
    **{"mr": "mister", "mrs": "missus", "st": "saint", "dr": "doctor", "prof": "professor", "capt": "captain"},
    **{"gov": "governor", "ald": "alderman", "gen": "general", "sen": "senator", "rep": "representative"},
    **{"pres": "president", "rev": "reverend", "hon": "honorable", "asst": "assistant", "assoc": "associate"},
    **{"lt": "lieutenant", "col": "colonel", "jr": "junior", "sr": "senior", "esq": "esquire"},
}
_PERFECT = (("d", "been"), ("s", "been"), ("d", "gone"), ("s", "gone"), ("d", "done"), ("s", "got"))
_SPOKEN = {
    **{"wanna": "want to", "gotta": "got to", "gonna": "going to", "imma": "i am going to"},
    **{"woulda": "would have", "coulda": "could have", "shoulda": "should have"},
}
_SHORT_FORMS = re.compile(rf"\b(?:{'|'.join((*_SPOKEN, *_TITLES))})\b")
_REPLACERS = [
    (re.compile(pattern), replacement)
    for pattern, replacement in (
        (r"\bwon't\b", "will not"),
        (r"\bcan't\b", "can not"),
        (r"\blet's\b", "let us"),
        (r"\bain't\b", "aint"),
        (r"\by'all\b", "you all"),
        *((rf"\b{short}\b", full) for short, full in _SPOKEN.items()),
        (r"\bi'ma\b", "i am going to"),
        (r"\bma'am\b", "madam"),
        *((rf"\b{short}\b", f"{full} ") for short, full in _TITLES.items()),
        *((rf"'{letter} {verb}\b", f" {'had' if letter == 'd' else 'has'} {verb}") for letter, verb in _PERFECT),
        (r"n't\b", " not"),
        (r"'re\b", " are"),
        (r"'s\b", " is"),
        (r"'d\b", " would"),
        (r"'ll\b", " will"),
        (r"'t\b", " not"),
        (r"'ve\b", " have"),
        (r"'m\b", " am"),
    )
]
_DIGIT_COMMA = re.compile(r"(\d),(\d)")
_FULL_STOP = re.compile(r"\.([^0-9]|$)")
_SYMBOL = re.compile(r"[.%$¢€£]")
_STRAY_BEFORE = re.compile(r"[.$¢€£]([^0-9])")
_STRAY_PERCENT = re.compile(r"([^0-9])%")
_NUMERIC_SYMBOLS = ".%$¢€£"
_EXTRA_LETTERS = {
    **{"œ": "oe", "Œ": "OE", "ø": "o", "Ø": "O", "æ": "ae", "Æ": "AE", "ß": "ss", "ẞ": "SS", "đ": "d"},
    **{"Đ": "D", "ð": "d", "Ð": "D", "þ": "th", "Þ": "th", "ł": "l", "Ł": "L"},
}
_ACROSS_WORDS = re.compile(r"\s'|'(?:[ds] (?:been|gone)|d done|s got)\b")
_NEEDS_NUMBERS = re.compile(r"[\d.%$¢€£]")


def _without_diacritics(char: str) -> str:
    if char in _NUMERIC_SYMBOLS:
        return char
    if char in _EXTRA_LETTERS:
        return _EXTRA_LETTERS[char]
    category = unicodedata.category(char)
    if category == "Mn":
        return ""
    return " " if category[0] in "MSP" else char


def _without_symbols(char: str) -> str:
    return " " if unicodedata.category(char)[0] in "MSP" else char


_strip_diacritics = replace_characters(_without_diacritics)
_strip_symbols = replace_characters(_without_symbols)


def _contractions(text: str) -> str:
    if "'" not in text and not _SHORT_FORMS.search(text):
        return text
    for pattern, replacement in _REPLACERS:
        text = pattern.sub(replacement, text)
    return text


def _letters(text: str) -> str:
    return _strip_diacritics(unicodedata.normalize("NFKD", text))


@functools.cache
def spelling_map() -> dict[str, str]:
    """British to American spellings: 1739 words, from OpenAI's ``english.json``."""
    file = importlib.resources.files("whisper_normalizer") / "normalizers" / "english.json"
    return json.loads(file.read_text(encoding="utf-8"))


def _spellings(text: str) -> str:
    known = spelling_map()
    return " ".join([known.get(word, word) for word in text.split()])


def _stray_symbols(text: str) -> str:
    if not _SYMBOL.search(text):
        return text
    return _STRAY_PERCENT.sub(r"\1 ", _STRAY_BEFORE.sub(r" \1", text))


_WORD_RULES = (
    Rule("fillers", "hmm, mm, mhm, mmm, uh and um are removed", lambda text: _FILLERS.sub("", text)),
    Rule("apostrophe-space", "a space before an apostrophe is removed", lambda text: _SPACE_APOSTROPHE.sub("'", text)),
    Rule("contractions", "contractions and titles are written out: won't, gonna, 's, mr", _contractions),
    Rule("digit-commas", "a comma between digits is removed", lambda text: _DIGIT_COMMA.sub(r"\1\2", text)),
    Rule("full-stops", "a full stop that no digit follows is removed", lambda text: _FULL_STOP.sub(r" \1", text)),
    Rule("symbols", "symbols and punctuation become spaces, diacritics go; . % $ ¢ € £ stay for numbers", _letters),
)
_LAST_RULES = (
    Rule("numbers", "number words become digits: twenty one dollars is $21, one alone stays one", standardise_numbers),
    Rule("spellings", "British spellings become American ones", _spellings),
    Rule("stray-symbols", "symbols that belong to no number are removed", _stray_symbols),
)
_ENGLISH_RULES = (LOWER, BRACKETS, PARENTHESES, *_WORD_RULES, *_LAST_RULES)


class _Words(dict[str, str]):
    """The result of each word, found out when it is first asked for.

    ``numbers`` are words for which the number rules have to see the whole text; ``apart`` are words for which all rules
    have to: of "um's" an apostrophe is left, which joins the word before.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers: set[str] = set()
        self.apart: set[str] = set()

    def __missing__(self, word: str) -> str:
        if len(self) >= _MAX_CACHED_WORDS:
            self.clear()
        if _FILLERS.sub("", word)[:1] == "'" != word[:1]:
            self.apart.add(word)
            result = word
        else:
            result, numeric = _one_word(word)
            if numeric:
                self.numbers.add(word)
        self[word] = result
        return result


class FastEnglish:
    """The English rules with the words' results remembered; a callable ``str -> str``."""

    def __init__(self) -> None:
        self._words = _Words()

    def __call__(self, text: str) -> str:
        """What the rules in order make of a raw text, with single spaces."""
        text = text.lower()
        if "<" in text or "[" in text or "(" in text:
            text = remove_parentheses(remove_brackets(text))
        if "'" in text and _ACROSS_WORDS.search(text):
            return _in_order(text)
        words, known = text.split(), self._words
        joined = " ".join(map(known.__getitem__, words))
        if known.apart and not known.apart.isdisjoint(words):
            return _in_order(text)
        return single_spaces(joined) if known.numbers.isdisjoint(words) else _last_rules(joined)


def _one_word(word: str) -> tuple[str, bool]:
    """The result of a word, and whether the rules over several words have to see the text that it stands in."""
    text = word
    for rule in _WORD_RULES:
        text = rule.apply(text)
    parts = text.split()
    numbers = any((part in WORDS and part not in INERT) or part == "half" for part in parts)
    return (" ".join(parts), True) if numbers or _NEEDS_NUMBERS.search(text) else (_spellings(text), False)


def _in_order(text: str) -> str:
    for rule in _WORD_RULES:
        text = rule.apply(text)
    return _last_rules(text)


def _last_rules(text: str) -> str:
    return " ".join(_stray_symbols(_spellings(standardise_numbers(text))).split())


def whisper_english() -> Normaliser:
    """OpenAI's English rules."""
    return Normaliser(
        "whisper-english",
        "OpenAI's English rules: numbers to digits, contractions and spellings unified, fillers and brackets removed",
        _ENGLISH_RULES,
        FastEnglish(),
    )


def _nfkc_without_symbols(text: str) -> str:
    return _strip_symbols(text if text.isascii() else unicodedata.normalize("NFKC", text)).lower()


def whisper_basic() -> Normaliser:
    """OpenAI's rules for languages other than English."""
    words = by_word(_nfkc_without_symbols)

    def fast(text: str) -> str:
        return words(remove_parentheses(remove_brackets(text.lower())))

    symbols = "NFKC; punctuation, symbols and combining marks become spaces; lower case again"
    return Normaliser(
        "whisper-basic",
        "OpenAI's rules for other languages: lower case, NFKC, punctuation and combining marks to spaces",
        (LOWER, BRACKETS, PARENTHESES, Rule("symbols", symbols, _nfkc_without_symbols)),
        fast,
    )
