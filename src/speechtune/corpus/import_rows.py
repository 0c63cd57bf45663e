"""The rows of an import before any audio is decoded: types, ids, and the problems a row shows by itself."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.audio.io import AUDIO_SUFFIXES, MISSING, OUTSIDE
from speechtune.core.config import validate
from speechtune.core.errors import InputError
from speechtune.core.progress import track
from speechtune.corpus.importers import Importer, RawRow
from speechtune.corpus.importers.raw import (
    DUPLICATE,
    EMPTY_SPAN,
    EMPTY_TEXT,
    MALFORMED,
    NO_ROW,
    NOT_UTF8,
    has_bad_bytes,
    visible_files,
)
from speechtune.corpus.naming import id_from_name, short_hash
from speechtune.corpus.table import CARD, METADATA, STANDARD_COLUMNS, Utterance

EXPORT_MARK = "export.json"
SPAN_SLACK_S = 0.010  # as load_audio


@dataclass(frozen=True, slots=True)
class Fill:
    """What the caller adds to what the source says.

    ``language`` is given to rows that state none; ``speaker_from`` is the column that holds the speaker (``folder``:
    the name of the folder that holds the recording); ``settings`` are ``key=value`` for the layout's own settings.
    """

    language: str | None = None
    speaker_from: str | None = None
    settings: Sequence[str] = ()


@dataclass(slots=True)
class Entry:
    """A row on its way into the corpus; ``problem`` is its reason and detail once it is known to be bad.

    ``fault`` is false where a rule of the layout leaves the row out: that stops no strict import.
    """

    raw: RawRow
    utterance: Utterance
    problem: tuple[str, str] | None = None
    fault: bool = True
    stem: str = ""


def read_rows(importer: Importer, source: str, fill: Fill, allow_empty: bool) -> list[Entry]:
    """Every row of the source and every recording that no row names, with the problems that need no decoding."""
    entries = []
    exact = written_by_speechtune(source)
    for raw in track(_raw_rows(importer, source, fill.settings), "reading rows"):
        entry = Entry(raw, _blank_utterance(), raw.problem)
        try:
            entry.utterance = _utterance(raw, fill, exact)
        except ValueError as error:
            entry.problem = entry.problem or (MALFORMED, str(error))
        if entry.problem is None and raw.skip is not None:
            entry.problem, entry.fault = raw.skip, False
        if entry.problem is None:
            entry.problem = _problem(entry, allow_empty)
        entries.append(entry)
    _check_speaker_column(entries, fill, source)
    _make_ids_unique(entries)
    return entries + _orphans(importer, source, entries)


def _raw_rows(importer: Importer, source: str, settings: Sequence[str]) -> Iterable[RawRow]:
    if importer.settings is not None:
        where = f"--set of the format {importer.name}"
        return importer.read(source, validate(importer.settings, _parsed(settings), where))
    if settings:
        raise InputError(f"the format {importer.name} has no settings: leave --set {settings[0]} out")
    return importer.read(source)


def _parsed(settings: Sequence[str]) -> dict[str, str]:
    for item in settings:
        if "=" not in item.lstrip("="):
            raise InputError(f"--set {item} is not key=value: write for example --set speakers=CHI")
    return {key: value for key, _, value in (item.partition("=") for item in settings)}


def written_by_speechtune(source: str) -> bool:
    """Whether a source is a speechtune corpus or export; its texts are then taken with the blanks at their ends."""
    if source.startswith("hf:"):
        return False
    folder = Path(source) if Path(source).is_dir() else Path(source).parent
    mark = folder / EXPORT_MARK
    exported = mark.is_file() and '"layout"' in mark.read_text(encoding="utf-8", errors="replace")
    return exported or all((folder / name).is_file() for name in (CARD, METADATA))


def _blank_utterance() -> Utterance:
    return Utterance(utterance_id="", file_name="", text="", duration_s=0.0)


def _utterance(raw: RawRow, fill: Fill, exact: bool) -> Utterance:
    """The row's columns with their types; ``file_name`` and ``duration_s`` are set once the audio has been read.

    Raises:
        ValueError: a column has a type it cannot have.
    """
    columns = dict(raw.columns)
    columns.pop("file_name", None)
    if fill.speaker_from and fill.speaker_from != "folder":
        speaker = columns.pop(fill.speaker_from, None)
        columns["speaker_id"] = speaker
    elif fill.speaker_from:
        columns["speaker_id"] = Path(raw.name).parent.name or None
    utterance = _blank_utterance()
    for name in STANDARD_COLUMNS:
        value = columns.pop(name, None)
        if value is None or (name == "text" and value == ""):
            continue
        if name in ("start_s", "end_s"):
            setattr(utterance, name, _seconds(name, value))
        elif isinstance(value, (str, int, float)) and not isinstance(value, bool):
            text = str(value).strip()
            if name == "text":
                utterance.text = str(value) if exact else text
            else:
                setattr(utterance, name, text or None)
        else:
            raise ValueError(f"its {name} is a {type(value).__name__}, not text")
    utterance.language = utterance.language or fill.language
    utterance.extra = {name: _storable(value) for name, value in columns.items()}
    if not utterance.source and raw.name:
        utterance.source = raw.name
    return utterance


def _storable(value: Any) -> Any:
    """The value, or its text where JSON has no such type (dates and bytes of Parquet tables)."""
    try:
        json.dumps(value, allow_nan=False)
    except (TypeError, ValueError):
        return str(value)
    return value


def _seconds(name: str, value: Any) -> float:
    try:
        seconds = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"its {name} is {value!r}, not a number of seconds") from None
    if not math.isfinite(seconds):
        raise ValueError(f"its {name} is {value!r}, not a finite number of seconds")
    return seconds


def _problem(entry: Entry, allow_empty: bool) -> tuple[str, str] | None:
    raw, utterance = entry.raw, entry.utterance
    if has_bad_bytes(f"{raw.name}{raw.audio}{json.dumps(utterance.to_row(), ensure_ascii=False)}"):
        return NOT_UTF8, "its text or its file name is not UTF-8"
    if raw.read_bytes is None:
        if raw.audio is None:
            return MISSING, "it names no audio file"
        if not raw.audio.is_file():
            return MISSING, f"the audio file {raw.audio} does not exist"
    if not utterance.text and not allow_empty:
        return EMPTY_TEXT, "its transcript is empty (--allow-empty keeps such rows)"
    start_s, end_s = utterance.start_s or 0.0, utterance.end_s
    if start_s < -SPAN_SLACK_S:
        return OUTSIDE, f"its span starts at {start_s:g} s, before the recording"
    if end_s is not None and end_s <= start_s:
        return EMPTY_SPAN, f"its span from {start_s:g} s to {end_s:g} s has no length"
    return None


def overlapping_spans(entries: Iterable[Entry]) -> int:
    """How many good rows share more than `SPAN_SLACK_S` with another good row of the same recording."""
    spans: dict[str, list[tuple[float, float, int]]] = {}
    for number, entry in enumerate(entries):
        row = entry.utterance
        if entry.problem is None and (row.start_s is not None or row.end_s is not None):
            start_s = row.start_s or 0.0
            key = str(entry.raw.audio or entry.raw.name)
            spans.setdefault(key, []).append((start_s, start_s + row.duration_s, number))
    found: set[int] = set()
    for group in spans.values():
        latest_s, owner = -math.inf, -1
        for start_s, end_s, number in sorted(group):
            if start_s < latest_s - SPAN_SLACK_S:
                found |= {number, owner}
            if end_s > latest_s:
                latest_s, owner = end_s, number
    return len(found)


def _check_speaker_column(entries: list[Entry], fill: Fill, source: str) -> None:
    if fill.speaker_from and entries and not any(entry.utterance.speaker_id for entry in entries):
        known = sorted({name for entry in entries[:100] for name in entry.raw.columns})
        raise InputError(
            f"no row of {source} has a value in the column {fill.speaker_from!r} of --speaker-from "
            f"(it has: {', '.join(known)}; or folder): choose one of them"
        )


def _make_ids_unique(entries: list[Entry]) -> None:
    """Derive missing ids from file names; of several rows with one id the first stays good."""
    derived: dict[str, list[Entry]] = {}
    for entry in entries:
        if not entry.utterance.utterance_id:
            row = entry.utterance
            row.utterance_id = id_from_name(entry.raw.name, row.start_s, row.end_s) if entry.raw.name else ""
            derived.setdefault(row.utterance_id, []).append(entry)
    for group in derived.values():
        if len({entry.raw.name for entry in group}) > 1:  # a/b.wav and a-b.wav, or x.wav and x.mp3
            for entry in group:
                entry.utterance.utterance_id += f"-{short_hash(entry.raw.name)}"
    seen: dict[str, str] = {}
    for entry in entries:
        name = entry.utterance.utterance_id
        if name in seen and entry.problem is None:
            entry.problem = (DUPLICATE, f"its id {name!r} is already that of {seen[name]}")
        elif entry.problem is None:
            seen[name] = entry.raw.where


def _orphans(importer: Importer, source: str, entries: list[Entry]) -> list[Entry]:
    """Recordings in the layout's folders that no row names."""
    folders, known = importer.folders(source)
    paths = [entry.raw.audio for entry in entries if entry.raw.audio is not None]
    named = {os.path.realpath(path) for path in (*known, *paths)}
    orphans = []
    for folder in folders:
        for path in visible_files(folder, AUDIO_SUFFIXES):
            if os.path.realpath(path) not in named:
                raw = RawRow(where=str(path), audio=path, name=path.relative_to(folder).as_posix())
                orphans.append(Entry(raw, _blank_utterance(), (NO_ROW, "no row names this recording")))
    return orphans
