"""``audit.json``: the problems, ranked, and what the corpus is. docs/audit.md describes every field."""

from __future__ import annotations

from typing import Any

from speechtune.corpus.audit.checks import Check, judged_by
from speechtune.corpus.audit.corpus_checks import CORPUS_CHECKS, CORPUS_LIMITS, MOST_GROUPS
from speechtune.corpus.audit.database import Database
from speechtune.corpus.audit.facts import categories, corpus_facts, distributions, rounded, vocabulary_tables
from speechtune.corpus.audit.policy import SEVERITIES, Policy, limit
from speechtune.corpus.audit.utterance_checks import UTTERANCE_CHECKS

SCHEMA = 1
FIRST_IDS = 20
EXAMPLES = 10
_ALL = 2**62
_SHOWN = "utterance_id, file_name, text, split, speaker_id, start_s, end_s, duration_s"


def summarise(db: Database, policy: Policy, *, full: bool, token_columns: list[str]) -> dict[str, Any]:
    """Everything a report says of a corpus; needs `judging.relate` and `judging.judge`.

    Args:
        db: holds ``audit``, ``same_audio``, ``near_audio`` and ``orphans``.
        policy: for the corpus checks, and recorded in the result.
        full: list every utterance id of a problem instead of the first `FIRST_IDS`.
        token_columns: names of the columns that count tokens.
    """
    vocabulary_tables(db)
    most = _ALL if full else FIRST_IDS
    problems = _utterance_problems(db, policy, most) + _corpus_problems(db, policy, most)
    rank = {severity: place for place, severity in enumerate(SEVERITIES)}
    problems.sort(
        key=lambda problem: (
            rank[problem["severity"]],
            problem["level"] != "corpus",
            -problem["count"],
            problem["check"],
        )
    )
    flagged = db.one(
        "SELECT count(*) FILTER (len(errors) > 0), count(*) FILTER (len(errors) = 0 AND len(warnings) > 0), "
        "count(*) FILTER (len(errors) = 0 AND len(warnings) = 0) FROM audit"
    )
    return {
        "schema": SCHEMA,
        "verdict": _verdict(problems),
        "utterances_by_worst": dict(zip(("error", "warning", "neither"), flagged, strict=True)),
        "problems": problems,
        "corpus": corpus_facts(db),
        "categories": categories(db),
        "distributions": distributions(db, token_columns),
        "checks": _made(policy),
        "policy": policy.model_dump(),
    }


def _verdict(problems: list[dict[str, Any]]) -> dict[str, Any]:
    counts = {severity: sum(problem["severity"] == severity for problem in problems) for severity in SEVERITIES}
    worst = next((severity for severity in SEVERITIES if counts[severity]), None)
    said = {
        "error": "Not ready for training: look at the errors first.",
        "warning": "Usable; look at the warnings before a long run.",
        "note": "Ready for training.",
        None: "Ready for training; nothing was found.",
    }
    return {"worst": worst, "sentence": said[worst], "problems_by_severity": counts}


def _utterance_problems(db: Database, policy: Policy, most: int) -> list[dict[str, Any]]:
    checks = {one.check.name: one.check for one in judged_by(policy, UTTERANCE_CHECKS)}
    problems = []
    for severity in SEVERITIES:
        for name, count in db.rows(
            f"SELECT name, count(*) FROM (SELECT unnest({severity}s) AS name FROM audit) GROUP BY 1 ORDER BY 1"
        ):
            check = checks[name]
            has = f"list_contains({severity}s, '{name}')"
            problems.append(
                {
                    "check": name,
                    "severity": severity,
                    "level": "utterance",
                    "count": count,
                    "unit": "utterances",
                    "title": check.title,
                    "sentence": f"{count} {'utterance' if count == 1 else 'utterances'}: {check.title}.",
                    "meaning": check.meaning,
                    "remedy": check.remedy,
                    "utterance_ids": _ids(db, has, most),
                    "by_split": _by_split(db, has),
                    "value": check.value,
                    "examples": _examples(db, check, has),
                }
            )
    return problems


def _ids(db: Database, condition: str, most: int) -> list[str]:
    return [row[0] for row in db.rows(f"SELECT utterance_id FROM audit WHERE {condition} ORDER BY row LIMIT {most}")]


def _by_split(db: Database, condition: str) -> dict[str, int]:
    found = db.rows(
        f"SELECT coalesce(split, '(none)'), count(*) FROM audit WHERE {condition} GROUP BY 1 "
        f"ORDER BY 2 DESC, 1 LIMIT {MOST_GROUPS}"
    )
    return dict(found)


def _examples(db: Database, check: Check, condition: str) -> list[dict[str, Any]]:
    order = "DESC" if check.worst == "high" else "ASC"
    found = db.dicts(
        f"SELECT {_SHOWN}, ({check.value})::DOUBLE AS value, coalesce(duplicate_audio_of, near_duplicate_audio_of, "
        f"near_duplicate_text_of) AS other FROM audit WHERE {condition} "
        f"ORDER BY value {order} NULLS LAST, row LIMIT {EXAMPLES}"
    )
    return [{name: rounded(value) for name, value in row.items() if value is not None} for row in found]


def _corpus_problems(db: Database, policy: Policy, most: int) -> list[dict[str, Any]]:
    problems = []
    for check in CORPUS_CHECKS:
        if check.name in policy.disabled:
            continue
        for finding in check.find(db, policy):
            problems.append(
                {
                    "check": check.name,
                    "severity": policy.severity.get(check.name, finding.severity),
                    "level": "corpus",
                    "count": finding.count,
                    "unit": finding.unit,
                    "title": check.title,
                    "sentence": finding.sentence,
                    "meaning": check.meaning,
                    "remedy": check.remedy,
                    "utterance_ids": _ids(db, finding.rows, most) if finding.rows else [],
                    "by_split": _by_split(db, finding.rows) if finding.rows else {},
                }
            )
    return problems


def _made(policy: Policy) -> list[dict[str, Any]]:
    """Every check that was made, found or not, with its rule as it was applied and where its limits come from."""
    made: list[dict[str, Any]] = []
    for one in judged_by(policy, UTTERANCE_CHECKS):
        keys = sorted({key for names in one.check.limits().values() for key in names})
        sources = [source_of(key) for key in keys] or [one.check.source]
        made.append(
            {
                "check": one.check.name,
                "level": "utterance",
                "title": one.check.title,
                "rules": dict(one.conditions),
                "limits": {key: limit(policy, key) for key in keys},
                "source": " ".join(sources),
                "meaning": one.check.meaning,
                "remedy": one.check.remedy,
            }
        )
    for check in CORPUS_CHECKS:
        if check.name not in policy.disabled:
            keys = list(CORPUS_LIMITS.get(check.name, ()))
            made.append(
                {
                    "check": check.name,
                    "level": "corpus",
                    "title": check.title,
                    "rules": {},
                    "limits": {key: limit(policy, key) for key in keys},
                    "source": " ".join([check.source, *map(source_of, keys)]),
                    "meaning": check.meaning,
                    "remedy": check.remedy,
                }
            )
    return made


def source_of(key: str) -> str:
    """What the policy says of one of its limits."""
    section, name = key.split(".")
    block: Any = Policy.model_fields[section].annotation
    return str(block.model_fields[name].description)
