"""The dataset card: ``README.md`` with what a reader and the Hugging Face hub want to know of a prepared corpus."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))


@dataclass(slots=True)
class Census:
    """Counts over the rows of a corpus, gathered one row at a time."""

    rows: int = 0
    seconds: float = 0.0
    splits: dict[str, list[float]] = field(default_factory=dict)
    ages: dict[str, list[float]] = field(default_factory=dict)
    speakers: set[str] = field(default_factory=set)
    languages: Counter[str] = field(default_factory=Counter)
    genders: Counter[str] = field(default_factory=Counter)
    columns: dict[str, None] = field(default_factory=dict)
    with_digits: int = 0

    def add(self, row: Mapping[str, Any]) -> None:
        """Count one row."""
        seconds = float(row["duration_s"])
        self.rows += 1
        self.seconds += seconds
        for groups, name in ((self.splits, "split"), (self.ages, "age")):
            group = groups.setdefault(str(row.get(name) or "(unknown)"), [0, 0.0])
            group[0] += 1
            group[1] += seconds
        if row.get("speaker_id") is not None:
            self.speakers.add(str(row["speaker_id"]))
        self.languages[str(row.get("language") or "(unknown)")] += 1
        self.genders[str(row.get("gender") or "(unknown)")] += 1
        self.columns.update(dict.fromkeys(row))
        self.with_digits += any(char.isdigit() for char in row["text"])


def write_card(
    census: Census,
    *,
    output: Mapping[str, Any],
    conventions: Mapping[str, Any],
    rules: Mapping[str, int],
    dropped: Mapping[str, int],
    files: Mapping[str, list[str]],
    source: str,
) -> str:
    """The card's text.

    Args:
        census: counts over the rows that were kept.
        output: the policy's ``output`` block.
        conventions: text conventions that differ from the defaults, by language (``text`` for all).
        rules: how often each rule changed something.
        dropped: rows left out, by reason.
        files: for sharded formats, the files of each split.
        source: where the recordings came from.
    """
    title = output["title"] or "Speech corpus"
    storage = {
        "flac": "One 16-bit FLAC file (16 kHz, mono) per utterance below `audio/`; the table is `metadata.jsonl`.",
        "parquet": "Parquet shards below `data/`; the column `audio` holds `{bytes, path}` with 16 kHz mono FLAC.",
        "arrow": "Arrow streams below `data/`; the column `audio` holds `{bytes, path}` with 16 kHz mono FLAC.",
        "webdataset": "Tar shards below `data/`; per utterance KEY.flac (16 kHz mono), KEY.txt and KEY.json.",
    }[output["format"]]
    parts = [
        _front_matter(census, title, output["license"], files),
        f"# {title}\n",
        *([output["description"] + "\n"] if output["description"] else []),
        f"{census.rows} utterances, {census.seconds / 3600:.2f} hours, {len(census.speakers)} speakers. "
        f"Licence: {output['license']}.\n",
        f"## Format\n\n{storage}\n\nColumns: {', '.join(f'`{name}`' for name in census.columns)}.\n",
        "## Splits\n\n" + _table(("split", "utterances", "hours"), census.splits),
        "## Ages\n\n" + _table(("age", "utterances", "hours"), census.ages),
        "## Languages\n\n" + _counts(("language", "utterances"), census.languages),
        "## Genders\n\n" + _counts(("gender", "utterances"), census.genders),
        "## Text conventions\n\n" + _conventions(conventions, census.with_digits),
        "## What was changed\n\n" + _counts(("rule", "utterances"), rules),
        "## What was left out\n\n" + _counts(("reason", "utterances"), dropped),
        f"## Provenance\n\nPrepared by speechtune from {source}. `changes.jsonl` holds every change with its rule, "
        "`original.jsonl` the table as it was (`speechtune prepare --undo` returns it), `policy.json` the policy.\n",
    ]
    return "\n".join(parts)


def _front_matter(census: Census, title: str, licence: str, files: Mapping[str, list[str]]) -> str:
    size = next((name for limit, name in _SIZES if census.rows < limit), "n>1M")
    lines = ["---", f"pretty_name: {json.dumps(title, ensure_ascii=False)}", f"license: {json.dumps(licence)}"]
    languages = sorted(name for name in census.languages if name != "(unknown)")
    if languages:
        lines += ["language:", *(f"- {json.dumps(name)}" for name in languages)]
    lines += ["task_categories:", "- automatic-speech-recognition", "size_categories:", f"- {size}"]
    if files:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        for split, names in files.items():
            lines += [f"  - split: {split}", "    path:", *(f"    - {name}" for name in names)]
    return "\n".join([*lines, "---", ""])


def _table(head: tuple[str, str, str], groups: Mapping[str, list[float]]) -> str:
    rows = [
        f"| {_cell(name)} | {int(count)} | {seconds / 3600:.2f} |"
        for name, (count, seconds) in sorted(groups.items(), key=_natural)
    ]
    return "\n".join([f"| {' | '.join(head)} |", "|---|---:|---:|", *rows, ""])


def _natural(item: tuple[str, list[float]]) -> tuple[float, str]:
    """Ages in the order of their first number."""
    number = re.match(r"\d+(\.\d+)?", item[0])
    return (float(number[0]) if number else float("inf"), item[0])


def _counts(head: tuple[str, str], counts: Mapping[str, int]) -> str:
    if not counts:
        return "Nothing.\n"
    rows = [f"| {_cell(name)} | {count} |" for name, count in counts.items()]
    return "\n".join([f"| {' | '.join(head)} |", "|---|---:|", *rows, ""])


def _cell(text: str) -> str:
    return " ".join(text.replace("|", "\\|").split())


def _conventions(conventions: Mapping[str, Any], with_digits: int) -> str:
    lines = []
    for language, keys in conventions.items():
        who = "Every language" if language == "text" else f"`{language}`"
        for key, value in keys.items():
            shown = json.dumps(value, ensure_ascii=False)
            lines.append(f"- {who}: `{key}`: {shown if len(shown) < 200 else f'{len(value)} entries'}")
    lines = lines or ["- The defaults: NFC, single blanks, no invisible characters; nothing else was touched."]
    return "\n".join([*lines, f"- {with_digits} transcripts hold digits.", ""])
