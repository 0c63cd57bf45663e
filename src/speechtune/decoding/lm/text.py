"""The words that language models count: transcripts and recogniser output, made alike."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable
from pathlib import Path

from speechtune.core.errors import InputError

Words = Callable[[str], list[str]]
"""The words of a text as a language model has them."""

_APOSTROPHES = str.maketrans(dict.fromkeys((0x2019, 0x02BC, 0x60, 0xB4), "'"))
_EDGE = re.compile(r"^'+(?=\W|$)|(?<=\W)'+(?=\W|$)|'+$")


def spoken_words(text: str) -> list[str]:
    """Case folded words without punctuation; apostrophes within and before words stay ("don't", "'em").

    Numbers stay as they are written: a language model counts what is said ("three"), so the digits that
    scoring's whisper-english makes of number words would be unknown to it.
    """
    folded = unicodedata.normalize("NFC", text).casefold().translate(_APOSTROPHES)
    kept = "".join(one if one == "'" or not _separates(one) else " " for one in folded)
    words = (_EDGE.sub("", word) for word in kept.split())
    return [word for word in words if word and word != "'"]


def _separates(char: str) -> bool:
    return unicodedata.category(char)[0] in "PSZC"


WORDS: dict[str, Words] = {"spoken": spoken_words, "none": str.split}
"""Name to function: ``spoken`` is `spoken_words`, ``none`` cuts at white space only."""


def words_function(name: str) -> Words:
    """The function of a name.

    Raises:
        InputError: there is none of that name.
    """
    if name not in WORDS:
        raise InputError(f"language model words {name!r} are unknown: use one of {', '.join(WORDS)}")
    return WORDS[name]


def read_sentences(source: Path, words: Words, split: str | None = None) -> list[list[str]]:
    """The sentences of a corpus directory (its transcripts) or of a text file (one a line); empty ones are left out.

    Raises:
        InputError: no such source, it is not UTF-8, a split was named for a text file, or there are no words.
    """
    from speechtune.corpus.table import METADATA, Corpus

    if (source / METADATA).is_file():
        corpus = Corpus.load(source)
        texts = [utterance.text for utterance in (corpus.split(split) if split else corpus)]
    elif source.is_file():
        if split:
            raise InputError(f"{source} is a text file and has no split {split!r}: leave --split out")
        try:
            texts = source.read_text(encoding="utf-8").splitlines()
        except UnicodeDecodeError as error:
            raise InputError(f"{source} is not UTF-8 text ({error}): convert it") from error
    else:
        raise InputError(f"{source} is neither a corpus nor a text file: check the path")
    sentences = [one for one in map(words, texts) if one]
    if not sentences:
        raise InputError(f"{source} has no words to count: give transcripts or text")
    return sentences
