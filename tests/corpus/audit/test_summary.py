"""Facts against independent answers: brute force in Python, and published values."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest

from speechtune.corpus.audit import corpus_checks
from speechtune.corpus.audit.database import Database
from speechtune.corpus.audit.engine import AuditResult
from speechtune.corpus.audit.facts import BINS, wilson
from speechtune.corpus.audit.policy import Policy


@pytest.fixture(scope="module")
def rows(audited: AuditResult) -> list[dict]:
    return pyarrow.parquet.read_table(audited.out / "audit.parquet").to_pylist()


def test_the_table_has_every_utterance_in_its_order(rows: list[dict], planted: Path) -> None:
    lines = (planted / "metadata.jsonl").read_text(encoding="utf-8").splitlines()
    wanted = [(json.loads(line)["utterance_id"], json.loads(line)["text"]) for line in lines]
    assert [(row["utterance_id"], row["text"]) for row in rows] == wanted
    assert [row["row"] for row in rows] == list(range(len(rows)))


def test_counts_of_problems_are_those_of_the_table(rows: list[dict], audited: AuditResult) -> None:
    for problem in audited.summary["problems"]:
        if problem["level"] == "utterance":
            has = [row["utterance_id"] for row in rows if problem["check"] in row[f"{problem['severity']}s"]]
            assert (problem["count"], problem["utterance_ids"]) == (len(has), has[:20])
            assert sum(problem["by_split"].values()) == len(has)
            assert {example["utterance_id"] for example in problem["examples"]} <= set(has)


def test_problems_are_ranked_by_severity(audited: AuditResult) -> None:
    ranks = [("error", "warning", "note").index(problem["severity"]) for problem in audited.summary["problems"]]
    assert ranks == sorted(ranks)


def test_out_of_vocabulary_words_by_brute_force(rows: list[dict], audited: AuditResult) -> None:
    known = {word for row in rows if row["split"] == "train" for word in row["text_key"].split()}
    vocabulary = audited.summary["corpus"]["vocabulary"]
    assert vocabulary["train_different_words"][-1] == len(known)
    assert vocabulary["train_different_words"] == sorted(vocabulary["train_different_words"])
    for split, facts in vocabulary["evaluation"].items():
        words = [word for row in rows if row["split"] == split for word in row["text_key"].split()]
        share = sum(word not in known for word in words) / len(words)
        assert facts["oov_frac_by_train_share"][-1] == pytest.approx(share, rel=1e-5)
        rates = facts["oov_frac_by_train_share"]
        assert rates == sorted(rates, reverse=True)


def test_histograms_and_means_by_brute_force(rows: list[dict], audited: AuditResult) -> None:
    for column, facts in audited.summary["distributions"].items():
        values = [row[column] for row in rows if row[column] is not None]
        assert facts["count"] == len(values) == sum(facts["histogram"]["counts"])
        assert len(facts["histogram"]["edges"]) == BINS + 1
        assert facts["mean"] == pytest.approx(sum(values) / len(values), rel=1e-4, abs=1e-9)
        assert (facts["min"], facts["max"]) == (
            pytest.approx(min(values), rel=1e-5),
            pytest.approx(max(values), rel=1e-5),
        )


def test_wilson_interval_has_published_values() -> None:
    low, high = wilson(10, 100)  # Brown, Cai and DasGupta 2001: 0.0552 to 0.1744
    assert (round(low, 4), round(high, 4)) == (0.0552, 0.1744)  # type: ignore[arg-type]
    assert wilson(0, 0) == (None, None)


@pytest.fixture
def table(tmp_path: Path):
    """``table(sql)`` makes the audited table of a database by hand."""
    db = Database(tmp_path)

    def make(sql: str) -> Database:
        db.run(f"CREATE OR REPLACE TABLE audit AS {sql}")
        return db

    yield make
    db.close()


@pytest.mark.parametrize(("minutes", "severity"), [(10, "error"), (40, "warning"), (70, None)])
def test_small_evaluation_splits(table, minutes: float, severity: str | None) -> None:
    db = table(f"SELECT 'dev' AS split, 6.0 * {minutes} AS duration_s FROM range(10)")
    found = corpus_checks._small_splits(db, Policy())
    assert [one.severity for one in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("hours", "severity"), [(0.1, "error"), (1.0, "warning"), (5.0, "note"), (11.0, None)])
def test_volume(table, hours: float, severity: str | None) -> None:
    db = table(f"SELECT 'train' AS split, 36.0 * {hours} AS duration_s FROM range(100)")
    found = corpus_checks._volume(db, Policy())
    assert [one.severity for one in found] == ([severity] if severity else [])


@pytest.mark.parametrize(("step", "found"), [(0.1, 0), (0.5, 1)])
def test_level_spread(table, step: float, found: int) -> None:
    db = table(f"SELECT -40 + {step} * range AS level_lufs, false AS is_silent FROM range(60)")
    assert len(corpus_checks._levels(db, Policy())) == found


@pytest.mark.parametrize(("dev_hz", "found"), [(7_500, 0), (4_000, 1)])
def test_channel_mismatch(table, dev_hz: float, found: int) -> None:
    db = table(
        "SELECT CASE WHEN range < 5 THEN 'dev' ELSE 'train' END AS split, false AS is_silent, "
        f"CASE WHEN range < 5 THEN {dev_hz}.0 ELSE 8000.0 END AS bandwidth_hz FROM range(20)"
    )
    assert len(corpus_checks._channels_differ(db, Policy())) == found
