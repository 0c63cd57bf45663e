"""The conventions as a row of named rules, applied until nothing changes any more."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field

from speechtune.core.errors import InputError
from speechtune.corpus.conventions import marks, numbers, punctuation, speech, tables
from speechtune.corpus.conventions.config import TextConventions
from speechtune.corpus.conventions.speech import DropRow

_ROUNDS = 6

NO_TEXT = "no text left"
NOISE = "noise tag"
UNINTELLIGIBLE = "unintelligible speech"


@dataclass(frozen=True, slots=True)
class TextChange:
    """One rule that changed a text."""

    rule: str
    before: str
    after: str


@dataclass(slots=True)
class TextResult:
    """What became of a transcript; ``drop_reason`` is set if the conventions leave the row out."""

    text: str
    changes: list[TextChange] = field(default_factory=list)
    drop_reason: str | None = None


def base_language(language: str | None) -> str:
    """``en`` of ``en-US``, ``en_GB`` and ``EN``; empty where the language is unknown."""
    return re.split(r"[-_]", language)[0].lower() if language else ""


class TextPipeline:
    """The conventions of one language, ready to apply.

    `apply` repeats the rules until a whole round changes nothing, so applying it to its own result changes nothing.

    Raises:
        InputError: a table replaces what it has itself written, or the language's numbers cannot be spelled.
    """

    def __init__(self, conventions: TextConventions, language: str | None = None) -> None:
        self.language = base_language(language)
        how = conventions
        if how.numbers == "spell":
            numbers.check_language(self.language)
        spellings = (tables.acronyms(how), tables.code_switch(how), tables.replacements(how))
        own_case = _own_case(how)
        noise = speech.tag_remover(how.noise_words, how.noise_tags, NOISE)
        unintelligible = speech.tag_remover(how.unintelligible_words, how.unintelligible, UNINTELLIGIBLE)
        self.rules: tuple[tuple[str, Callable[[str], str]], ...] = (
            ("unicode", lambda text: marks.unicode_form(text, how)),
            ("invisible", lambda text: marks.invisible(text, how)),
            ("whitespace", lambda text: marks.whitespace(text, how)),
            ("hebrew_niqqud", lambda text: marks.niqqud(text, how)),
            ("hebrew_gershayim", lambda text: marks.gershayim(text, how)),
            ("hebrew_maqaf", lambda text: marks.maqaf(text, how)),
            ("quotes", lambda text: marks.quotes(text, how)),
            ("dashes", lambda text: marks.dashes(text, how)),
            ("ellipsis", lambda text: marks.ellipsis(text, how)),
            ("digits", lambda text: marks.digits(text, how)),
            ("danda", lambda text: marks.danda(text, how)),
            ("unintelligible", unintelligible),
            ("noise_tags", noise),
            ("fillers", lambda text: speech.fillers(text, how)),
            ("partial_words", lambda text: speech.partial_words(text, how)),
            ("repetitions", lambda text: speech.repetitions(text, how)),
            ("acronyms", spellings[0].apply),
            ("code_switch", spellings[1].apply),
            ("replace", spellings[2].apply),
            ("numbers", lambda text: numbers.spell_numbers(text, how, self.language)),
            ("punctuation", lambda text: punctuation.punctuation(text, how)),
            ("casing", lambda text: punctuation.casing(text, how, self.language, own_case)),
        )

    def apply(self, text: str) -> TextResult:
        """Apply every rule, in order, until none changes anything.

        Raises:
            InputError: two rules undo each other for ever (only replacements can).
        """
        result = TextResult(text)
        spoken = bool(text.strip())
        for _ in range(_ROUNDS):
            before = result.text
            try:
                self._round(result)
            except DropRow as reason:
                result.drop_reason = str(reason)
                return result
            if result.text == before:
                if spoken and not before.strip():
                    result.drop_reason = NO_TEXT
                return result
        last = ", ".join(dict.fromkeys(change.rule for change in result.changes[-8:]))
        raise InputError(
            f"the text conventions never come to rest on {text!r} (rules {last} undo each other): change one of them"
        )

    def _round(self, result: TextResult) -> None:
        start = result.text
        changes = []
        for name, rule in self.rules:
            after = rule(result.text)
            if after != result.text:
                changes.append(TextChange(name, result.text, after))
                result.text = after
        if result.text != start:  # a round that ends where it began is at rest
            result.changes += changes


def _own_case(how: TextConventions) -> re.Pattern[str] | None:
    """What the tables wrote with capitals."""
    targets = {*how.acronyms.values(), *how.code_switch.values(), *(one.target for one in how.replace)}
    mixed = sorted((one for one in targets if one != one.lower()), key=len, reverse=True)
    if not mixed:
        return None
    inside = tables.word_characters()
    return re.compile(rf"(?<![{inside}])({'|'.join(map(re.escape, mixed))})(?![{inside}])")
