"""VoxForge: one folder per submission with ``etc/PROMPTS`` (or ``etc/prompts-original``), ``etc/README`` and ``wav/``.

See http://www.voxforge.org. A line is ``SUBMISSION/mfc/a0001 WORDS``; the README states gender, age range, language
and pronunciation dialect. The part of the folder's name before the first date is the user, which is the speaker;
anonymous submissions are speakers of their own.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.errors import InputError
from speechtune.corpus.importers.raw import (
    MALFORMED,
    NOT_UTF8,
    Importer,
    RawRow,
    has_bad_bytes,
    read_lenient,
    read_lines,
)

NAME = "voxforge"
_FOLDERS = ("wav", "flac", "audio")
_SUFFIXES = (".wav", ".flac", ".ogg", ".mp3")
_FACTS = {"gender": "gender", "age range": "age", "language": "language", "pronunciation dialect": "dialect"}
_BLANK = {"", "unknown", "please select"}


class Settings(BaseModel):
    """What ``--set`` takes."""

    model_config = ConfigDict(extra="forbid")

    prompts: Literal["PROMPTS", "prompts-original"] = Field(
        "PROMPTS", description="Which file is the text: upper case without punctuation, or as the prompt was shown."
    )


def recognises(source: str) -> bool:
    """A folder, or a folder of folders, with etc/PROMPTS or etc/prompts-original."""
    return bool(_submissions(Path(source)))


def _submissions(root: Path) -> list[Path]:
    if not root.is_dir():
        return []
    found = {
        path.parents[1]
        for depth in ("", "*/", "*/*/")
        for path in root.glob(f"{depth}etc/[Pp][Rr][Oo][Mm][Pp][Tt][Ss]*")
    }
    return sorted(found)


def read(source: str, settings: Settings) -> Iterator[RawRow]:
    """One row per line of every submission's prompts.

    Raises:
        InputError: there is no submission.
    """
    root = Path(source)
    found = _submissions(root)
    if not found:
        raise InputError(f"{source} holds no etc/PROMPTS: give a VoxForge submission or the folder that holds them")
    for folder in found:
        names = [settings.prompts, *({"PROMPTS", "prompts-original"} - {settings.prompts})]
        prompts = next((folder / "etc" / name for name in names if (folder / "etc" / name).is_file()), None)
        if prompts is None:
            continue
        facts = _facts(folder)
        for number, line in read_lines(prompts):
            key, _, text = line.strip().partition(" ")
            yield _raw(f"{prompts} line {number}", key.split("/")[-1], text, folder, root, facts)


def _raw(where: str, key: str, text: str, folder: Path, root: Path, facts: dict[str, Any]) -> RawRow:
    submission = folder.resolve().name
    row = RawRow(where=where, columns={"utterance_id": f"{submission}-{key}", "text": text, **facts})
    if not key or "\x00" in key:
        row.problem = (MALFORMED, "it is not 'recording WORDS'")
        return row
    if has_bad_bytes(key + text):
        row.problem = (NOT_UTF8, "it is not UTF-8 text")
    candidates = [folder / inside / f"{key}{suffix}" for inside in _FOLDERS for suffix in _SUFFIXES]
    row.audio = next((one for one in candidates if one.is_file()), candidates[0])
    row.name = row.audio.relative_to(root).as_posix()
    return row


def _facts(folder: Path) -> dict[str, Any]:
    """Speaker, session and what etc/README states."""
    submission = folder.resolve().name
    user = re.split(r"-(?=\d{6,8}\b)", submission)[0]
    facts: dict[str, Any] = {"session_id": submission}
    facts["speaker_id"] = submission if user.lower().startswith("anonymous") else user
    readme = next((one for one in sorted((folder / "etc").glob("*")) if one.name.lower() == "readme"), None)
    for line in read_lenient(readme).splitlines() if readme else []:
        key, mark, value = line.partition(":")
        column = _FACTS.get(key.strip().lower())
        value = value.strip().rstrip(";").strip("[]")
        if mark and column and value.lower() not in _BLANK:
            facts[column] = value.lower()
    return facts


def folders(source: str) -> tuple[list[Path], set[Path]]:
    """The audio folders of the submissions."""
    return [one / inside for one in _submissions(Path(source)) for inside in _FOLDERS if (one / inside).is_dir()], set()


IMPORTER = Importer(NAME, recognises, read, folders, Settings)
