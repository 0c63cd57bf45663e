"""Turning recordings in any known layout into a corpus: every row is checked, every file decoded completely."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from speechtune.audio.io import OUTSIDE, SAMPLE_RATE_HZ, AudioError, Samples, load_audio, write_audio
from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, write_jsonl
from speechtune.core.progress import note, track
from speechtune.core.provenance import provenance
from speechtune.corpus.import_rows import Entry, Fill, overlapping_spans, read_rows
from speechtune.corpus.importers import Importer, RawRow, find_importer
from speechtune.corpus.naming import audio_stem
from speechtune.corpus.table import Corpus, Utterance, count_by

__all__ = ["DROPPED", "AudioMode", "Fill", "ImportResult", "import_corpus"]

DROPPED = "dropped.jsonl"
AudioMode = Literal["flac", "reference"]
_SPAN_SLACK_SAMPLES = SAMPLE_RATE_HZ // 100  # as load_audio


@dataclass(frozen=True, slots=True)
class ImportResult:
    """What an import did."""

    out: Path
    format: str
    kept: int
    dropped_by_reason: dict[str, int]
    seconds_of_audio: float
    speakers: int
    fingerprint: str
    overlapping_spans: int = 0

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {
            "out": str(self.out),
            "format": self.format,
            "kept": self.kept,
            "dropped_by_reason": self.dropped_by_reason,
            "seconds_of_audio": self.seconds_of_audio,
            "speakers": self.speakers,
            "fingerprint": self.fingerprint,
            "overlapping_spans": self.overlapping_spans,
        }

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped_by_reason.items()) or "none"
        return (
            f"{self.out}: {self.kept} utterances, {self.seconds_of_audio / 60:.1f} minutes, "
            f"{self.speakers} speakers (read as {self.format})\ndropped: {dropped}"
            + (f"\nspans that overlap another: {self.overlapping_spans}" if self.overlapping_spans else "")
        )


def import_corpus(
    source: str | Path,
    out: Path,
    *,
    format: str | None = None,
    audio: AudioMode = "flac",
    drop_bad: bool = False,
    allow_empty: bool = False,
    overwrite: bool = False,
    fill: Fill | None = None,
) -> ImportResult:
    """Read ``source`` in any layout of `speechtune.corpus.importers` and write the corpus directory ``out``.

    Args:
        source: a folder, a table file, or ``hf:owner/name[:config][@split]``.
        out: the corpus directory to make.
        format: name of the importer (``None``: the first that recognises the source).
        audio: ``flac`` writes every clip below ``out/audio`` as 16 kHz mono FLAC, spans cut out; ``reference`` names
            the original files by absolute path and keeps the spans.
        drop_bad: leave bad rows out, count them in ``corpus.json`` and list them in ``dropped.jsonl``; otherwise one
            bad row stops the import.
        allow_empty: an empty transcript is not bad.
        overwrite: replace ``out`` if it exists.
        fill: what to add to rows.

    Raises:
        InputError: a bad row (without ``drop_bad``), no row left, an unknown layout, or an ``out`` that cannot be
            written or would replace the source.
    """
    source = str(source)
    if audio not in ("flac", "reference"):
        raise InputError(f"--audio {audio} is unknown: choose flac or reference")
    importer = find_importer(source, format)
    _refuse_overlap(source, out)
    with new_directory(out, overwrite) as draft:
        entries = read_rows(importer, source, fill or Fill(), allow_empty)
        _refuse_loss(entries, out, audio)
        strict = not drop_bad and any(entry.problem and entry.fault for entry in entries)
        _check_audio(entries, draft, write=audio == "flac" and not strict)
        if not entries:
            raise InputError(
                f"{source} holds no rows (read as {importer.name}): check the path or choose another --format"
            )
        bad = [entry for entry in entries if entry.problem]
        faults = [entry for entry in bad if entry.fault]
        if faults and not drop_bad:
            raise InputError(_complaint(faults, len(entries)))
        if len(bad) == len(entries):
            raise InputError(f"no utterance of {source} is usable: {_complaint(bad, len(entries), advise=False)}")
        return _write(entries, importer, source, out, draft, audio)


def _refuse_overlap(source: str, out: Path) -> None:
    if source.startswith("hf:"):
        return
    given, target = Path(source).resolve(), out.resolve()
    if given == target or given.is_relative_to(target):
        raise InputError(f"--out {out} would replace the source {source}: choose a directory beside it")
    if Path(source).is_dir() and target.is_relative_to(given):
        raise InputError(f"--out {out} lies inside the source {source}: choose a directory beside it")


def _refuse_loss(entries: list[Entry], out: Path, audio: AudioMode) -> None:
    """Replacing ``out`` must not delete a recording; referenced recordings must be files."""
    target = out.resolve()
    for entry in entries:
        path = entry.raw.audio
        if path is not None and out.exists() and path.resolve().is_relative_to(target):
            raise InputError(f"--out {out} holds the recording {path} of the source: choose another --out")
        if audio == "reference" and entry.raw.read_bytes is not None:
            raise InputError(f"{entry.raw.where} holds its audio inside a table: use --audio flac")


def _check_audio(entries: list[Entry], draft: Path, write: bool) -> None:
    """Decode every file once, completely and in parallel; note what is bad, set durations, write clips if asked to."""
    taken: set[str] = set()
    groups: dict[str, list[Entry]] = {}
    for number, entry in enumerate(entries):
        if entry.problem is None:
            entry.stem = audio_stem(entry.utterance.utterance_id, taken)
            key = str(entry.raw.audio) if entry.raw.read_bytes is None else f"row {number}"
            groups.setdefault(key, []).append(entry)
    pool = ThreadPoolExecutor(min(32, os.cpu_count() or 1))
    try:
        tasks = [pool.submit(_check_file, group, draft if write else None) for group in groups.values()]
        for task in track(as_completed(tasks), "decoding audio", total=len(tasks)):
            task.result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _check_file(group: list[Entry], draft: Path | None) -> None:
    """The rows of one audio file."""
    try:
        with _as_file(group[0].raw) as path:
            samples = load_audio(path)
    except AudioError as error:
        for entry in group:
            entry.problem = (error.reason, str(error))
        return
    for entry in group:
        try:
            clip = _cut(samples, entry.utterance, entry.raw)
        except AudioError as error:
            entry.problem = (error.reason, str(error))
            continue
        entry.utterance.duration_s = round(len(clip) / SAMPLE_RATE_HZ, 6)
        if draft is not None:
            write_audio(draft / "audio" / f"{entry.stem}.flac", clip)


@contextmanager
def _as_file(raw: RawRow) -> Iterator[Path]:
    """The audio as a file: its own, or a temporary one that holds its bytes."""
    if raw.read_bytes is None:
        assert raw.audio is not None
        yield raw.audio
        return
    with tempfile.TemporaryDirectory(prefix="speechtune-") as folder:
        path = Path(folder) / f"audio{Path(raw.name).suffix}"
        path.write_bytes(raw.read_bytes())
        try:
            yield path
        except AudioError as error:
            raise AudioError(error.reason, str(error).replace(str(path), raw.name)) from error


def _cut(samples: Samples, row: Utterance, raw: RawRow) -> Samples:
    """The row's span of a 16 kHz array, under the same rules as ``load_audio(path, start_s, end_s)``."""
    if row.start_s is None and row.end_s is None:
        return samples
    first = max(round((row.start_s or 0.0) * SAMPLE_RATE_HZ), 0)
    last = len(samples) if row.end_s is None else round(row.end_s * SAMPLE_RATE_HZ)
    early = (row.start_s or 0.0) * SAMPLE_RATE_HZ < -_SPAN_SLACK_SAMPLES
    if early or not first < min(last, len(samples)) or last > len(samples) + _SPAN_SLACK_SAMPLES:
        end = "the end" if row.end_s is None else f"{row.end_s:g} s"
        length_s = len(samples) / SAMPLE_RATE_HZ
        raise AudioError(
            OUTSIDE,
            f"the span from {row.start_s or 0.0:g} s to {end} is not inside {raw.audio} ({length_s:.3f} s long)",
        )
    return samples[first:last]


def _complaint(bad: list[Entry], rows: int, advise: bool = True) -> str:
    """One sentence: the first bad row, how many are bad by reason, and what to do."""
    detail = (bad[0].problem or ("", ""))[1]
    counts = ", ".join(f"{count} {name}" for name, count in _count(bad).items())
    advice = "; correct them, or add --drop-bad to import the rest" if advise else ""
    text = f"{bad[0].raw.where}: {detail}; {len(bad)} of {rows} rows are bad ({counts}){advice}"
    return _printable(text)


def _printable(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _count(bad: Iterable[Entry]) -> dict[str, int]:
    return dict(Counter(entry.problem[0] for entry in bad if entry.problem).most_common())


def _write(
    entries: list[Entry], importer: Importer, source: str, out: Path, draft: Path, audio: AudioMode
) -> ImportResult:
    bad = [entry for entry in entries if entry.problem]
    utterances = [_finished(entry, audio) for entry in entries if not entry.problem]
    corpus = Corpus(draft, utterances)
    speakers = len({row.speaker_id for row in utterances if row.speaker_id is not None})
    result = ImportResult(
        out=out,
        format=importer.name,
        kept=len(utterances),
        dropped_by_reason=_count(bad),
        seconds_of_audio=round(corpus.seconds_of_audio, 3),
        speakers=speakers,
        fingerprint=corpus.fingerprint(),
        overlapping_spans=overlapping_spans(entries),
    )
    facts = {name: value for name, value in result.to_json().items() if name != "out"}
    corpus.card = {
        **facts,
        "source": source if source.startswith("hf:") else str(Path(source).resolve()),
        "audio": audio,
        "languages": count_by(utterances, "language"),
        "splits": count_by(utterances, "split"),
        "provenance": provenance(),
    }
    if bad:
        write_jsonl(draft / DROPPED, [_dropped_row(entry) for entry in bad])
        note(f"{len(bad)} rows were dropped: {DROPPED} lists them")
    corpus.save()
    return result


def _finished(entry: Entry, audio: AudioMode) -> Utterance:
    row = entry.utterance
    if audio == "reference":
        assert entry.raw.audio is not None
        return replace(row, file_name=str(entry.raw.audio.absolute()))
    source = row.source
    if row.start_s is not None or row.end_s is not None:
        end = "" if row.end_s is None else f"{row.end_s:g}"
        source = f"{source or ''}#t={row.start_s or 0.0:g},{end}".replace(",#", "#").removesuffix(",")
    return replace(row, file_name=f"audio/{entry.stem}.flac", start_s=None, end_s=None, source=source)


def _dropped_row(entry: Entry) -> dict[str, Any]:
    reason, detail = entry.problem or ("", "")
    row = {"where": entry.raw.where, "reason": reason, "detail": detail}
    if entry.utterance.utterance_id:
        row["utterance_id"] = entry.utterance.utterance_id
    if entry.raw.audio is not None:
        row["audio"] = str(entry.raw.audio)
    return {name: _printable(value) for name, value in row.items()}
