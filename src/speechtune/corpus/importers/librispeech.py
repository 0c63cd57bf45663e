"""LibriSpeech and what copies it: ``SUBSET/SPEAKER/CHAPTER/*.trans.txt`` beside the audio.

``SPEAKERS.TXT`` lies at the root. See https://www.openslr.org/12. The subset's first word names the split
(train-clean-100: train); it stays as the column ``subset``. Gender comes from SPEAKERS.TXT, at the source or one
folder above it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import (
    MALFORMED,
    NOT_UTF8,
    SPLIT_NAMES,
    Importer,
    RawRow,
    has_bad_bytes,
    read_lenient,
    read_lines,
)

NAME = "librispeech"
_SUFFIXES = (".flac", ".wav", ".ogg", ".opus", ".mp3")


def recognises(source: str) -> bool:
    """A folder with a .trans.txt up to four folders down."""
    return Path(source).is_dir() and bool(_transcripts(Path(source), only_one=True))


def _transcripts(root: Path, only_one: bool = False) -> list[Path]:
    found: list[Path] = []
    for depth in ("", "*/", "*/*/", "*/*/*/", "*/*/*/*/"):
        found += sorted(root.glob(f"{depth}*.trans.txt"))
        if found and only_one:
            break
    return [path for path in found if not any(part.startswith(".") for part in path.relative_to(root).parts)]


def read(source: str) -> Iterator[RawRow]:
    """One row per line of every .trans.txt.

    Raises:
        InputError: there is none.
    """
    root = Path(source)
    found = _transcripts(root) if root.is_dir() else []
    if not found:
        raise InputError(f"{source} holds no .trans.txt: give the folder that holds LibriSpeech's subsets")
    genders = _genders(root)
    for table in found:
        subset = _subset(table, root)
        for number, line in read_lines(table):
            key, _, text = line.strip(" \t").partition(" ")
            columns = {"utterance_id": key, "text": text, "speaker_id": key.split("-")[0]}
            columns["session_id"] = "-".join(key.split("-")[:2])
            if gender := genders.get(columns["speaker_id"]):
                columns["gender"] = gender
            if subset:
                columns["subset"] = subset
                if split := SPLIT_NAMES.get(subset.split("-")[0].lower()):
                    columns["split"] = split
            row = RawRow(where=f"{table} line {number}", columns=columns)
            candidates = [table.parent / f"{key}{suffix}" for suffix in _SUFFIXES]
            row.audio = next((one for one in candidates if one.is_file()), candidates[0])
            row.name = row.audio.relative_to(root).as_posix()
            if "/" in key or "\x00" in line:
                row.problem = (MALFORMED, "it is not 'ID words'")
            elif has_bad_bytes(line):
                row.problem = (NOT_UTF8, "it is not UTF-8 text")
            yield row


def _subset(table: Path, root: Path) -> str | None:
    """The folder above the speaker's, unless that is the whole set's."""
    folder = table.resolve().parents[2]
    inside = folder.is_relative_to(root.resolve())
    return folder.name if inside and folder.name.split("-")[0].lower() in SPLIT_NAMES else None


def _genders(root: Path) -> dict[str, str]:
    for folder in (root, root.resolve().parent):
        for name in ("SPEAKERS.TXT", "speakers.tsv"):
            if (folder / name).is_file():
                mark = "|" if name.endswith(".TXT") else "\t"
                lines = (line.split(mark) for line in read_lenient(folder / name).splitlines())
                cells = ([cell.strip() for cell in line] for line in lines if not line[0].startswith(";"))
                return {line[0]: line[1].lower() for line in cells if len(line) > 1 and line[1].lower() in ("m", "f")}
    return {}


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The whole tree."""
    return [Path(source)], set()


IMPORTER = Importer(NAME, recognises, read, folders)
