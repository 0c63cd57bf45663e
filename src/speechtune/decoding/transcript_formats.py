"""Writing transcripts as JSONL, JSON, plain text or subtitles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path, PurePosixPath
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, write_json, write_text
from speechtune.decoding.subtitles import cues_of, to_srt, to_vtt
from speechtune.decoding.transcript import Transcript, write_transcripts

FORMATS = ("jsonl", "json", "txt", "srt", "vtt")


def format_of(out: Path | None, named: str | None) -> str:
    """The format that is asked for by name, else by the suffix of the output; JSONL by default.

    Raises:
        InputError: an unknown name.
    """
    if named is not None and named not in FORMATS:
        raise InputError(f"--format {named!r} is unknown: use {', '.join(FORMATS)}")
    suffix = out.suffix.lstrip(".").lower() if out else ""
    return named or (suffix if suffix in FORMATS else "jsonl")


def check_target(out: Path, kind: str, recordings: int, overwrite: bool) -> None:
    """Refuse before the work what cannot be written behind it: subtitles of several recordings need a new directory.

    Raises:
        InputError: ``out`` is there already.
    """
    if kind not in ("srt", "vtt") or recordings == 1:
        if out.is_dir():
            raise InputError(f"{out} is a directory: give --out the name of a file")
    elif out.is_file():
        raise InputError(f"{out} is a file, and {recordings} recordings have a file each: choose another --out")
    elif out.is_dir() and any(out.iterdir()) and not overwrite:
        raise InputError(f"{out} exists and is not empty: choose another --out or add --overwrite")


def write_as(
    out: Path, transcripts: Sequence[Transcript], durations_s: Sequence[float], kind: str, overwrite: bool = False
) -> None:
    """Write transcripts to a file; subtitles of several recordings to a directory, one file each.

    Args:
        out: the file, or the directory.
        transcripts: what was said.
        durations_s: of the recordings, in the same order.
        kind: one of `FORMATS`.
        overwrite: replace a directory that exists.

    Raises:
        InputError: the place cannot be written to, or two recordings would have the same subtitle file.
    """
    if kind == "jsonl":
        write_transcripts(out, list(transcripts))
    elif kind == "json":
        rows = [_row(one, seconds) for one, seconds in zip(transcripts, durations_s, strict=True)]
        write_json(out, rows[0] if len(rows) == 1 else {"recordings": rows})
    elif kind == "txt":
        if len(transcripts) == 1:
            write_text(out, "".join(f"{line}\n" for line in _lines(transcripts[0])))
        else:
            write_text(out, "".join(f"{one.utterance_id}\t{one.text}\n" for one in transcripts))
    elif len(transcripts) == 1:
        write_text(out, _subtitles(transcripts[0], durations_s[0], kind))
    else:
        names = [str(PurePosixPath(one.utterance_id).with_suffix(f".{kind}")) for one in transcripts]
        double = next((name for name in names if names.count(name) > 1), None)
        if double:
            raise InputError(f"two recordings would both be written to {double}: rename one of them")
        with new_directory(out, overwrite) as draft:
            for name, one, seconds in zip(names, transcripts, durations_s, strict=True):
                write_text(draft / name.lstrip("/"), _subtitles(one, seconds, kind))


def _row(one: Transcript, duration_s: float) -> dict[str, Any]:
    row = {name: value for name, value in asdict(one).items() if name == "text" or value not in (None, [])}
    return {**row, "duration_s": round(duration_s, 3), "segments": segments_of(one, duration_s)}


def segments_of(one: Transcript, duration_s: float) -> list[dict[str, Any]]:
    """The segments of a transcript; a short recording is one."""
    if one.segments or not one.text:
        return one.segments
    return [{"start_s": 0.0, "end_s": round(duration_s, 3), "text": one.text}]


def _lines(one: Transcript) -> list[str]:
    return [segment["text"] for segment in one.segments if segment["text"]] or ([one.text] if one.text else [])


def _subtitles(one: Transcript, duration_s: float, kind: str) -> str:
    cues = cues_of(segments_of(one, duration_s), duration_s)
    return to_srt(cues) if kind == "srt" else to_vtt(cues)
