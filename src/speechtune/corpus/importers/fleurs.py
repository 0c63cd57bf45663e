"""FLEURS as in its Hugging Face repository: ``train.tsv``, ... without header, and ``audio/SPLIT/``.

``dev.tsv`` and ``test.tsv`` too. See https://huggingface.co/datasets/google/fleurs (``data/LANGUAGE/``, the archives
below ``audio/`` extracted). Columns: id of the sentence, file name, raw transcription, normalised transcription,
characters, samples, gender.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

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

NAME = "fleurs"
_TABLES = ("train.tsv", "dev.tsv", "test.tsv")
_COLUMNS = 7
_GENDERS = {"MALE", "FEMALE", "OTHER"}
_LANGUAGES = {"cmn": "zh"}


class Settings(BaseModel):
    """What ``--set`` takes."""

    model_config = ConfigDict(extra="forbid")

    text: Literal["raw", "normalised"] = Field(
        "raw", description="raw: with case and punctuation; normalised: lower case without punctuation."
    )


def recognises(source: str) -> bool:
    """A folder with FLEURS' tables, or one such table."""
    return bool(_tables(Path(source)))


def _tables(source: Path) -> list[Path]:
    candidates = [source] if source.is_file() else [source / name for name in _TABLES]
    return [one for one in candidates if one.is_file() and one.suffix.lower() == ".tsv" and _looks_right(one)]


def _looks_right(path: Path) -> bool:
    for _, line in read_lines(path):
        cells = line.split("\t")
        return len(cells) == _COLUMNS and cells[6].strip().upper() in _GENDERS and cells[5].strip().isdigit()
    return False


def read(source: str, settings: Settings) -> Iterator[RawRow]:
    """One row per line of every table; the other transcription is kept as an extra column.

    Raises:
        InputError: there is no such table.
    """
    found = _tables(Path(source))
    if not found:
        raise InputError(
            f"{source} holds no FLEURS table (train.tsv, ... of seven columns without header): check the path"
        )
    for table in found:
        split = SPLIT_NAMES.get(table.stem.lower(), table.stem)
        for number, line in read_lines(table):
            yield _raw(f"{table} line {number}", line.split("\t"), table, split, settings)


def _raw(where: str, cells: list[str], table: Path, split: str, settings: Settings) -> RawRow:
    row = RawRow(where=where)
    if len(cells) != _COLUMNS:
        row.problem = (MALFORMED, f"it does not have {_COLUMNS} cells")
        return row
    sentence, name, raw, normalised, _, _, gender = cells
    code = table.resolve().parent.name.split("_")[0].lower()
    columns: dict[str, Any] = {"text": raw if settings.text == "raw" else normalised, "split": split}
    columns |= {"gender": gender.strip().lower(), "sentence_id": sentence}
    columns["normalised_text" if settings.text == "raw" else "raw_text"] = normalised if settings.text == "raw" else raw
    if 2 <= len(code) <= 3:
        columns["language"] = _LANGUAGES.get(code, code)
    row.columns = columns
    row.name = f"{table.stem}/{name}"
    row.audio = find_audio(name, table.parent / "audio" / table.stem, table.parent / table.stem, table.parent / "audio")
    if has_bad_bytes("".join(cells)):
        row.problem = (NOT_UTF8, "it is not UTF-8 text")
    return row


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The audio folders of the tables' splits."""
    path = Path(source)
    if path.is_file():
        return [], set()
    places = [place / table.stem for table in _tables(path) for place in (path / "audio", path)]
    return [one for one in places if one.is_dir()], set()


IMPORTER = Importer(NAME, recognises, read, folders, Settings)
