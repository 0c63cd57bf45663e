"""lhotse manifests: recordings, supervisions and cuts (MonoCut) of each split, as gzipped JSON lines.

The format of lhotse 1.33 (https://lhotse.readthedocs.io). Audio is named by absolute path, because lhotse resolves
relative ones against the working directory.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from speechtune.audio.io import probe
from speechtune.corpus.exporters.base import Exporter, ExportRow, always, by_split, part_names
from speechtune.corpus.naming import id_from_name, short_hash
from speechtune.corpus.table import STANDARD_COLUMNS

NAME = "lhotse"
_CUSTOM = ("age", "split", "session_id", "source")


def write(rows: Sequence[ExportRow], draft: Path, out: Path) -> list[str]:
    """Write the three manifests of each split."""
    parts = by_split(rows)
    names = part_names(list(parts))
    stereo = 0
    for split, part in parts.items():
        recordings = _recordings(part, out)
        stereo += sum(len(one["channel_ids"]) > 1 for one in recordings.values())
        supervisions = [_supervision(row, recordings[str(row.place)]) for row in part]
        cuts = [_cut(one, recordings[str(row.place)]) for one, row in zip(supervisions, part, strict=True)]
        end = f"_{names[split]}.jsonl.gz" if names[split] else ".jsonl.gz"
        for kind, objects in (("recordings", recordings.values()), ("supervisions", supervisions), ("cuts", cuts)):
            _write_gzip(draft / f"{kind}{end}", objects)
    return [f"{stereo} recordings have several channels: lhotse takes channel 0 of them"] if stereo else []


def _recordings(rows: Sequence[ExportRow], out: Path) -> dict[str, dict[str, Any]]:
    """Place -> recording; named after its utterance where it holds one only."""
    users: dict[str, list[ExportRow]] = {}
    for row in rows:
        users.setdefault(str(row.place), []).append(row)
    found: dict[str, dict[str, Any]] = {}
    taken: set[str] = set()
    for place, group in users.items():
        name = group[0].utterance.utterance_id if len(group) == 1 else id_from_name(group[0].place.name)
        if name in taken:
            name = f"{name}-{short_hash(place)}"
        taken.add(name)
        info = probe(group[0].file)
        samples = round(info.duration_s * info.sample_rate_hz)
        channels = list(range(max(info.channels, 1)))
        found[place] = {
            "id": name,
            "sources": [{"type": "file", "channels": channels, "source": group[0].absolute(out)}],
            "sampling_rate": info.sample_rate_hz,
            "num_samples": samples,
            "duration": samples / info.sample_rate_hz,
            "channel_ids": channels,
        }
    return found


def _supervision(row: ExportRow, recording: dict[str, Any]) -> dict[str, Any]:
    utterance = row.utterance
    start_s, end_s = row.span_s or (0.0, recording["duration"])
    length_s = min(end_s, recording["duration"]) - start_s
    known = {"text": utterance.text, "language": utterance.language, "speaker": utterance.speaker_id}
    known["gender"] = utterance.gender
    custom = {name: utterance.column(name) for name in _CUSTOM if utterance.column(name) is not None}
    custom |= {name: value for name, value in utterance.extra.items() if name not in custom}
    return {
        "id": utterance.utterance_id,
        "recording_id": recording["id"],
        "start": start_s,
        "duration": length_s if row.span_s is None else round(length_s, 6),
        "channel": 0,
        **{name: value for name, value in known.items() if value is not None},
        **({"custom": custom} if custom else {}),
    }


def _cut(supervision: dict[str, Any], recording: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": supervision["id"],
        "start": supervision["start"],
        "duration": supervision["duration"],
        "channel": 0,
        "supervisions": [{**supervision, "start": 0.0}],
        "recording": recording,
        "type": "MonoCut",
    }


def _write_gzip(path: Path, objects: Iterable[dict[str, Any]]) -> None:
    lines = "".join(json.dumps(one, ensure_ascii=False) + "\n" for one in objects)
    path.write_bytes(gzip.compress(lines.encode("utf-8"), mtime=0))


EXPORTER = Exporter(NAME, write, always, frozenset(STANDARD_COLUMNS), extra=True, spans=True, cuts=False, copies=False)
