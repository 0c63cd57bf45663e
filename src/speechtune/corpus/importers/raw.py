"""What an importer yields, and the reading of text and tables that all importers share."""

from __future__ import annotations

import csv
import io
import json
import math
import os
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel

from speechtune.core.errors import InputError

EMPTY_TEXT = "empty transcript"
NOT_UTF8 = "not UTF-8"
MALFORMED = "malformed row"
NO_ROW = "audio without a row"
DUPLICATE = "duplicate utterance id"
EMPTY_SPAN = "span without length"
OVERLAP = "overlapping span"

ALIASES: dict[str, tuple[str, ...]] = {
    "text": ("text", "transcription", "sentence", "transcript", "orthographic_text"),
    "utterance_id": ("utterance_id", "utt_id"),
    "speaker_id": ("speaker_id", "speaker", "client_id", "child_id", "spk_id"),
    "session_id": ("session_id", "session"),
    "language": ("language", "locale", "lang"),
    "split": ("split", "subset"),
    "age": ("age", "age_bucket", "age_group"),
    "gender": ("gender", "sex"),
    "source": ("source",),
    "start_s": ("start_s",),
    "end_s": ("end_s",),
}
"""Standard column -> the names it goes by elsewhere; the first that a row has wins, the others stay extra columns."""

RECOMPUTED = frozenset({"duration", "duration_s", "audio_duration_sec", "length_s"})
SPLIT_NAMES = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("dev", "validation", "valid", "val", "development"), "dev"),
    **dict.fromkeys(("test", "testing", "eval", "evaluation"), "test"),
}
"""Names of splits elsewhere -> the house's names."""


@dataclass(slots=True, kw_only=True)
class RawRow:
    """One row as the source has it, before its audio is looked at.

    ``where`` is for messages ("metadata.csv line 3"); ``audio`` is the file (``None``: the row names none);
    ``read_bytes`` fetches encoded audio that is not a file of its own; ``name`` is the audio's name inside the source;
    ``columns`` are standard names (`ALIASES`) and any others; ``problem`` is a reason and its detail if the importer
    already knows that the row is bad; ``skip`` is a reason and its detail if a rule of the layout leaves the row out (a
    subtitle of music, say): it is counted and listed as the bad ones are, but does not stop a strict import.
    """

    where: str
    audio: Path | None = None
    name: str = ""
    read_bytes: Callable[[], bytes] | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    problem: tuple[str, str] | None = None
    skip: tuple[str, str] | None = None


@dataclass(frozen=True, slots=True)
class Importer:
    """A layout: its name, whether a source has it, how its rows are read, and which folders' audio must all be named.

    ``folders(source)`` returns the folders in which an audio file without a row is an error, and the files that other
    tables of the same release name (those are no error). ``settings`` is the layout's own configuration, if it has any:
    then ``read`` takes an instance of it as its second argument.
    """

    name: str
    recognises: Callable[[str], bool]
    read: Callable[..., Iterator[RawRow]]
    folders: Callable[[str], tuple[list[Path], set[Path]]]
    settings: type[BaseModel] | None = None


def standard_columns(row: dict[str, Any], ignore: Iterable[str] = ()) -> dict[str, Any]:
    """Rename a row's columns to the standard ones; unknown columns are kept, stated durations and blanks left out."""
    left = {name: value for name, value in row.items() if name not in RECOMPUTED and name not in ignore}
    columns: dict[str, Any] = {}
    for standard, names in ALIASES.items():
        for name in names:
            if not _blank(left.get(name)):
                columns[standard] = left.pop(name)
                break
        for name in names:
            if name in left and (_blank(left[name]) or name == standard):
                del left[name]
    if "split" in columns:
        columns["split"] = SPLIT_NAMES.get(str(columns["split"]).lower(), columns["split"])
    return {**columns, **{name: value for name, value in left.items() if value is None or not _blank(value)}}


def _blank(value: Any) -> bool:
    missing = value is None or (isinstance(value, float) and math.isnan(value))
    return missing or (isinstance(value, str) and not value.strip())


def split_of_folder(name: str) -> str | None:
    """The split that the first folder of a relative file name stands for, if it is the name of one."""
    parts = name.replace("\\", "/").split("/")
    return SPLIT_NAMES.get(parts[0].lower()) if len(parts) > 1 else None


def has_bad_bytes(value: Any) -> bool:
    """Whether a string (read by `read_lenient`, say) holds what cannot be written as UTF-8: surrogates."""
    return isinstance(value, str) and any("\ud800" <= char <= "\udfff" for char in value)


def read_lenient(path: Path) -> str:
    """A text file without its byte-order mark; bytes that are not UTF-8 become surrogates (see `has_bad_bytes`).

    Raises:
        InputError: the file is missing, or is UTF-16.
    """
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InputError(f"cannot read {path} ({error.strerror}): check the path and its permissions") from error
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise InputError(f"{path} is UTF-16 text: save it as UTF-8")
    return data.decode("utf-8-sig", "surrogateescape")


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Numbered lines that hold something, without CR or LF (and split at nothing else)."""
    for number, line in enumerate(read_lenient(path).split("\n"), start=1):
        if line.strip():
            yield number, line.rstrip("\r")


def read_jsonl_rows(path: Path) -> Iterator[tuple[str, dict[str, Any], tuple[str, str] | None]]:
    """Each line of a JSONL file: where it is, its object, and what is wrong with it."""
    for number, line in read_lines(path):
        where = f"{path} line {number}"
        problem = None
        row: Any = {}
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            problem = (MALFORMED, f"it is not valid JSON ({error.msg})")
        if not isinstance(row, dict):
            row, problem = {}, (MALFORMED, "it is not a JSON object")
        if has_bad_bytes(line):
            problem = (NOT_UTF8, "it is not UTF-8 text")
        yield where, row, problem


def read_csv_rows(
    path: Path, delimiter: str | None = None, quoting: Literal[0, 3] = csv.QUOTE_MINIMAL
) -> Iterator[tuple[str, dict[str, Any], tuple[str, str] | None]]:
    """Each row of a CSV file (comma, semicolon or tab, whichever its header uses most), as `read_jsonl_rows` does.

    Raises:
        InputError: the file has no header or is not CSV.
    """
    text = read_lenient(path).lstrip("\r\n")
    header = text.split("\n", 1)[0]
    if not header.strip():
        raise InputError(f"{path} is empty: it needs a header line and rows")
    csv.field_size_limit(1 << 30)
    mark = delimiter or max((",", ";", "\t"), key=header.count)
    reader = csv.DictReader(io.StringIO(text, newline=""), delimiter=mark, quoting=quoting)
    try:
        for cells in reader:
            where = f"{path} line {reader.line_num}"
            extra = cells.pop(None, None)
            problem = None
            if extra is not None or None in cells.values():
                problem = (MALFORMED, f"it does not have the {len(reader.fieldnames or ())} cells of the header")
            if any(has_bad_bytes(cell) for cell in cells.values()):
                problem = (NOT_UTF8, "it is not UTF-8 text")
            row = {str(name).strip(): cell for name, cell in cells.items()}
            yield where, row, problem
    except csv.Error as error:
        raise InputError(f"{path} line {reader.line_num} is not CSV ({error}): repair that line") from error


def find_audio(name: str, *folders: Path) -> Path:
    """The file that ``name`` (relative or absolute, with / or \\) stands for; the first candidate if none exists."""
    names = [name, name.replace("\\", "/")] if "\\" in name else [name]
    if not name.isascii():  # a table in one Unicode normal form, a disk in the other (macOS)
        names += [unicodedata.normalize(form, one) for one in names for form in ("NFC", "NFD")]
    candidates = [folder / one for one in names for folder in folders]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    return candidates[0]


def visible_files(folder: Path, suffixes: frozenset[str]) -> list[Path]:
    """Files below ``folder`` with one of the (lower case) suffixes, sorted.

    Hidden files and folders (macOS's ``._x.wav`` among them) are passed over; linked folders are entered, once each.
    """
    found: list[Path] = []
    entered = set()
    for here, inside, files in os.walk(folder, followlinks=True):
        real = os.path.realpath(here)
        if real in entered:
            inside.clear()
            continue
        entered.add(real)
        inside[:] = [name for name in inside if not name.startswith(".")]
        visible = (Path(here, name) for name in files if not name.startswith("."))
        found += (path for path in visible if path.suffix.lower() in suffixes and path.is_file())
    return sorted(found)
