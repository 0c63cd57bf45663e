# ruff: noqa: RUF001 - characters that look alike are what this file is about
"""What is said beside the words: noise tags, hesitations, broken-off words, repetitions."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from speechtune.corpus.conventions.config import TextConventions

_MARKS = ".,!?;:…،؛؟。、！？।॥\"'“”‘’()-–—"
_SENTENCE_ENDS = ".!?…؟。！？।॥"


class DropRow(Exception):  # noqa: N818 - it is an answer, not a fault
    """The conventions want the row left out; its message is the reason."""


def tag_remover(words: Sequence[str], policy: str, reason: str) -> Callable[[str], str]:
    """A function that keeps, removes or refuses the given words in ``[]``, ``<>``, ``()`` or ``{}``."""
    if policy == "keep" or not words:
        return lambda text: text
    forms = "|".join(r"[\s_-]+".join(map(re.escape, word.split())) for word in sorted(words, key=len, reverse=True))
    inside = rf"[\s_*-]*(?:{forms})[\s_*-]*"
    tag = re.compile(rf"(?:\[{inside}\]|<{inside}>|\({inside}\)|\{{{inside}\}})", re.IGNORECASE)

    def remove(text: str) -> str:
        if not tag.search(text):
            return text
        if policy == "drop_row":
            raise DropRow(reason)
        return _close_gaps(tag.sub(" ", text))

    return remove


def _close_gaps(text: str) -> str:
    """Single blanks, none before a mark that belongs to the word before it, and no mark left alone in front."""
    text = re.sub(r"\s+([,.!?;:])(?=\s|$)", r"\1", " ".join(text.split()))
    text = re.sub(r"([,;:])[,;:]+", r"\1", text)
    return re.sub(r"^[,.;:!?]+(\s+|$)", "", text)


def core(token: str) -> str:
    """A token without the punctuation around it, for comparing."""
    return token.strip(_MARKS).casefold()


def fillers(text: str, how: TextConventions) -> str:
    """Remove words of hesitation."""
    if how.fillers == "keep":
        return text
    unwanted = {word.casefold() for word in how.filler_words}
    return _without(text, lambda tokens: [core(token) in unwanted for token in tokens])


def partial_words(text: str, how: TextConventions) -> str:
    """Remove words that end in a hyphen."""
    if how.partial_words == "keep":
        return text
    broken = re.compile(r"[\"'“‘(]*[^\W\d_][^\s]*[^\W_]?[-–—][,.!?;:…]*")
    return _without(text, lambda tokens: [bool(broken.fullmatch(token)) and token.count("-") < 2 for token in tokens])


def repetitions(text: str, how: TextConventions) -> str:
    """Keep one of one or two words that were said twice at once; the last one stays, with its punctuation."""
    if how.repetitions == "keep":
        return text
    spared = {word.casefold() for word in how.repetition_exceptions}

    def marked(tokens: list[str]) -> list[bool]:
        cores = [core(token) for token in tokens]
        gone = [False] * len(tokens)
        for size in (1, 2):
            for first in range(len(tokens) - 2 * size + 1):
                now, then = cores[first : first + size], cores[first + size : first + 2 * size]
                inner = tokens[first : first + size]
                ended = any(token.rstrip("\"'”’)")[-1:] in _SENTENCE_ENDS for token in inner)
                if now == then and all(now) and not ended and not any(gone[first : first + size]):
                    if set(now) <= spared or any(word.isdigit() for word in now):
                        continue
                    gone[first : first + size] = [True] * size
        return gone

    return _without(text, marked)


def _without(text: str, choose: Callable[[list[str]], list[bool]]) -> str:
    """The text less the chosen tokens; a full stop behind one moves to the word before, a capital to the word after."""
    tokens = text.split()
    gone = choose(tokens)
    if not any(gone):
        return text
    kept: list[str] = []
    capital = False
    for token, removed in zip(tokens, gone, strict=True):
        if removed:
            end = token[-1] if token[-1] in _SENTENCE_ENDS else ""
            if end and kept:
                kept[-1] = kept[-1].rstrip(",;:-–—") + ("" if kept[-1][-1] in _SENTENCE_ENDS else end)
            word = token.strip(_MARKS)
            capital = capital or (word[:1].isupper() and (len(word) == 1 or not word.isupper()))
        else:
            first = capital and token[:1].islower() and (not kept or kept[-1][-1] in _SENTENCE_ENDS)
            kept.append(token[0].upper() + token[1:] if first else token)
            capital = False
    return " ".join(kept)
