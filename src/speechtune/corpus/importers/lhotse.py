"""lhotse manifests: recordings and supervisions, or cuts, as JSON lines, plain or gzipped.

See https://lhotse.readthedocs.io (corpora, cuts). Read directly, so lhotse itself is not needed. Recordings must be
files of one channel each (several channels are averaged like everywhere); MonoCuts are read, MixedCuts and padding
are bad rows.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from speechtune.audio.io import MISSING
from speechtune.core.errors import InputError
from speechtune.corpus.importers.nemo import split_of_file
from speechtune.corpus.importers.raw import (
    MALFORMED,
    NO_ROW,
    NOT_UTF8,
    SPLIT_NAMES,
    Importer,
    RawRow,
    find_audio,
    has_bad_bytes,
)

NAME = "lhotse"
_FILE = re.compile(r"(?P<stem>.*?)(?P<kind>recordings|supervisions|cuts)(?P<rest>.*)\.jsonl(\.gz)?", re.IGNORECASE)
_EDGE_S = 0.002


def recognises(source: str) -> bool:
    """A cuts or supervisions file, or a folder with cuts, or with recordings and supervisions."""
    path = Path(source)
    if path.is_file():
        match = _FILE.fullmatch(path.name)
        return match is not None and match["kind"].lower() != "recordings"
    return bool(_sets(path))


def _sets(folder: Path) -> list[tuple[Path, Path | None]]:
    """Each set of manifests: the supervisions and their recordings, or the cuts and ``None``; not both of one set."""
    if not folder.is_dir():
        return []
    kinds: dict[tuple[str, str], dict[str, Path]] = {}
    for path in sorted(folder.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match and path.is_file() and not path.name.startswith("."):
            kinds.setdefault((match["stem"], match["rest"]), {})[match["kind"].lower()] = path
    found: list[tuple[Path, Path | None]] = []
    for group in kinds.values():
        if "recordings" in group and "supervisions" in group:
            found.append((group["supervisions"], group["recordings"]))
        elif "cuts" in group:
            found.append((group["cuts"], None))
    return found


def read(source: str) -> Iterator[RawRow]:
    """One row per supervision.

    Raises:
        InputError: no manifests, or a supervisions file without its recordings.
    """
    path = Path(source)
    if path.is_file():
        match = _FILE.fullmatch(path.name)
        kind = match["kind"].lower() if match else ""
        if kind == "cuts":
            sets: list[tuple[Path, Path | None]] = [(path, None)]
        else:
            sets = [one for one in _sets(path.parent) if path in one]
    else:
        sets = _sets(path)
    if not sets:
        raise InputError(f"{source} holds no lhotse cuts, nor recordings and supervisions: check the path")
    for table, recordings in sets:
        rows = _read_cuts(table) if recordings is None else _read_supervisions(table, recordings)
        for row in rows:
            if len(sets) > 1 and "split" not in row.columns and (split := split_of_file(_plain(table))):
                row.columns["split"] = split
            yield row


def _plain(path: Path) -> Path:
    return path.with_name(path.name.removesuffix(".gz"))


def _lines(path: Path) -> Iterator[tuple[str, dict[str, Any], tuple[str, str] | None]]:
    """Each line: where, the object, what is wrong with it."""
    try:
        data = path.read_bytes()
        content = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(f"cannot read {path} ({error}): copy it again") from error
    for number, line in enumerate(content.decode("utf-8", "surrogateescape").split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{path} line {number}"
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            yield where, {}, (MALFORMED, f"it is not valid JSON ({error.msg})")
            continue
        if not isinstance(row, dict):
            yield where, {}, (MALFORMED, "it is not a JSON object")
        elif has_bad_bytes(line):
            yield where, row, (NOT_UTF8, "it is not UTF-8 text")
        else:
            yield where, row, None


def _read_supervisions(table: Path, recordings: Path) -> Iterator[RawRow]:
    known = {}
    for where, recording, problem in _lines(recordings):
        if problem:
            raise InputError(f"{where}: {problem[1]}: repair that line")
        known[str(recording.get("id"))] = recording
    spoken = set()
    for where, row, problem in _lines(table):
        name = str(row.get("recording_id"))
        spoken.add(name)
        if problem is None and name not in known:
            problem = (MISSING, f"the recording {name} is not in {recordings.name}")
        yield _raw(where, row, known.get(name, {}), 0.0, table.parent, problem)
    for name, recording in known.items():
        if name not in spoken:
            raw = _raw(f"{recordings} ({name})", {"id": name, "recording_id": name}, recording, 0.0, table.parent, None)
            raw.problem = (NO_ROW, f"the recording {name} has no supervision")
            yield raw


def _read_cuts(table: Path) -> Iterator[RawRow]:
    for where, cut, problem in _lines(table):
        kind = cut.get("type", "MonoCut")
        supervisions = cut.get("supervisions") or []
        recording = cut.get("recording") or {}
        if problem is None and kind not in ("MonoCut", "MultiCut"):
            problem = (MALFORMED, f"it is a {kind}; only MonoCuts are read")
        elif problem is None and not supervisions:
            problem = (NO_ROW, f"the cut {cut.get('id')} has no supervision")
        if problem:
            yield RawRow(where=where, columns={"utterance_id": cut.get("id")}, problem=problem)
            continue
        for supervision in supervisions:
            yield _raw(where, supervision, recording, cut.get("start") or 0.0, table.parent, None)


def _raw(
    where: str,
    row: dict[str, Any],
    recording: dict[str, Any],
    shift_s: float,
    folder: Path,
    problem: tuple[str, str] | None,
) -> RawRow:
    custom = dict(row.get("custom") or {})
    columns: dict[str, Any] = {"utterance_id": row.get("id"), "text": row.get("text"), "language": row.get("language")}
    columns |= {"speaker_id": row.get("speaker"), "gender": row.get("gender")}
    columns |= {name: custom.pop(name) for name in ("age", "split", "session_id", "source") if name in custom}
    if "split" in columns:
        columns["split"] = SPLIT_NAMES.get(str(columns["split"]).lower(), columns["split"])
    raw = RawRow(where=where, columns={name: value for name, value in columns.items() if value is not None} | custom)
    raw.problem = problem
    source: dict[str, Any] = next(iter(recording.get("sources") or []), {})
    if source.get("type") == "file" and isinstance(source.get("source"), str):
        raw.name = source["source"]
        raw.audio = find_audio(raw.name, folder, Path.cwd())
    elif recording and problem is None:
        kind = source.get("type")
        raw.problem = (MISSING, f"its recording's source is {kind!r}; only files are read, and nothing is ever run")
    try:
        start_s, length_s = shift_s + float(row.get("start", 0.0)), float(row["duration"])
        whole = abs(start_s) < _EDGE_S and abs(length_s - float(recording.get("duration", -1.0))) < _EDGE_S
    except (KeyError, TypeError, ValueError):
        raw.problem = raw.problem or (MALFORMED, "its start and duration are not seconds")
        return raw
    if not whole:
        raw.columns |= {"start_s": round(start_s, 6), "end_s": round(start_s + length_s, 6)}
    return raw


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """None: the manifests are the list of what belongs to the set."""
    return [], set()


IMPORTER = Importer(NAME, recognises, read, folders)
