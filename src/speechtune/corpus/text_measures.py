"""What can be said of a transcript without its audio, beyond its length: one row of measures for each text."""

from __future__ import annotations

import functools
import unicodedata
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from typing import Any

from speechtune.core.errors import missing_extra
from speechtune.corpus.alphabets import NO_SCRIPT, is_foreign, script_of
from speechtune.corpus.language_codes import UNSPACED, short_code
from speechtune.corpus.speaking_rates import RATE_CLASSES, rate_class, rate_verdict
from speechtune.corpus.text_language import identify_language, is_mismatch
from speechtune.corpus.text_patterns import EMAIL, MARKUP, URL, invented_phrase, repeated_phrase

_BIDI = frozenset("\u061c\u200e\u200f\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")
_ZERO_WIDTH = frozenset("\u00ad\u180e\u200b\u200c\u200d\u2060\u2061\u2062\u2063\u2064\ufeff")
_JOINERS = frozenset("\u200c\u200d")
_JOINING_SCRIPTS = frozenset(
    (
        *("Arabic", "Devanagari", "Bengali", "Gurmukhi", "Gujarati", "Oriya", "Tamil", "Telugu", "Kannada"),
        *("Malayalam", "Sinhala", "Khmer", "Myanmar", "Mongolian"),
    )
)
"""Scripts in which a zero-width joiner or non-joiner is spelling, not dirt."""

_READ_ALOUD = frozenset("&@%#*/\\_=+<>|~^{}[]")
_INSIDE_WORDS = frozenset("'\u2019\u02bc\u02bb-\u2010\u2011")
_UNDECODED = frozenset("\ufffd\ufffc")


@dataclass(frozen=True, slots=True, kw_only=True)
class TextMeasures:
    """Measures of one transcript.

    ``chars`` are letters, combining marks and digits; ``words`` are what white space separates and holds at least one
    of those. Rates are ``None`` where the duration is not positive, ``words_per_s`` also in languages without spaces.
    """

    chars: int
    """Letters, marks and digits after NFC."""
    words: int
    chars_per_s: float | None
    words_per_s: float | None
    rate_class: str
    """Kind of script (`RATE_CLASSES`) that the rate is judged by."""
    rate_verdict: str
    """``plausible``, ``too fast``, ``too slow`` or ``unknown``."""
    scripts: dict[str, float]
    """Unicode script to its share of the letters, largest first; empty where there are no letters."""
    mixed_script_words: tuple[str, ...]
    """Words whose letters come from more than one script (a Cyrillic letter inside an English word)."""
    alphabet_violations: str | None
    """The letters and marks outside the stated language's alphabet, each once; ``None`` where it is not known."""
    digits: int
    symbols: int
    """Signs that are read aloud or not at all: currency, mathematics, emoji, ``& @ % # * /`` and such."""
    urls: tuple[str, ...]
    emails: tuple[str, ...]
    markup: tuple[str, ...]
    """Tags, bracketed events, entities, speaker labels, subtitle times, as found."""
    control_chars: int
    """Control characters; a line break or tab counts, a space does not."""
    zero_width: int
    """Invisible characters; joiners are not counted in scripts that spell with them."""
    bidi_marks: int
    replacement_chars: int
    """U+FFFD and its like: the text was decoded wrongly and its letters are lost."""
    mojibake: bool
    """UTF-8 read as another encoding ("schÃ¶n"), by ftfy's list of unlikely neighbours."""
    not_nfc: bool
    all_caps: bool
    no_punctuation: bool
    """No punctuation but apostrophes and hyphens."""
    repeated_phrase: str | None
    repeats: int
    """How often the phrase stands in a row; 0 where there is none."""
    invented_phrase: str | None
    """A phrase that models write for silence (`INVENTED_PHRASES`)."""
    text_language: str | None
    """Short code of the language the text is in; ``None`` where that is uncertain."""
    language_confidence: float
    language_mismatch: bool | None
    """Whether it contradicts the stated language; ``None`` where one of the two is unknown."""

    def to_json(self) -> dict[str, Any]:
        """All measures, JSON-ready."""
        return {name: list(value) if isinstance(value, tuple) else value for name, value in asdict(self).items()}


def measure_text(text: str, *, duration_s: float, language: str | None = None) -> TextMeasures:
    """Measure one transcript.

    Args:
        text: the transcript as it stands in the table.
        duration_s: length of its audio in seconds; 0 or less where it is not known.
        language: the language that the table states, as a code or an English name.

    Raises:
        InputError: a package of the extra ``audit`` is not installed.
    """
    return _timed(_measure(text, short_code(language) if language else None), duration_s, language)


def measure_texts(rows: Iterable[tuple[str, float, str | None]]) -> list[TextMeasures]:
    """Measure many transcripts, given as (text, duration_s, language), in order; equal texts are measured once.

    The results share what they can, so a million rows of repeated prompts stay small. Without repetition a row takes
    about 0.1 ms on one core; callers that have more cores divide the rows.
    """
    known: dict[tuple[str, str | None], TextMeasures] = {}
    results = []
    for text, duration_s, language in rows:
        code = short_code(language) if language else None
        plain = known.get((text, code))
        if plain is None:
            if len(known) >= 50_000:
                known.clear()  # memory stays bounded; repeats are usually near each other
            plain = known[text, code] = _measure(text, code)
        results.append(_timed(plain, duration_s, language))
    return results


def _timed(plain: TextMeasures, duration_s: float, language: str | None) -> TextMeasures:
    if not duration_s > 0:
        return plain
    unspaced = plain.rate_class in ("syllabic", "japanese") and "Hangul" not in plain.scripts
    spaced = not unspaced and (language is None or short_code(language) not in UNSPACED)
    return replace(
        plain,
        chars_per_s=plain.chars / duration_s,
        words_per_s=plain.words / duration_s if spaced else None,
        rate_verdict=rate_verdict(RATE_CLASSES[plain.rate_class], plain.chars - plain.digits, duration_s),
    )


@functools.cache
def _kind(char: str) -> str:
    """What a character counts as: its general category, refined where the measures need it."""
    category = unicodedata.category(char)
    if char in _UNDECODED or category == "Cn":
        return "undecoded"
    if char in _BIDI:
        return "bidi"
    if char in _JOINERS:
        return "joiner"
    if char in _ZERO_WIDTH:
        return "zero width"
    if category in ("Cc", "Cs", "Co"):
        return "control"
    if category == "Nd":
        return "digit"
    if category[0] in "LMN":
        return "letter" if category[0] == "L" else "mark" if category[0] == "M" else "number"
    if category[0] == "S" or char in _READ_ALOUD:
        return "symbol"
    if category[0] == "P" and char not in _INSIDE_WORDS:
        return "punctuation"
    return "other"


_COUNTED = frozenset({"letter", "mark", "digit", "number"})


def _measure(text: str, language: str | None) -> TextMeasures:
    """The measures that do not depend on the duration."""
    composed = text if unicodedata.is_normalized("NFC", text) else unicodedata.normalize("NFC", text)
    chars = Counter(composed)
    kinds: Counter[str] = Counter()
    by_script: Counter[str] = Counter()
    for char, count in chars.items():
        kind = _kind(char)
        kinds[kind] += count
        if kind == "letter":
            script = script_of(char)
            if script not in NO_SCRIPT:
                by_script[script] += count
    letters = kinds["letter"]
    scripts = {name: count / by_script.total() for name, count in by_script.most_common()}
    words = [word for word in composed.split() if any(_kind(char) in _COUNTED for char in word)]
    looks_marked = not composed.isascii() or kinds["symbol"] or kinds["punctuation"]
    urls, emails, markup = _found(composed) if looks_marked or composed.isupper() else ((), (), ())
    loop = repeated_phrase(composed)
    found = identify_language(MARKUP.sub(" ", composed) if markup else composed, letters)
    return TextMeasures(
        chars=sum(kinds[name] for name in _COUNTED),
        words=len(words),
        chars_per_s=None,
        words_per_s=None,
        rate_class=rate_class(scripts).name,
        rate_verdict="unknown",
        scripts=scripts,
        mixed_script_words=tuple(filter(_is_mixed, words)) if len(by_script) > 1 else (),
        alphabet_violations=_violations(chars, language),
        digits=kinds["digit"],
        symbols=kinds["symbol"],
        urls=urls,
        emails=emails,
        markup=markup,
        control_chars=kinds["control"],
        zero_width=kinds["zero width"] + (0 if _JOINING_SCRIPTS.intersection(scripts) else kinds["joiner"]),
        bidi_marks=kinds["bidi"],
        replacement_chars=kinds["undecoded"],
        mojibake=not composed.isascii() and _is_mojibake(composed),
        not_nfc=composed is not text,
        all_caps=composed.isupper() and (len(words) > 1 or letters >= 5),
        no_punctuation=bool(words) and not kinds["punctuation"],
        repeated_phrase=loop[0] if loop else None,
        repeats=loop[1] if loop else 0,
        invented_phrase=invented_phrase(composed),
        text_language=found.language,
        language_confidence=found.confidence,
        language_mismatch=is_mismatch(found, language),
    )


def _found(text: str) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """Addresses and markup as they stand in the text."""
    emails = tuple(EMAIL.findall(text))
    rest = EMAIL.sub(" ", text) if emails else text
    return tuple(URL.findall(rest)), emails, tuple(found.group().strip() for found in MARKUP.finditer(text))


def _violations(chars: Iterable[str], language: str | None) -> str | None:
    if language is None:
        return None
    judged = [(char, is_foreign(char, language)) for char in chars if _kind(char) in ("letter", "mark")]
    if any(foreign is None for _, foreign in judged):
        return None
    return "".join(sorted(char for char, foreign in judged if foreign))


def _is_mixed(word: str) -> bool:
    scripts = {script_of(char) for char in word if _kind(char) == "letter"} - NO_SCRIPT
    # Japanese and Korean mix their scripts inside words.
    return len(scripts) > 1 and not scripts <= {"Han", "Hiragana", "Katakana", "Hangul"}


@functools.cache
def _badness() -> Any:
    try:
        from ftfy.badness import is_bad
    except ImportError as error:
        raise missing_extra("ftfy", "audit") from error
    return is_bad


def _is_mojibake(text: str) -> bool:
    return bool(_badness()(text))
