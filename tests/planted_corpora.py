"""Faults of a whole corpus, planted into the table of a clean one; the audio stays where it is."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.corpus.table import METADATA

Row = dict[str, Any]


@dataclass(frozen=True)
class Variant:
    """A fault of the corpus: the check that has to find it, and how the clean rows are changed."""

    name: str
    check: str
    change: Callable[[list[Row]], list[Row]]


def _of(rows: list[Row], split: str) -> list[Row]:
    return [row for row in rows if row["split"] == split]


def _moved_speaker(rows: list[Row]) -> list[Row]:
    speaker = _of(rows, "train")[0]["speaker_id"]
    mine = [row for row in rows if row["speaker_id"] == speaker]
    for row in mine[: len(mine) // 2]:
        row["split"] = "dev"
    return rows


def _sessions(rows: list[Row]) -> list[Row]:
    for number, row in enumerate(rows):
        row["session_id"] = f"day{number % 7}"
    return rows


def _copied_audio(rows: list[Row]) -> list[Row]:
    return [*rows, *({**row, "utterance_id": f"copy-{row['utterance_id']}", "split": "test", "speaker_id": "t-x"}
                     for row in _of(rows, "train")[:3])]  # fmt: skip


def _copied_texts(rows: list[Row]) -> list[Row]:
    for row, other in zip(_of(rows, "test")[::2], _of(rows, "train"), strict=False):
        row["text"] = other["text"]
    return rows


def _same_id(rows: list[Row]) -> list[Row]:
    rows[5]["utterance_id"] = rows[6]["utterance_id"]
    return rows


def _by_the_clock(rows: list[Row]) -> list[Row]:
    for row in rows:
        row |= {"start_s": 0.0, "end_s": 2.0, "duration_s": 2.0}
    return rows


def _overlaps(rows: list[Row]) -> list[Row]:
    row = rows[0]
    spans = [{**row, "utterance_id": f"span{number}", "start_s": start, "end_s": start + 1.0, "duration_s": 1.0}
             for number, start in enumerate((0.0, 0.5))]  # fmt: skip
    return [*rows[1:], *spans]


def _mostly(column: str, much: str, little: str, every: int) -> Callable[[list[Row]], list[Row]]:
    def change(rows: list[Row]) -> list[Row]:
        for number, row in enumerate(rows):
            row[column] = little if number % every == 0 else much
        return rows

    return change


def _one_speaker(rows: list[Row]) -> list[Row]:
    for row in _of(rows, "train"):
        row["speaker_id"] = "train-busy"
    return rows


def _unseen(rows: list[Row]) -> list[Row]:
    for row in _of(rows, "dev"):
        row["text"] = " ".join(word[::-1] if len(word) > 4 else word for word in row["text"].split())
    return rows


def _no_speakers(rows: list[Row]) -> list[Row]:
    return [{name: value for name, value in row.items() if name != "speaker_id"} for row in rows]


def _capitals(rows: list[Row]) -> list[Row]:
    for row in rows[::3]:
        row["text"] = row["text"].upper()
    return rows


def _all_capitals(rows: list[Row]) -> list[Row]:
    for row in rows:
        row["text"] = row["text"].upper()
    return rows


def _wrong_texts(rows: list[Row]) -> list[Row]:
    for row in rows[::8]:
        row["text"] = " ".join([row["text"]] * 5)
    return rows


def _few_texts(rows: list[Row]) -> list[Row]:
    for number, row in enumerate(rows):
        row["text"] = rows[number % 9]["text"]
    return rows


def _two_speakers(rows: list[Row]) -> list[Row]:
    for number, row in enumerate(rows):
        row["speaker_id"] = f"{row['split']}-{number % 2}"
    return rows


VARIANTS: tuple[Variant, ...] = (
    Variant("a speaker in train and dev", "speaker_leakage", _moved_speaker),
    Variant("sessions in all splits", "session_leakage", _sessions),
    Variant("train audio in test", "audio_leakage", _copied_audio),
    Variant("half of the test texts in train", "text_leakage", _copied_texts),
    Variant("an id twice", "duplicate_id", _same_id),
    Variant("clips of 2.0 s", "same_length", _by_the_clock),
    Variant("overlapping spans", "overlapping_spans", _overlaps),
    Variant("90 % of one age", "age_imbalance", _mostly("age", "8", "5", 10)),
    Variant("90 % of one gender", "gender_imbalance", _mostly("gender", "f", "m", 10)),
    Variant("90 % of one source", "source_imbalance", _mostly("source", "web", "studio", 10)),
    Variant("one speaker has all of train", "speaker_dominance", _one_speaker),
    Variant("dev of unseen words", "oov_high", _unseen),
    Variant("no speaker ids", "column_unknown", _no_speakers),
    Variant("a third in capitals", "conventions_mixed", _capitals),
    Variant("everything in capitals", "all_capitals", _all_capitals),
    Variant("an eighth with too much text", "label_noise", _wrong_texts),
    Variant("nine texts in all", "texts_repeat", _few_texts),
    Variant("six speakers", "speakers_few", _two_speakers),
    Variant("a recording without a row", "audio_without_row", lambda rows: rows),
)

POLICY = {"volume": {"eval_warn_below_min": 0.01, "eval_error_below_min": 0.0, "warn_below_h": 0.0,
                     "error_below_h": 0.0, "note_below_h": 0.0}}  # fmt: skip
"""The clean corpus is small on purpose; the limits of volume are tested by themselves."""


def write_variant(variant: Variant | None, planted: Path, out: Path) -> Path:
    """A corpus of the clean rows of a planted one (`planted_defects.write_planted`), changed; ``None``: as they are."""
    lines = (planted / METADATA).read_text(encoding="utf-8").splitlines()
    rows = [row for row in map(json.loads, lines) if row["utterance_id"].startswith("clean-")]
    for row in rows:
        row["file_name"] = str((planted / row["file_name"]).resolve())
    first = Path(rows[0]["file_name"])
    changed = variant.change(rows) if variant else rows
    out.mkdir(parents=True)
    if variant and variant.check == "audio_without_row":
        shutil.copy(first, out / "forgotten.flac")
    (out / METADATA).write_text("".join(json.dumps(row) + "\n" for row in changed), encoding="utf-8")
    return out
