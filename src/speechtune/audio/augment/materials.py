"""What effects work with besides the clip itself: recordings of noise, other people's speech, impulse responses."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from speechtune.audio.io import AUDIO_SUFFIXES, SAMPLE_RATE_HZ, load_audio, probe
from speechtune.core.errors import InputError
from speechtune.core.files import read_jsonl

KEPT_RECORDINGS = 64
"""Recordings of at most `KEPT_S` seconds that a process keeps decoded; longer ones are read span by span."""
KEPT_S = 60.0


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording that effects may read: a name that stays the same between runs, and where the samples are."""

    name: str
    path: Path
    duration_s: float
    start_s: float = 0.0
    speaker_id: str | None = None
    words: str = ""
    """What a search for a kind of noise looks at: the path and the category, lower case."""

    def read(self, offset_s: float, samples: int) -> npt.NDArray[np.float32]:
        """``samples`` samples from ``offset_s`` on; a recording that ends before begins again.

        Raises:
            AudioError: the file cannot be read.
        """
        if self.duration_s <= KEPT_S:
            whole = _whole(self.path, self.start_s, self.start_s + self.duration_s)
            first = round(offset_s * SAMPLE_RATE_HZ) % len(whole)
            return np.resize(np.roll(whole, -first), samples)
        start_s = self.start_s + min(max(offset_s, 0.0), self.duration_s)
        end_s = min(start_s + samples / SAMPLE_RATE_HZ, self.start_s + self.duration_s)
        part = load_audio(self.path, start_s, end_s) if end_s - start_s > 0.01 else np.zeros(0, np.float32)
        return part[:samples] if len(part) >= samples else np.concatenate([part, self.read(0.0, samples - len(part))])


@lru_cache(maxsize=KEPT_RECORDINGS)
def _whole(path: Path, start_s: float, end_s: float) -> npt.NDArray[np.float32]:
    samples = load_audio(path, start_s, end_s)
    samples.flags.writeable = False
    return samples


@dataclass(slots=True)
class Materials:
    """Everything the effects of one `Augmenter` may use.

    ``noises`` are recordings of noise, ``speech`` other utterances (for babble), ``impulses`` room impulse responses.
    ``max_duration_s`` is the length that no effect may exceed.
    """

    noises: list[Recording] = field(default_factory=list)
    speech: list[Recording] = field(default_factory=list)
    impulses: list[Recording] = field(default_factory=list)
    max_duration_s: float = 30.0
    _named: dict[str, dict[str, Recording]] = field(default_factory=dict, repr=False)

    def recording(self, shelf: str, name: str) -> Recording:
        """The recording of a name on ``noises``, ``speech`` or ``impulses``.

        Raises:
            InputError: a draw names a recording that is not there.
        """
        if shelf not in self._named:
            self._named[shelf] = {one.name: one for one in getattr(self, shelf)}
        try:
            return self._named[shelf][name]
        except KeyError:
            raise InputError(
                f"a draw needs {name!r}, which is not among the {len(self._named[shelf])} {shelf} given: give the same "
                "directory as when it was drawn"
            ) from None


def recordings_below(directory: Path | str, what: str) -> list[Recording]:
    """Every audio file below a directory, by name; ``metadata.jsonl`` may give each a ``category``.

    Only headers are read. ``what`` says in an error what they were wanted for (``noise``, ``impulse response``).

    Raises:
        InputError: the directory is missing, holds no audio, or a file in it is not readable audio.
    """
    root = Path(directory)
    if not root.is_dir():
        raise InputError(f"the {what} directory {root} does not exist: check the path")
    categories = {}
    if (root / "metadata.jsonl").is_file():
        categories = {row.get("file_name"): row.get("category") or "" for row in read_jsonl(root / "metadata.jsonl")}
    found = []
    for path in sorted(_audio_files(root)):
        name = path.relative_to(root).as_posix()
        words = f"{name} {categories.get(name, '')}".lower()
        found.append(Recording(name, path, probe(path).duration_s, words=words))
    if not found:
        raise InputError(f"the {what} directory {root} holds no audio files: put recordings there or name another")
    return found


def _audio_files(root: Path) -> Iterable[Path]:
    for folder, _, names in os.walk(root, followlinks=True):
        yield from (Path(folder) / name for name in names if Path(name).suffix.lower() in AUDIO_SUFFIXES)
