"""``speechtune transcribe`` for inputs without number."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.interrupt import stop_if_asked
from speechtune.core.progress import is_quiet, note
from speechtune.decoding.scale.inputs import Input, Shard, Source
from speechtune.decoding.scale.output import GrowingFile, Row
from speechtune.decoding.scale.workers import FAILED, Group, Here, Opening, Workers, failed_row

CHUNK_INPUTS = 1024
"""Inputs sorted by length and held at a time, for each worker."""


@dataclass(slots=True)
class StreamOptions:
    """Where transcripts go, which inputs are meant, and how many processes decode."""

    out: Path
    split: str | None = None
    shard: Shard = field(default_factory=Shard)
    workers: int = 1
    chunk_inputs: int = CHUNK_INPUTS
    overwrite: bool = False


@dataclass(slots=True)
class Tally:
    """What has been done: in all, and since this process began (for the rates)."""

    total: int
    done: int = 0
    failed: int = 0
    truncated: int = 0
    seconds_of_audio: float = 0.0
    new: int = 0
    new_seconds_of_audio: float = 0.0
    began_s: float = field(default_factory=time.monotonic)
    told_s: float = field(default_factory=time.monotonic)

    def count(self, row: Row, new: bool) -> None:
        """One line more."""
        flags = row.get("flags", [])
        self.done += 1
        self.failed += FAILED in flags
        self.truncated += "truncated" in flags
        self.seconds_of_audio += row.get("duration_s", 0.0)
        if new:
            self.new += 1
            self.new_seconds_of_audio += row.get("duration_s", 0.0)

    def rates(self) -> dict[str, float | None]:
        """Utterances a second and seconds of audio a second (RTFx), since this process began decoding."""
        past_s = max(time.monotonic() - self.began_s, 1e-9)
        known = self.new > 0
        return {
            "utterances_per_s": round(self.new / past_s, 3) if known else None,
            "rtfx": round(self.new_seconds_of_audio / past_s, 3) if known else None,
        }

    def tell(self, every_s: float = 10.0) -> None:
        """A line on stderr, now and then."""
        stop_if_asked()
        now_s = time.monotonic()
        if is_quiet() or now_s - self.told_s < every_s or not self.new:
            return
        self.told_s = now_s
        rates = self.rates()
        left_s = (self.total - self.done) * (now_s - self.began_s) / self.new
        print(
            f"transcribe: {self.done}/{self.total}, {rates['utterances_per_s']:.1f} utterances/s, "
            f"RTFx {rates['rtfx']:.1f}, {_clock(left_s)} left, {self.failed} failed",
            file=sys.stderr,
            flush=True,
        )


def transcribe_stream(opening: Opening, source: Path, options: StreamOptions) -> dict[str, Any]:
    """Transcribe every input of a shard into ``options.out``, one line each, in the inputs' order.

    Killed at any moment and called again with the same arguments, it goes on where it was. An input that cannot be
    transcribed gets an empty text, the flag ``failed`` and its ``error``.

    Returns:
        ``kept``, ``dropped_by_reason``, ``seconds_of_audio``, ``utterances_per_s``, ``rtfx``, and ``exit_code`` 1
        where an input failed.

    Raises:
        InputError: no such source or model; ``out`` was made with other settings or from other inputs.
        SpeechtuneError: a worker process died.
    """
    inputs = Source(source, options.split)
    total = options.shard.size(inputs.count())
    if not total:
        raise InputError(f"{source} holds nothing to transcribe (shard {options.shard.index}/{options.shard.count})")
    opened = opening.open()  # before any worker: it converts the model where needed, and finds wrong settings
    batch_size = opened.decoding.batch_size
    settings: dict[str, Any] = {
        "decoding": opened.decoding.model_dump(mode="json"),
        "model": str(opened.path),
        "source": str(source.resolve()),
        "split": options.split,
        "shard": f"{options.shard.index}/{options.shard.count}",
    }
    pool = Workers(opening, options.workers) if options.workers > 1 else Here(opened)
    del opened
    tally = Tally(total)
    try:
        with GrowingFile(options.out, settings, options.overwrite) as file:
            rest = _skip_finished(file, options.shard.of(iter(inputs)), tally)
            if tally.done:
                note(f"{tally.done} of {total} are in {options.out} already")
            tally.began_s = time.monotonic()
            while chunk := list(islice(rest, options.chunk_inputs * options.workers)):
                _transcribe_chunk(pool, inputs.root, chunk, batch_size, file, tally)
    finally:
        pool.close()
    return {
        **{name: settings[name] for name in ("model", "source", "shard")},
        "out": str(options.out),
        "kept": tally.done - tally.failed,
        "dropped_by_reason": {FAILED: tally.failed} if tally.failed else {},
        "truncated": tally.truncated,
        "seconds_of_audio": round(tally.seconds_of_audio, 3),
        "new": tally.new,
        **tally.rates(),
        "exit_code": 1 if tally.failed else 0,
    }


def _skip_finished(file: GrowingFile, inputs: Iterator[Input], tally: Tally) -> Iterator[Input]:
    """Pass over the inputs that have their line, seeing that each line is its input's."""
    for number, row in enumerate(file.finished(), start=1):
        one = next(inputs, None)
        if one is None or one.utterance_id != row.get("utterance_id"):
            raise InputError(
                f"{file.path} line {number} is of {row.get('utterance_id')!r} where the source now has "
                f"{one.utterance_id if one else 'nothing'!r}: the inputs changed, so add --overwrite or choose "
                "another --out"
            )
        tally.count(row, new=False)
    return inputs


def _transcribe_chunk(
    pool: Here | Workers, root: Path, chunk: list[Input], batch_size: int, file: GrowingFile, tally: Tally
) -> None:
    first = tally.done
    rows = {number - first: row for number, row in file.journalled().items() if 0 <= number - first < len(chunk)}
    rows = {place: row for place, row in rows.items() if row.get("utterance_id") == chunk[place].utterance_id}
    for row in rows.values():
        tally.count(row, new=False)
    bad, groups = _plan(root, chunk, set(rows), batch_size)
    for part in chain([bad] if bad else [], pool.decode(root, groups)):
        _refuse_if_hopeless(part, tally)
        file.note((first + place, row) for place, row in part)
        for place, row in part:
            rows[place] = row
            tally.count(row, new=True)
            if FAILED in row.get("flags", []):
                note(f"warning: {row['utterance_id']} gets an empty text: {row['error']}")
        tally.tell()
    file.append(rows[place] for place in range(len(chunk)))


def _refuse_if_hopeless(part: list[tuple[int, Row]], tally: Tally) -> None:
    """Stop where the first clips all fail for one and the same reason: it is not theirs but the settings'."""
    reasons = {row.get("error") for _, row in part}
    if tally.done == tally.failed and len(part) > 1 and len(reasons) == 1 and None not in reasons:
        raise InputError(f"every clip fails: {reasons.pop()}")


def _plan(
    root: Path, chunk: list[Input], known: set[int], batch_size: int
) -> tuple[list[tuple[int, Row]], list[Group]]:
    """Failures seen before any decoding, and groups of similar length, longest first."""
    from speechtune.audio.io import probe

    bad: list[tuple[int, Row]] = []
    clips: Group = []
    for place, one in enumerate(chunk):
        if place in known:
            continue
        utterance = one.utterance
        try:
            if utterance is None:
                raise InputError(one.error or "no usable row")
            if utterance.duration_s < 0:
                whole_s = probe(root / utterance.file_name).duration_s
                end_s = whole_s if utterance.end_s is None else utterance.end_s
                utterance = replace(utterance, duration_s=end_s - (utterance.start_s or 0.0))
            clips.append((place, utterance))
        except Exception as error:
            bad.append((place, failed_row(one.utterance_id, str(error))))
    clips.sort(key=lambda clip: -clip[1].duration_s)
    return bad, [clips[first : first + batch_size] for first in range(0, len(clips), batch_size)]


def _clock(seconds: float) -> str:
    minutes, rest = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{rest:02d}"
