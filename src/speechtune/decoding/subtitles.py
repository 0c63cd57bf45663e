"""Subtitles from transcripts: lines that fit a screen, times that a reader can follow, SubRip and WebVTT.

Lengths follow Netflix's "Timed Text Style Guide: General Requirements": two lines of 42 characters, at least 5/6 s and
at most 7 s each, two frames apart.
"""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

LINE_CHARS = 42
LINES = 2
MIN_S = 5 / 6
MAX_S = 7.0
_GAP_S = 0.083
_PAUSE_S = 1.0
"""Words this far apart are not on the screen together."""
_BREAK_MARKS = (".", "?", "!", "…", "。", "\uff1f", "\uff01", "।", "؟")
_UNSPACED_CHARS = 21
"""Characters of scripts without spaces are twice as wide."""


@dataclass(frozen=True, slots=True)
class Cue:
    """One subtitle: when, and its lines."""

    start_s: float
    end_s: float
    lines: list[str]


def cues_of(segments: Sequence[dict[str, Any]], duration_s: float) -> list[Cue]:
    """The subtitles of a transcript's segments, in order and without overlap; all words are in them, in order.

    Args:
        segments: with ``start_s``, ``end_s``, ``text`` and, where they are known, ``words`` with times of their own;
            else words share their segment's time by their letters.
        duration_s: of the recording; no subtitle ends after it.
    """
    groups = []
    for segment in segments:
        groups += _groups(_timed_words(segment))
    cues: list[Cue] = []
    for place, group in enumerate(groups):
        start_s = max(group[0][1], cues[-1].end_s if cues else 0.0)
        following_s = groups[place + 1][0][1] if place + 1 < len(groups) else max(duration_s, group[-1][2])
        end_s = max(group[-1][2], start_s + MIN_S)
        end_s = min(end_s, max(following_s - (_GAP_S if end_s > following_s else 0.0), start_s + 0.001))
        cues.append(Cue(round(start_s, 3), round(max(end_s, start_s + 0.001), 3), wrap([word for word, *_ in group])))
    return cues


Timed = tuple[str, float, float]


def _timed_words(segment: dict[str, Any]) -> list[Timed]:
    rows = segment.get("words")
    if rows:
        return [(_safe(row["word"]), float(row["start_s"]), float(row["end_s"])) for row in rows]
    words = [part for word in _safe(segment["text"]).split() for part in _broken(word)]
    total = sum(len(word) + 1 for word in words)
    start_s, length_s = float(segment["start_s"]), float(segment["end_s"]) - float(segment["start_s"])
    result, done = [], 0
    for word in words:
        begin_s = start_s + length_s * done / total
        done += len(word) + 1
        result.append((word, begin_s, start_s + length_s * done / total))
    return result


def _broken(word: str) -> list[str]:
    """A run of letters without spaces in parts that fit a line."""
    size = LINE_CHARS if word.isascii() else _UNSPACED_CHARS
    return [word[first : first + size] for first in range(0, len(word), size)]


def _safe(text: str) -> str:
    """Text without what the formats take for an arrow."""
    return text.replace("-->", "→")


def _groups(words: Sequence[Timed]) -> list[list[Timed]]:
    """Words that are shown together: what fits two lines and seven seconds, ended at pauses and sentences."""
    groups: list[list[Timed]] = []
    group: list[Timed] = []
    for word in words:
        if group and not _fits(group, word):
            groups.append(group)
            group = []
        group.append(word)
        if word[0].endswith(_BREAK_MARKS) and sum(len(one[0]) + 1 for one in group) > LINE_CHARS:
            groups.append(group)
            group = []
    return [*groups, group] if group else groups


def _fits(group: Sequence[Timed], word: Timed) -> bool:
    long = word[2] - group[0][1] > MAX_S
    pause = word[1] - group[-1][2] >= _PAUSE_S
    return not long and not pause and len(wrap([*(one[0] for one in group), word[0]])) <= LINES


def wrap(words: Sequence[str]) -> list[str]:
    """Words as lines of at most 42 characters, two lines as even as they can be."""
    lines = [""]
    for word in words:
        joined = f"{lines[-1]} {word}".strip()
        if lines[-1] and len(joined) > LINE_CHARS:
            lines.append(word)
        else:
            lines[-1] = joined
    if len(lines) != LINES:
        return lines
    choices = [
        (" ".join(words[:place]), " ".join(words[place:]))
        for place in range(1, len(words))
        if max(len(" ".join(words[:place])), len(" ".join(words[place:]))) <= LINE_CHARS
    ]
    return list(min(choices, key=lambda pair: abs(len(pair[0]) - len(pair[1]))) if choices else lines)


def to_srt(cues: Sequence[Cue]) -> str:
    """SubRip."""
    return "".join(
        f"{number}\n{clock(cue.start_s, ',')} --> {clock(cue.end_s, ',')}\n" + "\n".join(cue.lines) + "\n\n"
        for number, cue in enumerate(cues, start=1)
    )


def to_vtt(cues: Sequence[Cue]) -> str:
    """WebVTT, its three special characters escaped."""
    return "WEBVTT\n\n" + "".join(
        f"{clock(cue.start_s, '.')} --> {clock(cue.end_s, '.')}\n"
        + "\n".join(html.escape(line, quote=False) for line in cue.lines)
        + "\n\n"
        for cue in cues
    )


def clock(seconds: float, mark: str) -> str:
    """``HH:MM:SS,mmm`` (the mark before the milliseconds is the format's)."""
    total = round(seconds * 1000)
    return f"{total // 3_600_000:02d}:{total // 60_000 % 60:02d}:{total // 1000 % 60:02d}{mark}{total % 1000:03d}"
