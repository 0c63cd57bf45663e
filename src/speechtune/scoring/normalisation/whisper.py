"""OpenAI's English and basic normalisers (Radford et al. 2022, arXiv 2212.04356, appendix C), rewritten for speed.

Results equal those of ``transformers.models.whisper.english_normalizer`` up to white space at the ends (see the tests).
Nearly every English rule looks at one word at a time, so the result of each distinct word is computed once; the rest
(numbers over several words, "'s been", text in brackets, an apostrophe after a space) is looked for in each text, and a
text that holds it takes the full road; of numbers, each distinct run of number words is read once. The spelling map is
the one in the package ``whisper-normalizer`` (MIT), whose own English rules differ from OpenAI's ("kinda", "sorta",
"dunno", "cause") and are not used.
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
)

_MAX_CACHED_WORDS, _MAX_CACHED_RUNS = 400_000, 50_000
_NEIGHBOUR = "x"

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
_ACROSS_WORDS = re.compile(r"'(?:[ds] (?:been|gone)|d done|s got)\b")
_BEFORE_PARTICIPLES = ("'d", "'s")
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

    ``social`` are the words whose result depends on those beside them, and each is in one of the other sets too:
    ``numbers`` are number words; for ``symbols`` the last rules have to see the whole text (digits, per cent,
    currencies, half); for ``apart`` all rules have to (an apostrophe at its beginning, or what is left of "um's", joins
    the word before), and for ``short`` ("it's") where a participle follows.
    """

    def __init__(self) -> None:
        super().__init__()
        self.numbers: set[str] = set()
        self.symbols: set[str] = set()
        self.apart: set[str] = set()
        self.short: set[str] = set()
        self.social: set[str] = set()

    def __missing__(self, word: str) -> str:
        if len(self) >= _MAX_CACHED_WORDS:
            self.clear()
        if _FILLERS.sub("", word)[:1] == "'":
            result, kinds = word, [self.apart]
        else:
            result, kinds = self._alone(word)
        for kind in kinds:
            kind.add(word)
            self.social.add(word)
        self[word] = result
        return result

    def _alone(self, word: str) -> tuple[str, list[set[str]]]:
        """The result of a word by itself, and the sets that it belongs to."""
        text = word
        for rule in _WORD_RULES:
            text = rule.apply(text)
        parts = text.split()
        kinds = [self.short] if word.endswith(_BEFORE_PARTICIPLES) else []
        if "half" in parts or _NEEDS_NUMBERS.search(text):
            return " ".join(parts), [*kinds, self.symbols]
        if any(part in WORDS and part not in INERT for part in parts):
            return " ".join(parts), [*kinds, self.numbers]
        return _spellings(text), kinds


class _Runs(dict[str, str]):
    """The result of each run of number words; a space at either end says that another word stands there."""

    def __missing__(self, run: str) -> str:
        if len(self) >= _MAX_CACHED_RUNS:
            self.clear()
        # What stands beside a run is looked at by the last rules only as being no number word and no symbol.
        before, after = _NEIGHBOUR * run.startswith(" "), _NEIGHBOUR * run.endswith(" ")
        text = _last_rules(f"{before}{run}{after}")
        self[run] = result = text.removeprefix(before).removesuffix(after).strip()
        return result


class FastEnglish:
    """The English rules with the results of words and of runs of number words remembered."""

    def __init__(self) -> None:
        self._words = _Words()
        self._runs = _Runs()

    def __call__(self, text: str) -> list[str]:
        """What the rules in order make of a raw text, in pieces of no, one or more words."""
        text = text.lower()
        if "<" in text or "[" in text or "(" in text:
            text = remove_parentheses(remove_brackets(text))
        words, known = text.split(), self._words
        pieces = list(map(known.__getitem__, words))
        if known.social.isdisjoint(words):
            return pieces
        if not known.apart.isdisjoint(words):
            return _in_order(text)
        if not known.short.isdisjoint(words) and _ACROSS_WORDS.search(text):
            return _in_order(text)
        if not known.symbols.isdisjoint(words):
            return _last_rules(" ".join(pieces)).split()
        return pieces if known.numbers.isdisjoint(words) else self._with_numbers(" ".join(pieces).split())

    def _with_numbers(self, words: list[str]) -> list[str]:
        pieces: list[str] = []
        run: list[str] = []
        for word in words:
            if word in WORDS:
                run.append(word)
                continue
            if run:
                pieces.append(self._runs[f"{' ' * bool(pieces)}{' '.join(run)} "])
                run = []
            pieces.append(word)
        if run:
            pieces.append(self._runs[f"{' ' * bool(pieces)}{' '.join(run)}"])
        return pieces


def _in_order(text: str) -> list[str]:
    for rule in _WORD_RULES:
        text = rule.apply(text)
    return _last_rules(text).split()


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

    def fast(text: str) -> list[str]:
        return words(remove_parentheses(remove_brackets(text.lower())))

    symbols = "NFKC; punctuation, symbols and combining marks become spaces; lower case again"
    return Normaliser(
        "whisper-basic",
        "OpenAI's rules for other languages: lower case, NFKC, punctuation and combining marks to spaces",
        (LOWER, BRACKETS, PARENTHESES, Rule("symbols", symbols, _nfkc_without_symbols)),
        fast,
    )
