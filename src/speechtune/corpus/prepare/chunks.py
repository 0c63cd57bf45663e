"""One chunk of rows: text, audio, pieces, files; everything a worker process does."""

from __future__ import annotations

import os
import signal
import threading
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from speechtune.audio.io import SAMPLE_RATE_HZ, AudioError, Samples, write_audio
from speechtune.core.errors import InputError
from speechtune.corpus.conventions import TextPipeline, TextResult
from speechtune.corpus.prepare.plan import Chunk, Item
from speechtune.corpus.prepare.policy import PreparePolicy
from speechtune.corpus.prepare.waveforms import NO_SPEECH, Waveform, read_waveform, set_level, trim
from speechtune.corpus.segmentation.pieces import Aligner, Piece, segment
from speechtune.corpus.storage import ColumnTypes, StoredRow, encode_flac, write_arrow, write_parquet, write_webdataset
from speechtune.corpus.table import Utterance

SHARDS = "shards"


@dataclass(slots=True)
class Work:
    """What every chunk needs to know."""

    root: Path
    out: Path
    policy: PreparePolicy
    types: ColumnTypes
    drop_bad: bool
    aligner: Aligner | None = None
    pipelines: dict[str | None, TextPipeline] = field(default_factory=dict)

    def pipeline(self, language: str | None) -> TextPipeline:
        """The text conventions of a language."""
        if language not in self.pipelines:
            self.pipelines[language] = TextPipeline(self.policy.conventions_for(language), language)
        return self.pipelines[language]


@dataclass(slots=True)
class _Output:
    """What a chunk has made so far."""

    records: list[dict[str, Any]] = field(default_factory=list)
    stored: list[StoredRow] = field(default_factory=list)

    def change(self, item: Item, stage: str, rule: str, before: Any, after: Any) -> None:
        name = item.utterance.utterance_id
        change = {"utterance_id": name, "stage": stage, "rule": rule, "before": before, "after": after}
        self.records.append({"change": change})

    def drop(self, item: Item, reason: str, before: Any) -> None:
        self.change(item, "drop", reason, before, None)
        self.records.append({"drop": reason, "seconds": item.utterance.duration_s})


class _Dropped(Exception):  # noqa: N818 - it is an answer, not a fault
    def __init__(self, reason: str, before: Any) -> None:
        super().__init__(reason)
        self.reason = reason
        self.before = before


def run_chunk(chunk: Chunk, work: Work) -> list[dict[str, Any]]:
    """Prepare the rows of a chunk, write their audio, and return their records: changes, drops and rows, in order.

    Raises:
        InputError: a recording cannot be used (without ``drop_bad``), the disk is full, or the policy fails on a row.
    """
    output = _Output()
    for item in chunk.items:
        if item.dropped is not None:
            output.drop(item, *item.dropped)
            continue
        try:
            _prepare(item, work, output)
        except _Dropped as dropped:
            output.drop(item, dropped.reason, dropped.before)
        except AudioError as error:
            if not work.drop_bad:
                raise InputError(f"{item.utterance.utterance_id}: {error}; or add --drop-bad") from error
            output.drop(item, error.reason, str(error))
    if output.stored:
        path = work.out / SHARDS / f"{chunk.number:06d}"
        if work.policy.output.format == "webdataset":
            write_webdataset(path, output.stored)
        else:
            write = write_arrow if work.policy.output.format == "arrow" else write_parquet
            write(path, output.stored, work.types)
    return output.records


def _prepare(item: Item, work: Work, output: _Output) -> None:
    """One row: its text, then its audio, then the pieces it becomes."""
    utterance, policy = item.utterance, work.policy
    by_sentence = policy.segmentation.mode == "sentences" and bool(utterance.extra.get("segments"))
    text = TextResult(utterance.text) if by_sentence else _convert(utterance, work)
    waveform = read_waveform(work.root / utterance.file_name, utterance.start_s, utterance.end_s, policy.audio)
    cut = policy.segmentation.mode != "off" and waveform.duration_s > policy.segmentation.max_s
    if by_sentence and not cut:
        text = _convert(utterance, work)
    spoken = replace(utterance, text=text.text, extra=dict(utterance.extra))
    if not cut and not trim(waveform, policy.audio.trim) and policy.audio.trim.no_speech == "drop":
        raise _Dropped(NO_SPEECH, {"text": utterance.text})
    set_level(waveform, policy.audio.level)
    pieces = segment(spoken, waveform.samples, policy.segmentation, work.aligner) if cut else []
    _record(item, text, waveform, output)
    if not cut:
        columns = _columns(spoken, utterance.utterance_id, waveform.duration_s, work)
        _store(item, columns, item.stem, waveform.samples, work, output)
        return
    _store_pieces(item, spoken, waveform, pieces, work, output)


def _convert(utterance: Utterance, work: Work) -> TextResult:
    """The transcript under the conventions of its language."""
    text = work.pipeline(utterance.language).apply(utterance.text)
    if text.drop_reason is not None:
        raise _Dropped(text.drop_reason, {"text": utterance.text})
    return text


def _record(item: Item, text: TextResult, waveform: Waveform, output: _Output) -> None:
    for step in text.changes:
        output.change(item, "text", step.rule, step.before, step.after)
    for change in waveform.changes:
        output.change(item, "audio", change.rule, change.before, change.after)


def _store_pieces(
    item: Item, spoken: Utterance, waveform: Waveform, pieces: list[Piece], work: Work, output: _Output
) -> None:
    made = []
    for piece in pieces:
        first, last = round(piece.start_s * SAMPLE_RATE_HZ), round(piece.end_s * SAMPLE_RATE_HZ)
        span = f"-{round(piece.start_s * 1000):07d}-{round(piece.end_s * 1000):07d}"
        name = spoken.utterance_id + span
        text, reason = piece.text, None
        if work.policy.segmentation.mode == "sentences":  # they came from the column segments, not yet converted
            result = work.pipeline(spoken.language).apply(text)
            text, reason = result.text, result.drop_reason
        unwanted = [mark for mark in piece.marks if mark in work.policy.drop_pieces]
        reason = reason or (f"piece with {unwanted[0]}" if unwanted else None)
        entry = {"utterance_id": name, "start_s": piece.start_s, "end_s": piece.end_s, "text": text, "how": piece.how}
        if text != piece.text:
            entry["text_before"] = piece.text
        made.append({**entry, "dropped": reason} if reason else entry)
        if reason:
            output.records.append({"drop": reason, "seconds": (last - first) / SAMPLE_RATE_HZ})
            continue
        columns = _columns(replace(spoken, text=text), name, (last - first) / SAMPLE_RATE_HZ, work)
        columns |= {"parent_id": spoken.utterance_id, "parent_start_s": piece.start_s, "parent_end_s": piece.end_s}
        columns |= {"cut_by": piece.how, "cut_confidence": piece.confidence}
        _store(item, columns, item.stem + span, waveform.samples[first:last], work, output)
    output.change(item, "segmentation", work.policy.segmentation.mode, {"duration_s": waveform.duration_s}, made)


def _columns(utterance: Utterance, name: str, duration_s: float, work: Work) -> dict[str, Any]:
    row = utterance.to_row()
    for column in ("file_name", "start_s", "end_s"):
        row.pop(column, None)
    if work.policy.segmentation.mode != "off":
        row.pop("segments", None)
    return {**row, "utterance_id": name, "duration_s": round(duration_s, 6)}


def _store(item: Item, columns: dict[str, Any], stem: str, samples: Samples, work: Work, output: _Output) -> None:
    """Write one utterance's audio (or keep it for the shard) and its row."""
    if work.policy.output.format == "flac":
        file_name = f"audio/{stem}.flac"
        write_audio(work.out / file_name, samples)
        columns = {"file_name": file_name, **columns}
        stored = file_name
    else:
        stored = f"{item.number:09d}-{len(output.stored):06d}.flac"
        output.stored.append(StoredRow(columns, stored, encode_flac(samples)))
    source = {name: getattr(item.utterance, name) for name in ("file_name", "start_s", "end_s", "duration_s")}
    output.change(item, "audio", "file", source, {"file_name": stored, "duration_s": columns["duration_s"]})
    output.records.append({"row": columns})


_work: Work | None = None


def start_worker(work: Work) -> None:
    """Set a worker process up; it ends by itself when its parent is killed."""
    import multiprocessing

    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent is interrupted as well, and speaks for all
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)


def run_in_worker(chunk: Chunk) -> list[dict[str, Any]]:
    """`run_chunk` in a process that `start_worker` set up."""
    assert _work is not None
    return run_chunk(chunk, _work)
