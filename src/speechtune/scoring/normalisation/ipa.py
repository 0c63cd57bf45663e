"""IPA as the phonetic track of the children's challenge normalises it before its character error rate.

Source: ``normalize_ipa`` and ``VALID_IPA_CHARS`` of ``metric/score.py`` in the repository
drivendataorg/childrens-speech-recognition-runtime.
"""

# ruff: noqa: RUF001

from __future__ import annotations

import string

from speechtune.scoring.normalisation.rules import NFC, Normaliser, Rule

SYMBOLS = frozenset(" bcdfghjklmnprstvwxzeiouɑæɐɔəɚɛɪʊʌçðŋɟɫɬɹɾʁʃʒʔʝθχʧʤː")
"""What the challenge accepts after normalisation; other symbols are scored too, and are always errors there."""

_MARKS = str.maketrans(dict.fromkeys("\u035c\u0361\u02c8\u02cc\u0303", None))
_NASALS = str.maketrans("ẽĩõũ", "eiou")
_PUNCTUATION = str.maketrans(dict.fromkeys(string.punctuation, None))


def ipa() -> Normaliser:
    """The phonetic track's pipeline; the character error rate after it is the challenge's IPA-CER."""
    return Normaliser(
        "ipa",
        "IPA as the children's challenge scores it: stress, ties and ASCII punctuation removed, affricates joined",
        (
            NFC,
            Rule("marks", "tie bars, stress marks and combining tildes are removed", lambda t: t.translate(_MARKS)),
            Rule(
                "nasal-vowels",
                "ẽ ĩ õ ũ lose their tilde (other composed letters keep it)",
                lambda t: t.translate(_NASALS),
            ),
            Rule("rhotic", "ɝ becomes ɚ", lambda t: t.replace("ɝ", "ɚ")),
            Rule(
                "punctuation",
                "ASCII punctuation is deleted, a colon for length too",
                lambda t: t.translate(_PUNCTUATION),
            ),
            Rule("affricates", "tʃ becomes ʧ and dʒ becomes ʤ", lambda t: t.replace("tʃ", "ʧ").replace("dʒ", "ʤ")),
        ),
    )


def unknown_symbols(text: str) -> set[str]:
    """Symbols of a normalised text that the challenge does not accept."""
    return set(text) - SYMBOLS
