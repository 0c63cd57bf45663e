"""How prepared utterances are stored: FLAC files beside a table, Parquet or Arrow shards, or WebDataset tar shards.

The same rows and samples always give the same bytes: nothing written here knows the time or the machine.
"""

from __future__ import annotations

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples
from speechtune.core.errors import explain_write_errors, missing_extra

AUDIO_COLUMN = "audio"
ColumnTypes = dict[str, str]
"""Column -> ``string``, ``int64``, ``float64``, ``bool``, or ``json`` (text that holds JSON, for anything else)."""


@dataclass(frozen=True, slots=True)
class StoredRow:
    """One utterance of a shard: its columns, the name of its audio, and the FLAC bytes."""

    columns: dict[str, Any]
    audio_name: str
    flac: bytes


def encode_flac(samples: Samples) -> bytes:
    """16-bit mono FLAC at 16 kHz; the same samples that `speechtune.audio.io.write_audio` writes."""
    import soundfile

    pcm = np.clip(np.rint(samples * 32768.0), -32768, 32767).astype(np.int16)
    encoded = io.BytesIO()
    with soundfile.SoundFile(encoded, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="FLAC") as file:
        file.write(pcm)
    return encoded.getvalue()


def column_type(value: Any) -> str | None:
    """The type a value asks of its column; ``None`` for no value."""
    if value is None:
        return None
    kinds = {bool: "bool", int: "int64", float: "float64", str: "string"}
    kind = kinds.get(type(value), "json")
    return "json" if kind == "int64" and not -(2**63) <= value < 2**63 else kind


def common_type(first: str | None, second: str | None) -> str:
    """The type of a column that holds both."""
    if first is None or second is None or first == second:
        return first or second or "string"
    return "float64" if {first, second} == {"int64", "float64"} else "json"


def write_parquet(path: Path, rows: Iterable[StoredRow], types: ColumnTypes) -> None:
    """A Parquet file with the given columns and an audio column ``{bytes, path}`` that ``datasets`` knows."""
    schema = _schema(types)
    from pyarrow import parquet

    with _atomic(path) as draft, parquet.ParquetWriter(draft, schema) as writer:
        for table in _tables(rows, types, schema):
            writer.write_table(table)


def write_arrow(path: Path, rows: Iterable[StoredRow], types: ColumnTypes) -> None:
    """The columns of `write_parquet` as an Arrow IPC stream, which ``datasets`` maps into memory as it is."""
    schema = _schema(types)
    import pyarrow

    with _atomic(path) as draft, pyarrow.ipc.new_stream(str(draft), schema) as writer:
        for table in _tables(rows, types, schema):
            writer.write_table(table)


def _schema(types: ColumnTypes) -> Any:
    """The columns as Arrow types, and as the features that ``datasets`` looks for in a schema's metadata."""
    try:
        import pyarrow
    except ImportError as error:
        raise missing_extra("pyarrow", "hub") from error
    arrow = {"string": pyarrow.string(), "json": pyarrow.string(), "int64": pyarrow.int64()}
    arrow |= {"float64": pyarrow.float64(), "bool": pyarrow.bool_()}
    audio = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    fields = [(AUDIO_COLUMN, audio), *((name, arrow[kind]) for name, kind in types.items())]
    features: dict[str, Any] = {AUDIO_COLUMN: {"sampling_rate": SAMPLE_RATE_HZ, "_type": "Audio"}}
    for name, kind in types.items():
        features[name] = {"dtype": "string" if kind == "json" else kind, "_type": "Value"}
    return pyarrow.schema(fields, metadata={"huggingface": json.dumps({"info": {"features": features}})})


def _tables(rows: Iterable[StoredRow], types: ColumnTypes, schema: Any) -> Iterator[Any]:
    """Tables of a hundred rows: small enough to stream and to preview."""
    import pyarrow

    for batch in _batches(rows, 100):
        records = [
            {AUDIO_COLUMN: {"bytes": row.flac, "path": row.audio_name}, **_typed(row.columns, types)} for row in batch
        ]
        yield pyarrow.Table.from_pylist(records, schema=schema)


def _typed(columns: dict[str, Any], types: ColumnTypes) -> dict[str, Any]:
    values = {}
    for name, kind in types.items():
        value = columns.get(name)
        if value is not None and kind == "json":
            value = json.dumps(value, ensure_ascii=False)
        elif value is not None and kind == "float64":
            value = float(value)
        values[name] = value
    return values


def write_webdataset(path: Path, rows: Iterable[StoredRow]) -> None:
    """A tar file with KEY.flac, KEY.txt (the transcript) and KEY.json (every column) for each row."""
    with _atomic(path) as draft, tarfile.open(draft, "w", format=tarfile.USTAR_FORMAT) as tar:
        for row in rows:
            key = Path(row.audio_name).stem
            members = {
                "flac": row.flac,
                "txt": row.columns["text"].encode(),
                "json": json.dumps(row.columns, ensure_ascii=False).encode(),
            }
            for suffix, data in members.items():
                info = tarfile.TarInfo(f"{key}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def read_webdataset(path: Path) -> Iterator[tuple[dict[str, Any], str, Callable[[], bytes]]]:
    """Each sample of a tar shard: its columns, the name of its audio, and a function that reads the audio's bytes.

    The columns are those of KEY.json; KEY.txt is the text where the JSON has none. Members need not be written by
    `write_webdataset`: any audio suffix serves, and keys end at the first full stop of the name's last part.
    """
    samples: dict[str, dict[str, tuple[int, int]]] = {}
    with tarfile.open(path) as tar:
        for member in tar:
            if member.isfile():
                folder, _, name = member.name.rpartition("/")
                stem, _, suffix = name.partition(".")
                key = f"{folder}/{stem}" if folder else stem
                samples.setdefault(key, {})[suffix.lower()] = (member.offset_data, member.size)
    for key, parts in samples.items():
        columns = json.loads(_slice(path, parts["json"])) if "json" in parts else {}
        if "text" not in columns and "txt" in parts:
            columns["text"] = _slice(path, parts["txt"]).decode()
        audio = next((name for name in parts if name not in ("json", "txt")), None)
        if audio is not None:
            yield columns, f"{key}.{audio}", _reader(path, parts[audio])


def _reader(path: Path, place: tuple[int, int]) -> Callable[[], bytes]:
    return lambda: _slice(path, place)


def _slice(path: Path, place: tuple[int, int]) -> bytes:
    with path.open("rb") as stream:
        stream.seek(place[0])
        return stream.read(place[1])


def _batches(rows: Iterable[StoredRow], size: int) -> Iterator[list[StoredRow]]:
    batch: list[StoredRow] = []
    for row in rows:
        batch.append(row)
        if len(batch) == size:
            yield batch
            batch = []
    if batch:
        yield batch


@contextmanager
def _atomic(path: Path) -> Iterator[Path]:
    """A path to write to, which becomes ``path`` if the block succeeds."""
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=".shard-")
        os.close(handle)
        try:
            yield Path(name)
            os.chmod(name, 0o644)
            os.replace(name, path)
        except BaseException:
            Path(name).unlink(missing_ok=True)
            raise
