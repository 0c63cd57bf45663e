"""What is to be transcribed, one input at a time and always in the same order."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.corpus.stream import count_rows, iter_utterances
from speechtune.corpus.table import METADATA, Utterance

Row = dict[str, Any]

FILE_KEYS = ("file_name", "audio_path", "audio_filepath", "audio", "path")
ID_KEYS = ("utterance_id", "id")
DURATION_KEYS = ("duration_s", "audio_duration_sec", "duration")


@dataclass(frozen=True, slots=True)
class Input:
    """One input: the utterance (its duration below zero: not known yet), or why its row is not usable."""

    utterance_id: str
    utterance: Utterance | None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Shard:
    """Every ``count``-th input, from number ``index`` (counted from 1) on."""

    index: int = 1
    count: int = 1

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``3/8``.

        Raises:
            InputError: anything else.
        """
        head, slash, tail = text.partition("/")
        if not (slash and head.isdigit() and tail.isdigit() and 1 <= int(head) <= int(tail)):
            raise InputError(f"--shard {text!r} is not one: write it as in 3/8, the third of eight")
        return cls(int(head), int(tail))

    def of(self, inputs: Iterator[Input]) -> Iterator[Input]:
        """The inputs of this shard."""
        return islice(inputs, self.index - 1, None, self.count)

    def size(self, total: int) -> int:
        """How many of ``total`` inputs it has."""
        return len(range(self.index - 1, total, self.count))


class Source:
    """A corpus, a JSONL file with one recording a row, a folder of audio files, or one audio file.

    Raises:
        InputError: there is nothing of the kind.
    """

    def __init__(self, path: Path, split: str | None = None) -> None:
        if not path.exists():
            raise InputError(f"{path} does not exist: check the path")
        self.path, self.split = path, split
        self.kind = "folder" if path.is_dir() else "rows" if path.suffix == ".jsonl" else "file"
        if (path / METADATA).is_file():
            self.kind = "corpus"
        elif split:
            raise InputError(f"{path} is not a speechtune corpus, so it has no split {split!r}: leave --split out")
        self.root = path if path.is_dir() else path.parent

    def count(self) -> int:
        """How many inputs there are (corpus and rows: by lines; a folder is listed)."""
        if self.kind == "corpus" and not self.split:
            return count_rows(self.path)
        if self.kind == "rows":
            with self.path.open("rb") as stream:
                return sum(1 for line in stream if line.strip())
        return sum(1 for _ in self)

    def __iter__(self) -> Iterator[Input]:
        if self.kind == "corpus":
            for one in iter_utterances(self.path):
                if self.split in (None, one.split):
                    yield Input(one.utterance_id, one)
        elif self.kind == "rows":
            yield from _rows(self.path)
        else:
            names = _walk(self.root) if self.kind == "folder" else iter([self.path.name])
            for name in names:
                yield Input(name, Utterance(utterance_id=name, file_name=name, text="", duration_s=-1.0))


def _rows(path: Path) -> Iterator[Input]:
    with path.open("rb") as stream:
        for number, line in enumerate(stream, start=1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
                yield _of_row(row)
            except (ValueError, TypeError, AttributeError) as error:
                reason = " ".join(str(error).split())[:120]
                yield Input(f"line-{number}", None, f"{path} line {number} is no usable row ({reason})")


def _of_row(row: dict[str, Any]) -> Input:
    file = next((str(row[key]) for key in FILE_KEYS if row.get(key)), None)
    if file is None:
        raise ValueError(f"it has none of {', '.join(FILE_KEYS)}")
    name = next((str(row[key]) for key in ID_KEYS if row.get(key)), file)
    duration = next((float(row[key]) for key in DURATION_KEYS if row.get(key) is not None), -1.0)
    spans: Row = {key: float(row[key]) for key in ("start_s", "end_s") if row.get(key) is not None}
    return Input(name, Utterance(utterance_id=name, file_name=file, text="", duration_s=duration, **spans))


def _walk(root: Path, below: str = "") -> Iterator[str]:
    """Audio files in order of their names; only the names of one folder (and its parents) are held at a time."""
    from speechtune.audio.io import AUDIO_SUFFIXES

    with os.scandir(root / below) as entries:
        found = sorted((entry.name, entry.is_dir(follow_symlinks=True)) for entry in entries if entry.name[0] != ".")
    for name, is_folder in found:
        path = f"{below}/{name}" if below else name
        if is_folder:
            yield from _walk(root, path)
        elif os.path.splitext(name)[1].lower() in AUDIO_SUFFIXES:
            yield path
