"""A fairseq (wav2vec 2.0) manifest, as Shrutilipi is distributed: ``train.tsv`` and ``train.wrd``, line by line.

The first line of the .tsv is the folder of the audio, then one path and number of samples a line; line n of the .wrd
is the transcript of line n + 1 of the .tsv. Where the stated folder does not exist, the table's own folder stands for
it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.corpus.importers.nemo import split_of_file
from speechtune.corpus.importers.raw import (
    MALFORMED,
    NOT_UTF8,
    Importer,
    RawRow,
    find_audio,
    has_bad_bytes,
    read_lenient,
)

NAME = "fairseq"


def recognises(source: str) -> bool:
    """A .tsv with a .wrd of the same name beside it, or a folder that holds such."""
    return bool(_tables(Path(source)))


def _tables(source: Path) -> list[Path]:
    candidates = [source] if source.is_file() else sorted(source.glob("*.tsv"))
    return [one for one in candidates if one.suffix == ".tsv" and one.with_suffix(".wrd").is_file()]


def _lines(path: Path) -> list[str]:
    lines = [line.rstrip("\r") for line in read_lenient(path).split("\n")]
    return lines[:-1] if lines[-1] == "" else lines


def read(source: str) -> Iterator[RawRow]:
    """One row per line of every .tsv.

    Raises:
        InputError: there is none, or the two files have different numbers of lines.
    """
    found = _tables(Path(source))
    if not found:
        raise InputError(f"{source} holds no .tsv with a .wrd beside it: check the path")
    for table in found:
        root, *names = _lines(table)
        texts = _lines(table.with_suffix(".wrd"))
        if len(names) != len(texts):
            raise InputError(
                f"{table} names {len(names)} recordings, but {table.with_suffix('.wrd').name} has {len(texts)} lines: "
                "they must correspond line by line"
            )
        split = split_of_file(table)
        for number, (line, text) in enumerate(zip(names, texts, strict=True), start=2):
            name, _, samples = line.partition("\t")
            row = RawRow(where=f"{table} line {number}", name=name, columns={"text": text})
            if split:
                row.columns["split"] = split
            if not name or not samples.strip().isdigit():
                row.problem = (MALFORMED, "it is not 'path<tab>samples'")
            elif has_bad_bytes(line + text):
                row.problem = (NOT_UTF8, "it is not UTF-8 text")
            row.audio = find_audio(name, Path(root), table.parent, table.parent / Path(root).name) if name else None
            yield row


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """None: a manifest is often a part of what lies in its folder."""
    return [], set()


IMPORTER = Importer(NAME, recognises, read, folders)
