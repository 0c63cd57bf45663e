"""Text normalisers: what is not an error (case, punctuation, number style) is removed before counting.

Normalise raw text exactly once: the Whisper English rules are not idempotent ("oh oh" becomes "00", then "0").
"""

from __future__ import annotations

import functools
import unicodedata
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from speechtune.core.errors import InputError


@dataclass(frozen=True, slots=True)
class Normaliser:
    """A callable ``str -> str`` with a name; runs of white space in the result are one space, ends are bare."""

    name: str
    apply: Callable[[str], str]

    def __call__(self, text: str) -> str:
        """The normalised form of a raw text."""
        return " ".join(self.apply(text).split())


def _whisper_english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer

    return EnglishTextNormalizer()


def _whisper_basic() -> Callable[[str], str]:
    from whisper_normalizer.basic import BasicTextNormalizer

    return BasicTextNormalizer()


def unicode_words(text: str) -> str:
    """NFC, case folded, punctuation and symbols to spaces; combining marks stay, invisible characters go.

    Categories P* and S* become a space; Cf (zero-width joiners, direction marks, soft hyphens) is deleted,
    because it cannot be heard and is typed or left out at will.
    """
    folded = unicodedata.normalize("NFC", unicodedata.normalize("NFC", text).casefold())
    return "".join(map(_unicode_char, folded))


@functools.cache
def _unicode_char(char: str) -> str:
    category = unicodedata.category(char)
    if category == "Cf":
        return ""
    return " " if category[0] in "PS" else char


NORMALISERS: dict[str, Callable[[], Callable[[str], str]]] = {
    "whisper-english": _whisper_english,
    "whisper-basic": _whisper_basic,
    "unicode": lambda: unicode_words,
    "none": lambda: str,
}
"""Name to factory. A new normaliser is one line here.

- ``whisper-english``: OpenAI's English rules (Radford et al. 2022, arXiv 2212.04356, appendix C): numbers to
  digits, contractions and British spellings unified, fillers and bracketed text removed. Package whisper-normalizer.
- ``whisper-basic``: OpenAI's rules for other languages: lower case, NFKC, bracketed text removed, and every
  punctuation character, symbol **and combining mark** to a space. It deletes Indic vowel signs and cuts the word
  there, which lowers error rates of such languages artificially (openai/whisper pull request 2849).
- ``unicode``: `unicode_words`.
- ``none``: white space only.
"""

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
"""Languages (ISO 639-1, else 639-3) written with combining marks that survive NFC, and why; they get ``unicode``."""

_OTHER_NAMES = """
en eng english; hi hin hindi; mr mar marathi; ne nep nepali; sa san sanskrit; bn ben bengali; as asm assamese
gu guj gujarati; pa pan punjabi panjabi; or ori ory odia; ta tam tamil; te tel telugu; kn kan kannada
ml mal malayalam; si sin sinhala sinhalese; th tha thai; lo lao; km khm khmer; my mya burmese myanmar
bo bod tibetan; dz dzo; ar ara arb arabic; fa fas pes persian; ur urd urdu; ps pus pashto; sd snd sindhi
ug uig uyghur; ks kas kashmiri; he iw heb hebrew; yi yid yiddish; dv div; yo yor yoruba; ig ibo igbo
ln lin lingala; ee ewe; gn grn; zh zho cmn chinese mandarin; yue cantonese; ja jpn japanese
"""
_SHORT_CODES = {
    other: names.split()[0] for names in _OTHER_NAMES.strip().replace("\n", ";").split(";") for other in names.split()
}

UNSPACED_LANGUAGES = frozenset({"zh", "yue", "ja", "th", "lo", "km", "my", "bo", "dz"})
"""Languages whose script does not separate words by spaces: a word error rate says little, read the CER."""


@functools.cache
def get_normaliser(name: str) -> Normaliser:
    """The normaliser of a name.

    Raises:
        InputError: the name is not in `NORMALISERS`.
    """
    if name not in NORMALISERS:
        raise InputError(f"there is no normaliser {name!r}: use one of {', '.join(sorted(NORMALISERS))}")
    return Normaliser(name, NORMALISERS[name]())


def language_code(language: str) -> str:
    """The short code of a language tag, ISO 639-3 code or English name: ``en-GB``, ``eng``, ``English`` to ``en``."""
    name = language.strip().lower()
    primary = name.replace("_", "-").split("-")[0]
    return _SHORT_CODES.get(name) or _SHORT_CODES.get(primary, primary)


def default_normaliser(language: str | None, english_only: bool = False) -> str:
    """The name of the normaliser for a language.

    English, and an unknown language where the model is English-only, get ``whisper-english``. Languages in
    `MARKED_LANGUAGES` get ``unicode``, because ``whisper-basic`` deletes their combining marks. The rest, and an
    unknown language, get ``whisper-basic``: if the text may hold combining marks, use `choose_normaliser`, which looks.
    """
    if language is None:
        return "whisper-english" if english_only else "whisper-basic"
    code = language_code(language)
    if code == "en":
        return "whisper-english"
    return "unicode" if code in MARKED_LANGUAGES else "whisper-basic"


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
