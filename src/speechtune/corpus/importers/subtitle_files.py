"""The two subtitle formats, SubRip (.srt) and WebVTT (.vtt), as numbered cues with their lines of text."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import read_lenient

_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_ARROW = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(?:\s.*)?")
_TAG = re.compile(r"<[^<>]*>|\{\\[^}]*\}")

SubtitleCue = tuple[int, float | None, float | None, list[str]]
"""Line number, start and end in seconds (``None``: not readable), and the lines of text without tags."""


def read_cues(path: Path) -> Iterator[SubtitleCue]:
    """Each cue of a file.

    A cue is a line with ``-->`` and what follows up to a blank line (in SubRip, up to a blank line before the next cue:
    some texts have blank lines inside). WebVTT's NOTE, STYLE and REGION blocks hold no arrow and are passed over.

    Raises:
        InputError: the file holds no arrow, or a .vtt does not begin with WEBVTT.
    """
    vtt = path.suffix.lower() == ".vtt"
    lines = [line.rstrip("\r") for line in read_lenient(path).split("\n")]
    if vtt and not lines[0].startswith("WEBVTT"):
        raise InputError(f"{path} is not WebVTT (its first line is not WEBVTT): rename it or repair it")
    starts = [number for number, line in enumerate(lines) if "-->" in line and not line.startswith("NOTE")]
    if not starts:
        raise InputError(f"{path} holds no cue (START --> END): check that it is a subtitle file")
    for number, following in zip(starts, [*starts[1:], len(lines)], strict=True):
        block = lines[number + 1 : following]
        if vtt:
            block = block[: block.index("")] if "" in block else block
        else:
            block = _without_next_number(block, last=following == len(lines))
        match = _ARROW.fullmatch(lines[number])
        start_s, end_s = (_seconds(match.groups()[:4]), _seconds(match.groups()[4:])) if match else (None, None)
        yield number + 1, start_s, end_s, [_plain(line, vtt) for line in block if line.strip()]


def _without_next_number(block: list[str], last: bool) -> list[str]:
    """A SubRip block without the counter of the next cue."""
    while block and not block[-1].strip():
        block = block[:-1]
    if not last and len(block) >= 1 and block[-1].strip().isdigit() and (len(block) == 1 or not block[-2].strip()):
        block = block[:-1]
    return block


def _seconds(cells: tuple[str | None, ...]) -> float:
    hours, minutes, seconds, fraction = cells
    whole = int(hours or 0) * 3600 + int(minutes or 0) * 60 + int(seconds or 0)
    return round(whole + int((fraction or "0").ljust(3, "0")) / 1000, 3)


def _plain(line: str, vtt: bool) -> str:
    text = _TAG.sub("", line)
    return html.unescape(text).replace("\u200e", "").replace("\u200f", "") if vtt else text
