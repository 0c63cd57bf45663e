"""Putting finished chunks together: the table or the shards, the record of changes, the card."""

from __future__ import annotations

import json
import os
import re
import shutil
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from speechtune.core.errors import InputError, explain_write_errors
from speechtune.core.files import sha256, write_json, write_text
from speechtune.corpus.card import Census, write_card
from speechtune.corpus.conventions import TextConventions, base_language
from speechtune.corpus.prepare.chunks import SHARDS
from speechtune.corpus.prepare.draft import Draft
from speechtune.corpus.prepare.plan import Plan
from speechtune.corpus.prepare.policy import PreparePolicy
from speechtune.corpus.stream import table_of
from speechtune.corpus.table import CARD, METADATA

CHANGES = "changes.jsonl"
ORIGINAL = "original.jsonl"
POLICY = "policy.json"
_SUFFIX = {"parquet": "parquet", "arrow": "arrow", "webdataset": "tar"}


@dataclass(slots=True)
class Totals:
    """What the chunks of a prepare add up to."""

    census: Census = field(default_factory=Census)
    dropped: Counter[str] = field(default_factory=Counter)
    dropped_seconds: float = 0.0
    rules: Counter[str] = field(default_factory=Counter)
    shards: dict[str | None, list[int]] = field(default_factory=dict)


def assemble(draft: Draft, plan: Plan, policy: PreparePolicy, chunks: list[tuple[int, str | None]]) -> Totals:
    """Write everything but the audio into ``draft.corpus``; it may be run again after an interruption.

    Args:
        draft: all its chunks are finished.
        plan: what was planned.
        policy: what was applied.
        chunks: number and split of every chunk, in order.

    Raises:
        InputError: no row is left, two rows have one id, or the disk is full.
    """
    out = draft.corpus
    totals = Totals()
    with explain_write_errors(draft.target):
        out.mkdir(parents=True, exist_ok=True)
        _sweep(out)
        with (out / CHANGES).open("w", encoding="utf-8") as changes:
            if plan.by_split:
                _collect(draft, chunks, totals, changes, None)
            else:
                with (out / METADATA).open("w", encoding="utf-8") as table:
                    _collect(draft, chunks, totals, changes, table)
        shutil.copyfile(table_of(plan.root), out / ORIGINAL)
    if not totals.census.rows:
        reasons = ", ".join(f"{count} {reason}" for reason, count in totals.dropped.most_common())
        raise InputError(f"no utterance of {plan.root} is left ({reasons}): loosen the policy")
    files = _name_shards(out, totals, policy.output.format) if plan.by_split else {}
    _describe(out, plan, policy, totals, files)
    return totals


def _sweep(out: Path) -> None:
    """Remove the temporary files of writers that were killed."""
    for folder, _, names in os.walk(out):
        for name in names:
            if name.startswith((".audio-", ".shard-")):
                Path(folder, name).unlink(missing_ok=True)


def _collect(
    draft: Draft, chunks: list[tuple[int, str | None]], totals: Totals, changes: TextIO, table: TextIO | None
) -> None:
    seen: set[str] = set()
    touched: set[tuple[str, str]] = set()
    for number, split in chunks:
        rows = 0
        for record in draft.records(number):
            if "row" in record:
                row = record["row"]
                if row["utterance_id"] in seen:
                    raise InputError(
                        f"two utterances are called {row['utterance_id']!r} after segmentation: rename one of them"
                    )
                seen.add(row["utterance_id"])
                rows += 1
                totals.census.add(row)
                if table is not None:
                    table.write(json.dumps(row, ensure_ascii=False) + "\n")
            elif "change" in record:
                change = record["change"]
                changes.write(json.dumps(change, ensure_ascii=False) + "\n")
                key = (change["utterance_id"], f"{change['stage']}: {change['rule']}")
                if change["stage"] != "drop" and change["rule"] != "file" and key not in touched:
                    totals.rules[key[1]] += 1
                    touched.add(key)
            else:
                totals.dropped[record["drop"]] += 1
                totals.dropped_seconds += record["seconds"]
        touched.clear()  # an utterance is in one chunk only
        if rows:
            totals.shards.setdefault(split, []).append(number)


def _name_shards(out: Path, totals: Totals, format: str) -> dict[str, list[str]]:
    """Give the shards that hold rows their names, and return them by split."""
    names: dict[str, list[str]] = {}
    (out / "data").mkdir(exist_ok=True)
    for split, numbers in totals.shards.items():
        label = re.sub(r"\W", "_", split) if split else "train"
        while label in names:
            label += "_"
        files = [f"data/{label}-{one:05d}-of-{len(numbers):05d}.{_SUFFIX[format]}" for one in range(len(numbers))]
        for number, name in zip(numbers, files, strict=True):
            shard = out / SHARDS / f"{number:06d}"
            if shard.exists():
                os.replace(shard, out / name)
        names[label] = files
    shutil.rmtree(out / SHARDS, ignore_errors=True)
    return names


def _describe(out: Path, plan: Plan, policy: PreparePolicy, totals: Totals, files: dict[str, list[str]]) -> None:
    census = totals.census
    write_json(out / POLICY, policy.model_dump(by_alias=True))
    card = {
        "format": "prepared",
        "stored_as": policy.output.format,
        "kept": census.rows,
        "dropped_by_reason": dict(totals.dropped.most_common()),
        "seconds_of_audio": round(census.seconds, 3),
        "seconds_dropped": round(totals.dropped_seconds, 3),
        "speakers": len(census.speakers),
        "languages": dict(census.languages.most_common()),
        "splits": {name: int(count) for name, (count, _) in census.splits.items()},
        "changed_by_rule": dict(totals.rules.most_common()),
        "source": str(plan.root.resolve()),
        "source_rows": plan.rows,
        "original_sha256": sha256(out / ORIGINAL),
    }
    write_json(out / CARD, card)
    conventions = {"text": _unusual(policy.text, policy.text.model_fields_set)}
    present = {part.lower() for tag in census.languages for part in (tag, base_language(tag))}
    for name, one in policy.languages.items():
        if name.lower() not in present:
            continue
        conventions[name] = _unusual(one, one.model_fields_set)
    text = write_card(
        census,
        output=policy.output.model_dump(),
        conventions={name: keys for name, keys in conventions.items() if keys},
        rules=dict(totals.rules.most_common()),
        dropped=dict(totals.dropped.most_common()),
        files=files,
        source=plan.root.resolve().name,
    )
    write_text(out / "README.md", text)


def _unusual(conventions: TextConventions, names: set[str]) -> dict[str, Any]:
    values, usual = conventions.model_dump(by_alias=True), TextConventions().model_dump(by_alias=True)
    return {
        name: values[name] for name in TextConventions.model_fields if name in names and values[name] != usual[name]
    }
