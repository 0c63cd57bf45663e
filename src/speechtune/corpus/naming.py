"""Utterance ids made from file names, and audio file names made from utterance ids."""

from __future__ import annotations

import hashlib
import re
from pathlib import PurePosixPath

_UNINFORMATIVE = frozenset({"audio", "clips", "wav", "wavs", "data"})
_MAX_NAME_BYTES = 120
# datasets.load_dataset("audiofolder") takes a file whose name has one of these words, set off by - . _ / blank or
# digits, for a split of its own and then loses the metadata (datasets 5.2, data_files.py).
_SPLIT_WORD = re.compile(
    r"(?:^|[-._ 0-9])(train|training|validation|valid|dev|val|test|testing|eval|evaluation)(?:[-._ 0-9]|$)",
    re.IGNORECASE,
)


def id_from_name(name: str, start_s: float | None = None, end_s: float | None = None) -> str:
    """An utterance id for a file inside its source: the path without suffix, joined by ``-``, blanks as ``_``.

    A span adds its start and end in milliseconds, as Kaldi's segment ids do.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    folders = [
        part for part in path.parent.parts if part not in ("/", ".", "..") and part.lower() not in _UNINFORMATIVE
    ]
    base = re.sub(r"\s+", "_", "-".join([*folders, path.stem]))
    if start_s is None and end_s is None:
        return base
    end = "end" if end_s is None else f"{round(end_s * 1000):07d}"
    return f"{base}-{round((start_s or 0.0) * 1000):07d}-{end}"


def short_hash(text: str, digits: int = 8) -> str:
    """The first hexadecimal digits of the SHA-256 of ``text``."""
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()[:digits]


def audio_stem(utterance_id: str, taken: set[str]) -> str:
    """A file name without suffix for an utterance, safe on every file system and unlike (in any case) those ``taken``.

    It is the id itself where the id is harmless; else what is harmful becomes ``_`` and a hash of the id is added. The
    name is added to ``taken``.
    """
    stem = re.sub(r"[^\w.+=-]", "_", utterance_id).strip("._ ")
    while len(stem.encode()) > _MAX_NAME_BYTES:
        stem = stem[:-1]
    if _SPLIT_WORD.search(stem):
        stem = f"u{short_hash(utterance_id, 16)}"
    elif stem != utterance_id or stem.casefold() in taken:
        stem = f"{stem}-{short_hash(utterance_id)}" if stem else f"u{short_hash(utterance_id, 16)}"
    taken.add(stem.casefold())
    return stem
