"""IndicVoices: ``x.wav`` beside ``x.json``, which holds ``verbatim`` and ``normalized`` lists of timed pieces.

The raw download of AI4Bharat (LANGUAGE/v*/SPLIT/), as read by TGZ/create_indicvoices.py of
github.com/AI4Bharat/IndicVoices. Each piece has ``text``, ``start``, ``end`` (seconds) and ``speaker_id``; that
script leaves out the pieces of speaker 1, the interviewer, and so does the default here. The chunked release is a
NeMo manifest and is read as one.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from speechtune.corpus.importers.raw import MALFORMED, Importer, RawRow, read_lenient
from speechtune.corpus.importers.spans import Cue, cue_rows, media_of, no_folders, transcripts
from speechtune.corpus.languages import LANGUAGE_NAMES, code_of_language

NAME = "indicvoices"
OTHER_SPEAKER = "another speaker"
_KEPT = ("scenario", "task_name", "job_type", "qualification", "area", "district", "state", "occupation")


class Settings(BaseModel):
    """What ``--set`` takes."""

    model_config = ConfigDict(extra="forbid")

    text: Literal["normalized", "verbatim"] = Field(
        "normalized", description="Which of the two transcripts is the text."
    )
    others: Literal["skip", "keep"] = Field(
        "skip", description="Pieces of speaker 1 (the interviewer): leave out, or keep as a speaker of their own."
    )


def recognises(source: str) -> bool:
    """A folder in which the first .json file beside a recording is such a sidecar, or one such file."""
    path = Path(source)
    if path.is_file():
        return path.suffix.lower() == ".json" and _sidecar(path) is not None
    for one in _jsons(path):
        return _sidecar(one) is not None
    return False


def _jsons(folder: Path) -> Iterator[Path]:
    for depth in ("", "*/", "*/*/", "*/*/*/", "*/*/*/*/"):
        yield from (one for one in sorted(folder.glob(f"{depth}*.json")) if not one.name.startswith("."))


def _sidecar(path: Path) -> dict[str, Any] | None:
    try:
        row = json.loads(read_lenient(path))
    except ValueError:
        return None
    good = isinstance(row, dict) and all(isinstance(row.get(key), list) for key in ("verbatim", "normalized"))
    return row if good else None


def read(source: str, settings: Settings) -> Iterator[RawRow]:
    """One row per timed piece of every sidecar.

    Raises:
        InputError: there is none.
    """
    root = Path(source) if Path(source).is_dir() else Path(source).parent
    for path in transcripts(source, (".json",), "IndicVoices sidecars"):
        sidecar = _sidecar(path)
        if sidecar is None:
            problem = (MALFORMED, "it is not a JSON object with the lists verbatim and normalized")
            yield RawRow(where=str(path), audio=media_of(path), name=path.stem, problem=problem)
            continue
        yield from cue_rows(_cues(path, sidecar, settings), media_of(path), root)


def _cues(path: Path, sidecar: dict[str, Any], settings: Settings) -> Iterator[Cue]:
    chosen = sidecar[settings.text]
    other_name = "verbatim" if settings.text == "normalized" else "normalized"
    others = sidecar[other_name]
    facts = {"age": sidecar.get("age_group"), "gender": sidecar.get("gender"), "language": _language(path, sidecar)}
    facts |= {name: sidecar[name] for name in _KEPT if sidecar.get(name)}
    for number, piece in enumerate(chosen):
        cue = Cue(where=f"{path} {settings.text} {number + 1}", text="", start_s=None, end_s=None)
        cue.columns = {name: value for name, value in facts.items() if value is not None}
        try:
            cue.start_s, cue.end_s, cue.text = float(piece["start"]), float(piece["end"]), str(piece["text"])
            cue.start_s = max(cue.start_s, 0.0) if cue.start_s > -1.0 else cue.start_s  # the release has such starts
        except (KeyError, TypeError, ValueError):
            cue.problem = (MALFORMED, "it has no text, start and end")
            yield cue
            continue
        if len(others) == len(chosen) and isinstance(others[number], dict):
            cue.columns[f"{other_name}_text"] = others[number].get("text")
        cue.speaker = str(sidecar.get("speaker_id") or path.stem)
        if str(piece.get("speaker_id", 0)) == "1":
            cue.speaker += "-interviewer"
            cue.columns.pop("age", None)
            cue.columns.pop("gender", None)
            if settings.others == "skip":
                cue.skip = (OTHER_SPEAKER, "it is spoken by the interviewer (--set others=keep keeps it)")
        yield cue


def _language(path: Path, sidecar: dict[str, Any]) -> str | None:
    stated = str(sidecar.get("lang") or sidecar.get("language") or "")
    for name in (stated, *(part for part in reversed(path.resolve().parent.parts[-5:]))):
        if name.lower() in LANGUAGE_NAMES:
            return name.lower()
        if code := code_of_language(name):
            return code
    return None


IMPORTER = Importer(NAME, recognises, read, no_folders, Settings)
