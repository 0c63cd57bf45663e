"""Writing a corpus in another tool's layout, so that an import gives the same utterances and transcripts back."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from speechtune.audio.io import SAMPLE_RATE_HZ, load_audio, write_audio
from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, write_json
from speechtune.core.progress import note, track
from speechtune.core.provenance import provenance
from speechtune.corpus.exporters import Exporter, ExportRow, find_exporter
from speechtune.corpus.import_rows import EXPORT_MARK
from speechtune.corpus.importers.raw import has_bad_bytes
from speechtune.corpus.naming import audio_stem, id_from_name
from speechtune.corpus.table import STANDARD_COLUMNS, Corpus, Utterance, count_by

_STRINGS = ("utterance_id", "speaker_id", "session_id", "language", "split", "age", "gender", "source")
AudioPlace = Literal["copy", "reference"]


@dataclass(frozen=True, slots=True)
class ExportResult:
    """What an export did; ``columns_not_carried`` are those the layout has no place for."""

    out: Path
    layout: str
    kept: int
    seconds_of_audio: float
    audio: str
    splits: dict[str, int]
    columns_not_carried: list[str]
    notes: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {
            "out": str(self.out),
            "layout": self.layout,
            "kept": self.kept,
            "dropped_by_reason": {},
            "seconds_of_audio": self.seconds_of_audio,
            "audio": self.audio,
            "splits": self.splits,
            "columns_not_carried": self.columns_not_carried,
            "notes": self.notes,
        }

    def __str__(self) -> str:
        lines = [f"{self.out}: {self.kept} utterances, {self.seconds_of_audio / 60:.1f} minutes as {self.layout}"]
        if self.columns_not_carried:
            lines.append(f"not carried by this layout: {', '.join(self.columns_not_carried)}")
        return "\n".join(lines + self.notes)


def export_corpus(
    corpus: Corpus, to: str, out: Path, *, audio: AudioPlace | None = None, overwrite: bool = False
) -> ExportResult:
    """Write ``corpus`` at ``out`` in the layout ``to`` of `speechtune.corpus.exporters`.

    Args:
        corpus: what to export; every utterance is.
        to: the layout's name.
        out: the directory to make.
        audio: ``reference`` names the files where they are; ``copy`` puts them below ``out/audio``: byte for byte, but
            cut out as 16 kHz FLAC where the utterance is a span and the layout has no spans. ``None``: as the layout
            does it (audiofolder copies, the others refer).
        overwrite: replace ``out`` if it exists.

    Raises:
        InputError: the layout cannot carry an utterance (its id is named), an audio file is missing, or ``out`` cannot
            be written or holds the corpus.
    """
    exporter = find_exporter(to)
    if audio not in (None, "copy", "reference"):
        raise InputError(f"--audio {audio} is unknown: choose copy or reference")
    copy = exporter.copies if audio is None else audio == "copy"
    corpus = Corpus(corpus.root, [_with_strings(row) for row in corpus], corpus.card)
    _check(corpus, exporter, copy)
    _refuse_loss(corpus, out)
    with new_directory(out, overwrite) as draft:
        rows = _copied(corpus, exporter, draft) if copy else [_referred(corpus, row) for row in corpus]
        notes = exporter.write(rows, draft, out)
        result = ExportResult(
            out=out,
            layout=exporter.name,
            kept=len(rows),
            seconds_of_audio=round(sum(row.utterance.duration_s for row in rows), 3),
            audio="copy" if copy else "reference",
            splits=count_by(corpus, "split"),
            columns_not_carried=_not_carried(corpus, exporter),
            notes=notes,
        )
        facts = {name: value for name, value in result.to_json().items() if name != "out"}
        facts["corpus"] = {"path": str(corpus.root.resolve()), "fingerprint": corpus.fingerprint()}
        write_json(draft / EXPORT_MARK, {**facts, "provenance": provenance()})
    for one in notes:
        note(one)
    return result


def _with_strings(row: Utterance) -> Utterance:
    """The row with numbers in columns of text (``"age": 6`` in a table made by hand) as text."""
    found: dict[str, Any] = {
        name: str(value) for name in _STRINGS if isinstance(value := row.column(name), (int, float))
    }
    return replace(row, **found) if found else row


def _check(corpus: Corpus, exporter: Exporter, copy: bool) -> None:
    """Refuse what the layout would change or lose."""
    if not len(corpus):
        raise InputError(f"{corpus.root} has no utterances: there is nothing to export")
    for number, row in enumerate(corpus, start=1):
        where = f"{corpus.root} row {number} (utterance {row.utterance_id!r})"
        if not isinstance(row.text, str):
            raise InputError(
                f"{where}: its text is a {type(row.text).__name__}: run speechtune import on the corpus first"
            )
        problem = exporter.check(row)
        if row.utterance_id != row.utterance_id.strip() or not row.utterance_id:
            problem = "its id is empty or begins or ends with a blank"
        elif row.text and not row.text.strip():
            problem = "its text is nothing but blanks"
        elif has_bad_bytes(row.text):
            problem = "its text holds surrogates, which no UTF-8 file can"
        if problem:
            raise InputError(
                f"{where}: {problem}, which {exporter.name} cannot carry: correct it, or export without it"
            )
        if not copy and not exporter.spans and not (row.start_s is None and row.end_s is None):
            raise InputError(f"{where}: it is a span of a file, which {exporter.name} cannot carry: use --audio copy")
        if not corpus.path_of(row).is_file():
            raise InputError(
                f"{where}: the audio file {corpus.path_of(row)} does not exist: restore it, or export without it"
            )


def _refuse_loss(corpus: Corpus, out: Path) -> None:
    target, root = out.resolve(), corpus.root.resolve()
    inside = root == target or root.is_relative_to(target)
    if inside or any(corpus.path_of(row).resolve().is_relative_to(target) for row in corpus):
        raise InputError(f"--out {out} holds the corpus or its audio: choose another directory")


def _referred(corpus: Corpus, row: Utterance) -> ExportRow:
    path = Path(os.path.abspath(corpus.path_of(row)))
    return ExportRow(utterance=row, file=path, place=path)


def _copied(corpus: Corpus, exporter: Exporter, draft: Path) -> list[ExportRow]:
    """Copy every file once; cut spans out where the layout has none."""
    users: dict[Path, list[Utterance]] = {}
    for row in corpus:
        users.setdefault(corpus.path_of(row), []).append(row)
    (draft / "audio").mkdir()
    taken: set[str] = set()
    rows: dict[str, ExportRow] = {}
    tasks: list[tuple[Path, Path, Utterance | None]] = []
    for path, group in users.items():
        pieces = [row for row in group if exporter.cuts and not (row.start_s is None and row.end_s is None)]
        whole = [row for row in group if row not in pieces]
        if whole and not exporter.cuts:
            name = whole[0].utterance_id if len(whole) == 1 else id_from_name(path.name)
            place = Path("audio", audio_stem(name, taken) + path.suffix.lower())
            tasks.append((path, draft / place, None))
            rows |= {row.utterance_id: ExportRow(utterance=row, file=draft / place, place=place) for row in whole}
        else:
            for row in whole:
                place = Path("audio", audio_stem(row.utterance_id, taken) + path.suffix.lower())
                tasks.append((path, draft / place, None))
                rows[row.utterance_id] = ExportRow(utterance=row, file=draft / place, place=place)
        for row in pieces:
            place = Path("audio", audio_stem(row.utterance_id, taken) + ".flac")
            tasks.append((path, draft / place, row))
            rows[row.utterance_id] = ExportRow(utterance=row, file=draft / place, place=place)
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for cut in track(pool.map(_copy, tasks), "copying audio", total=len(tasks)):
            if cut is not None:
                rows[cut.utterance_id].utterance = cut
    return [rows[row.utterance_id] for row in corpus]


def _copy(task: tuple[Path, Path, Utterance | None]) -> Utterance | None:
    """Copy a file, or cut a span out: then its utterance as a whole file."""
    source, target, span = task
    if span is None:
        shutil.copyfile(source, target)
        return None
    samples = load_audio(source, span.start_s, span.end_s)
    write_audio(target, samples)
    return replace(span, start_s=None, end_s=None, duration_s=round(len(samples) / SAMPLE_RATE_HZ, 6))


def _not_carried(corpus: Corpus, exporter: Exporter) -> list[str]:
    """The columns that the corpus has and the layout has no place for."""
    used = {name: None for row in corpus for name in row.to_row()}
    other = {name for name in used if exporter.extra and name not in STANDARD_COLUMNS and name not in exporter.reserved}
    return [name for name in used if name not in exporter.carries | other]
