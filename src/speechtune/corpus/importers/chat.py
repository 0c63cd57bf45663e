"""TalkBank CHAT transcripts (.cha, CHILDES and others) with media bullets; each main tier with times is an utterance.

See https://talkbank.org/0info/manuals/CHAT.html. Times are the bullets ``\\x15START_END\\x15`` in milliseconds;
@Media names the recording; @ID gives language, age and sex of each speaker. The codes are turned into plain words by
`chat_text`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.corpus.importers.chat_text import Rules, clean
from speechtune.corpus.importers.raw import Importer, RawRow, read_lenient
from speechtune.corpus.importers.spans import (
    Cue,
    cue_rows,
    holds,
    media_of,
    no_folders,
    transcripts,
    words_of_setting,
)

NAME = "chat"
NO_TIMES = "utterance without times"
UNCLEAR = "unintelligible speech"
NO_WORDS = "no words"
UNWANTED = "speaker not asked for"

_BULLET = re.compile(r"\x15(?:%\w+:\"?[^\"\x15]*\"?_)?(\d+)_(\d+)-?\x15")
_AGE = re.compile(r"(\d+);(?:(\d+)\.?(?:\d+)?)?")
_LANGUAGES = {"eng": "en", "spa": "es", "deu": "de", "fra": "fr", "ita": "it", "zho": "zh", "nld": "nl", "jpn": "ja"}


@dataclass(slots=True)
class _Transcript:
    """The parts of a file: its recording, the facts of each speaker, and the main tiers (line, speaker, content)."""

    media: str = ""
    language: str | None = None
    speakers: dict[str, dict[str, Any]] = field(default_factory=dict)
    tiers: list[tuple[int, str, str]] = field(default_factory=list)


def recognises(source: str) -> bool:
    """A .cha file, or a folder that holds one at any depth."""
    return holds(source, (".cha",))


def read(source: str, rules: Rules) -> Iterator[RawRow]:
    """One row per main tier; those without words, times or an asked-for speaker are left out and counted.

    Raises:
        InputError: no .cha file, or one without the header @Begin.
    """
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    wanted = words_of_setting(rules.speakers)
    for path in transcripts(source, (".cha",), "CHAT transcripts"):
        parsed = _parse(path)
        cues = [_cue(path, parsed, tier, rules, wanted) for tier in parsed.tiers]
        yield from cue_rows(cues, media_of(path, parsed.media), root)


def _parse(path: Path) -> _Transcript:
    lines: list[tuple[int, str]] = []
    for number, line in enumerate(read_lenient(path).split("\n"), start=1):
        line = line.rstrip("\r")
        if line[:1] in ("\t", " ") and lines:
            lines[-1] = (lines[-1][0], f"{lines[-1][1]} {line.strip()}")
        elif line:
            lines.append((number, line))
    if not any(line.startswith("@Begin") for _, line in lines):
        raise InputError(f"{path} is not a CHAT transcript (no @Begin): check that it is TalkBank's .cha")
    parsed = _Transcript()
    for number, line in lines:
        name, _, value = line.partition(":")
        value = value.strip(" \t")
        if name == "@Media":
            parsed.media = value.split(",")[0].strip().strip('"')
        elif name == "@Languages":
            code = re.split(r"[\s,]+", value)[0]
            parsed.language = _LANGUAGES.get(code, code) or None
        elif name == "@ID":
            _read_id(value, parsed)
        elif line.startswith("*"):
            parsed.tiers.append((number, name[1:].strip(), value))
    return parsed


def _read_id(value: str, parsed: _Transcript) -> None:
    """Note the facts in ``language|corpus|code|age|sex|group|SES|role|education|custom|``."""
    cells = [cell.strip() for cell in value.split("|")] + [""] * 10
    facts: dict[str, Any] = {"corpus": cells[1], "gender": cells[4], "role": cells[7]}
    if match := _AGE.match(cells[3]):
        facts |= {"age": match[1], "age_months": int(match[1]) * 12 + int(match[2] or 0)}
    parsed.speakers[cells[2]] = {name: fact for name, fact in facts.items() if fact not in ("", None)}


def _cue(path: Path, parsed: _Transcript, tier: tuple[int, str, str], rules: Rules, wanted: list[str]) -> Cue:
    number, code, content = tier
    times = [(int(start), int(end)) for start, end in _BULLET.findall(content)]
    text, unclear = clean(_BULLET.sub(" ", content).replace("\x15", " "), rules)
    facts = parsed.speakers.get(code, {})
    cue = Cue(where=f"{path} line {number}", text=text, start_s=None, end_s=None)
    cue.columns = {"speaker_code": code, **facts}
    if parsed.language:
        cue.columns["language"] = parsed.language
    cue.speaker = f"{path.stem}-{code}"
    if times:
        cue.start_s, cue.end_s = times[0][0] / 1000, times[-1][1] / 1000
    if wanted and code not in wanted:
        cue.skip = (UNWANTED, f"it is spoken by {code} (--set speakers={rules.speakers})")
    elif unclear and rules.unintelligible == "skip":
        cue.skip = (UNCLEAR, "it holds xxx, yyy or www (--set unintelligible=remove takes only the mark out)")
    elif not text:
        cue.skip = (NO_WORDS, "it holds no words")
    elif not times:
        cue.skip = (NO_TIMES, "it has no media bullet")
    return cue


IMPORTER = Importer(NAME, recognises, read, no_folders, Rules)
