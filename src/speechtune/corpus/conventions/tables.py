"""Spelling tables: whole-word replacements that do not replace what they have written."""

from __future__ import annotations

import re
import sys
import unicodedata
from collections.abc import Sequence
from functools import lru_cache

from speechtune.core.errors import InputError
from speechtune.corpus.conventions.config import Replacement, TextConventions


@lru_cache(maxsize=1)
def word_characters() -> str:
    """The inside of a character class of what words are made of: ``\\w``, marks of every script, and the joiners.

    ``\\w`` of `re` has no combining marks, so Indic vowel signs would end a word.
    """
    marks = [code for code in range(0x300, sys.maxunicode) if unicodedata.category(chr(code))[0] == "M"]
    ranges: list[list[int]] = []
    for code in marks:
        if ranges and code == ranges[-1][1] + 1:
            ranges[-1][1] = code
        else:
            ranges.append([code, code])
    return r"\w\u200c\u200d" + "".join(f"\\U{first:08x}-\\U{last:08x}" for first, last in ranges)


class Table:
    """A list of replacements that apply in one pass; longer sources win, and targets are left as they stand.

    Leaving targets alone makes ``GPU -> GPU (G-P-U)`` safe to apply again.
    """

    def __init__(self, entries: Sequence[Replacement], name: str) -> None:
        self._by_exact = {entry.source: entry for entry in entries}
        self._by_folded = {entry.source.casefold(): entry for entry in entries if not entry.match_case}
        self._targets = {entry.target for entry in entries if entry.target}
        kept = [_pattern(target, True, True) for target in self._targets if self._holds_source(target)]
        wanted = [_pattern(one.source, one.match_case, one.whole_words) for one in entries]
        longest_first = sorted({*kept, *wanted}, key=lambda one: -one[0])
        self._search = re.compile("|".join(pattern for _, pattern in longest_first)) if entries else None
        self._refuse_chains(entries, name)

    def apply(self, text: str) -> str:
        """The text with every source replaced."""
        return self._search.sub(self._target, text) if self._search else text

    def _holds_source(self, target: str) -> bool:
        folded = target.casefold()
        return any(source.casefold() in folded for source in self._by_exact)

    def _target(self, match: re.Match[str]) -> str:
        found = match[0]
        if found in self._targets and found not in self._by_exact:
            return found
        entry = self._by_exact.get(found) or self._by_folded.get(found.casefold())
        if entry is None:
            return found
        return entry.target if entry.match_case else _in_case_of(found, entry.source, entry.target)

    def _refuse_chains(self, entries: Sequence[Replacement], name: str) -> None:
        for entry in entries:
            again = self.apply(entry.target)
            if again != entry.target:
                raise InputError(
                    f"{name}: {entry.source!r} becomes {entry.target!r}, which the table turns into {again!r}: "
                    "write the final form, once"
                )


def _pattern(text: str, match_case: bool, whole_words: bool) -> tuple[int, str]:
    body = re.escape(text) if match_case else f"(?i:{re.escape(text)})"
    if whole_words:
        inside = word_characters()
        body = f"(?<![{inside}]){body}(?![{inside}])"
    return len(text), body


def _in_case_of(found: str, source: str, target: str) -> str:
    """The target in the case of what it replaces, unless the target has capitals of its own or the source matched."""
    if found == source or target != target.lower():
        return target
    letters = [char for char in found if char.isalpha()]
    if len(letters) > 1 and found == found.upper():
        return target.upper()
    return target[:1].upper() + target[1:] if found[:1].isupper() else target


def acronyms(how: TextConventions) -> Table:
    """The acronym table; case matters."""
    return Table([_entry(key, value, True) for key, value in how.acronyms.items()], "acronyms")


def code_switch(how: TextConventions) -> Table:
    """The table of words of other languages."""
    return Table([_entry(key, value, False) for key, value in how.code_switch.items()], "code_switch")


def replacements(how: TextConventions) -> Table:
    """The general table."""
    return Table(how.replace, "replace")


def _entry(source: str, target: str, match_case: bool) -> Replacement:
    return Replacement.model_validate({"from": source, "to": target, "match_case": match_case})
