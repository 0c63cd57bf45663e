"""How alike two words sound: an edit distance over phones whose substitutions cost by articulatory features.

Phones come from a function that is passed in (a lexicon, espeak-ng, a grapheme-to-phoneme model), or from a rough
reading of the spelling: one letter or common digraph is one phone, accents are left off. That reading knows the Latin
alphabet; letters of other scripts are compared as they are. It is meant to tell likely confusions (pear, bear) from
unlikely ones, not to transcribe.

The features are place, manner and voicing of consonants and height, backness and rounding of vowels, as in the IPA
chart; the weights (place 0.4, manner 0.35, voicing 0.25; height 0.45, backness 0.35, rounding 0.2) are a choice of this
project, not a measurement.
"""

# ruff: noqa: RUF001, SIM905

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Callable, Sequence

PhonesOf = Callable[[str], Sequence[str]]

_PLACES = (
    ("bilabial", "p b m ɸ β w"),
    ("labiodental", "f v"),
    ("dental", "θ ð"),
    ("alveolar", "t d s z n l r ɹ ɾ ɫ ɬ"),
    ("postalveolar", "ʃ ʒ ʧ ʤ"),
    ("palatal", "j ç ɟ ʝ ɲ c"),
    ("velar", "k ɡ g ŋ x ɣ"),
    ("uvular", "q χ ʁ"),
    ("glottal", "h ʔ"),
)
_MANNERS = (
    ("plosive", "p b t d k ɡ g q c ɟ ʔ"),
    ("affricate", "ʧ ʤ"),
    ("fricative", "f v θ ð s z ʃ ʒ ç ʝ x ɣ χ ʁ h ɸ β ɬ"),
    ("nasal", "m n ŋ ɲ"),
    ("liquid", "l r ɹ ɾ ɫ"),
    ("glide", "j w"),
)
_VOICELESS = frozenset("p t k q c f θ s ʃ ʧ ç x χ h ʔ ɸ ɬ".split())
_VOWELS = {
    # height 0 (open) to 3 (close), backness 0 (front) to 2 (back), rounded
    **{"i": (3, 0, 0), "y": (3, 0, 1), "ɪ": (2.6, 0.3, 0), "u": (3, 2, 1), "ʊ": (2.6, 1.7, 1), "e": (2, 0, 0)},
    **{"ø": (2, 0, 1), "o": (2, 2, 1), "ə": (1.5, 1, 0), "ɚ": (1.5, 1, 0.5), "ɜ": (1, 1, 0), "ɛ": (1, 0, 0)},
    **{"œ": (1, 0, 1), "ʌ": (1, 1.7, 0), "ɔ": (1, 2, 1), "ɐ": (0.5, 1, 0), "æ": (0.4, 0, 0), "a": (0, 0.6, 0)},
    **{"ɑ": (0, 2, 0), "ɒ": (0, 2, 1)},
}
_CONSONANTS = {
    phone: (place, next(m for m, (_, those) in enumerate(_MANNERS) if phone in those.split()), phone not in _VOICELESS)
    for place, (_, phones) in enumerate(_PLACES)
    for phone in phones.split()
}
_GLIDES = {frozenset("ji"), frozenset("jɪ"), frozenset("wu"), frozenset("wʊ")}
_INDEL = {"ə": 0.5, "ʔ": 0.5, "h": 0.6}

_SPELLINGS = {
    **{"tch": "ʧ", "sch": "ʃ", "igh": "aɪ", "sh": "ʃ", "ch": "ʧ", "th": "θ", "ph": "f", "ck": "k", "ng": "ŋ"},
    **{"qu": "kw", "ee": "i", "ea": "i", "oo": "u", "ou": "aʊ", "ow": "oʊ", "ai": "eɪ", "ay": "eɪ", "oa": "oʊ"},
    **{"wh": "w", "kn": "n", "wr": "r", "gh": "ɡ", "dg": "ʤ", "ll": "l", "ss": "s", "tt": "t", "pp": "p", "rr": "r"},
    **{"mm": "m", "nn": "n", "ff": "f", "bb": "b", "dd": "d", "gg": "ɡ", "zz": "z", "cc": "k"},
    **{"c": "k", "x": "ks", "g": "ɡ", "q": "k", "j": "ʤ", "i": "ɪ", "e": "ɛ", "a": "æ", "u": "ʌ", "o": "ɔ", "y": "i"},
}
_SPELLING = re.compile("|".join(sorted(_SPELLINGS, key=lambda one: (-len(one), one))))


@functools.lru_cache(maxsize=100_000)
def spelled_phones(word: str) -> tuple[str, ...]:
    """A rough reading of a word's spelling as phones; a final silent e after a consonant is left off."""
    plain = unicodedata.normalize("NFD", word.casefold())
    plain = "".join(char for char in plain if char.isalnum() or char > "\u0590")
    if len(plain) > 3 and plain.endswith("e") and plain[-2] not in "aeiou":
        plain = plain[:-1]
    return tuple(_SPELLING.sub(lambda match: _SPELLINGS[match[0]], plain))


@functools.lru_cache(maxsize=10_000)
def phone_distance(a: str, b: str) -> float:
    """How unlike two phones are, 0 to 1; phones without known features are unlike everything but themselves."""
    if a == b:
        return 0.0
    if a in _VOWELS and b in _VOWELS:
        (height_a, back_a, round_a), (height_b, back_b, round_b) = _VOWELS[a], _VOWELS[b]
        return 0.45 * abs(height_a - height_b) / 3 + 0.35 * abs(back_a - back_b) / 2 + 0.2 * abs(round_a - round_b)
    if a in _CONSONANTS and b in _CONSONANTS:
        (place_a, manner_a, voiced_a), (place_b, manner_b, voiced_b) = _CONSONANTS[a], _CONSONANTS[b]
        place = abs(place_a - place_b) / (len(_PLACES) - 1)
        return max(0.1, 0.4 * place + 0.35 * (manner_a != manner_b) + 0.25 * (voiced_a != voiced_b))
    return 0.3 if frozenset((a, b)) in _GLIDES else 1.0


def phones_distance(a: Sequence[str], b: Sequence[str]) -> float:
    """Cost of the cheapest edits from one row of phones to the other, per phone of the longer one: 0 to 1."""
    if not a or not b:
        return float(a != b)
    row = [0.0]
    for phone in b:
        row.append(row[-1] + _INDEL.get(phone, 1.0))
    for left in a:
        diagonal, row[0] = row[0], row[0] + _INDEL.get(left, 1.0)
        for column, right in enumerate(b, start=1):
            diagonal, row[column] = (
                row[column],
                min(
                    row[column] + _INDEL.get(left, 1.0),
                    row[column - 1] + _INDEL.get(right, 1.0),
                    diagonal + phone_distance(left, right),
                ),
            )
    return min(1.0, row[-1] / max(len(a), len(b)))


@functools.lru_cache(maxsize=500_000)
def word_distance(a: str, b: str, phones_of: PhonesOf = spelled_phones) -> float:
    """How unlike two words sound, 0 to 1.

    Args:
        a: a word.
        b: a word.
        phones_of: gives the phones of a word; by default its spelling is read roughly.
    """
    return 0.0 if a == b else phones_distance(tuple(phones_of(a)), tuple(phones_of(b)))
