"""A data set of the Hugging Face hub, ``hf:owner/name[:config][@split]``, or a local folder that ``datasets`` loads.

Nothing here decodes audio: the encoded bytes are taken as they are and decoded by `speechtune.audio.io`, so torchcodec
is not needed. This is the only importer that uses the network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from speechtune.audio.io import MISSING
from speechtune.core.errors import InputError, missing_extra
from speechtune.corpus.importers.raw import (
    ALIASES,
    SPLIT_NAMES,
    Importer,
    RawRow,
    standard_columns,
)

NAME = "huggingface"
_SPEC = re.compile(r"hf:(?P<name>[^:@]+)(:(?P<config>[^:@]+))?(@(?P<split>[^:@]+))?")


def recognises(source: str) -> bool:
    """Anything that begins with ``hf:``."""
    return source.startswith("hf:")


def read(source: str) -> Iterator[RawRow]:
    """One row per example of every split (or of the one that was asked for).

    Raises:
        InputError: the name is malformed, the data set cannot be loaded, or it has no audio or no text column.
    """
    match = _SPEC.fullmatch(source)
    if match is None:
        raise InputError(
            f"{source} is not hf:owner/name, hf:owner/name:config or hf:owner/name:config@split: correct it"
        )
    for split, table, column in _load(source, match["name"], match["config"], match["split"]):
        plain = table.remove_columns([column])
        for index in range(len(table)):
            row = plain[index]
            columns = standard_columns({name: _jsonable(value) for name, value in row.items()})
            columns.setdefault("split", SPLIT_NAMES.get(split, split))
            yield _raw(f"{source} split {split} row {index + 1}", table, index, column, columns, f"{split}-{index:06d}")


def _load(source: str, name: str, config: str | None, split: str | None) -> Iterator[tuple[str, Any, str]]:
    """Each split: its name, its table with undecoded audio, and the audio column."""
    try:
        import datasets
    except ImportError as error:
        raise missing_extra("datasets", "hub") from error
    try:
        loaded = datasets.load_dataset(name, config, split=split)
    except Exception as error:  # datasets raises a dozen unrelated types for a wrong name, config, split or no network
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"cannot load {source} ({first}): check the name, the config, the split and the network"
        ) from error
    parts = loaded.items() if isinstance(loaded, dict) else [(split or "train", loaded)]
    for part, table in parts:
        kinds = table.features.items()
        column = next((key for key, kind in kinds if isinstance(kind, datasets.Audio)), None)
        if column is None:
            raise InputError(f"{source} has no audio column (it has: {', '.join(table.features)}): choose another")
        if not set(ALIASES["text"]) & set(table.features):
            raise InputError(
                f"{source} has no column of transcripts (it has: {', '.join(table.features)}; known names: "
                f"{', '.join(ALIASES['text'])}): choose another data set or config"
            )
        yield str(part), table.cast_column(column, datasets.Audio(decode=False)), column


def _raw(where: str, table: Any, index: int, column: str, columns: dict[str, Any], name: str) -> RawRow:
    audio = table[index][column] or {}
    path = audio.get("path") or ""
    row = RawRow(where=where, columns=columns, name=f"{name}{Path(path).suffix}")
    columns.setdefault("utterance_id", name)
    if audio.get("bytes"):
        row.read_bytes = _fetch(table, index, column)
    elif path and "://" not in path:
        row.audio = Path(path)
    else:
        row.problem = (MISSING, "it has no audio")
    return row


def _fetch(table: Any, index: int, column: str) -> Callable[[], bytes]:
    return lambda: table[index][column]["bytes"]


def _jsonable(value: Any) -> Any:
    plain = isinstance(value, (str, int, float, bool, list, dict)) or value is None
    return value if plain else str(value)


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """None: a hub data set has no loose audio files."""
    return [], set()


IMPORTER = Importer(NAME, recognises, read, folders)
