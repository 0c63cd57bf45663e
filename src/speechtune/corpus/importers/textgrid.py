"""Praat TextGrids, long or short, UTF-8 or UTF-16: a tier is a speaker, a labelled interval an utterance.

Praat's own rule for text files (https://www.fon.hum.uva.nl/praat/manual/TextGrid_file_formats.html) reads both
formats at once: only free-standing numbers, quoted strings and <flags> count, everything else is a comment. A doubled
quote is a quote.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.corpus.importers.elan import EMPTY_ANNOTATION, TierSettings
from speechtune.corpus.importers.raw import Importer, RawRow
from speechtune.corpus.importers.spans import (
    Cue,
    cue_rows,
    holds,
    media_of,
    no_folders,
    transcripts,
    words_of_setting,
)

NAME = "textgrid"
_TOKEN = re.compile(r'"((?:[^"]|"")*)"|<(\w+)>|(?<!\S)(-?\d[\d.eE+-]*)%?(?!\S)|(?<!\S)![^\n]*')
# Tiers of a forced aligner or an analysis, not of transcripts (Montreal Forced Aligner, MAUS, P2FA).
_NOT_TEXT = re.compile(
    r"(^|.*[-_ ])(phones?|phonemes?|words?|syllables?|segments?|MAU|KAN|ORT|pitch|tones?)", re.IGNORECASE
)

Interval = tuple[float, float, str]


def recognises(source: str) -> bool:
    """A .TextGrid file, or a folder that holds one at any depth."""
    return holds(source, (".textgrid",))


def read(source: str, settings: TierSettings) -> Iterator[RawRow]:
    """One row per labelled interval.

    Raises:
        InputError: no .TextGrid, one that cannot be read, or no tier of transcripts in it.
    """
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    wanted = words_of_setting(settings.tiers)
    for path in transcripts(source, (".textgrid",), "TextGrids"):
        tiers = read_textgrid(path)
        names = [name for name, _ in tiers]
        chosen = wanted or [name for name in names if not _NOT_TEXT.fullmatch(name)]
        missing = [name for name in chosen if name not in names]
        if missing or not chosen:
            raise InputError(
                f"{path} has no interval tier {missing[0] if missing else 'of utterances'} "
                f"(it has: {', '.join(names)}): name the tiers with --set tiers="
            )
        if ignored := [name for name in names if name not in chosen]:
            note(f"{path.name}: not read: tiers {', '.join(ignored)}")
        cues = [cue for name, intervals in tiers if name in chosen for cue in _cues(path, name, intervals)]
        yield from cue_rows(cues, media_of(path), root)


def _cues(path: Path, tier: str, intervals: list[Interval]) -> Iterator[Cue]:
    for number, (start_s, end_s, label) in enumerate(intervals, start=1):
        text = " ".join(label.split("\n")).strip()
        cue = Cue(where=f"{path} tier {tier} interval {number}", text=text, start_s=start_s, end_s=end_s, speaker=tier)
        if not text:
            cue.skip = (EMPTY_ANNOTATION, "it is empty")
        yield cue


def read_textgrid(path: Path) -> list[tuple[str, list[Interval]]]:
    """Name and intervals (start and end in seconds, label) of every interval tier; point tiers are passed over.

    Raises:
        InputError: it is not a TextGrid, or it ends too early.
    """
    tokens = [_value(match) for match in _TOKEN.finditer(_text(path)) if not match[0].startswith("!")]
    if tokens[:2] not in (["ooTextFile", "TextGrid"], ["ooTextFile short", "TextGrid"]):
        raise InputError(f"{path} is not a TextGrid in one of Praat's text formats: save it again as text")
    stream = iter(tokens[2:])
    try:
        _number(stream), _number(stream)
        next(stream)  # <exists>
        return [tier for _ in range(int(_number(stream))) if (tier := _tier(stream)) is not None]
    except (StopIteration, ValueError) as error:
        raise InputError(f"{path} ends too early or is damaged: save it again with Praat") from error


def _tier(stream: Iterator[str | float]) -> tuple[str, list[Interval]] | None:
    kind, name = str(next(stream)), str(next(stream))
    _number(stream), _number(stream)
    size = int(_number(stream))
    if kind == "IntervalTier":
        return name, [(_number(stream), _number(stream), str(next(stream))) for _ in range(size)]
    if kind != "TextTier":
        raise ValueError(kind)
    for _ in range(size):
        _number(stream), next(stream)
    return None


def _number(stream: Iterator[str | float]) -> float:
    value = next(stream)
    if not isinstance(value, float):
        raise ValueError(value)
    return value


def _value(match: re.Match[str]) -> str | float:
    if match[1] is not None:
        return match[1].replace('""', '"')
    return f"<{match[2]}>" if match[2] else float(match[3])


def _text(path: Path) -> str:
    try:
        data = path.read_bytes()
        if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
            return data.decode("utf-16")
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is neither UTF-8 nor UTF-16 text ({error}): save it as UTF-8 in Praat") from error


IMPORTER = Importer(NAME, recognises, read, no_folders, TierSettings)
