"""Whether ``submission.jsonl`` is what the format file asks for."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from speechtune.core.files import read_jsonl


def check_output(format_file: Path, output: Path, text_key: str = "orthographic_text") -> list[str]:
    """What is wrong, each in one sentence; nothing: every id once, none extra, in order, valid UTF-8 JSONL, texts.

    Raises:
        InputError: the format file itself cannot be read.
    """
    if not output.is_file():
        return [f"{output.name} was not written"]
    data = output.read_bytes()
    wrong = ["it begins with a byte order mark"] if data.startswith(b"\xef\xbb\xbf") else []
    try:
        lines = data.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        return [*wrong, f"it is not valid UTF-8 (byte {error.start})"]
    if lines and lines[-1] == "":
        lines.pop()
    else:
        wrong.append("its last line has no end")
    rows: list[dict[str, Any]] = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            return [*wrong, f"line {number} is not valid JSON ({error.msg})"]
        if not isinstance(row, dict) or set(row) != {"utterance_id", text_key}:
            return [*wrong, f"line {number} must have utterance_id and {text_key} and nothing else"]
        if not isinstance(row[text_key], str):
            return [*wrong, f"line {number} has {row[text_key]!r} for a text"]
        rows.append(row)
    return wrong + check_ids([str(row["utterance_id"]) for row in read_jsonl(format_file)], rows)


def check_ids(expected: list[str], rows: list[dict[str, Any]]) -> list[str]:
    """What is wrong with the ids: missing, extra, twice, or out of order."""
    found = [row["utterance_id"] for row in rows]
    wrong = []
    missing, extra = sorted(set(expected) - set(found)), sorted(map(str, set(found) - set(expected)))
    if missing:
        wrong.append(f"{len(missing)} ids are missing, as in {missing[0]}")
    if extra:
        wrong.append(f"{len(extra)} ids are not asked for, as in {extra[0]}")
    if len(set(found)) < len(found):
        twice = next(name for name in found if found.count(name) > 1)
        wrong.append(f"{len(found) - len(set(found))} ids stand there twice, as in {twice}")
    if not wrong and found != expected:
        place = next(number for number, pair in enumerate(zip(found, expected, strict=True), 1) if pair[0] != pair[1])
        wrong.append(f"the ids are not in the order of the format file (line {place})")
    return wrong
