"""What the layouts of timed transcripts (CHAT, ELAN, TextGrid, subtitles, Whisper) share: cues, and their recording."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.audio.io import AUDIO_SUFFIXES
from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import OVERLAP, RawRow, has_bad_bytes, split_of_folder, visible_files
from speechtune.corpus.naming import id_from_name

OVERLAP_SLACK_S = 0.05
"""Two spans of one speaker may share this much: annotators place boundaries by hand (own choice)."""

_MEDIA_FOLDERS = ("", "audio", "media", "wav", "..", "../audio", "../media", "../wav")
_PREFERRED = (".wav", ".flac", ".ogg", ".opus", ".mp3", ".m4a")

Reason = tuple[str, str]


@dataclass(slots=True, kw_only=True)
class Cue:
    """One timed piece of a transcript; times in seconds from the beginning of the recording (``None``: not stated)."""

    where: str
    text: str
    start_s: float | None
    end_s: float | None
    speaker: str | None = None
    columns: dict[str, Any] = field(default_factory=dict)
    problem: Reason | None = None
    skip: Reason | None = None


def transcripts(source: str, suffixes: Iterable[str], what: str) -> list[Path]:
    """The files with one of the suffixes that ``source`` is or holds.

    Raises:
        InputError: there is none.
    """
    path = Path(source)
    wanted = frozenset(suffixes)
    found = [path] if path.is_file() and path.suffix.lower() in wanted else []
    if path.is_dir():
        found = visible_files(path, wanted)
    if not found:
        raise InputError(f"{source} holds no {what} ({', '.join(sorted(wanted))}): check the path or --format")
    return found


def holds(source: str, suffixes: Iterable[str]) -> bool:
    """Whether ``source`` is, or holds, a file with one of the suffixes."""
    path = Path(source)
    wanted = frozenset(suffixes)
    return path.suffix.lower() in wanted if path.is_file() else bool(visible_files(path, wanted))


def media_of(transcript: Path, *names: str) -> Path:
    """The recording of a transcript: one of the stated names, else the transcript's own, with any audio suffix.

    Looked for beside the transcript, in ``audio/``, ``media/`` or ``wav/`` there, and in those of the parent folder. If
    nothing is found, the path where it is expected.
    """
    wanted = [Path(name.replace("\\", "/")).name for name in names if name] + [transcript.stem]
    for folder in _MEDIA_FOLDERS:
        for name in wanted:
            exact = transcript.parent / folder / name
            if exact.suffix.lower() in AUDIO_SUFFIXES and exact.is_file():
                return exact
            stem = name if exact.suffix.lower() not in AUDIO_SUFFIXES else Path(name).stem
            found = _with_stem(transcript.parent / folder, stem)
            if found:
                return found
    return transcript.parent / (wanted[0] if Path(wanted[0]).suffix.lower() in AUDIO_SUFFIXES else f"{wanted[0]}.wav")


def _with_stem(folder: Path, stem: str) -> Path | None:
    candidates = [folder / f"{stem}{suffix}" for suffix in (*_PREFERRED, *sorted(AUDIO_SUFFIXES - set(_PREFERRED)))]
    return next((one for one in candidates if one.is_file()), None)


def cue_rows(cues: Iterable[Cue], audio: Path, root: Path, overlaps_are_faults: bool = True) -> Iterator[RawRow]:
    """A row for each cue of one recording; two cues of one speaker that overlap are both a problem, unless told not."""
    listed = list(cues)
    if overlaps_are_faults:
        _mark_overlaps(listed)
    name = _relative(audio, root)
    split = split_of_folder(name)
    for cue in listed:
        columns: dict[str, Any] = {"text": cue.text, "session_id": audio.stem, **cue.columns}
        if cue.speaker:
            columns["speaker_id"] = cue.speaker
        if split:
            columns["split"] = split
        if cue.start_s is not None and cue.end_s is not None:
            columns |= {"start_s": cue.start_s, "end_s": cue.end_s}
            columns["utterance_id"] = _identity(name, cue)
        problem = cue.problem
        if has_bad_bytes(cue.text):
            problem = ("not UTF-8", "it is not UTF-8 text")
        yield RawRow(where=cue.where, audio=audio, name=name, columns=columns, problem=problem, skip=cue.skip)


def _identity(name: str, cue: Cue) -> str:
    speaker = re.sub(r"\s+", "_", cue.speaker) if cue.speaker else ""
    base = id_from_name(name, cue.start_s, cue.end_s)
    return f"{base}-{speaker}" if speaker else base


def _relative(audio: Path, root: Path) -> str:
    try:
        return audio.resolve().relative_to(root.resolve()).as_posix()
    except ValueError:
        return audio.name


def _mark_overlaps(cues: list[Cue]) -> None:
    latest: dict[str | None, Cue] = {}
    timed = [cue for cue in cues if cue.problem is None and cue.skip is None and cue.end_s is not None]
    for cue in sorted(timed, key=lambda one: (one.start_s or 0.0, one.end_s or 0.0)):
        before = latest.get(cue.speaker)
        start_s, end_s = cue.start_s or 0.0, cue.end_s or 0.0
        if before is not None and start_s < (before.end_s or 0.0) - OVERLAP_SLACK_S and end_s > start_s:
            for one, other in ((before, cue), (cue, before)):
                one.problem = one.problem or (OVERLAP, f"it overlaps {other.where} of the same speaker")
        if before is None or end_s > (before.end_s or 0.0):
            latest[cue.speaker] = cue


def no_folders(source: str) -> tuple[list[Path], set[Path]]:
    """No folder must be named completely: recordings without a transcript are common beside timed transcripts."""
    return [], set()


def words_of_setting(value: str) -> list[str]:
    """A comma-separated setting as a list; blanks around the commas are taken off."""
    return [word.strip() for word in value.split(",") if word.strip()]
