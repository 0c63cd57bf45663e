"""The policy file is complete, documented and strict."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from speechtune.core.config import explain
from speechtune.core.errors import InputError
from speechtune.corpus.audit.checks import Check, flags_sql, judged_by
from speechtune.corpus.audit.policy import Policy, limit, load_policy, policy_as_yaml
from speechtune.corpus.audit.summary import source_of
from speechtune.corpus.audit.utterance_checks import LABEL_ERROR_CHECKS, UTTERANCE_CHECKS


def test_the_printed_policy_reads_back_as_itself(tmp_path: Path) -> None:
    policy = Policy.model_validate({"snr": {"warn_below_db": 9.5}, "disabled": ["hum"], "severity": {"music": "note"}})
    (tmp_path / "p.yaml").write_text(policy_as_yaml(policy), encoding="utf-8")
    assert load_policy(tmp_path / "p.yaml") == policy
    assert yaml.safe_load(policy_as_yaml(Policy())) == Policy().model_dump()


def test_every_limit_is_used_and_says_where_it_comes_from() -> None:
    for row in explain(Policy):
        if "." in row["key"]:
            assert "ource:" in row["help"] or "easured" in row["help"] or "judged" in row["help"], row["key"]
    used = {key for check in UTTERANCE_CHECKS for keys in check.limits().values() for key in keys}
    for key in used:
        limit(Policy(), key)
        assert source_of(key)
    package = Path(__file__).parents[3] / "src/speechtune/corpus/audit"
    code = "".join(path.read_text() for path in package.glob("*.py") if path.name != "policy.py")
    unused = [row["key"] for row in explain(Policy) if "." in row["key"] and row["key"].split(".")[1] not in code]
    assert not unused


def test_every_check_has_a_source_and_a_name_of_its_own() -> None:
    names = [check.name for check in UTTERANCE_CHECKS]
    assert len(set(names)) == len(names)
    assert set(LABEL_ERROR_CHECKS) <= set(names)
    for check in UTTERANCE_CHECKS:
        assert check.source or any(check.limits().values()), check.name
        assert check.meaning.endswith(".") and check.remedy.endswith((".", ")")), check.name


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("snr: {warn_bellow_db: 3}", "did you mean snr.warn_below_db"),
        ("snr: {warn_below_db: loud}", "snr.warn_below_db"),
    ],
)
def test_a_wrong_policy_names_its_key(text: str, sentence: str, tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(text)
    with pytest.raises(InputError, match=sentence):
        load_policy(tmp_path / "p.yaml")


def test_only_the_most_severe_rule_of_a_check_counts() -> None:
    duckdb = pytest.importorskip("duckdb")
    check = Check(name="c", title="", rules={"error": "x < {snr.error_below_db}", "warning": "x < {snr.warn_below_db}"},
                  meaning="", remedy="")  # fmt: skip
    policy = Policy.model_validate({"snr": {"error_below_db": 1, "warn_below_db": 2}})
    judged = judged_by(policy, (check,))
    columns = ", ".join(flags_sql(judged, severity) for severity in ("error", "warning", "note"))
    rows = duckdb.sql(f"SELECT {columns} FROM (VALUES (0.5), (1.5), (2.5), (NULL)) AS t(x)").fetchall()
    assert rows == [(["c"], [], []), ([], ["c"], []), ([], [], []), ([], [], [])]
