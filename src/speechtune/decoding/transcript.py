"""What a recogniser says about one utterance."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_jsonl, write_jsonl


@dataclass(slots=True, kw_only=True)
class Transcript:
    """The text of one utterance and how it came about.

    ``log_prob`` is the mean natural-log probability of the generated tokens; ``flags`` names what a
    reader should know (``"truncated"``: the token limit was hit before end-of-text).
    ``segments``: the parts of a long recording, with ``start_s``, ``end_s``, ``text`` and what is known of each.
    ``interventions``: what a guard changed: ``guard``, ``action``, ``before``.
    """

    utterance_id: str
    text: str
    log_prob: float | None = None
    language: str | None = None
    no_speech_prob: float | None = None
    nbest: list[dict[str, Any]] = field(default_factory=list)
    flags: list[str] = field(default_factory=list)
    segments: list[dict[str, Any]] = field(default_factory=list)
    interventions: list[dict[str, Any]] = field(default_factory=list)


def write_transcripts(path: Path, transcripts: list[Transcript]) -> None:
    """Write one transcript a line (JSONL), atomically; fields that are unknown or empty are left out."""
    write_jsonl(
        path,
        (
            {name: value for name, value in asdict(one).items() if name == "text" or value not in (None, [])}
            for one in transcripts
        ),
    )


def read_transcripts(path: Path) -> list[Transcript]:
    """Read what `write_transcripts` wrote, or any JSONL with ``utterance_id`` and ``text``.

    Raises:
        InputError: a row lacks either column, or an id occurs twice.
    """
    known = set(Transcript.__dataclass_fields__)
    transcripts: dict[str, Transcript] = {}
    for number, row in enumerate(read_jsonl(path), start=1):
        if not isinstance(row.get("utterance_id"), str) or not isinstance(row.get("text"), str):
            raise InputError(f"{path} row {number} needs a text utterance_id and text: add them")
        name = row["utterance_id"]
        if name in transcripts:
            raise InputError(f"{path} row {number} repeats the utterance id {name!r}: keep one of them")
        transcripts[name] = Transcript(**{key: value for key, value in row.items() if key in known})
    return list(transcripts.values())
