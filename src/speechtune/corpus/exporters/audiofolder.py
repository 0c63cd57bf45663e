"""The native layout, Hugging Face ``audiofolder``: metadata.jsonl and audio/, with every column.

It loads with ``datasets.load_dataset("audiofolder", data_dir=...)`` and is a speechtune corpus.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from speechtune.corpus.exporters.base import Exporter, ExportRow, always
from speechtune.corpus.table import STANDARD_COLUMNS, Corpus, count_by

NAME = "audiofolder"


def write(rows: Sequence[ExportRow], draft: Path, out: Path) -> list[str]:
    """Write metadata.jsonl and corpus.json."""
    utterances = [replace(row.utterance, file_name=row.place.as_posix()) for row in rows]
    corpus = Corpus(draft, utterances)
    corpus.card = {
        "kept": len(utterances),
        "seconds_of_audio": round(corpus.seconds_of_audio, 3),
        "fingerprint": corpus.fingerprint(),
        "languages": count_by(utterances, "language"),
        "splits": count_by(utterances, "split"),
    }
    corpus.save()
    if any(row.place.is_absolute() for row in rows):
        return ["the audio stays where it is: datasets' audiofolder reads only files below its folder (--audio copy)"]
    return []


EXPORTER = Exporter(NAME, write, always, frozenset(STANDARD_COLUMNS), extra=True, spans=True, cuts=True, copies=True)
