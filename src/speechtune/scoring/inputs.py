"""What is scored: a corpus or a file of references, and a file of transcripts, matched by utterance id."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import iterate_jsonl
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript

TEXT_FIELDS = ("text", "orthographic_text", "phonetic_text")
"""Fields that hold the text, in the order in which they are looked for; the last two are the children's challenge's."""

PHONETIC_FIELD = "phonetic_text"
_LANGUAGES = {"orthographic_text": "en"}
_LISTED_IDS = 50
_JSON_LINES = frozenset({".jsonl", ".ndjson", ".json"})
_OTHER_NAMES = {"child_id": "speaker_id", "audio_duration_sec": "duration_s", "audio_path": "file_name"}


@dataclass(slots=True)
class ScoringInput:
    """References and transcripts of the same utterances.

    ``rows`` holds what else a transcript's row says (word times, latency), by utterance id; ``aside`` counts
    transcripts of other splits, which were left out; ``phonetic`` says that the texts are IPA.
    """

    corpus: Corpus
    transcripts: list[Transcript]
    rows: dict[str, dict[str, Any]] = field(default_factory=dict)
    aside: int = 0
    phonetic: bool = False


def load_input(reference: Path, hypothesis: Path, split: str | None = None) -> ScoringInput:
    """Read a corpus directory and a JSONL file, two JSONL files, or two text files with one utterance a line.

    Raises:
        InputError: a file is missing, empty, not what it should be, or repeats an id; ``split`` with files.
    """
    if hypothesis.is_dir():
        raise InputError(f"{hypothesis} is a directory: give the file of transcripts in it (JSONL)")
    if reference.is_file():
        if split:
            raise InputError(f"{reference} is a file and has no split {split!r}: leave --split out")
        kinds = [_holds_json(path) for path in (reference, hypothesis)]
        if kinds[0] != kinds[1]:
            text = hypothesis if kinds[0] else reference
            raise InputError(f"{text} is not JSONL but the other file is: give both files in one form")
        if not kinds[0]:
            return ScoringInput(*corpus_from_lines(reference, hypothesis))
        corpus, phonetic = read_references(reference)
        return _with_transcripts(corpus, hypothesis, phonetic)
    whole = Corpus.load(reference)
    if not split:
        return _with_transcripts(whole, hypothesis, False)
    part = whole.split(split)
    loaded = _with_transcripts(part, hypothesis, False)
    others = {one.utterance_id for one in whole} - {one.utterance_id for one in part}
    kept = [one for one in loaded.transcripts if one.utterance_id not in others]
    loaded.aside, loaded.transcripts = len(loaded.transcripts) - len(kept), kept
    return loaded


def _with_transcripts(corpus: Corpus, path: Path, phonetic: bool) -> ScoringInput:
    known = set(Transcript.__dataclass_fields__)
    transcripts, rows = [], {}
    for text_field, row in _rows_with_text(path):
        if phonetic != (text_field == PHONETIC_FIELD):
            here, there = ("phonetic_text", "text") if text_field == PHONETIC_FIELD else (text_field, "phonetic_text")
            raise InputError(f"{path} has {here} but the references have {there}: score IPA against IPA")
        name = row["utterance_id"]
        fields = {key: value for key, value in row.items() if key in known and key != "text"}
        transcripts.append(Transcript(**fields, text=row[text_field]))
        rest = {key: value for key, value in row.items() if key not in known and key != text_field}
        if rest:
            rows[name] = rest
    return ScoringInput(corpus, transcripts, rows, phonetic=phonetic)


def read_references(path: Path) -> tuple[Corpus, bool]:
    """Read reference texts from JSONL as a corpus without audio, and whether they are IPA (``phonetic_text``).

    Other columns are kept for slices; ``child_id`` and ``audio_duration_sec`` are taken for ``speaker_id`` and
    ``duration_s``, which is 0 where it is unknown. ``orthographic_text`` is English where no language is named, as the
    challenge's is.
    """
    utterances, fields = [], set()
    for text_field, row in _rows_with_text(path):
        fields.add(text_field == PHONETIC_FIELD)
        named = {_OTHER_NAMES.get(key, key): value for key, value in row.items() if key != text_field}
        named |= {key: row[key] for key in _OTHER_NAMES.values() if row.get(key) is not None}
        base = {"file_name": "", "duration_s": 0.0, "language": _LANGUAGES.get(text_field)}
        utterances.append(Utterance.from_row({**base, **named, "text": row[text_field]}))
    if len(fields) > 1:
        raise InputError(f"{path} mixes phonetic_text with other texts: score IPA by itself")
    return Corpus(path, utterances), fields == {True}


def _rows_with_text(path: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each row with the name of its text field.

    Raises:
        InputError: a line is not a JSON object, has no id or text, or repeats an id; the file holds no row.
    """
    seen: dict[str, int] = {}
    for number, row in iterate_jsonl(path):
        name = row.get("utterance_id")
        if not isinstance(name, str) or not name:
            raise InputError(f"{path} line {number} has no utterance_id in text form: add it")
        if name in seen:
            raise InputError(f"{path} lines {seen[name]} and {number} share the id {name!r}: keep one of them")
        seen[name] = number
        text_field = next((one for one in TEXT_FIELDS if one in row), None)
        if text_field is None or not isinstance(row[text_field], str):
            what = f"no {' or '.join(TEXT_FIELDS[:2])}" if text_field is None else f"a {text_field} that is no text"
            raise InputError(f'{path} line {number} ({name!r}) has {what}: give it a text, "" for silence')
        yield text_field, row
    if not seen:
        raise InputError(f"{path} holds no rows: give one JSON object a line with utterance_id and text")


def _holds_json(path: Path) -> bool:
    """Whether a file is JSONL: by its name, else by its first line that is not blank."""
    if path.suffix.lower() in _JSON_LINES:
        return True
    if path.suffix.lower() == ".txt" or not path.is_file():
        return False
    with path.open("rb") as stream:
        first = next((line for line in stream if line.strip()), b"")
    try:
        row = json.loads(first)
    except (json.JSONDecodeError, UnicodeDecodeError):
        return False
    return isinstance(row, dict) and "utterance_id" in row


def corpus_from_lines(reference: Path, hypothesis: Path) -> tuple[Corpus, list[Transcript]]:
    """Two text files, one utterance a line, as a corpus without audio and its transcripts.

    Every line counts, blank ones and those of one character included.

    Raises:
        InputError: a file is missing or not UTF-8, or the files have different numbers of lines.
    """
    ref_lines, hyp_lines = _read_lines(reference), _read_lines(hypothesis)
    if len(ref_lines) != len(hyp_lines):
        raise InputError(
            f"{reference} has {len(ref_lines)} lines but {hypothesis} has {len(hyp_lines)}: "
            "give both one line for each utterance"
        )
    ids = [f"line {number}" for number in range(1, len(ref_lines) + 1)]
    utterances = [
        Utterance(utterance_id=name, file_name="", text=text, duration_s=0.0)
        for name, text in zip(ids, ref_lines, strict=True)
    ]
    transcripts = [Transcript(utterance_id=name, text=text) for name, text in zip(ids, hyp_lines, strict=True)]
    return Corpus(reference, utterances), transcripts


def read_raw_texts(path: Path) -> list[str]:
    """The texts of a file: of its rows (JSONL), or its lines.

    Raises:
        InputError: the file cannot be read, or a row has no text.
    """
    if _holds_json(path):
        return [row[text_field] for text_field, row in _rows_with_text(path)]
    return _read_lines(path)


def _read_lines(path: Path) -> list[str]:
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path") from error
    except IsADirectoryError as error:
        raise InputError(f"{path} is a directory: give a text file with one utterance a line") from error
    except UnicodeDecodeError as error:
        raise InputError(f"{path} is not UTF-8 text ({error}): save it as UTF-8") from error
    return text.removesuffix("\n").split("\n") if text else []


def match(corpus: Corpus, transcripts: Sequence[Transcript], allow_missing: bool = False) -> dict[str, str]:
    """The text of each transcript by utterance id.

    Raises:
        InputError: an id is missing on either side (they are listed) or given twice.
    """
    hypotheses: dict[str, str] = {}
    for one in transcripts:
        if one.utterance_id in hypotheses:
            raise InputError(f"the transcripts hold {one.utterance_id!r} more than once: keep one of them")
        hypotheses[one.utterance_id] = one.text
    ids = {utterance.utterance_id for utterance in corpus}
    unknown = [name for name in hypotheses if name not in ids]
    missing = [utterance.utterance_id for utterance in corpus if utterance.utterance_id not in hypotheses]
    if unknown:
        also = f"; {len(missing)} utterances have no transcript: {_listed(missing)}" if missing else ""
        raise InputError(
            f"{len(unknown)} transcripts are of no utterance in {corpus.root}: {_listed(unknown)}{also}; "
            "check that they were made from these references"
        )
    if missing and not allow_missing:
        raise InputError(
            f"{len(missing)} of {len(ids)} utterances of {corpus.root} have no transcript: {_listed(missing)}; "
            "transcribe them (speechtune score --allow-missing scores them as empty ones)"
        )
    return hypotheses


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:_LISTED_IDS])
    return shown + (f" and {len(names) - _LISTED_IDS} more" if len(names) > _LISTED_IDS else "")


def columns_of(rows: Mapping[str, Mapping[str, Any]], ids: Iterable[str]) -> list[Mapping[str, Any]]:
    """The other columns of the transcripts in the order of ids; empty where there are none."""
    return [rows.get(name, {}) for name in ids]
