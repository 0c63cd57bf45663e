"""Kathbath (IndicSUPERB): ``LANGUAGE/SPLIT/transcription_n2w.txt`` (file name, tab, text) and ``audio/``.

See https://github.com/AI4Bharat/IndicSUPERB. Audio may also lie beside the table, or have been converted from .m4a to
another suffix. A file name is ID-SPEAKER-GENDER.m4a.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import (
    MALFORMED,
    NOT_UTF8,
    SPLIT_NAMES,
    Importer,
    RawRow,
    find_audio,
    has_bad_bytes,
    read_lines,
)
from speechtune.corpus.languages import code_of_language

NAME = "kathbath"
_TABLE = "transcription_n2w.txt"
_SUFFIXES = (".wav", ".flac", ".ogg", ".opus", ".mp3")


def recognises(source: str) -> bool:
    """A folder with transcription_n2w.txt up to three folders down, or that file."""
    return bool(_tables(Path(source)))


def _tables(source: Path) -> list[Path]:
    if source.is_file():
        return [source] if source.name == _TABLE else []
    return [path for depth in ("", "*/", "*/*/", "*/*/*/") for path in sorted(source.glob(depth + _TABLE))]


def read(source: str) -> Iterator[RawRow]:
    """One row per line of every table.

    Raises:
        InputError: there is none.
    """
    found = _tables(Path(source))
    if not found:
        raise InputError(f"{source} holds no {_TABLE}: give the folder of the languages, of one, or of one split")
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    for table in found:
        folder = table.resolve().parent
        split = re.split(r"[_-]", folder.name.lower())[0]
        facts = {"split": SPLIT_NAMES.get(split), "subset": folder.name}
        facts["language"] = next((code for one in folder.parts[:-4:-1] if (code := code_of_language(one))), None)
        for number, line in read_lines(table):
            yield _raw(f"{table} line {number}", line, table, root, facts)


def _raw(where: str, line: str, table: Path, root: Path, facts: dict[str, str | None]) -> RawRow:
    name, mark, text = line.partition("\t")
    if not mark:
        name, mark, text = line.partition(" ")
    stem = Path(name).stem
    columns = {"utterance_id": stem, "text": text, **facts}
    parts = stem.split("-")
    if len(parts) == 3:
        columns |= {"speaker_id": parts[1], "gender": parts[2]}
    row = RawRow(where=where, columns={key: value for key, value in columns.items() if value is not None})
    if not mark or "/" in name or "\x00" in name:
        row.problem = (MALFORMED, "it is not 'file name<tab>text'")
        return row
    if has_bad_bytes(line):
        row.problem = (NOT_UTF8, "it is not UTF-8 text")
    places = (table.parent / "audio", table.parent)
    names = [name, *(f"{stem}{suffix}" for suffix in _SUFFIXES)]
    candidates = [find_audio(one, *places) for one in names]
    row.audio = next((one for one in candidates if one.is_file()), candidates[0])
    row.name = row.audio.relative_to(root).as_posix() if row.audio.is_relative_to(root) else row.audio.name
    return row


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The folders of the tables."""
    path = Path(source)
    return ([] if path.is_file() else [table.parent for table in _tables(path)]), set()


IMPORTER = Importer(NAME, recognises, read, folders)
