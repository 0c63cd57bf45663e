"""Signs that a text was not said: loops, impossible rates, phrases on silence. Pure functions of text and numbers."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from dataclasses import dataclass

from speechtune.corpus.speaking_rates import SHORTEST_S, RateClass, rate_class
from speechtune.corpus.text_keys import text_key
from speechtune.corpus.text_patterns import repeated_phrase
from speechtune.decoding.guards_config import GuardsConfig
from speechtune.decoding.hallucinated_phrases import only_invented
from speechtune.decoding.searching import compression_ratio

_LOOP_TIMES = 6
"""A phrase so often in a row is a loop even where zlib does not shrink the text by much (short loops; own choice)."""
_LONGEST_PHRASE_WORDS = 12


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of a clip beside its text.

    ``speech_s``, ``speech_peak``: seconds of speech by the detector and its highest probability, ``None`` where it was
    not asked. ``log_prob``, ``no_speech_prob``: of the
    model, ``None`` where unknown. ``truncated``: the token limit came before the end of the text.
    """

    duration_s: float
    speech_s: float | None = None
    speech_peak: float | None = None
    log_prob: float | None = None
    no_speech_prob: float | None = None
    truncated: bool = False
    language: str | None = None


def problems(text: str, evidence: Evidence, config: GuardsConfig, safe: bool = False) -> list[str]:
    """The guards that a text trips, in the order of `GuardsConfig.which`; ``safe``: only what cannot have been said."""
    if not text.strip():
        return []
    impossible = is_impossible(text, evidence.duration_s, config.max_chars_per_s)
    looping = is_loop(text, config.compression_ratio, evidence.truncated)
    if safe:
        found = {"rate": impossible, "loop": looping and (impossible or evidence.truncated)}
        return [name for name in config.which if found.get(name)]
    doubtful = is_doubtful(evidence, config)
    silent = evidence.speech_s is not None and evidence.speech_s < config.min_speech_s
    speech_s = max(evidence.speech_s or evidence.duration_s, SHORTEST_S)
    phrase = only_invented(text, evidence.language, config.phrases, config.known_phrases)
    hurried = doubtful and is_impossible(text, speech_s, config.max_chars_per_s)
    found = {
        "silence": silent and (doubtful or (evidence.speech_peak or 0.0) < config.silent_probability),
        "phrase": phrase and (silent or doubtful),
        "loop": looping,
        "rate": impossible or hurried,
    }
    return [name for name in config.which if found[name]]


def is_doubtful(evidence: Evidence, config: GuardsConfig) -> bool:
    """Whether the model itself finds its text improbable, or silence probable."""
    unsure = evidence.log_prob is not None and evidence.log_prob < config.log_prob
    return unsure or (evidence.no_speech_prob is not None and evidence.no_speech_prob > config.no_speech)


def is_impossible(text: str, duration_s: float, max_chars_per_s: float | None = None) -> bool:
    """Whether a text has more letters than anybody can say in that time; never below 0.3 s."""
    if duration_s < SHORTEST_S:
        return False
    count = sum(unicodedata.category(char)[0] in "LMN" for char in text)
    return count / duration_s > (max_chars_per_s or script_class(text).fastest_chars_per_s)


def script_class(text: str) -> RateClass:
    """The kind of script of a text, by the names of its letters in the Unicode database."""
    names = Counter(
        "Han" if word == "CJK" else word.capitalize()
        for char in text
        if unicodedata.category(char)[0] == "L" and (word := unicodedata.name(char, "Unknown").split()[0])
    )
    total = sum(names.values())
    return rate_class({name: count / total for name, count in names.items()})


def is_loop(text: str, ratio: float, truncated: bool) -> bool:
    """Whether a text repeats itself: zlib shrinks it beyond ``ratio``, or a phrase stands many times in a row.

    In a text that was cut off at the token limit any repeated phrase counts.
    """
    if compression_ratio(text) > ratio:
        return True
    found = repeated_phrase(text)
    return found is not None and (truncated or found[1] >= _LOOP_TIMES)


def cut_loops(text: str) -> str:
    """The text with every phrase that stands at least three times in a row (a single word: four) only once.

    Text without spaces is searched for units of 2 to 20 characters from four times, runs of one letter from six.
    """
    words = text.split()
    if len(words) <= 2:
        shorter = re.sub(r"([^\W\d_])\1{5,}", r"\1", text)
        return re.sub(r"(.{2,20}?)\1{3,}", r"\1", shorter).strip()
    keys = [text_key(word) or word for word in words]
    size = 1
    while size <= min(_LONGEST_PHRASE_WORDS, len(words) // 3):
        place = 0
        while place + size <= len(words):
            times = 1
            while keys[place : place + size] == keys[place + times * size : place + (times + 1) * size]:
                times += 1
            if times >= (4 if size == 1 else 3):
                end = place + times * size
                tail = 0  # the beginning of one more round, cut off by the token limit
                while tail < size and end + tail < len(keys) and keys[end + tail] == keys[place + tail]:
                    tail += 1
                end += tail if end + tail == len(keys) else 0
                del words[place + size : end], keys[place + size : end]
            place += 1
        size += 1
    return " ".join(words)
