"""The cross-model label check: every transcript of a corpus against what models hear."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import write_json, write_jsonl
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.corpus.conditions import require_column
from speechtune.corpus.table import Corpus
from speechtune.decoding.sources import open_model
from speechtune.scoring.label_evidence import Evidence, gather, row_of
from speechtune.scoring.label_judges import Judge, judge_from_file, judge_with_model
from speechtune.scoring.label_tiers import Tiers, apply_columns
from speechtune.scoring.label_verdicts import KINDS, Verdict, VerdictConfig, estimate_noise, find_swaps, judge_label
from speechtune.scoring.normalisers import choose_normaliser, get_normaliser

ROWS, SUMMARY, ANSWERS = "labels.jsonl", "summary.json", "judges"
UNKNOWN = "(unknown)"
UNSCORED = "not scored"


@dataclass(frozen=True, slots=True, kw_only=True)
class Judging:
    """Who judges, and how models decode: names for `open_model`, transcript files, and options of `open_model`."""

    models: Sequence[str] = ()
    transcripts: Sequence[Path] = ()
    language: str | None = None
    context: str | None = None
    batch_size: int = 16


@dataclass(slots=True, kw_only=True)
class LabelReport:
    """What the check found. ``rows`` has one JSON-ready row an utterance, as in ``labels.jsonl``.

    ``bands``: for each grouping column and value, utterances by WER band. ``tiers``: utterances by tier. ``wrong``:
    ids by kind of error. ``unscored``: utterances without a score by reason; they keep the tier ``all``.
    """

    rows: list[dict[str, Any]]
    normaliser: str
    judges: list[str]
    bands: dict[str, dict[str, dict[str, int]]]
    tiers: dict[str, int]
    wrong: dict[str, list[str]]
    unscored: dict[str, int]
    judge_problems: dict[str, int]
    noise: dict[str, Any] | None
    seconds_of_audio: float
    warnings: list[str] = field(default_factory=list)
    applied: int | None = None
    out: Path | None = None

    def to_json(self) -> dict[str, Any]:
        """Everything but the rows."""
        return {
            "utterances": len(self.rows),
            "kept": len(self.rows) - sum(self.unscored.values()),
            "dropped_by_reason": self.unscored,
            "seconds_of_audio": round(self.seconds_of_audio, 3),
            "judges": self.judges,
            "normaliser": self.normaliser,
            "probably_wrong": len({name for names in self.wrong.values() for name in names}),
            "probably_wrong_by_kind": self.wrong,
            "judge_problems": self.judge_problems,
            "tiers": self.tiers,
            "wer_bands": self.bands,
            "label_noise": self.noise,
            "warnings": self.warnings,
            "applied": self.applied,
            "out": str(self.out) if self.out else None,
        }

    def __str__(self) -> str:
        facts = self.to_json()
        lines = [
            f"{facts['kept']} of {len(self.rows)} labels checked by {', '.join(self.judges)}; "
            f"{facts['probably_wrong']} probably wrong"
        ]
        lines += [f"  {kind}: {len(names)} (as {names[0]})" for kind, names in self.wrong.items() if names]
        lines += [f"  {UNSCORED}: {count}, {reason}" for reason, count in self.unscored.items()]
        lines += [f"  judge {name}" + f": {count} answers not used" for name, count in self.judge_problems.items()]
        if self.noise and self.noise["estimated_share"] is not None:
            low, high = self.noise["interval"]
            lines.append(
                f"share of wrong labels: about {100 * self.noise['estimated_share']:.1f} % "
                f"({100 * low:.1f} to {100 * high:.1f}; an upper estimate)"
            )
        lines.append("tiers: " + ", ".join(f"{name}: {count}" for name, count in self.tiers.items()))
        lines += [f"warning: {one}" for one in self.warnings]
        if self.applied is not None:
            lines.append(f"{self.applied} rows of the table changed; --undo takes them back")
        lines.append(f"every label: {self.out / ROWS}" if self.out else "")
        return "\n".join(line for line in lines if line)


def check_labels(
    corpus: Corpus,
    judges: Sequence[Judge],
    tiers: Tiers,
    *,
    group_by: Sequence[str] = (),
    verdicts: VerdictConfig | None = None,
    normaliser: str = "auto",
    seed: int = 0,
) -> LabelReport:
    """Compare every label of ``corpus`` with the answers of ``judges`` (one at least)."""
    config = verdicts or VerdictConfig()
    name = normaliser
    if name == "auto":
        name, _ = choose_normaliser((row.language for row in corpus), (row.text for row in corpus))
    evidence = [gather(row, judges, get_normaliser(name)) for row in corpus]
    found = [judge_label(one, config) for one in evidence]
    find_swaps(evidence, found, config)
    rows = [_row(one, verdict, tiers) for one, verdict in zip(evidence, found, strict=True)]
    return LabelReport(
        rows=rows,
        normaliser=name,
        judges=[judge.name for judge in judges],
        bands=_bands(evidence, found, group_by, tiers),
        tiers=_counted([row["label_tier"] for row in rows], [f"{one:g}" for one in sorted(tiers.thresholds)] + ["all"]),
        wrong={kind: [row["utterance_id"] for row in rows if kind in row["kinds"]] for kind in KINDS},
        unscored=_counted([one.missing for one in evidence if one.missing]),
        judge_problems=_counted(
            [f"{judge} ({why})" for verdict in found for judge, why in verdict.judge_problems.items()]
        ),
        noise=estimate_noise(evidence, found, config, seed),
        seconds_of_audio=corpus.seconds_of_audio,
        warnings=[judge.warning for judge in judges if judge.warning],
    )


def _row(found: Evidence, verdict: Verdict, tiers: Tiers) -> dict[str, Any]:
    numbers = row_of(found)
    row = {
        "utterance_id": found.utterance.utterance_id,
        "text": found.utterance.text,
        "probably_wrong": verdict.probably_wrong,
        "kinds": verdict.kinds,
        "label_tier": tiers.tier(found.utterance, found.best("wer"), found.best("cer")),
        **numbers,
        "judges": [
            {
                "judge": view.judge,
                "text": view.answer.text,
                "wer": round(view.wer, 4),
                "cer": round(view.cer, 4),
                **({"unusable": view.unusable} if view.unusable else {}),
                **({"label": view.answer.label, "own": view.answer.own} if view.answer.label else {}),
            }
            for view in found.views
        ],
    }
    if verdict.belongs_to:
        row["belongs_to"] = verdict.belongs_to
    if found.missing:
        row["not_scored"] = found.missing
    return row


def _counted(values: Sequence[str], order: Sequence[str] = ()) -> dict[str, int]:
    counts = dict.fromkeys(order, 0)
    for value in values:
        counts[value] = counts.get(value, 0) + 1
    return counts


def _bands(
    evidence: Sequence[Evidence], verdicts: Sequence[Verdict], group_by: Sequence[str], tiers: Tiers
) -> dict[str, dict[str, dict[str, int]]]:
    edges = sorted({0.0, 0.3, *tiers.thresholds})
    names = ["0", *(f"<={edge:g}" for edge in edges[1:]), f">{edges[-1]:g}", UNSCORED, "probably wrong"]
    result: dict[str, dict[str, dict[str, int]]] = {}
    for column in ("(all)", *group_by):
        groups: dict[str, dict[str, int]] = {}
        for one, verdict in zip(evidence, verdicts, strict=True):
            value = None if column == "(all)" else one.utterance.column(column)
            key = "all" if column == "(all)" else UNKNOWN if value is None else str(value)
            counts = groups.setdefault(key, dict.fromkeys(names, 0))
            wer = one.best("wer")
            place = next((place for place, edge in enumerate(edges) if wer is not None and wer <= edge), len(edges))
            counts[UNSCORED if wer is None else names[place]] += 1
            counts["probably wrong"] += verdict.probably_wrong
        result[column] = dict(sorted(groups.items()))
    return result


def check_corpus(
    root: Path,
    judging: Judging,
    tiers: Tiers,
    *,
    splits: Sequence[str] = (),
    group_by: Sequence[str] = (),
    verdicts: VerdictConfig | None = None,
    normaliser: str = "auto",
    out: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    apply: bool = False,
    seed: int = 0,
) -> LabelReport:
    """Check a corpus directory: run the judges, keep their answers, write rows and summary, and the columns if asked.

    Args:
        root: the corpus.
        judging: models and transcript files.
        tiers: thresholds.
        splits: only these; none: all.
        group_by: columns to count bands for.
        verdicts: limits of the verdicts.
        normaliser: of both texts, or ``auto``.
        out: the directory to write; ``None``: ``label_check`` in the corpus.
        resume: use the answers that ``out`` holds.
        overwrite: start anew although ``out`` exists.
        apply: write the columns of `label_tiers.COLUMNS` into the table.
        seed: of the draws of the label-noise estimate.

    Raises:
        InputError: ``out`` holds a check and neither ``resume`` nor ``overwrite`` was given, there is no judge or
            utterance, or no utterance has a column of ``group_by``.
    """
    whole = Corpus.load(root)
    for split in splits:
        whole.split(split)
    corpus = whole.subset(lambda row: row.split in splits) if splits else whole
    _check_request(corpus, judging, group_by, normaliser)
    place = out or root / "label_check"
    if place.exists() and (place.is_file() or any(place.iterdir())):
        if place.is_file():
            raise InputError(f"{place} is a file: choose another --out")
        if not resume and not overwrite:
            raise InputError(f"{place} holds a check: add --resume to use its answers, or --overwrite to start anew")
        if overwrite:
            shutil.rmtree(place / ANSWERS, ignore_errors=True)
    judges = _judges(corpus, judging, place / ANSWERS)
    report = check_labels(corpus, judges, tiers, group_by=group_by, verdicts=verdicts, normaliser=normaliser, seed=seed)
    report.out = place
    facts = {"thresholds": list(tiers.thresholds), "or_cer": tiers.or_cer, "thresholds_by": tiers.by_value}
    if apply:
        card = {"judges": report.judges, "normaliser": report.normaliser, **facts, "tiers": report.tiers}
        now = Corpus.load(root)  # judging takes long, and the table may have changed meanwhile
        texts = {row.utterance_id: row.text for row in now}
        rows = [row for row in report.rows if texts.get(row["utterance_id"]) == row["text"]]
        if len(rows) < len(report.rows):
            report.warnings.append(f"{len(report.rows) - len(rows)} rows changed during the check and got no columns")
        report.applied = apply_columns(now, {row["utterance_id"]: _columns(row) for row in rows}, card)
    write_jsonl(place / ROWS, report.rows)
    write_json(place / SUMMARY, {**report.to_json(), **facts, "provenance": provenance(seed)})
    return report


def _check_request(corpus: Corpus, judging: Judging, group_by: Sequence[str], normaliser: str) -> None:
    """Refuse what could only fail after the judges' long work."""
    if not judging.models and not judging.transcripts:
        raise InputError("there is nobody to judge the labels: give --model or --transcripts")
    if not corpus.utterances:
        raise InputError(f"{corpus.root} has no utterances: there is nothing to check")
    for column in group_by:
        require_column(corpus.utterances, column, str(corpus.root))
    if normaliser != "auto":
        get_normaliser(normaliser)


def _judges(corpus: Corpus, judging: Judging, folder: Path) -> list[Judge]:
    judges = [judge_from_file(path, corpus) for path in judging.transcripts]
    for model in judging.models:
        opened = open_model(model, language=judging.language, context=judging.context, batch_size=judging.batch_size)
        judge = judge_with_model(opened, model, corpus, folder)
        if judge.warning:
            note(f"warning: {judge.warning}")
        judges.append(judge)
    names = [judge.name for judge in judges]
    for place, judge in enumerate(judges):
        if names.count(judge.name) > 1:
            judge.name = f"{judge.name} ({names[: place + 1].count(judge.name)})"
    return judges


def _columns(row: dict[str, Any]) -> dict[str, Any]:
    """The columns of one row; ``label_weight`` is the share of the label that the best judge heard, 1 if none could."""
    flags = UNSCORED if "not_scored" in row else ",".join(row["kinds"]) or "none"
    cer = row["label_cer"]
    return {
        "label_tier": row["label_tier"],
        "label_wer": row["label_wer"],
        "label_cer": row["label_cer"],
        "label_likelihood": row["label_likelihood"],
        "label_weight": 1.0 if cer is None else round(max(0.0, 1.0 - cer), 4),
        "label_flags": flags,
    }
