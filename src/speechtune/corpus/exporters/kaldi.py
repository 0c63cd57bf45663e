"""A Kaldi data directory, or one for each split, sorted bytewise as Kaldi wants it (LC_ALL=C).

wav.scp, segments (where there are spans), text, utt2spk, spk2utt, utt2dur, reco2dur, utt2lang, spk2gender and
spk2age, or utt2gender and utt2age where one speaker has two values. See https://kaldi-asr.org/doc/data_prep.html.
Where the speaker is unknown the utterance stands for it, which the file ``no_speaker`` (not Kaldi's) lists, so that
an import knows.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from speechtune.core.files import write_text
from speechtune.corpus.exporters.base import Exporter, ExportRow, by_split, part_names
from speechtune.corpus.importers.kaldi import NO_SPEAKER, UNSPLIT
from speechtune.corpus.importers.raw import SPLIT_NAMES
from speechtune.corpus.naming import id_from_name, short_hash
from speechtune.corpus.table import Utterance

NAME = "kaldi"
_CARRIES = frozenset(
    {"file_name", "text", "utterance_id", "speaker_id", "language", "duration_s", "start_s", "end_s", "split"}
    | {"age", "gender"}
)


def check(row: Utterance) -> str | None:
    """What a line of words separated by blanks cannot hold."""
    if "\n" in row.text or "\r" in row.text:
        return "its text holds a line break"
    if row.text != row.text.strip(" \t"):
        return "its text begins or ends with a blank"
    for what, value in (("utterance id", row.utterance_id), ("speaker id", row.speaker_id)):
        if value is not None and (not value or value.split() != [value]):
            return f"its {what} {value!r} holds a blank"
    for what, value in (("language", row.language), ("age", row.age), ("gender", row.gender)):
        if value is not None and ("\n" in value or "\r" in value or value != value.strip(" \t")):
            return f"its {what} {value!r} holds a line break or a blank at its end"
    path = row.file_name
    if "\n" in path or path != path.strip() or path.endswith("|"):
        return f"its file name {path!r} would be read as something else"
    if row.split is not None and SPLIT_NAMES.get(row.split) != row.split:
        return f"its split {row.split!r} has no directory of its own (train, dev and test have)"
    return None


def write(rows: Sequence[ExportRow], draft: Path, out: Path) -> list[str]:
    """Write a data directory for each split, or one at the root if there are no splits."""
    parts = by_split(rows)
    names = part_names(list(parts))
    if len(parts) > 1 and None in parts:
        names[None] = UNSPLIT
    notes = []
    for split, part in parts.items():
        _write_directory(part, draft / names[split], out)
    unknown = sum(row.utterance.speaker_id is None for row in rows)
    if unknown:
        notes.append(f"{unknown} utterances have no speaker: each is a speaker of its own in utt2spk")
    prefixed = all(row.utterance.utterance_id.startswith(row.utterance.speaker_id or "") for row in rows)
    if not prefixed:
        notes.append("utterance ids do not begin with their speaker's: Kaldi's validate_data_dir.sh wants them to")
    odd = {row.utterance.gender for row in rows} - {"m", "f", None}
    if odd:
        notes.append(f"Kaldi's genders are m and f, here there is also {', '.join(sorted(map(str, odd)))}")
    return notes


def _write_directory(rows: Sequence[ExportRow], folder: Path, out: Path) -> None:
    cut = any(row.span_s for row in rows)
    tables: dict[str, dict[str, str]] = {name: {} for name in ("wav.scp", "text", "utt2spk", "utt2dur", "reco2dur")}
    segments: dict[str, str] = {}
    recordings = _recording_ids(rows, cut)
    for row in rows:
        utterance, recording = row.utterance, recordings[str(row.place)]
        key = utterance.utterance_id
        tables["wav.scp"][recording if cut else key] = row.absolute(out)
        tables["text"][key] = utterance.text
        tables["utt2spk"][key] = utterance.speaker_id or key
        tables["utt2dur"][key] = f"{utterance.duration_s:.6f}"
        if cut:
            start_s, end_s = row.span_s or (0.0, utterance.duration_s)
            segments[key] = f"{recording} {_seconds(start_s)} {_seconds(end_s)}"
        else:
            tables["reco2dur"][key] = f"{utterance.duration_s:.6f}"
    tables["segments"] = segments
    tables["utt2lang"] = {one.utterance.utterance_id: one.utterance.language for one in rows if one.utterance.language}
    tables[NO_SPEAKER] = {one.utterance.utterance_id: "" for one in rows if one.utterance.speaker_id is None}
    tables["spk2utt"] = _grouped(tables["utt2spk"])
    for column in ("age", "gender"):
        tables[f"spk2{column}"], tables[f"utt2{column}"] = _facts(rows, column, tables["utt2spk"])
    for name, table in tables.items():
        if table or name in ("wav.scp", "text"):
            write_text(folder / name, _lines(table))


def _seconds(value: float) -> str:
    return f"{value:.6f}".rstrip("0").rstrip(".")


def _recording_ids(rows: Sequence[ExportRow], cut: bool) -> dict[str, str]:
    """Place -> recording id; without segments it is the utterance's."""
    found: dict[str, str] = {}
    for row in rows:
        place = str(row.place)
        name = row.utterance.utterance_id if not cut else id_from_name(row.place.name)
        if place not in found:
            found[place] = f"{name}-{short_hash(place)}" if name in found.values() else name
    return found


def _grouped(speakers: Mapping[str, str]) -> dict[str, str]:
    groups: dict[str, list[str]] = {}
    for key in sorted(speakers, key=str.encode):
        groups.setdefault(speakers[key], []).append(key)
    return {speaker: " ".join(keys) for speaker, keys in groups.items()}


def _facts(
    rows: Sequence[ExportRow], column: str, speakers: Mapping[str, str]
) -> tuple[dict[str, str], dict[str, str]]:
    """A column by speaker where all utterances of the speaker agree, by utterance elsewhere."""
    values: dict[str, set[str | None]] = {}
    for row in rows:
        values.setdefault(speakers[row.utterance.utterance_id], set()).add(row.utterance.column(column))
    agreed = {speaker: value for speaker, found in values.items() if len(found) == 1 and (value := next(iter(found)))}
    apart = {}
    for row in rows:
        value = row.utterance.column(column)
        if value is not None and speakers[row.utterance.utterance_id] not in agreed:
            apart[row.utterance.utterance_id] = str(value)
    return {speaker: str(value) for speaker, value in agreed.items()}, apart


def _lines(table: Mapping[str, str]) -> str:
    rows = sorted(table.items(), key=lambda item: item[0].encode())
    return "".join(f"{key} {value}\n" if value else f"{key}\n" for key, value in rows)


EXPORTER = Exporter(NAME, write, check, _CARRIES, extra=False, spans=True, cuts=False, copies=False)
