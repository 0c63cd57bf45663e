"""The form of a text in which case, punctuation and invisible characters make no difference."""

from __future__ import annotations

import unicodedata

_DELETED = frozenset("'\u2019\u02bc\u02bb\u2018`\u00b4")


class _Table(dict[int, str]):
    """A translation table that fills itself: letters, marks and numbers stay, apostrophes go, the rest is a space."""

    def __missing__(self, code: int) -> str:
        char = chr(code)
        category = unicodedata.category(char)
        silent = char in _DELETED or category == "Cf"
        self[code] = "" if silent else char if category[0] in "LMN" else " "
        return self[code]


_TABLE = _Table()


def text_key(text: str) -> str:
    """NFKC, case folded, without punctuation and apostrophes, words separated by one space.

    Two texts with the same key say the same. Combining marks stay (they are vowels in Indic scripts); invisible format
    characters go.
    """
    folded = text.casefold() if text.isascii() else unicodedata.normalize("NFKC", text).casefold()
    return " ".join(folded.translate(_TABLE).split())
