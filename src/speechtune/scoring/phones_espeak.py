"""Phones of words as espeak-ng reads them, in over a hundred languages, for comparing how words sound.

espeak-ng comes with the optional package ``espeakng-loader``. Its reading of a word by itself is a rule's or a
dictionary's, not what somebody said.
"""

# ruff: noqa: RUF001

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence
from typing import Literal

from speechtune.core.errors import InputError
from speechtune.scoring.phones import PhonesOf, spelled_phones

PhonesFrom = Literal["spelling", "espeak"]

_VOICES = {"en": "en-us", "zh": "cmn", "no": "nb", "he": "he", "iw": "he", "fr": "fr-fr"}
_JOINED = {"tʃ": "ʧ", "dʒ": "ʤ", "t͡ʃ": "ʧ", "d͡ʒ": "ʤ", "ɜː": "ɜ", "ᵻ": "ɪ", "ɝ": "ɚ", "ɫ": "l"}
_MARKS = frozenset("ˈˌːˑ‿.-_ ")


class EspeakPhones:
    """The phones of the words it was made for; a word that espeak-ng makes no sound of is read by its spelling.

    Args:
        words: every word that will be asked for; others are read by their spelling.
        voice: an espeak-ng voice.

    Raises:
        InputError: espeakng-loader is not installed, or the voice is unknown.
    """

    def __init__(self, words: Iterable[str], voice: str) -> None:
        from speechtune.corpus.synthesis.espeak import ipa_of

        distinct = sorted(set(words))
        self._known = {word: split_ipa(ipa) for word, ipa in zip(distinct, ipa_of(distinct, voice), strict=True)}

    def __call__(self, word: str) -> Sequence[str]:
        """The phones of a word, without stress and length."""
        return self._known.get(word) or spelled_phones(word)


def split_ipa(text: str) -> tuple[str, ...]:
    """Phones of an IPA text: affricates are one, diphthongs two; stress, length and diacritics are left off."""
    for written, phone in _JOINED.items():
        text = text.replace(written, phone)
    plain = unicodedata.normalize("NFD", text)
    return tuple(char for char in plain if char not in _MARKS and unicodedata.category(char) not in ("Mn", "Lm"))


def phones_for(source: PhonesFrom, language: str | None, words: Iterable[str]) -> PhonesOf:
    """What reads the words of a language: espeak-ng, or their spelling.

    Raises:
        InputError: ``espeak`` is asked for and is not installed, or the language is unknown to it or not known at all.
    """
    if source == "spelling":
        return spelled_phones
    if language is None:
        raise InputError("espeak reads words by language and the corpus names none: add a language column")
    return EspeakPhones(words, _VOICES.get(language, language))
