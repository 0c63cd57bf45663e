"""The text normalisers by name, and the choice of one for a language.

What is not an error (case, punctuation, number style) is removed before counting. Each normaliser is a pipeline of
named rules (`speechtune.scoring.normalisation`). Normalise raw text exactly once: the Whisper English rules are not
idempotent ("oh oh" becomes "00", then "0"). No pipeline corrects what a child said: "goed" and "tooths" stay.
"""

# ruff: noqa: SIM905

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterable

from speechtune.core.errors import InputError
from speechtune.corpus.language_codes import UNSPACED, short_code
from speechtune.scoring.normalisation.hebrew import hebrew
from speechtune.scoring.normalisation.ipa import ipa
from speechtune.scoring.normalisation.ivrit import ivrit_leaderboard
from speechtune.scoring.normalisation.rules import Normaliser
from speechtune.scoring.normalisation.scripts import arabic, cjk, indic, italian, latin, unicode_pipeline
from speechtune.scoring.normalisation.whisper import whisper_basic, whisper_english

__all__ = ["NORMALISERS", "Normaliser", "choose_normaliser", "default_normaliser", "get_normaliser", "language_code"]

NORMALISERS: dict[str, Callable[[], Normaliser]] = {
    "whisper-english": whisper_english,
    "whisper-basic": whisper_basic,
    "unicode": unicode_pipeline,
    "hebrew": hebrew,
    "indic": indic,
    "arabic": arabic,
    "latin": latin,
    "italian": italian,
    "cjk": cjk,
    "ivrit-leaderboard": ivrit_leaderboard,
    "ipa": ipa,
    "none": lambda: Normaliser("none", "white space only", ()),
}
"""Name to factory. A new normaliser is one function that returns a `Normaliser` and one line here."""

_PIPELINES = {
    **dict.fromkeys("hi mr ne sa bn as gu pa or ta te kn ml si mai bho awa hne kok doi brx mni new".split(), "indic"),
    **dict.fromkeys("ar fa ur ps sd ug ckb".split(), "arabic"),
    **dict.fromkeys("fr ca oc".split(), "latin"),
    **dict.fromkeys("zh yue wuu ja".split(), "cjk"),
    **{"en": "whisper-english", "he": "hebrew", "it": "italian"},
}

_BRAHMIC = "vowel signs and viramas are combining marks"
_POINTED = "vowel points are combining marks; whisper-basic cuts a word at each"
_TONED = "some letters with tone or nasal marks have no single code point"

_BRAHMIC_CODES = "hi mr ne sa bn as gu pa or ta te kn ml si mai bho awa hne kok doi brx mni new th lo km my bo dz"

MARKED_LANGUAGES: dict[str, str] = {
    code: reason
    for codes, reason in (
        (_BRAHMIC_CODES, _BRAHMIC),
        ("ar fa ur ps sd ug ks ckb he yi dv", _POINTED),
        ("yo ig ln ee gn", _TONED),
    )
    for code in codes.split()
}
"""Languages (ISO 639-1, else 639-3) written with combining marks that survive NFC: never ``whisper-basic``."""

UNSPACED_LANGUAGES = UNSPACED
"""Languages whose script does not separate words by spaces."""


@functools.cache
def get_normaliser(name: str) -> Normaliser:
    """The normaliser of a name.

    Raises:
        InputError: the name is not in `NORMALISERS`.
    """
    if name not in NORMALISERS:
        raise InputError(f"there is no normaliser {name!r}: use one of {', '.join(sorted(NORMALISERS))}")
    return NORMALISERS[name]()


def language_code(language: str) -> str:
    """The short code of a language tag, ISO 639-3 code or English name: ``en-GB``, ``eng``, ``English`` to ``en``."""
    return short_code(language)


def default_normaliser(language: str | None, english_only: bool = False) -> str:
    """The name of the normaliser for a language.

    English, and an unknown language where the model is English-only, get ``whisper-english``; languages with a pipeline
    of their own get it; other languages in `MARKED_LANGUAGES` get ``unicode``, because ``whisper-basic`` deletes their
    combining marks. The rest, and an unknown language, get ``whisper-basic``: if the text may hold combining marks, use
    `choose_normaliser`, which looks.
    """
    if language is None:
        return "whisper-english" if english_only else "whisper-basic"
    code = language_code(language)
    return _PIPELINES.get(code) or ("unicode" if code in MARKED_LANGUAGES else "whisper-basic")


def choose_normaliser(
    languages: Iterable[str | None], texts: Iterable[str], english_only: bool = False
) -> tuple[str, str]:
    """The normaliser for ``auto``, and the reason in a sentence.

    One normaliser serves a whole score: where the languages of a corpus ask for different ones it is ``unicode``.
    ``whisper-basic`` is never chosen for reference texts that it would cut at a combining mark.
    """
    known = sorted({language_code(one) for one in languages if one})
    wanted = {default_normaliser(one) for one in known} or {default_normaliser(None, english_only)}
    spoken = ", ".join(known) or ("an English-only model" if english_only else "unknown")
    if len(wanted) > 1:
        return "unicode", f"the languages ({spoken}) have different normalisers"
    name = wanted.pop()
    if name == "whisper-basic" and any(has_marks(text) for text in texts):
        return "unicode", f"language {spoken}; the reference texts hold combining marks that whisper-basic deletes"
    return name, f"language {spoken}"


def has_marks(text: str) -> bool:
    """Whether a combining mark (category M*) remains in the text's NFKC form, the one whisper-basic works on."""
    return not text.isascii() and any(
        unicodedata.category(char)[0] == "M" for char in unicodedata.normalize("NFKC", text)
    )
