"""Correction rounds: transcripts go out as a table, a human corrects them in a spreadsheet, the corrections come back.

Each import is a round with a record in ``corrections/`` of the corpus, from which it can be undone.
"""

from __future__ import annotations

import csv
import io
import json
import os
from collections import Counter
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, sha256, write_json, write_text
from speechtune.corpus.importers.raw import read_csv_rows, read_jsonl_rows
from speechtune.corpus.table import Corpus, Utterance

COLUMNS = ("utterance_id", "audio", "text", "corrected_text", "verdict", "note")
VERDICTS = ("", "ok", "fixed", "drop", "unsure")
FOLDER = "corrections"

_Row = tuple[str, dict[str, Any]]


@dataclass(frozen=True, slots=True)
class CorrectionResult:
    """What a round did: utterances changed, confirmed as they were, unsure, not reviewed, and dropped."""

    corpus: Path
    round: int
    changed: int
    confirmed: int
    unsure: int
    not_reviewed: int
    kept: int
    seconds_of_audio: float
    dropped_by_reason: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {name: getattr(self, name) for name in self.__slots__ if name != "corpus"} | {"corpus": str(self.corpus)}

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped_by_reason.items()) or "none"
        return (
            f"round {self.round}: {self.changed} changed, {self.confirmed} confirmed, {self.unsure} unsure, "
            f"{self.not_reviewed} not reviewed\ndropped: {dropped}\n{self.corpus}: {self.kept} utterances, "
            f"{self.seconds_of_audio / 60:.1f} minutes"
        )


def export_corrections(corpus: Corpus, out: Path, only: str | None = None, overwrite: bool = False) -> dict[str, Any]:
    """Write the table to correct; ``corrected_text`` begins as a copy of ``text``.

    Args:
        corpus: whose transcripts to correct.
        out: a .csv (UTF-8 with a byte-order mark, which spreadsheets need) or a .jsonl file.
        only: ``column=value``: only the utterances that have this value (``label_source=model``).
        overwrite: replace ``out``.

    Raises:
        InputError: the suffix is neither, ``out`` exists, or no utterance is left.
    """
    if out.suffix.lower() not in (".csv", ".jsonl"):
        raise InputError(f"cannot write {out}: choose a name that ends in .csv or .jsonl")
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists, perhaps with corrections in it: choose another --out or add --overwrite")
    chosen = list(corpus)
    if only is not None:
        column, mark, value = only.partition("=")
        if not mark:
            raise InputError(f"--only {only} is not COLUMN=VALUE: write for example --only label_source=model")
        chosen = [row for row in corpus if str(row.column(column)) == value]
    if not chosen:
        raise InputError(f"no utterance of {corpus.root} is left to correct: check --only {only}")
    rows = [dict(zip(COLUMNS, _cells(corpus, row), strict=True)) for row in chosen]
    if out.suffix.lower() == ".jsonl":
        write_text(out, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    else:
        buffer = io.StringIO(newline="")
        writer = csv.DictWriter(buffer, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        write_text(out, "\ufeff" + buffer.getvalue())
    seconds = round(sum(row.duration_s for row in chosen), 3)
    return {"out": str(out), "kept": len(rows), "dropped_by_reason": {}, "seconds_of_audio": seconds}


def _cells(corpus: Corpus, row: Utterance) -> tuple[str, ...]:
    return row.utterance_id, _audio(corpus, row), row.text, row.text, "", ""


def _audio(corpus: Corpus, row: Utterance) -> str:
    """The audio's absolute path, with the span as a media fragment."""
    path = os.path.abspath(corpus.path_of(row))
    if row.start_s is None and row.end_s is None:
        return path
    return f"{path}#t={row.start_s or 0.0:g},{'' if row.end_s is None else f'{row.end_s:g}'}"


def import_corrections(file: Path, corpus: Corpus) -> CorrectionResult:
    """Apply a corrected table to ``corpus``, in memory and on disk; all of it or nothing.

    A row counts as fixed if its corrected text differs from its text, even if its verdict is empty. ``drop`` takes the
    utterance out of the table (its audio stays). Rows without a verdict and without a change are not reviewed, and stay
    as they are. Changed rows keep their first text in ``text_before_correction``; reviewed rows get ``label_source``
    (corrected, or human if confirmed), ``label_round`` and ``label_verdict``, and ``label_note`` if there is one.

    Raises:
        InputError: a row has an unknown or repeated id, an unknown or contradictory verdict, or a text that is not the
            corpus's any more; its line is named. Nothing is written then.
    """
    records = corpus.root / FOLDER
    number = len(corpus.card.get("corrections", [])) + 1
    record_path = records / f"round-{number:04d}.json"
    before = corpus.fingerprint()
    if (done := _already_applied(record_path, file, before)) is not None:
        corpus.card["corrections"] = [*corpus.card.get("corrections", []), done["summary"]]
        _save(corpus)
        return CorrectionResult(corpus=corpus.root, **done["result"])
    work = Corpus(corpus.root, [Utterance.from_row(row.to_row()) for row in corpus], corpus.card)
    rows = _matched(file, work)
    counts: Counter[str] = Counter(not_reviewed=0)
    previous, dropped = [], set()
    places = {row.utterance_id: place for place, row in enumerate(corpus)}
    for where, row, utterance in rows:
        old = utterance.to_row()
        verdict = _apply(where, row, utterance, number)
        counts[verdict] += 1
        if verdict != "not_reviewed":
            previous.append({"place": places[utterance.utterance_id], "row": old})
        if verdict == "drop":
            dropped.add(utterance.utterance_id)
    after = Corpus(corpus.root, [row for row in work if row.utterance_id not in dropped], corpus.card)
    if not after.utterances:
        raise InputError(f"{file} drops every utterance of {corpus.root}: delete the corpus instead if you mean it")
    result = CorrectionResult(
        corpus=corpus.root,
        round=number,
        changed=counts["fixed"],
        confirmed=counts["ok"],
        unsure=counts["unsure"],
        not_reviewed=counts["not_reviewed"],
        kept=len(after),
        seconds_of_audio=round(after.seconds_of_audio, 3),
        dropped_by_reason={"dropped by a human": len(dropped)} if dropped else {},
    )
    facts = {name: value for name, value in result.to_json().items() if name != "corpus"}
    summary = {**facts, "file": file.name, "created": datetime.now(UTC).isoformat(timespec="seconds")}
    record = {"summary": summary, "result": facts, "file_sha256": sha256(file), "before": before}
    write_json(record_path, {**record, "after": after.fingerprint(), "previous": previous})
    after.card["corrections"] = [*corpus.card.get("corrections", []), summary]
    _save(after)
    corpus.utterances = after.utterances
    return result


def _already_applied(record_path: Path, file: Path, fingerprint: str) -> dict[str, Any] | None:
    """The record of a round that was killed after the table was written and before the card was."""
    if not record_path.is_file() or not file.is_file():
        return None
    record = read_json(record_path)
    same = record["after"] == fingerprint and record["file_sha256"] == sha256(file) and record["before"] != fingerprint
    return record if same else None


def undo_corrections(corpus: Corpus) -> CorrectionResult:
    """Take back the last round: its rows become what they were, dropped ones return to their places.

    Raises:
        InputError: there is no round, or the corpus has changed since.
    """
    rounds = corpus.card.get("corrections", [])
    if not rounds:
        raise InputError(f"{corpus.root} has no round of corrections: there is nothing to undo")
    path = corpus.root / FOLDER / f"round-{len(rounds):04d}.json"
    record = read_json(path)
    if corpus.fingerprint() not in (record["after"], record["before"]):
        raise InputError(f"{corpus.root} has changed since round {len(rounds)}: undo what came after it first")
    if corpus.fingerprint() == record["after"]:
        changed = {one["row"]["utterance_id"] for one in record["previous"]}
        utterances = iter([row for row in corpus if row.utterance_id not in changed])
        old = {one["place"]: Utterance.from_row(one["row"]) for one in record["previous"]}
        total = sum(1 for row in corpus if row.utterance_id not in changed) + len(old)
        corpus.utterances = [old[place] if place in old else next(utterances) for place in range(total)]
    corpus.card["corrections"] = rounds[:-1]
    _save(corpus)
    facts = {**record["result"], "kept": len(corpus), "seconds_of_audio": round(corpus.seconds_of_audio, 3)}
    facts["dropped_by_reason"] = {}
    path.unlink()
    return CorrectionResult(corpus=corpus.root, **facts)


def _save(corpus: Corpus) -> None:
    facts = {"kept": len(corpus), "seconds_of_audio": round(corpus.seconds_of_audio, 3)}
    corpus.card |= {**facts, "fingerprint": corpus.fingerprint()}
    corpus.save()


def _matched(file: Path, corpus: Corpus) -> list[tuple[str, dict[str, Any], Utterance]]:
    """Each row of the table with its utterance.

    Raises:
        InputError: as `import_corrections`.
    """
    known = {row.utterance_id: row for row in corpus}
    by_audio = {_audio(corpus, row): row for row in corpus}
    seen: dict[str, str] = {}
    rows = []
    for where, row in _read(file):
        name = str(row.get("utterance_id") or "").strip()
        utterance = known.get(name) or _unmangled(name, by_audio.get(str(row.get("audio"))))
        if utterance is None:
            raise InputError(
                f"{where}: {corpus.root} has no utterance {name!r}: import it into the corpus it came from"
            )
        name = utterance.utterance_id
        if name in seen:
            raise InputError(
                f"{where}: the utterance {name!r} stands already in {seen[name]}: keep one of the two rows"
            )
        seen[name] = where
        if row["text"] != utterance.text:
            raise InputError(
                f"{where}: the text of {name!r} is {row['text']!r}, but in the corpus it is {utterance.text!r} now: "
                "export again (or, if a spreadsheet altered it, load the columns as text)"
            )
        rows.append((where, row, utterance))
    if not rows:
        raise InputError(f"{file} holds no rows: give the table that speechtune corrections export wrote")
    return rows


def _unmangled(name: str, candidate: Utterance | None) -> Utterance | None:
    """The utterance of the row's audio, if a spreadsheet only took leading zeros off its id."""
    digits = candidate is not None and name.isdigit() and candidate.utterance_id.isdigit()
    return candidate if digits and candidate is not None and int(candidate.utterance_id) == int(name) else None


def _read(file: Path) -> list[_Row]:
    """Each row with its place.

    Raises:
        InputError: not a .csv, .tsv or .jsonl, a malformed row, or a missing column.
    """
    suffix = file.suffix.lower()
    if suffix not in (".csv", ".tsv", ".jsonl"):
        raise InputError(f"cannot read {file}: give the .csv or .jsonl that speechtune corrections export wrote")
    rows = []
    for where, row, problem in read_jsonl_rows(file) if suffix == ".jsonl" else read_csv_rows(file):
        if problem:
            raise InputError(f"{where}: {problem[1]}: repair that line, or save the table as CSV UTF-8")
        missing = [name for name in COLUMNS[:5] if name not in row and name != "audio"]
        if missing:
            raise InputError(f"{where}: it has no column {missing[0]}: keep the columns {', '.join(COLUMNS)}")
        rows.append((where, {name: "" if value is None else value for name, value in row.items()}))
    return rows


def _apply(where: str, row: dict[str, Any], utterance: Utterance, number: int) -> str:
    """Change the utterance as its row says; returns the verdict that counts.

    Raises:
        InputError: the verdict is unknown or contradicts the texts.
    """
    verdict = str(row["verdict"]).strip().lower()
    corrected = str(row["corrected_text"])
    if corrected != utterance.text:
        corrected = corrected.strip()
    changed = bool(corrected) and corrected != utterance.text
    if verdict not in VERDICTS:
        raise InputError(f"{where}: the verdict {verdict!r} is unknown: write {', '.join(VERDICTS[1:])} or nothing")
    if verdict == "ok" and changed:
        raise InputError(
            f"{where}: the verdict is ok, but the corrected text differs: write fixed, or restore the text"
        )
    if verdict == "fixed" and not corrected:
        raise InputError(f"{where}: the verdict is fixed, but there is no corrected text: write it, or drop")
    if changed and ("\n" in corrected or "\r" in corrected):
        raise InputError(f"{where}: the corrected text holds a line break: write it on one line")
    if verdict == "":
        verdict = "fixed" if changed else "not_reviewed"
    elif verdict == "fixed" and not changed:
        verdict = "ok"
    if verdict == "not_reviewed":
        return verdict
    if changed and verdict in ("fixed", "unsure"):
        utterance.extra.setdefault("text_before_correction", utterance.text)
        utterance.text = corrected
    if verdict in ("ok", "fixed"):
        utterance.extra["label_source"] = "human" if verdict == "ok" else "corrected"
    utterance.extra |= {"label_round": number, "label_verdict": verdict}
    if note := str(row.get("note") or "").strip():
        utterance.extra["label_note"] = note
    return verdict
