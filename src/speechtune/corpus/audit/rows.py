"""From a piece of the utterance table to rows of measures: what a worker process does.

A row is a function of the utterance, its audio and the version of the measures alone: not of the policy, of the other
rows, or of what was in the cache. That is why an interrupted audit ends with the same bytes as an uninterrupted one.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import speechtune.audio
from speechtune.audio.io import EMPTY, MISSING, UNREADABLE, AudioError
from speechtune.audio.measures import AudioMeasures, measure_batch
from speechtune.core.errors import missing_extra
from speechtune.corpus.audit.cache import MeasureCache
from speechtune.corpus.audit.tokens import load_tokenizer
from speechtune.corpus.table import Utterance
from speechtune.corpus.text_keys import text_key
from speechtune.corpus.text_measures import TextMeasures, measure_texts

PIECE_ROWS = 128
_LONGEST_HEADER_BYTES = 1024  # a longer file from which nothing can be decoded is not an empty recording
_OPUS = ("OPUS",)
_LOSSY = ("MPEG", "MP3", "VORBIS", "AAC", "AMR", "SPEEX", "WMA", "GSM")
_NEVER_SPACED = 3  # words from which a text's casing is judged

TABLE_COLUMNS: dict[str, str] = {
    "row": "int64",
    **dict.fromkeys(("utterance_id", "file_name", "text", "speaker_id", "session_id", "language"), "string"),
    **dict.fromkeys(("split", "age", "gender", "source"), "string"),
    **dict.fromkeys(("start_s", "end_s", "table_duration_s", "duration_s"), "double"),
}
TEXT_COLUMNS: dict[str, str] = {
    **dict.fromkeys(("text_key", "scripts", "rate_class", "rate_verdict", "casing", "foreign_letters"), "string"),
    **dict.fromkeys(("markup_found", "repeated_phrase", "hallucination_phrase", "text_language"), "string"),
    **dict.fromkeys(("chars", "words", "digits", "symbols", "mixed_script_words", "foreign_letter_kinds"), "int64"),
    **dict.fromkeys(("urls", "control_characters", "replacement_characters"), "int64"),
    **dict.fromkeys(("chars_per_s", "words_per_s", "text_language_confidence"), "double"),
    **dict.fromkeys(("mojibake", "is_nfc", "language_mismatch"), "bool"),
}
_AUDIO_TYPES = {"float": "double", "int": "int64", "bool": "bool", "str": "string", "bytes": "binary"}


@dataclass(frozen=True, slots=True)
class Job:
    """What every worker needs to know; picklable.

    Attributes:
        root: the corpus.
        cache: the file of the measures made before.
        tokenizers: (name, path of a ``tokenizer.json``) of each model whose tokens are counted.
    """

    root: Path
    cache: Path
    tokenizers: tuple[tuple[str, Path], ...] = ()


@dataclass(frozen=True, slots=True)
class Piece:
    """Consecutive rows of the table, the first of which has the number ``first_row``."""

    job: Job
    first_row: int
    utterances: list[Utterance]


@dataclass(slots=True)
class Measured:
    """The rows of a piece as an Arrow record batch, and what the cache did not know yet."""

    batch: Any
    fresh: list[tuple[str, dict[str, Any]]]
    known: int


def audio_columns() -> dict[str, str]:
    """The columns that `AudioMeasures` gives, with their Arrow types."""
    columns = {}
    for field in dataclasses.fields(AudioMeasures):
        plain = str(field.type).replace("| None", "").strip()
        if field.name != "duration_s":
            columns[field.name] = _AUDIO_TYPES.get(plain, "string")
    return columns


def schema(tokenizers: Sequence[str] = ()) -> Any:
    """The Arrow schema of a row of measures."""
    pyarrow = load_pyarrow()
    columns = {
        **TABLE_COLUMNS,
        "audio_error": "string",
        "audio_sha256": "string",
        "codec": "string",
        **audio_columns(),
        "speech_s": "double",
        **TEXT_COLUMNS,
        "tokens_most": "int64",
        **{f"tokens_{name}": "int64" for name in tokenizers},
    }
    return pyarrow.schema([(name, getattr(pyarrow, _ARROW[kind])()) for name, kind in columns.items()])


_ARROW = {"int64": "int64", "string": "string", "double": "float64", "bool": "bool_", "binary": "binary"}


def load_pyarrow() -> Any:
    """The pyarrow module.

    Raises:
        InputError: it is not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise missing_extra("pyarrow", "audit") from error
    return pyarrow


def measure_piece(piece: Piece) -> Measured:
    """Measure the rows of a piece; what the cache knows is taken from there."""
    pyarrow = load_pyarrow()
    audio, fresh, known = _audio(piece)
    durations = [found.get("duration_s") for found in audio]
    texts = measure_texts(
        (one.text, duration_s or 0.0, one.language) for one, duration_s in zip(piece.utterances, durations, strict=True)
    )
    counts = _token_counts(piece)
    rows = []
    for index, one in enumerate(piece.utterances):
        row: dict[str, Any] = _table_row(piece.first_row + index, one)
        row.update(audio[index])
        if row.get("duration_s") is None:
            row["duration_s"] = None
        elif row.get("speech_frac") is not None:
            row["speech_s"] = row["speech_frac"] * row["duration_s"]
        row.update(_text_row(one.text, texts[index]))
        row.update(counts[index])
        rows.append(row)
    names = [name for name, _ in piece.job.tokenizers]
    return Measured(pyarrow.RecordBatch.from_pylist(rows, schema(names)), fresh, known)


def _table_row(number: int, one: Utterance) -> dict[str, Any]:
    row = {name: _text(getattr(one, name)) for name, kind in TABLE_COLUMNS.items() if kind == "string"}
    return {"row": number, **row, "start_s": one.start_s, "end_s": one.end_s, "table_duration_s": one.duration_s}


def _text(value: Any) -> str | None:
    return value if value is None or isinstance(value, str) else str(value)


def _audio(piece: Piece) -> tuple[list[dict[str, Any]], list[tuple[str, dict[str, Any]]], int]:
    """The audio columns of each row, the cache entries that are new, and how many rows the cache knew."""
    hashes = [_content(piece.job.root / one.file_name) for one in piece.utterances]
    keys = [
        None if isinstance(content, AudioError) else _key(content, one)
        for content, one in zip(hashes, piece.utterances, strict=True)
    ]
    with MeasureCache(piece.job.cache, read_only=True) as cache:
        found = cache.get([key for key in keys if key is not None])
    known = sum(key in found for key in keys)
    wanted: dict[str, Utterance] = {}
    for key, one in zip(keys, piece.utterances, strict=True):
        if key is not None and key not in found:
            wanted.setdefault(key, one)
    spans = [(piece.job.root / one.file_name, one.start_s, one.end_s) for one in wanted.values()]
    results = measure_batch(spans) if spans else []
    fresh = [(key, _entry(result, span[0])) for key, span, result in zip(wanted, spans, results, strict=True)]
    found.update(fresh)
    rows = []
    for content, key in zip(hashes, keys, strict=True):
        if isinstance(content, AudioError):
            rows.append({"audio_error": content.reason})
        else:
            assert key is not None
            rows.append({"audio_sha256": content, **_restored(found[key])})
    return rows, fresh, known


def _content(path: Path) -> str | AudioError:
    """Hex SHA-256 of the file's bytes, or why it cannot be read."""
    try:
        state = os.stat(path)
        return _sha256(path, state.st_size, state.st_mtime_ns, state.st_ctime_ns)
    except FileNotFoundError:
        return AudioError(MISSING, f"{path} does not exist")
    except OSError as error:
        return AudioError(UNREADABLE, f"{path} cannot be read ({error.strerror})")


@functools.lru_cache(maxsize=256)
def _sha256(path: Path, size: int, modified_ns: int, changed_ns: int) -> str:
    """The hash of a file in this state; a long recording with many spans is read once."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


@functools.cache
def measures_version() -> str:
    """Names the code that measures: a hash of the audio room's files, so that no change of it can be forgotten."""
    digest = hashlib.sha256()
    for path in sorted(Path(speechtune.audio.__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _key(content: str, one: Utterance) -> str:
    return f"{measures_version()}:{content}:{one.start_s}:{one.end_s}"


def _entry(result: AudioMeasures | AudioError, path: Path) -> dict[str, Any]:
    """What the cache keeps: JSON-ready measures, or the reason why there are none."""
    if isinstance(result, AudioError):
        # FFmpeg takes anything that is called .flac for FLAC and then finds nothing in it.
        hollow = result.reason == EMPTY and path.stat().st_size > _LONGEST_HEADER_BYTES
        return {"audio_error": UNREADABLE if hollow else result.reason}
    values = {field.name: getattr(result, field.name) for field in dataclasses.fields(result)}
    for name, value in values.items():
        if isinstance(value, bytes):
            values[name] = value.hex()
        elif isinstance(value, float) and value - value != 0:  # NaN and infinities are not JSON
            values[name] = None
    return values


def _restored(entry: dict[str, Any]) -> dict[str, Any]:
    """The audio columns of a cache entry (fresh ones go the same way, so both give the same row)."""
    if "audio_error" in entry:
        return dict(entry)
    row = dict(entry)
    for name, kind in audio_columns().items():
        value = row.get(name)
        if kind == "binary" and isinstance(value, str):
            row[name] = bytes.fromhex(value)
        elif kind == "string" and value is not None and not isinstance(value, str):
            row[name] = json.dumps(value)
    row["codec"] = _codec(f"{row.get('format')} {row.get('subtype')}".upper())
    return row


def _codec(words: str) -> str:
    if any(word in words for word in _OPUS):
        return "opus"
    return "lossy" if any(word in words for word in _LOSSY) else "lossless"


def _text_row(text: str, found: TextMeasures) -> dict[str, Any]:
    letters = any(map(str.isalpha, text))
    casing = None
    if letters and found.words >= _NEVER_SPACED and text.upper() != text.lower():
        casing = "upper" if text.isupper() else "lower" if text.islower() else "mixed"
    return {
        "text_key": text_key(text),
        "scripts": ", ".join(f"{name} {share:.2f}" for name, share in found.scripts.items()),
        "rate_class": found.rate_class,
        "rate_verdict": found.rate_verdict,
        "casing": casing,
        "foreign_letters": found.alphabet_violations,
        "foreign_letter_kinds": None if found.alphabet_violations is None else len(found.alphabet_violations),
        "mixed_script_words": len(found.mixed_script_words),
        "markup_found": " ".join(found.markup) or None,
        "repeated_phrase": found.repeated_phrase,
        "hallucination_phrase": found.invented_phrase,
        "text_language": found.text_language,
        "text_language_confidence": found.language_confidence,
        "language_mismatch": found.language_mismatch,
        "chars": found.chars,
        "words": found.words,
        "chars_per_s": found.chars_per_s,
        "words_per_s": found.words_per_s,
        "digits": found.digits,
        "symbols": found.symbols,
        "urls": len(found.urls) + len(found.emails),
        "control_characters": found.control_chars + found.zero_width + found.bidi_marks,
        "replacement_characters": found.replacement_chars,
        "mojibake": found.mojibake,
        "is_nfc": not found.not_nfc,
    }


def _token_counts(piece: Piece) -> list[dict[str, int]]:
    """Label lengths of each row for each model, the special tokens that its tokenizer adds included."""
    rows: list[dict[str, int]] = [{} for _ in piece.utterances]
    for name, path in piece.job.tokenizers:
        encoded = load_tokenizer(path).encode_batch([one.text for one in piece.utterances])
        for row, encoding in zip(rows, encoded, strict=True):
            row[f"tokens_{name}"] = len(encoding.ids)
            row["tokens_most"] = max(row.get("tokens_most", 0), len(encoding.ids))
    return rows
