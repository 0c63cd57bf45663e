"""A tree of recordings, each with its transcript in a text file of the same name: ``a/x.wav`` and ``a/x.txt``."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechtune.audio.io import AUDIO_SUFFIXES
from speechtune.corpus.importers.raw import (
    NOT_UTF8,
    Importer,
    RawRow,
    has_bad_bytes,
    read_lenient,
    split_of_folder,
    visible_files,
)

NAME = "paired"
TEXT_SUFFIXES = frozenset({".txt", ".lab"})
# Text files that accompany a data set and are nobody's transcript.
_NOTES = ("readme", "license", "licence", "changelog", "copying", "about", "requirements")


def recognises(source: str) -> bool:
    """A folder in which at least one recording has a text file of the same name."""
    root = Path(source)
    return root.is_dir() and not _recordings(root).keys().isdisjoint(
        path.with_suffix("") for path in visible_files(root, TEXT_SUFFIXES)
    )


def _recordings(root: Path) -> dict[Path, list[Path]]:
    """Path without suffix -> the recordings of that name."""
    found: dict[Path, list[Path]] = {}
    for path in visible_files(root, AUDIO_SUFFIXES):
        found.setdefault(path.with_suffix(""), []).append(path)
    return found


def read(source: str) -> Iterator[RawRow]:
    """One row per text file and recording of the same name; a text file without recording is a row without audio."""
    root = Path(source)
    spoken = _recordings(root)
    for text in visible_files(root, TEXT_SUFFIXES):
        recordings = spoken.get(text.with_suffix(""), [])
        if not recordings and text.stem.lower().startswith(_NOTES):
            continue
        content = read_lenient(text)
        problem = (NOT_UTF8, "it is not UTF-8 text") if has_bad_bytes(content) else None
        for audio in recordings or [text.with_suffix(".wav")]:
            name = audio.relative_to(root).as_posix()
            columns = {"text": content}
            if split := split_of_folder(name):
                columns["split"] = split
            yield RawRow(where=str(text), audio=audio, name=name, columns=columns, problem=problem)


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The whole tree: every recording needs a transcript."""
    return [Path(source)], set()


IMPORTER = Importer(NAME, recognises, read, folders)
