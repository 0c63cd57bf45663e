"""What a check of one utterance is: SQL conditions over its measures, what they mean, and what to do.

A check is data. Its conditions are SQL over the columns of ``audit.parquet`` in which ``{snr.warn_below_db}`` stands
for that limit of the policy. Adding one is adding a `Check` to ``utterance_checks.UTTERANCE_CHECKS``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from speechtune.corpus.audit.policy import SEVERITIES, Policy, Severity, limit

_KEY = re.compile(r"\{([a-z0-9_.]+)\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Check:
    """One question asked of every utterance.

    Attributes:
        name: how problems, the policy and the table call it.
        title: what is wrong, in a few words.
        rules: condition (SQL) for each severity; an utterance has the most severe one that holds.
        meaning: what it does to training.
        remedy: what to do.
        value: SQL of the number that says how bad it is, shown with examples.
        worst: whether the highest or the lowest value is worst.
        source: where a rule without a limit in the policy comes from.
    """

    name: str
    title: str
    rules: Mapping[Severity, str]
    meaning: str
    remedy: str
    value: str = "duration_s"
    worst: str = "high"
    source: str = ""

    def limits(self) -> dict[Severity, list[str]]:
        """The policy's keys in each rule."""
        return {severity: _KEY.findall(rule) for severity, rule in self.rules.items()}

    def condition(self, severity: Severity, policy: Policy) -> str:
        """The rule with the policy's numbers in it."""
        return _KEY.sub(lambda match: repr(limit(policy, match[1])), self.rules[severity])


@dataclass(frozen=True, slots=True)
class Judged:
    """A check as a policy has it: the SQL of each severity it is reported at, the most severe first."""

    check: Check
    conditions: tuple[tuple[Severity, str], ...]


def judged_by(policy: Policy, checks: tuple[Check, ...]) -> list[Judged]:
    """The checks that a policy makes, at the severities it reports them at."""
    result = []
    for check in checks:
        if check.name in policy.disabled:
            continue
        ordered = [severity for severity in SEVERITIES if severity in check.rules]
        forced = policy.severity.get(check.name)
        if forced:
            either = " OR ".join(f"({check.condition(severity, policy)})" for severity in ordered)
            result.append(Judged(check, ((forced, either),)))
        else:
            result.append(Judged(check, tuple((one, check.condition(one, policy)) for one in ordered)))
    return result


def flags_sql(judged: list[Judged], severity: Severity) -> str:
    """SQL for the list of checks an utterance has at one severity (and at no higher one)."""
    cases = []
    for one in judged:
        higher: list[str] = []
        for level, condition in one.conditions:
            if level == severity:
                unless = "".join(f" AND NOT coalesce(({rule}), false)" for rule in higher)
                cases.append(f"CASE WHEN ({condition}){unless} THEN '{one.check.name}' END")
            higher.append(condition)
    return f"list_filter([{', '.join(cases)}]::VARCHAR[], lambda name: name IS NOT NULL)" if cases else "[]::VARCHAR[]"
