"""The sections of the audit's page as plain values for its template."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from speechtune.corpus.audit.corpus_checks import CORPUS_LIMITS
from speechtune.corpus.audit.policy import Policy, limit
from speechtune.corpus.audit.summary import source_of
from speechtune.corpus.audit.utterance_checks import UTTERANCE_CHECKS
from speechtune.report.audit_charts import Limit, bar_rows, columns, growth, histogram, limits_in_view, plain
from speechtune.report.audit_examples import Example, value_words
from speechtune.report.audit_reading import AuditRecord, policy_of
from speechtune.report.wording import count, duration

MEASURES = ("duration_s", "level_lufs", "snr_db", "bandwidth_hz", "speech_frac", "lead_silence_s", "trail_silence_s",
            "longest_silence_s", "clipped_frac", "chars_per_s", "words", "words_per_s", "tokens_most")  # fmt: skip
"""Measures with a histogram; all others are in the table of quantiles."""

_TITLES = {"duration_s": "Duration", "level_lufs": "Loudness", "snr_db": "Signal-to-noise ratio (estimate)",
           "bandwidth_hz": "Bandwidth", "speech_frac": "Speech, share of the time",
           "longest_silence_s": "Longest silence", "clipped_frac": "Clipped samples, share",
           "chars_per_s": "Characters per second", "words": "Words in a text", "words_per_s": "Words per second",
           "tokens_most": "Tokens of a text"}  # fmt: skip
_BALANCE = ("age", "gender", "language", "source", "format", "sample_rate_hz", "casing", "text_language")
_LEAKS = ("speaker_leakage", "session_leakage", "audio_leakage", "text_leakage")
_RULE = re.compile(r"([a-z_]+) ([<>]) \{([a-z0-9_.]+)\}")
_MOST_BARS = 12


@dataclass(frozen=True, slots=True)
class Threshold:
    """A number of the policy, how it was set, and whether it differs from the default."""

    key: str
    value: str
    source: str
    changed: bool


@dataclass(slots=True)
class Problem:
    """An entry of the ranked list."""

    number: int
    severity: str
    check: str
    title: str
    sentence: str
    amount: str
    share: str
    meaning: str
    remedy: str
    thresholds: list[Threshold]
    source: str
    by_split: list[tuple[str, str]]
    ids: list[str]
    ids_left_out: int
    examples: list[Example] = field(default_factory=list)


def share_words(part: float, whole: float) -> str:
    """A share in per cent that is never rounded to none or to all."""
    if not whole:
        return "\u2013"
    percent = 100 * part / whole
    if 0 < percent < 0.1:
        return "<\u00a00.1\u00a0%"
    if 99.9 < percent < 100:
        return ">\u00a099.9\u00a0%"
    return f"{percent:.1f}\u00a0%"


def problems(summary: dict[str, Any]) -> list[Problem]:
    """The ranked list without its examples."""
    policy = policy_of(summary)
    sources = {one["check"]: one["source"] for one in summary["checks"]}
    total = summary["corpus"]["utterances"]
    found = []
    for number, one in enumerate(summary["problems"], 1):
        of_utterances = one["unit"] == "utterances"
        thresholds = check_thresholds(policy, one["check"], one["severity"])
        found.append(
            Problem(
                number,
                one["severity"],
                one["check"],
                one["title"],
                one["sentence"],
                f"{plain(one['count'])} {one['unit'].removesuffix('s') if one['count'] == 1 else one['unit']}",
                share_words(one["count"], total) if of_utterances else "",
                one["meaning"],
                one["remedy"],
                thresholds,
                "" if thresholds else sources.get(one["check"], ""),
                [(split, plain(n)) for split, n in one["by_split"].items()] if len(one["by_split"]) > 1 else [],
                one["utterance_ids"],
                max(0, one["count"] - len(one["utterance_ids"])) if of_utterances else 0,
            )
        )
    return found


def check_thresholds(policy: Policy, check: str, severity: str | None = None) -> list[Threshold]:
    """The limits that a check uses (for a severity, where each has its own), with their sources."""
    keys = list(CORPUS_LIMITS.get(check, ()))
    for one in UTTERANCE_CHECKS:
        if one.name == check:
            by_severity = one.limits()
            forced = check in policy.severity or severity not in by_severity
            chosen = list(by_severity.values()) if forced else [by_severity[severity]]  # type: ignore[index]
            keys = list(dict.fromkeys(key for names in chosen for key in names))
    default = Policy()
    return [
        Threshold(key, plain(limit(policy, key)), source_of(key), limit(policy, key) != limit(default, key))
        for key in keys
    ]


def measure_limits(policy: Policy) -> dict[str, list[Limit]]:
    """The limits of each measure, read off the rules of the checks."""
    found: dict[str, dict[tuple[float, bool], Limit]] = {}
    for check in UTTERANCE_CHECKS:
        if check.name in policy.disabled or check.name == "text_missing":  # asked of empty texts alone
            continue
        for severity, rule in check.rules.items():
            for column, sign, key in _RULE.findall(rule):
                one = Limit(limit(policy, key), policy.severity.get(check.name, severity), sign == ">")
                found.setdefault(column, {}).setdefault((one.value, one.above), one)
    return {column: list(limits.values()) for column, limits in found.items()}


@dataclass(frozen=True, slots=True)
class Distribution:
    """A histogram with what its caption says."""

    title: str
    chart: Markup
    caption: str


def distributions(audit: AuditRecord) -> list[Distribution]:
    """The histograms, overall and by split."""
    summary, splits = audit.summary, audit.splits()
    limits = measure_limits(policy_of(summary))
    tokens = [name for name in summary["distributions"] if name.startswith("tokens_") and name != "tokens_most"]
    result = []
    for name in (*MEASURES, *(tokens if len(tokens) > 1 else ())):
        one = summary["distributions"].get(name)
        if not one:
            continue
        bins, wanted = one["histogram"], limits.get("tokens_most" if name in tokens else name, [])
        rows = [("all", bins["counts"])]
        if len(bins["by_split"]) > 1:
            rows += [(split, bins["by_split"][split]) for split in splits if split in bins["by_split"]]
        title = _TITLES.get(name) or value_words(name, 0.0)[0].capitalize()
        unit = one["unit"] if one["unit"] not in ("characters/s", "words/s", "words", "tokens", "characters") else ""
        middle = (
            f"Half lie between {plain(one['p25'], 3)} and {plain(one['p75'], 3)}, 98 % between "
            f"{plain(one['p01'], 3)} and {plain(one['p99'], 3)}{' ' + unit if unit else ''}"
        )
        if one["p01"] == one["p99"]:
            middle = f"At least 98 % are {plain(one['p50'])}{' ' + unit if unit else ''}"
        _, _, _, far = limits_in_view(bins["edges"], bins["counts"], wanted)
        caption = f"{middle}." + (
            f" Not near any value: {'; '.join(far_one.words(unit) for far_one in far)}." if far else ""
        )
        if bins["counts"][-1] and one["max"] > bins["edges"][-1]:
            caption += f" The last bar holds all up to {plain(one['max'])}."
        words = f"Histogram of {title.lower()}, {plain(one['count'])} utterances: {caption}"
        result.append(Distribution(title, Markup(histogram(bins["edges"], rows, wanted, unit, words)), caption))
    return result


def quantiles(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """One row for each measure."""
    names = ("min", "p01", "p05", "p25", "p50", "p75", "p95", "p99", "max", "mean")
    return [
        {"name": value_words(column, 0.0)[0], "column": column, "unit": one["unit"], "count": plain(one["count"]),
         "values": [(one[name], "\u2013" if one[name] is None else plain(one[name])) for name in names]}
        for column, one in summary["distributions"].items()
    ]  # fmt: skip


def split_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Utterances, hours, speakers, words of each split."""
    return [
        {**one, "hours": one["hours"] or 0.0, "time": duration(3600 * (one["hours"] or 0.0))}
        for one in summary["corpus"]["splits"]
    ]


@dataclass(frozen=True, slots=True)
class Balance:
    """Bars of one column, and a note on what they leave out."""

    title: str
    chart: Markup
    note: str


def balances(summary: dict[str, Any]) -> list[Balance]:
    """Bars of minutes for each column with more than one value."""
    result = []
    for column in _BALANCE:
        one = summary["categories"].get(column)
        values = one["values"] if one else []
        # A source that is the name of each recording says nothing about balance.
        if len(values) < 2 or one["different"] > 0.5 * summary["corpus"]["utterances"]:
            continue
        total = sum(value["hours"] for value in values) or 1.0
        shown = values[:_MOST_BARS]
        if column == "age":
            shown = sorted(shown, key=lambda value: _natural(value["value"]))
        rows = [
            (
                _short(value["value"]),
                f"{duration(3600 * value['hours'])} ({share_words(value['hours'], total)}), "
                f"{plain(value['utterances'])} utt.",
                value["hours"],
            )
            for value in shown
        ]
        left = one["different"] - len(shown)
        title = {"sample_rate_hz": "Sample rate (Hz)", "text_language": "Language of the text (detected)"}.get(
            column, column.capitalize()
        )
        note = f"The {_MOST_BARS} with most audio; {plain(left)} more are not shown." if left > 0 else ""
        result.append(
            Balance(
                title,
                Markup(bar_rows(rows, f"Audio by {title.lower()}: " + "; ".join(f"{a} {b}" for a, b, _ in rows))),
                note,
            )
        )
    return result


def _natural(text: str) -> list[tuple[int, int, str]]:
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.findall(r"\d+|\D+", text)]


def _short(name: str, most: int = 22) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"


def age_by_gender(audit: AuditRecord) -> dict[str, Any] | None:
    """A table of utterances and minutes for each age and gender; ``None`` where one of them is unknown."""
    cells = audit.crossed("age", "gender")
    if not cells:
        return None
    ages = sorted({age for age, _ in cells}, key=_natural)
    genders = sorted({gender for _, gender in cells})
    if len(ages) > 40 or len(genders) > 8:
        return None
    return {
        "genders": genders,
        "rows": [(age, [cells.get((age, gender), (0, 0.0)) for gender in genders]) for age in ages],
    }


def speaker_chart(audit: AuditRecord) -> tuple[Markup, str] | None:
    """Minutes of the speakers, ranked, and a sentence about them."""
    ranks, known = audit.speakers(), audit.summary["corpus"]["speakers"]
    if not ranks:
        return None
    minutes = [one.minutes for one in ranks]
    middle = sorted(minutes)[len(minutes) // 2]
    text = (
        f"{count(known, 'speaker')}: from {minutes[-1]:.1f} to {minutes[0]:.1f} minutes each, {middle:.1f} in the "
        f"middle; {count(ranks[0].utterances, 'utterance')} of the one with most audio."
    )
    if known > len(ranks):
        text += f" The chart has {len(ranks)} of them at even distances in the ranking."
    ends = (
        f"1. {_short(ranks[0].speaker_id, 14)}",
        f"{plain(ranks[-1].place)}. {_short(ranks[-1].speaker_id, 14)}" if len(ranks) > 1 else "",
    )
    return Markup(
        columns(minutes, f"{minutes[0]:.1f} min", ends, f"Minutes of speech by speaker, ranked. {text}")
    ), text


def vocabulary(summary: dict[str, Any]) -> dict[str, Any]:
    """Growth of the vocabulary and unseen words, as (title, caption, chart), and lists of words."""
    facts = summary["corpus"]["vocabulary"]
    shares, words = facts["train_shares"], facts["train_different_words"]
    charts = []
    if words and words[-1]:
        last = words[-1] - words[-3]
        caption = (
            f"{plain(words[-1])} different words, {plain(facts['train_words_once'] or 0)} of them once; "
            f"the last half of train brought {plain(last)}."
        )
        points = [(0.0, 0.0), *zip(shares, words, strict=True)]
        charts.append(
            (
                "Different words in train",
                caption,
                Markup(growth(points, False, f"Different words against the share of train: {caption}")),
            )
        )
    for split, one in facts["evaluation"].items():
        rates = one["oov_frac_by_train_share"]
        if words and words[-1]:
            caption = (
                f"{share_words(rates[-1], 1)} of the {plain(one['words'])} running words of {split} are not in train "
                f"({share_words(rates[3], 1)} with half of it)."
            )
            charts.append(
                (
                    f"Unseen words of {split}",
                    caption,
                    Markup(growth(list(zip(shares, rates, strict=True)), True, caption)),
                )
            )
    unseen = [
        (split, one["most_frequent_oov"]) for split, one in facts["evaluation"].items() if one["most_frequent_oov"]
    ]
    return {"charts": charts[:7], "frequent": facts["most_frequent"], "unseen": unseen[:6]}


def leakage(audit: AuditRecord) -> dict[str, Any]:
    """What splits share, and the problems and checks about it."""
    found = [one for one in audit.summary["problems"] if one["check"] in _LEAKS]
    made = {one["check"]: one for one in audit.summary["checks"]}
    clean = [made[name]["title"] for name in _LEAKS if name in made and name not in {one["check"] for one in found}]
    return {"found": [(one["severity"], one["sentence"]) for one in found], "clean": clean, "pairs": audit.shared()}


def duplicates(audit: AuditRecord) -> list[dict[str, Any]]:
    """Groups of copies by kind."""
    kinds = (
        ("Identical audio", "duplicate_audio_of"),
        ("Nearly identical audio", "near_duplicate_audio_of"),
        ("Nearly identical texts", "near_duplicate_text_of"),
    )
    result = []
    for title, column in kinds:
        total, members, groups = audit.groups(column)
        result.append({"title": title, "total": total, "members": members, "groups": groups})
    return result


def check_rows(summary: dict[str, Any]) -> list[dict[str, Any]]:
    """Every check that was made, with how much it found."""
    policy = policy_of(summary)
    found: dict[str, list[str]] = {}
    for one in summary["problems"]:
        found.setdefault(one["check"], []).append(f"{plain(one['count'])} ({one['severity']})")
    return [
        {**one, "found": ", ".join(found.get(one["check"], [])), "thresholds": check_thresholds(policy, one["check"])}
        for one in summary["checks"]
    ]
