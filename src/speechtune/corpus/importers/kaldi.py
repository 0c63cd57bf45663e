"""A Kaldi data directory: wav.scp and text, and optionally segments, utt2spk or spk2utt, spk2age, spk2gender, utt2lang.

See https://kaldi-asr.org/doc/data_prep.html. Commands in wav.scp (a trailing ``|``) and archives are refused: nothing
in a data file is ever executed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechtune.audio.io import MISSING
from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import (
    DUPLICATE,
    MALFORMED,
    NO_ROW,
    NOT_UTF8,
    SPLIT_NAMES,
    Importer,
    RawRow,
    find_audio,
    has_bad_bytes,
    read_lines,
)

NAME = "kaldi"
NO_SPEAKER = "no_speaker"
"""A file that speechtune's export adds: the utterances that stand for their unknown speaker in utt2spk, one a line."""
UNSPLIT = "unsplit"
"""The directory of an export for the utterances that are in no split, where others are."""
_PER_SPEAKER = {"spk2age": "age", "spk2gender": "gender"}
_PER_UTTERANCE = {"utt2lang": "language", "utt2age": "age", "utt2gender": "gender"}


def recognises(source: str) -> bool:
    """A folder with wav.scp and text, or whose folders train, dev, test, ... have them."""
    return Path(source).is_dir() and bool(_directories(Path(source)))


def _directories(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    if (root / "wav.scp").is_file() and (root / "text").is_file():
        return [root]
    inside = [one for one in sorted(root.iterdir()) if one.name.lower() in (*SPLIT_NAMES, UNSPLIT)]
    return [one for one in inside if (one / "wav.scp").is_file() and (one / "text").is_file()]


def read(source: str) -> Iterator[RawRow]:
    """One row per segment (or recording, without ``segments``), then one per line of ``text`` that has no audio."""
    root = Path(source)
    directories = _directories(root)
    if not directories:
        raise InputError(f"{root} is not a Kaldi data directory: it needs the files wav.scp and text")
    for directory in directories:
        split = None if directory == root else SPLIT_NAMES.get(directory.name.lower())
        for row in _read_directory(directory):
            if split and not row.problem:
                row.columns["split"] = split
            yield row


def _pairs(path: Path) -> list[tuple[int, str, str]]:
    """Line number, key and the rest of each line; Kaldi separates by ASCII blanks only."""
    pairs = []
    for number, line in read_lines(path):
        key, _, rest = re.sub(r"[ \t]+", " ", line.strip(" \t"), count=1).partition(" ")
        pairs.append((number, key, rest.strip(" \t")))
    return pairs


def _lookup(path: Path) -> dict[str, str]:
    """A table as a dictionary (empty if there is none).

    Raises:
        InputError: a key has two different values.
    """
    found: dict[str, str] = {}
    for number, key, value in _pairs(path) if path.is_file() else []:
        if found.setdefault(key, value) != value:
            raise InputError(f"{path} line {number} gives {key!r} a second, different value: keep one of them")
    return found


def _read_directory(directory: Path) -> Iterator[RawRow]:
    recordings = _recordings(directory)
    texts: dict[str, tuple[int, str]] = {}
    again = []
    for number, key, text in _pairs(directory / "text"):
        if key in texts:
            again.append((number, key))
        texts.setdefault(key, (number, text))
    known = _speaker_facts(directory)
    spoken = set()
    for where, utterance, recording, span in _units(directory, recordings):
        columns: dict[str, Any] = {"utterance_id": utterance, **known(utterance), **span}
        row = RawRow(where=where, columns=columns)
        spoken.add(utterance)
        if utterance in texts:
            number, columns["text"] = texts[utterance]
            row.where = f"{directory / 'text'} line {number} (utterance {utterance})"
        else:
            row.problem = (NO_ROW, f"the utterance {utterance} has no line in {directory / 'text'}")
        if recording in recordings:
            row.name = recordings[recording]
            row.audio = find_audio(row.name, directory, Path.cwd())
        elif recording is None:
            row.problem = (MALFORMED, "it is not 'utterance recording start end' with times in seconds")
        else:
            row.problem = (MISSING, f"the recording {recording} is not in {directory / 'wav.scp'}")
        if any(has_bad_bytes(value) for value in (utterance, columns.get("text"), row.name)):
            row.problem = (NOT_UTF8, "it is not UTF-8 text")
        yield row
    for key, (number, text) in texts.items():
        if key not in spoken:
            columns = {"utterance_id": key, "text": text}
            problem = (MISSING, f"the utterance {key} is not in {_spans_file(directory).name}")
            yield RawRow(where=f"{directory / 'text'} line {number}", columns=columns, problem=problem)
    for number, key in again:
        problem = (DUPLICATE, f"line {texts[key][0]} has the utterance {key} already")
        yield RawRow(where=f"{directory / 'text'} line {number}", columns={"utterance_id": key}, problem=problem)


def _recordings(directory: Path) -> dict[str, str]:
    """Recording id -> file name from wav.scp."""
    path = directory / "wav.scp"
    found: dict[str, str] = {}
    for number, key, name in _pairs(path):
        if name.endswith("|") or name.startswith("|"):
            raise InputError(
                f"{path} line {number} is a command, which is never run: decode it to a file and name that"
            )
        if re.search(r"\.ark(:\d+)?$", name):
            raise InputError(f"{path} line {number} names a Kaldi archive: extract it to audio files and name those")
        if not name:
            raise InputError(f"{path} line {number} names no audio file for {key!r}: add it or remove the line")
        if key in found:
            raise InputError(f"{path} line {number} names {key!r} a second time: keep one of them")
        found[key] = name
    return found


def _spans_file(directory: Path) -> Path:
    segments = directory / "segments"
    return segments if segments.is_file() else directory / "wav.scp"


def _units(directory: Path, recordings: dict[str, str]) -> Iterator[tuple[str, str, str | None, dict[str, float]]]:
    """Where, utterance id, recording id (``None``: malformed line) and span of each segment or recording."""
    path = _spans_file(directory)
    if path.name == "wav.scp":
        for key in recordings:
            yield f"{path} ({key})", key, key, {}
        return
    for number, key, rest in _pairs(path):
        where = f"{path} line {number}"
        cells = rest.split()
        try:
            recording, start, end = cells[0], float(cells[1]), float(cells[2])
        except (IndexError, ValueError):
            yield where, key, None, {}
            continue
        yield where, key, recording, {"start_s": start} if end == -1 else {"start_s": start, "end_s": end}


def _speaker_facts(directory: Path) -> Any:
    """A function from utterance id to its columns speaker_id, age, gender and language, as far as they are known."""
    speakers = _lookup(directory / "utt2spk")
    if not speakers:
        for speaker, utterances in _lookup(directory / "spk2utt").items():
            speakers.update(dict.fromkeys(utterances.split(), speaker))
    for utterance in _lookup(directory / NO_SPEAKER):
        speakers.pop(utterance, None)
    by_speaker = {column: _lookup(directory / name) for name, column in _PER_SPEAKER.items()}
    by_utterance = [(column, _lookup(directory / name)) for name, column in _PER_UTTERANCE.items()]

    def facts(utterance: str) -> dict[str, str]:
        columns: dict[str, str] = {}
        if speaker := speakers.get(utterance):
            columns["speaker_id"] = speaker
            columns.update({column: table[speaker] for column, table in by_speaker.items() if speaker in table})
        columns.update({column: table[utterance] for column, table in by_utterance if utterance in table})
        return columns

    return facts


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The data directories: audio below them must be named by wav.scp."""
    return _directories(Path(source)), set()


IMPORTER = Importer(NAME, recognises, read, folders)
