"""How fast speech can be, in characters a second of the way it is written."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class RateClass:
    """A kind of script and the rates of whole clips (silence included) outside of which text and audio do not match.

    ``slowest_chars_per_s`` and ``fastest_chars_per_s`` count letters, marks and digits, without spaces and punctuation.
    """

    name: str
    chars_per_syllable: float
    slowest_chars_per_s: float
    fastest_chars_per_s: float


FASTEST_SYLLABLES_PER_S = 10.0
"""Read speech has 4 to 9 syllables a second on average, by language (Coupé, Oh, Dediu and Pellegrino 2019, Science
Advances 5:eaaw2594, 170 speakers of 17 languages); ten leaves room for a fast speaker of a fast language."""

RATE_CLASSES = {
    one.name: one
    for one in (
        RateClass("alphabetic", 2.5, 1.0, 25.0),
        RateClass("abjad", 2.0, 1.0, 20.0),
        RateClass("abugida", 2.3, 1.0, 23.0),
        RateClass("syllabic", 1.0, 0.5, 10.0),
        RateClass("japanese", 1.2, 0.5, 12.0),
    )
}
"""The upper limit is `FASTEST_SYLLABLES_PER_S` times the class's usual characters a syllable (rounded figures of this
project: English has about 2.8 letters a syllable and at most 9 syllables, Spanish 2.2 and more syllables).

The lower limit says that most of the clip has no words. 5.8 letters a second are the median, and 1.4 the minimum, of
speechocean762's 1160 children's and 5.9 and 2.2 of its 240 adults' clips that were measured here (English sentences
read aloud, silence included, maximum 11.3).
"""

_CLASS_OF_SCRIPT = {
    **dict.fromkeys(("Arabic", "Hebrew", "Syriac", "Thaana"), "abjad"),
    **dict.fromkeys(
        (
            *("Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada", "Malayalam"),
            *("Sinhala", "Thai", "Lao", "Tibetan", "Myanmar", "Khmer"),
        ),
        "abugida",
    ),
    **dict.fromkeys(("Han", "Hangul", "Ethiopic", "Yi", "Cherokee", "Canadian_Aboriginal"), "syllabic"),
    **dict.fromkeys(("Hiragana", "Katakana"), "japanese"),
}

SHORTEST_S = 0.3
"""Below this length a rate says nothing."""


def rate_class(scripts: dict[str, float]) -> RateClass:
    """The class of a text from its shares of scripts; kana beside Han is Japanese, no letters at all is alphabetic."""
    if scripts.get("Hiragana", 0) + scripts.get("Katakana", 0) > 0.1:
        return RATE_CLASSES["japanese"]
    main = max(scripts, key=lambda name: scripts[name], default="")
    return RATE_CLASSES[_CLASS_OF_SCRIPT.get(main, "alphabetic")]


def rate_verdict(kind: RateClass, chars: int, duration_s: float) -> str:
    """``too fast``, ``too slow``, ``plausible``, or ``unknown`` (no letters, or a clip under `SHORTEST_S`)."""
    if not chars or duration_s < SHORTEST_S:
        return "unknown"
    if chars / duration_s > kind.fastest_chars_per_s:
        return "too fast"
    # A single word in a generous clip is common (commands, reading tests) and not a fault.
    if chars / duration_s < kind.slowest_chars_per_s and duration_s > 3.0:
        return "too slow"
    return "plausible"
