"""Quality tiers as columns of a corpus: given by thresholds on the judges' error rates, written and taken back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.config import load_config
from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json
from speechtune.corpus.table import Corpus, Utterance

ALL = "all"
COLUMNS = ("label_tier", "label_wer", "label_cer", "label_likelihood", "label_weight", "label_flags")
RECORD = "label_columns.json"
"""The file in a corpus that says what ``--apply`` replaced."""


@dataclass(frozen=True, slots=True)
class Tiers:
    """Thresholds on the WER, and those of groups where they differ.

    ``or_cer``: a CER up to this passes a threshold too (the rule "WER <= 0.9 or CER <= 0.5" of the best single run of
    the children's challenge's winner, ``csrc/filters.py`` of drivendataorg/on-top-of-pasketti).
    """

    thresholds: tuple[float, ...] = (0.9, 0.7)
    or_cer: float | None = None
    column: str | None = None
    by_value: dict[str, dict[str, float]] = field(default_factory=dict)

    def tier(self, utterance: Utterance, wer: float | None, cer: float | None) -> str:
        """The strictest threshold that the label passes; ``all`` where it passes none or was not scored."""
        if wer is None:
            return ALL
        own = self.by_value.get(str(utterance.column(self.column)), {}) if self.column else {}
        by_cer = self.or_cer is not None and cer is not None and cer <= self.or_cer
        passed = [name for name in self.thresholds if wer <= own.get(f"{name:g}", name)]
        if by_cer:
            passed.append(max(self.thresholds))
        return f"{min(passed):g}" if passed else ALL


def make_tiers(
    thresholds: Sequence[float], or_cer: float | None = None, by: str | None = None, corpus: Path | None = None
) -> Tiers:
    """Tiers from the options of ``check-labels``.

    Args:
        thresholds: highest WER of each tier; a tier is called by its threshold.
        or_cer: a CER up to this passes the loosest threshold too.
        by: ``COLUMN:FILE``; the YAML file gives for values of the column the limits that differ from the tier's name,
            as in ``"3-4": {"0.9": 1.0, "0.7": 0.8}``.
        corpus: where the values must occur.

    Raises:
        InputError: a threshold is negative or given twice, or the file names an unknown tier, value or column.
    """
    names = [f"{one:g}" for one in thresholds]
    if not thresholds or min(thresholds) < 0 or len(set(names)) < len(names):
        raise InputError(f"--thresholds {','.join(names)} must be different numbers from 0: write for example 0.9,0.7")
    if by is None:
        return Tiers(tuple(thresholds), or_cer)
    column, mark, file = by.partition(":")
    if not mark or not column:
        raise InputError(f"--thresholds-by {by} is not COLUMN:FILE: write for example age:thresholds.yaml")
    values = _by_value(Path(file), names)
    if corpus is not None:
        present = {str(row.column(column)) for row in Corpus.load(corpus) if row.column(column) is not None}
        strange = sorted(set(values) - present)
        if strange:
            known = ", ".join(sorted(present)) or "nothing"
            raise InputError(f"{file}: no utterance has {column} {strange[0]!r}: it is {known}")
    return Tiers(tuple(thresholds), or_cer, column, values)


def _by_value(file: Path, names: Sequence[str]) -> dict[str, dict[str, float]]:
    from pydantic import RootModel

    class _File(RootModel[dict[str | float, dict[str | float, float]]]):
        pass

    loaded = load_config(_File, file).root
    values = {str(value): {f"{float(key):g}": limit for key, limit in own.items()} for value, own in loaded.items()}
    for value, own in values.items():
        for name in own:
            if name not in names:
                raise InputError(f"{file}: {value}: there is no tier {name!r}: the tiers are {', '.join(names)}")
    return values


def apply_columns(corpus: Corpus, columns: dict[str, dict[str, Any]], facts: dict[str, Any]) -> int:
    """Write the label columns of some utterances into the table, atomically, and remember what they replace.

    Applying again replaces the columns and still remembers the first state, so `undo_columns` leads back to before.

    Args:
        corpus: the whole corpus; changed in memory and on the disk.
        columns: for utterance ids, values of `COLUMNS`; ``None`` takes a column away.
        facts: what the card says about the check.

    Returns:
        How many utterances changed.
    """
    path = corpus.root / RECORD
    record = read_json(path) if path.is_file() else {"previous": {}, "card": {}}
    previous: dict[str, dict[str, Any]] = record["previous"]
    changed = 0
    for utterance in corpus:
        values = columns.get(utterance.utterance_id)
        if values is None:
            continue
        old = {name: utterance.extra[name] for name in COLUMNS if name in utterance.extra}
        new = {name: value for name, value in values.items() if value is not None}
        previous.setdefault(utterance.utterance_id, old)
        if old != new:
            changed += 1
            utterance.extra = {name: value for name, value in utterance.extra.items() if name not in COLUMNS} | new
    record["card"] = record.get("card") or {"label_check": corpus.card.get("label_check")}
    write_json(path, record)  # before the table: a kill between the two loses nothing
    corpus.card = {**corpus.card, "label_check": facts, "fingerprint": corpus.fingerprint()}
    corpus.save()
    return changed


def undo_columns(root: Path) -> int:
    """Take the label columns back to what they were before the first ``--apply``.

    Returns:
        How many utterances changed.

    Raises:
        InputError: nothing was applied.
    """
    corpus = Corpus.load(root)
    path = corpus.root / RECORD
    if not path.is_file():
        raise InputError(f"{corpus.root} has no {RECORD}: nothing was applied, so there is nothing to undo")
    record = read_json(path)
    changed = 0
    for utterance in corpus:
        old = record["previous"].get(utterance.utterance_id)
        if old is None:
            continue
        rest = {name: value for name, value in utterance.extra.items() if name not in COLUMNS}
        changed += utterance.extra != rest | old
        utterance.extra = rest | old
    before = record["card"].get("label_check")
    corpus.card = {name: value for name, value in corpus.card.items() if name != "label_check"}
    if before is not None:
        corpus.card["label_check"] = before
    corpus.card["fingerprint"] = corpus.fingerprint()
    corpus.save()
    path.unlink()
    return changed


def thresholds_from(text: str) -> list[float]:
    """``0.9,0.7`` as numbers.

    Raises:
        InputError: a part is not a number.
    """
    try:
        return [float(part) for part in text.split(",")]
    except ValueError as error:
        raise InputError(f"--thresholds {text!r} is not a list of numbers: write for example 0.9,0.7") from error
