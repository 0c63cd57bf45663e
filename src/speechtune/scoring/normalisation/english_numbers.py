"""Spelled-out English numbers to digits, with exactly the results of Whisper's ``EnglishNumberNormalizer``.

The rules are OpenAI's (openai/whisper, ``normalizers/english.py``, MIT), which Transformers ships too; this is a
table-driven rewrite that is compared with theirs in the tests, oddities included ("point and" loses its "point").
"""

# ruff: noqa: SIM905

from __future__ import annotations

import re
from dataclasses import dataclass, field
from fractions import Fraction

_ONES = (
    "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen "
    "eighteen nineteen"
).split()
_TENS = "twenty thirty forty fifty sixty seventy eighty ninety".split()
_MULTIPLIERS = (
    ("hundred", 2),
    *(
        (name, 3 * power)
        for power, name in enumerate(
            (
                "thousand million billion trillion quadrillion quintillion sextillion septillion octillion nonillion "
                "decillion"
            ).split(),
            start=1,
        )
    ),
)
_ORDINALS = {"one": "first", "two": "second", "three": "third", "five": "fifth", "twelve": "twelfth"}
_ORDINAL_SUFFIX = {1: "st", 2: "nd", 3: "rd"}

ZEROS = frozenset({"o", "oh", "zero"})
ONES = {name: number for number, name in enumerate(_ONES, start=1)}
TENS = {name: 10 * number for number, name in enumerate(_TENS, start=2)}
MULTIPLIERS = {name: 10**power for name, power in _MULTIPLIERS}


def _ordinal(name: str) -> str:
    return _ORDINALS.get(name) or name + ("h" if name.endswith("t") else "th")


ONES_SUFFIXED = {
    **{("sixes" if name == "six" else f"{name}s"): (number, "s") for name, number in ONES.items()},
    "zeroth": (0, "th"),
    **{_ordinal(name): (number, _ORDINAL_SUFFIX.get(number, "th")) for name, number in ONES.items()},
}
TENS_SUFFIXED = {
    **{name.replace("y", "ies"): (number, "s") for name, number in TENS.items()},
    **{name.replace("y", "ieth"): (number, "th") for name, number in TENS.items()},
}
MULTIPLIERS_SUFFIXED = {
    **{f"{name}s": (number, "s") for name, number in MULTIPLIERS.items()},
    **{f"{name}th": (number, "th") for name, number in MULTIPLIERS.items()},
}
DECIMALS = frozenset({*ONES, *TENS, *ZEROS})
SIGNS = {"minus": "-", "negative": "-", "plus": "+", "positive": "+"}
CURRENCIES = {
    **dict.fromkeys(("pound", "pounds"), "£"),
    **dict.fromkeys(("euro", "euros"), "€"),
    **dict.fromkeys(("dollar", "dollars"), "$"),
    **dict.fromkeys(("cent", "cents"), "¢"),
}
PREFIXES = frozenset("-+£€$¢")
PERCENTS = frozenset({"per", "percent"})
SPECIALS = frozenset({"and", "double", "triple", "point"})

WORDS = frozenset(
    {*DECIMALS, *ONES_SUFFIXED, *TENS_SUFFIXED, *MULTIPLIERS, *MULTIPLIERS_SUFFIXED, *SIGNS, *CURRENCIES}
    | PERCENTS
    | SPECIALS
)
_HELPERS = frozenset({*SIGNS, *CURRENCIES, *PERCENTS, *SPECIALS})
INERT = frozenset({"and", "double", "triple", *CURRENCIES, *PERCENTS})
"""Words that stay as they are where the text holds no other number word and no digit."""

_DIGIT = re.compile(r"[0-9]")
_HALF = re.compile(r"\band\s+a\s+half\b")
_LETTER_DIGIT = re.compile(r"([a-z])([0-9])")
_DIGIT_LETTER = re.compile(r"([0-9])([a-z])")
_SPLIT_SUFFIX = re.compile(r"([0-9])\s+(st|nd|rd|th|s)\b")
_CENTS_AFTER = re.compile(r"([€£$])([0-9]+) (?:and )?¢([0-9]{1,2})\b")
_ONLY_CENTS = re.compile(r"[€£$]0.([0-9]{1,2})\b")
_SINGLE_ONE = re.compile(r"\b1(s?)\b")


def standardise_numbers(text: str) -> str:
    """English number words to digits in a lower-case text without punctuation other than ``. % $ ¢ € £``."""
    return _tidy(" ".join(_Reader().read(_prepare(text).split())))


def _prepare(text: str) -> str:
    text = " ".join(_halves(text))
    if not _DIGIT.search(text):
        return text
    text = _DIGIT_LETTER.sub(r"\1 \2", _LETTER_DIGIT.sub(r"\1 \2", text))
    return _SPLIT_SUFFIX.sub(r"\1\2", text)


def _halves(text: str) -> list[str]:
    if "half" not in text:
        return [text]
    *firsts, last = _HALF.split(text)
    parts = []
    for part in firsts:
        if part.strip():
            before = part.rsplit(maxsplit=2)[-1]
            parts += [part, "point five" if before in DECIMALS or before in MULTIPLIERS else "and a half"]
    return parts + [last] * bool(last.strip())


def _tidy(text: str) -> str:
    if "€" in text or "£" in text or "$" in text:
        text = _CENTS_AFTER.sub(lambda match: f"{match[1]}{match[2]}.{int(match[3]):02d}", text)
        text = _ONLY_CENTS.sub(lambda match: f"¢{int(match[1])}", text)
    return _SINGLE_ONE.sub(r"one\1", text) if "1" in text else text


def is_number(word: str) -> bool:
    """Whether a word is digits, possibly with a decimal point between them."""
    if word.isdecimal():
        return True
    whole, point, part = word.partition(".")
    return bool(point) and whole.isdecimal() and part.isdecimal()


def _fraction(text: str) -> Fraction | None:
    try:
        return Fraction(text)
    except ValueError:
        return None


@dataclass(slots=True)
class _Reader:
    """Reads words from left to right; ``value`` is the number so far (text once it is a row of digits)."""

    value: str | int | None = None
    prefix: str = ""
    done: list[str] = field(default_factory=list)

    def read(self, words: list[str]) -> list[str]:
        skip = False
        last = len(words) - 1
        previous: str | None = None
        for index, word in enumerate(words):
            if skip:
                skip, previous = False, word
                continue
            if word in WORDS:
                following = words[index + 1] if index < last else None
                if word in _HELPERS:
                    skip = self._helper(word, previous, following)
                else:
                    self._numeral(word, previous)
            else:
                first = word[0]
                bare = word[1:] if first in PREFIXES else word
                if (first.isdecimal() or bare is not word) and is_number(bare):
                    self._digits(word, bare)
                else:
                    self._finish()
                    self._say(word)
            previous = word
        self._finish()
        return self.done

    def _say(self, result: str | int) -> None:
        self.done.append(f"{self.prefix}{result}")
        self.value, self.prefix = None, ""

    def _finish(self) -> None:
        if self.value is not None:
            self._say(self.value)

    def _digits(self, word: str, bare: str) -> None:
        if isinstance(self.value, str) and self.value.endswith("."):
            self.value += word
            return
        self._finish()
        self.prefix = word[0] if bare is not word else self.prefix
        number = _fraction(bare)
        whole = number is not None and number.denominator == 1
        self.value = number.numerator if whole and number is not None else bare

    def _numeral(self, word: str, previous: str | None) -> None:
        if word in ZEROS:
            self.value = f"{self.value or ''}0"
        elif word in ONES:
            self.value = self._append(ONES[word], previous)
        elif word in TENS:
            self.value = self._append(TENS[word], None)
        elif word in MULTIPLIERS:
            self._multiply(MULTIPLIERS[word])
        elif word in MULTIPLIERS_SUFFIXED:
            self._multiply_and_say(*MULTIPLIERS_SUFFIXED[word])
        else:
            tens = word in TENS_SUFFIXED
            number, suffix = TENS_SUFFIXED[word] if tens else ONES_SUFFIXED[word]
            self._say(f"{self._append(number, None if tens else previous)}{suffix}")

    def _append(self, number: int, previous: str | None) -> str | int:
        """The value with 0 to 90 said after it: added where its last digits are zero, else written behind it."""
        value = self.value
        if value is None:
            return number
        if isinstance(value, str) or previous in ONES:
            if previous in TENS and number < 10:
                return f"{str(value)[:-1]}{number}"
            return f"{value}{number}"
        return value + number if value % (10 if number < 10 else 100) == 0 else f"{value}{number}"

    def _multiply(self, multiplier: int) -> None:
        value = self.value
        if value is None:
            self.value = multiplier
        elif isinstance(value, str) or value == 0:
            number = _fraction(str(value))
            product = number * multiplier if number is not None else None
            if product is not None and product.denominator == 1:
                self.value = product.numerator
            else:
                self._say(value)
                self.value = multiplier
        else:
            self.value = value // 1000 * 1000 + value % 1000 * multiplier

    def _multiply_and_say(self, multiplier: int, suffix: str) -> None:
        value = self.value
        if value is None:
            self._say(f"{multiplier}{suffix}")
        elif isinstance(value, str):
            number = _fraction(value)
            product = number * multiplier if number is not None else None
            if product is not None and product.denominator == 1:
                self._say(f"{product.numerator}{suffix}")
            else:
                self._say(value)
                self._say(f"{multiplier}{suffix}")
        else:
            self._say(f"{value // 1000 * 1000 + value % 1000 * multiplier}{suffix}")

    def _helper(self, word: str, previous: str | None, following: str | None) -> bool:
        """A sign, currency, per cent, and, double, triple or point; whether the next word is used up."""
        numeric = following is not None and (following in WORDS or is_number(following))
        if word in SIGNS:
            self._finish()
            if numeric:
                self.prefix = SIGNS[word]
            else:
                self._say(word)
        elif word in CURRENCIES:
            if self.value is not None:
                self.prefix = CURRENCIES[word]
                self._say(self.value)
            else:
                self._say(word)
        elif word in PERCENTS:
            if self.value is not None and (word == "percent" or following == "cent"):
                self._say(f"{self.value}%")
                return word == "per"
            self._finish()
            self._say(word)
        elif not numeric or following is None:
            self._finish()
            self._say(word)
        elif word == "and":
            if previous not in MULTIPLIERS:
                self._finish()
                self._say(word)
        elif word == "point":
            if following in DECIMALS or is_number(following):
                self.value = f"{self.value or ''}."
        elif following in ONES or following in ZEROS:
            self.value = f"{self.value or ''}{str(ONES.get(following, 0)) * (2 if word == 'double' else 3)}"
            return True
        else:
            self._finish()
            self._say(word)
        return False
