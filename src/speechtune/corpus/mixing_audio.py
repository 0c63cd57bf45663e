"""The audio of a mixture: what it sounds like as a digest, and where its files are put."""

from __future__ import annotations

import errno
import hashlib
import os
import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from speechtune.audio.io import AudioError, load_audio
from speechtune.core.errors import InputError
from speechtune.core.progress import track
from speechtune.corpus.table import Corpus, Utterance

AudioMode = Literal["reference", "link", "copy"]


def audio_digests(rows: Iterable[tuple[Corpus, Utterance]]) -> dict[int, str]:
    """SHA-256 of each utterance's samples (16 kHz mono, 16 bit), by ``id()`` of the utterance.

    The same recording as WAV and as FLAC has one digest; a lossy copy has another.

    Raises:
        InputError: a file cannot be read; the sentence names corpus and utterance.
    """
    digests = {}
    for corpus, row in track(list(rows), "audio digests"):
        try:
            samples = load_audio(corpus.path_of(row), row.start_s, row.end_s)
        except AudioError as error:
            raise InputError(f"{corpus.root} utterance {row.utterance_id}: {error}") from error
        whole = np.round(np.clip(samples, -1.0, 1.0) * 32767).astype("<i2")
        digests[id(row)] = hashlib.sha256(whole.tobytes()).hexdigest()
    return digests


def place_audio(corpus: Corpus, rows: Sequence[Utterance], name: str, draft: Path, mode: AudioMode) -> list[str]:
    """The ``file_name`` of each row in the mixture; with ``link`` and ``copy`` the files are put below ``draft``.

    A hard link costs no space; where the file system does not allow one, the file is copied.

    Raises:
        InputError: a file is missing.
    """
    placed: dict[Path, str] = {}
    names = []
    for row in rows:
        path = corpus.path_of(row).resolve()
        if path not in placed:
            if not path.is_file():
                raise InputError(f"{corpus.root} utterance {row.utterance_id}: {path} does not exist: import it again")
            placed[path] = str(path) if mode == "reference" else _put(path, corpus.root.resolve(), name, draft, mode)
        names.append(placed[path])
    return names


def _put(path: Path, root: Path, name: str, draft: Path, mode: AudioMode) -> str:
    if path.is_relative_to(root):
        inside = str(path.relative_to(root)).removeprefix("audio/")
    else:  # a referenced file: files of one name may come from several folders
        inside = f"{hashlib.sha256(str(path.parent).encode()).hexdigest()[:8]}/{path.name}"
    target = draft / "audio" / name / inside
    target.parent.mkdir(parents=True, exist_ok=True)
    if mode == "link":
        try:
            os.link(path, target)
            return str(target.relative_to(draft))
        except OSError as error:
            if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.EACCES):
                raise
    shutil.copyfile(path, target)
    return str(target.relative_to(draft))
