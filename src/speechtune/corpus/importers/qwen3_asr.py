"""The JSON lines of the official Qwen3-ASR finetuning script: ``audio`` and ``text``.

A text is ``language English<asr_text>...``. See finetuning/README.md of github.com/QwenLM/Qwen3-ASR. ``language
None`` means unknown; ``prompt`` and other columns are kept.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.corpus.importers.nemo import first_row, split_of_file
from speechtune.corpus.importers.raw import MALFORMED, Importer, RawRow, find_audio, read_jsonl_rows, standard_columns
from speechtune.corpus.languages import code_of_language

NAME = "qwen3_asr"
TEXT_MARK = "<asr_text>"
LANGUAGE_MARK = "language "


def recognises(source: str) -> bool:
    """A .jsonl file whose first row has ``audio`` and a text with the mark, or a folder that holds such files."""
    return bool(_tables(Path(source)))


def _tables(source: Path) -> list[Path]:
    candidates = [source] if source.is_file() else sorted(source.glob("*.jsonl"))
    found = []
    for one in candidates:
        if one.suffix.lower() == ".jsonl" and not one.name.startswith("."):
            row = first_row(one)
            if isinstance(row.get("audio"), str) and TEXT_MARK in str(row.get("text")):
                found.append(one)
    return found


def read(source: str) -> Iterator[RawRow]:
    """One row per line of every table.

    Raises:
        InputError: there is none.
    """
    found = _tables(Path(source))
    if not found:
        raise InputError(f"{source} holds no Qwen3-ASR table (JSON lines with audio and {TEXT_MARK}): check the path")
    for table in found:
        for where, row, problem in read_jsonl_rows(table):
            head, mark, text = str(row.get("text") or "").partition(TEXT_MARK)
            if problem is None and not (mark and head.startswith(LANGUAGE_MARK)):
                problem = (MALFORMED, f"its text does not begin with 'language NAME{TEXT_MARK}'")
            columns = standard_columns({**row, "text": text}, ignore=("audio",))
            language = head.removeprefix(LANGUAGE_MARK)
            if "language" not in columns and language not in ("", "None"):
                columns["language"] = code_of_language(language) or language
            if len(found) > 1 and (split := split_of_file(table)):
                columns.setdefault("split", split)
            name = str(row.get("audio") or "")
            raw = RawRow(where=where, columns=columns, problem=problem, name=name)
            if name:
                raw.audio = find_audio(name, table.parent, Path.cwd())
            yield raw


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The folder; nothing when a table was given by itself."""
    path = Path(source)
    return ([path] if path.is_dir() else []), set()


IMPORTER = Importer(NAME, recognises, read, folders)
