"""``speechtune transcribe --stream``: from the verb's arguments to its result."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.decoding.scale.inputs import Shard
from speechtune.decoding.scale.running import StreamOptions, transcribe_stream
from speechtune.decoding.scale.workers import Opening


@dataclass(slots=True)
class StreamWords:
    """What the verb was given beside the model: see its options."""

    source: Path
    out: Path | None
    format: str | None = None
    split: str | None = None
    shard: str | None = None
    workers: int = 1
    overwrite: bool = False


def stream_verb(model: str, options: dict[str, Any], words: StreamWords) -> tuple[dict[str, Any], str]:
    """What the verb returns: its JSON object and the text a person reads.

    Raises:
        InputError: there is no ``out``, or a format that cannot grow; else see `transcribe_stream`.
    """
    if words.out is None:
        raise InputError("streaming needs a file that grows: give --out transcripts.jsonl")
    if words.format not in (None, "jsonl") or words.out.suffix in (".json", ".srt", ".vtt", ".txt"):
        raise InputError(f"streaming writes JSONL only, and {words.out} is to be another format: name a .jsonl file")
    shard = Shard.parse(words.shard) if words.shard else Shard()
    chosen = StreamOptions(words.out, words.split, shard, words.workers, overwrite=words.overwrite)
    result = transcribe_stream(Opening(model, options), words.source, chosen)
    failed = result["dropped_by_reason"].get("failed", 0)
    speed = f", RTFx {result['rtfx']:.1f}, {result['utterances_per_s']:.1f} utterances/s" if result["new"] else ""
    empty = f"; {failed} could not be transcribed and have an empty text and the flag failed" if failed else ""
    return result, f"{result['kept'] + failed} lines in {words.out}{speed}{empty}"
