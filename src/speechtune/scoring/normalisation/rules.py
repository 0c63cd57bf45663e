"""What a normaliser is made of: named rules applied in order, each of which can say what it changed."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

_CACHE_LIMIT = 500_000


@dataclass(frozen=True, slots=True)
class Rule:
    """One step of a pipeline: a name, what it does in a sentence, and the function that does it."""

    name: str
    about: str
    apply: Callable[[str], str]


@dataclass(frozen=True, slots=True)
class Step:
    """What one rule made of a text."""

    rule: str
    about: str
    before: str
    after: str

    @property
    def changed(self) -> bool:
        """Whether the rule changed anything; how much white space stands between words counts only at the last."""
        if self.rule == "white-space":
            return self.before != self.after
        return self.before.split() != self.after.split()

    def to_json(self) -> dict[str, Any]:
        """The fields and whether they differ, JSON-ready."""
        return {
            "rule": self.rule,
            "about": self.about,
            "before": self.before,
            "after": self.after,
            "changed": self.changed,
        }


@dataclass(frozen=True, slots=True)
class Normaliser:
    """A callable ``str -> str`` made of rules; runs of white space in the result are one space, ends are bare.

    Args:
        name: what it is called on the command line.
        about: what it is for, in a sentence.
        rules: applied in order.
        fast: the same result as all rules in order with single spaces, computed faster, in pieces of no, one or more
            words; ``None``: apply the rules.
        characters_are_words: white space in the result separates characters (Chinese, Japanese), so that spaces are
            no characters of the text.
    """

    name: str
    about: str
    rules: tuple[Rule, ...]
    fast: Callable[[str], Sequence[str]] | None = None
    characters_are_words: bool = False

    def __call__(self, text: str) -> str:
        """The normalised form of a raw text."""
        return single_spaces(" ".join(self.pieces(text)))

    def pieces(self, text: str) -> Sequence[str]:
        """The normalised form of a raw text in pieces, each of which holds no, one or more words."""
        if self.fast is not None:
            return self.fast(text)
        for rule in self.rules:
            text = rule.apply(text)
        return text.split()

    def explain(self, text: str) -> list[Step]:
        """The steps from the raw text to its normalised form, those that change nothing included."""
        steps = []
        for rule in (*self.rules, WHITE_SPACE):
            after = rule.apply(text)
            steps.append(Step(rule.name, rule.about, text, after))
            text = after
        return steps

    def plus(self, rule: Rule, name: str) -> Normaliser:
        """The same pipeline with one more rule at its end, which sees text with single spaces."""
        rules, inner = (*self.rules, WHITE_SPACE, rule), self

        def both(text: str) -> list[str]:
            return rule.apply(inner(text)).split()

        return Normaliser(name, self.about, rules, both if self.fast else None, self.characters_are_words)


WHITE_SPACE = Rule("white-space", "runs of white space become one space", lambda text: " ".join(text.split()))
NFC = Rule("nfc", "canonical composition (Unicode NFC)", lambda text: unicodedata.normalize("NFC", text))
NFKC = Rule(
    "nfkc",
    "compatibility forms (full width, ligatures, presentation forms) become plain ones (Unicode NFKC)",
    lambda text: unicodedata.normalize("NFKC", text),
)
LOWER = Rule("lower-case", "lower case", str.lower)


def _casefold(text: str) -> str:
    return unicodedata.normalize("NFC", text.casefold())


CASEFOLD = Rule("case-fold", "case folded, so that ß is ss; then NFC", _casefold)

_ANGLES = re.compile(r"[<\[][^>\]]*[>\]]")
_PARENTHESES = re.compile(r"\(([^)]+?)\)")


def remove_brackets(text: str) -> str:
    """Text between <> or [] goes, as in Whisper's normalisers."""
    return _ANGLES.sub("", text) if "<" in text or "[" in text else text


def remove_parentheses(text: str) -> str:
    """Text between parentheses goes, as in Whisper's normalisers."""
    return _PARENTHESES.sub("", text) if "(" in text else text


BRACKETS = Rule("brackets", "text between [ ] or < >, such as [laughs] or <unk>, is removed", remove_brackets)
PARENTHESES = Rule("parentheses", "text between ( ) is removed", remove_parentheses)


class CharacterMap(dict[int, str | int | None]):
    """A table for `str.translate` that asks a function about each new character once."""

    def __init__(self, decide: Callable[[str], str | None]) -> None:
        super().__init__()
        self._decide = decide

    def __missing__(self, code: int) -> str | int | None:
        value = self._decide(chr(code))
        self[code] = value
        return value


def replace_characters(decide: Callable[[str], str | None]) -> Callable[[str], str]:
    """A function that replaces every character by what ``decide`` says (``None`` or empty: deleted)."""
    table = CharacterMap(decide)
    return lambda text: text.translate(table)


def _without_punctuation(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Cf":
        return ""
    return " " if category[0] in "PS" else char


PUNCTUATION = Rule(
    "punctuation",
    "punctuation and symbols become spaces, invisible format characters go, combining marks stay",
    replace_characters(_without_punctuation),
)


def _plain_digit(char: str) -> str:
    return str(unicodedata.decimal(char)) if char.isdecimal() else char


DIGITS = Rule("digits", "decimal digits of every script become 0-9", replace_characters(_plain_digit))

_GROUPED = re.compile(r"(?<=\d)[,\u066c\u2009\u202f](?=(?:\d\d,)*\d\d\d(?!\d))")
DIGIT_GROUPS = Rule(
    "digit-groups", "1,000 becomes 1000, and 1,00,000 becomes 100000", lambda text: _GROUPED.sub("", text)
)


def single_spaces(text: str) -> str:
    """Runs of spaces become one and the ends bare, in a text without other white space."""
    return " ".join(text.split()) if "  " in text or text[:1] == " " or text[-1:] == " " else text


class _Remembered(dict[str, str]):
    def __init__(self, word: Callable[[str], str]) -> None:
        super().__init__()
        self._word = word

    def __missing__(self, word: str) -> str:
        if len(self) >= _CACHE_LIMIT:
            self.clear()
        self[word] = result = " ".join(self._word(word).split())
        return result


def by_word(word: Callable[[str], str]) -> Callable[[str], list[str]]:
    """A function over a text that applies ``word`` to each of its words and remembers the answers."""
    known = _Remembered(word)
    return lambda text: list(map(known.__getitem__, text.split()))
