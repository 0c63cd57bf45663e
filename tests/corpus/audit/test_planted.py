"""Every planted defect is found at its severity, and the clean clips are left in peace."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet
import pytest
from planted_corpora import POLICY, VARIANTS, Variant, write_variant
from planted_defects import KINDS, VOLATILE

from speechtune.corpus.audit.corpus_checks import CORPUS_CHECKS
from speechtune.corpus.audit.engine import AuditResult, audit
from speechtune.corpus.audit.policy import SEVERITIES, Policy
from speechtune.corpus.audit.utterance_checks import UTTERANCE_CHECKS


@pytest.fixture(scope="module")
def flags(audited: AuditResult) -> dict[str, dict[str, str]]:
    rows = pyarrow.parquet.read_table(audited.out / "audit.parquet").to_pylist()
    return {row["utterance_id"]: {name: one for one in SEVERITIES for name in row[f"{one}s"]} for row in rows}


@pytest.fixture(scope="module")
def ledger(planted: Path) -> dict:
    return json.loads((planted / "planted.json").read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    "kind", [kind for kind in KINDS if kind.check != "tokens_many"], ids=lambda k: f"{k.name}-{k.level}"
)
def test_every_defect_is_found_at_its_severity(kind, flags, ledger) -> None:
    (name,) = (n for n, p in ledger.items() if (p["kind"], p["level"]) == (kind.name, kind.level))
    said = [flags[name].get(kind.check), flags.get(ledger[name]["partner"] or "", {}).get(kind.check)]
    wanted = SEVERITIES[: SEVERITIES.index(kind.severity) + 1]
    assert any(severity in wanted for severity in said), flags[name]


def test_clean_clips_are_left_in_peace(flags) -> None:
    said = [(name, check) for name, has in flags.items() if name.startswith("clean") for check in has]
    alarms = [(name, check) for name, check in said if check not in VOLATILE]
    assert len(alarms) <= 1, alarms


def test_every_utterance_check_has_a_planted_defect() -> None:
    planted = {kind.check for kind in KINDS}
    assert {check.name for check in UTTERANCE_CHECKS} == planted
    assert len({kind.name for kind in KINDS}) >= 25


@pytest.fixture(scope="module")
def said_of(planted: Path, audited: AuditResult, tmp_path_factory: pytest.TempPathFactory):
    """``said_of(variant)``: the corpus checks that speak; one audit directory, so that audio is measured once."""
    out = tmp_path_factory.mktemp("variants")

    def said(variant: Variant | None) -> set[str]:
        corpus = write_variant(variant, planted, out / (variant.check if variant else "clean"))
        summary = audit(corpus, out / "audit", policy=Policy.model_validate(POLICY), workers=1).summary
        return {problem["check"] for problem in summary["problems"] if problem["level"] == "corpus"}

    return said


@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.check)
def test_faults_of_the_whole_corpus_are_found(variant: Variant, said_of) -> None:
    assert variant.check in said_of(variant)


def test_nothing_is_said_of_the_clean_corpus(said_of) -> None:
    assert said_of(None) == set()


def test_the_corpus_checks_without_a_variant_are_known() -> None:
    tested_elsewhere = {"split_small", "volume_small", "level_spread", "channel_mismatch"}  # test_summary.py
    assert {check.name for check in CORPUS_CHECKS} == {variant.check for variant in VARIANTS} | tested_elsewhere
