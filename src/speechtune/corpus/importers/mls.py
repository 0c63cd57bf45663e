"""Multilingual LibriSpeech: ``SPLIT/transcripts.txt``, ``segments.txt``, ``audio/SPEAKER/BOOK/*.flac|opus``.

See https://www.openslr.org/94. The id is SPEAKER_BOOK_NUMBER. segments.txt says where the clip was cut from a
LibriVox recording: kept as the columns librivox_url, librivox_start_s and librivox_end_s. metainfo.txt gives the
gender; the folder mls_LANGUAGE the language.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
from speechtune.corpus.languages import code_of_language

NAME = "mls"
_SUFFIXES = (".flac", ".opus", ".ogg", ".wav", ".mp3")


def recognises(source: str) -> bool:
    """A folder, or folders train, dev, test in it, with transcripts.txt and audio/."""
    return Path(source).is_dir() and bool(_parts(Path(source)))


def _parts(root: Path) -> list[Path]:
    inside = [one for one in sorted(root.iterdir()) if one.name.lower() in SPLIT_NAMES] if root.is_dir() else []
    return [one for one in (root, *inside) if (one / "transcripts.txt").is_file() and (one / "audio").is_dir()]


def read(source: str) -> Iterator[RawRow]:
    """One row per line of transcripts.txt.

    Raises:
        InputError: there is none.
    """
    root = Path(source)
    parts = _parts(root)
    if not parts:
        raise InputError(
            f"{source} holds no transcripts.txt with audio/: give the mls_LANGUAGE folder or one split of it"
        )
    for part in parts:
        top = part.resolve()
        language = next((code_of_language(one.name[4:]) for one in (top, *top.parents) if one.name[:4] == "mls_"), None)
        genders = _genders(part)
        origins = _origins(part / "segments.txt")
        for number, line in read_lines(part / "transcripts.txt"):
            key, _, text = line.partition("\t")
            columns: dict[str, Any] = {"utterance_id": key, "text": text, "split": SPLIT_NAMES.get(part.name.lower())}
            speaker, _, rest = key.partition("_")
            book = rest.rpartition("_")[0]
            columns |= {"speaker_id": speaker, "session_id": f"{speaker}_{book}", "gender": genders.get(speaker)}
            columns |= {"language": language, **origins.get(key, {})}
            row = RawRow(where=f"{part / 'transcripts.txt'} line {number}")
            row.columns = {name: value for name, value in columns.items() if value is not None}
            candidates = [part / "audio" / speaker / book / f"{key}{suffix}" for suffix in _SUFFIXES]
            row.audio = next((one for one in candidates if one.is_file()), candidates[0])
            row.name = row.audio.relative_to(root).as_posix()
            if not book or "/" in key:
                row.problem = (MALFORMED, "it is not 'SPEAKER_BOOK_NUMBER<tab>words'")
            elif has_bad_bytes(line):
                row.problem = (NOT_UTF8, "it is not UTF-8 text")
            yield row


def _genders(part: Path) -> dict[str, str]:
    for folder in (part, part.resolve().parent):
        if (folder / "metainfo.txt").is_file():
            lines = [line.split("|") for line in read_lenient(folder / "metainfo.txt").splitlines()[1:]]
            cells = [[cell.strip() for cell in line] for line in lines if len(line) > 1]
            return {line[0]: line[1].lower() for line in cells if line[1]}
    return {}


def _origins(path: Path) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}
    for number, line in read_lines(path) if path.is_file() else []:
        cells = line.split("\t")
        try:
            start_s, end_s = float(cells[2]), float(cells[3])
        except (IndexError, ValueError):
            raise InputError(f"{path} line {number} is not 'id url start end': repair that line") from None
        found[cells[0]] = {"librivox_url": cells[1], "librivox_start_s": start_s, "librivox_end_s": end_s}
    return found


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The audio folders of the parts."""
    return [part / "audio" for part in _parts(Path(source))], set()


IMPORTER = Importer(NAME, recognises, read, folders)
