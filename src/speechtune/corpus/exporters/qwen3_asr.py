"""The JSON lines of the official Qwen3-ASR finetuning script: one file for each split.

``audio`` is an absolute path, ``text`` is ``language English<asr_text>...`` (``language None`` where it is unknown),
as finetuning/README.md of github.com/QwenLM/Qwen3-ASR has it; the script passes over the other columns, which make an
import whole. It has no place for a part of a file, so spans are cut out (``--audio copy``).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechtune.core.files import write_jsonl
from speechtune.corpus.exporters.base import Exporter, ExportRow, always, by_split, part_names
from speechtune.corpus.importers.qwen3_asr import LANGUAGE_MARK, TEXT_MARK
from speechtune.corpus.languages import QWEN3_ASR_LANGUAGES, name_of_language
from speechtune.corpus.table import STANDARD_COLUMNS

NAME = "qwen3_asr"
_NOT_CARRIED = {"start_s", "end_s"}


def write(rows: Sequence[ExportRow], draft: Path, out: Path) -> list[str]:
    """Write ``SPLIT.jsonl`` for each split, ``data.jsonl`` for the utterances without one."""
    parts = by_split(rows)
    names = part_names(list(parts))
    for split, part in parts.items():
        write_jsonl(draft / f"{names[split] or 'data'}.jsonl", [_row(row, out) for row in part])
    named = {row.utterance.language: name_of_language(row.utterance.language) for row in rows}
    notes = []
    if nameless := sorted(str(code or "unknown") for code, name in named.items() if name is None):
        notes.append(f"language None was written for: {', '.join(nameless)}")
    if strange := sorted(name for name in named.values() if name and name not in QWEN3_ASR_LANGUAGES.values()):
        notes.append(f"Qwen3-ASR was not trained on: {', '.join(strange)}")
    return notes


def _row(row: ExportRow, out: Path) -> dict[str, Any]:
    utterance = row.utterance
    language = name_of_language(utterance.language)
    columns = {name: utterance.column(name) for name in STANDARD_COLUMNS if name not in ("file_name", "text")}
    return {
        "audio": row.absolute(out),
        "text": f"{LANGUAGE_MARK}{language}{TEXT_MARK}{utterance.text}",
        **{name: value for name, value in columns.items() if value is not None and name not in _NOT_CARRIED},
    }


_CARRIES = frozenset(STANDARD_COLUMNS) - _NOT_CARRIED
EXPORTER = Exporter(NAME, write, always, _CARRIES, extra=False, spans=False, cuts=True, copies=False)
