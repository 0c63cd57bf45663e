"""The page about an audit: one HTML file that needs nothing else, offline, on a phone and on paper."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import write_text
from speechtune.report import audit_sections as sections
from speechtune.report.audit_charts import plain
from speechtune.report.audit_examples import Media, fill, problem_examples, visible
from speechtune.report.audit_reading import AuditRecord, read_audit
from speechtune.report.run_report import PAGE, page_environment
from speechtune.report.wording import count, duration

EXAMPLES = 3
"""Examples of each problem."""

MAX_MEDIA_BYTES = 6_000_000
"""Base64 characters of all sounds and pictures of a page together."""

_MOST_STEPS = 5
_MOST_BIGGEST = 3


@dataclass(frozen=True, slots=True)
class AuditReport:
    """Where the page is, how many examples it has, and how many of them can be played or why not."""

    page: Path
    examples: int
    playable: int
    over_budget: int
    unreadable: int

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "page": str(self.page)}


@dataclass(frozen=True, slots=True)
class Headline:
    """The verdict in words: what is worst, what the corpus is good for, and what to do first."""

    verdict: str
    severity: str
    amount: str
    good_for: str
    more: str
    clean: str
    biggest: list[sections.Problem]
    steps: list[tuple[str, sections.Problem]]


def write_audit_report(
    corpus: Path | str,
    audit: Path | str,
    out: Path | None = None,
    *,
    examples: int = EXAMPLES,
    max_media_bytes: int = MAX_MEDIA_BYTES,
) -> AuditReport:
    """Write one self-contained HTML page about a finished audit.

    It loads nothing from anywhere: styles, charts, pictures and audio are in the file, and its content security policy
    forbids the rest. Memory does not depend on the size of the corpus.

    Args:
        corpus: the corpus directory, for the audio of the examples; where audio is gone, the page says so.
        audit: the directory ``speechtune audit`` wrote.
        out: the page; ``report.html`` in the audit when ``None``.
        examples: most examples of each problem (the summary holds at most 10).
        max_media_bytes: size of all sounds and pictures; examples beyond it are shown as text.

    Raises:
        InputError: there is no finished audit, or ``out`` cannot be written.
    """
    if examples < 0 or max_media_bytes < 0:
        raise InputError("examples and max_media_bytes cannot be negative: give 0 for none")
    target = out or Path(audit) / PAGE
    media = Media(Path(corpus), max_media_bytes)
    with read_audit(Path(audit)) as record:
        page, shown = render(record, Path(corpus), media, examples)
    # A lone surrogate may stand in JSON but not in UTF-8.
    write_text(target, page.encode("utf-8", "replace").decode("utf-8"))
    return AuditReport(target, shown, media.embedded, media.over_budget, media.unreadable)


def render(audit: AuditRecord, corpus: Path, media: Media, examples: int) -> tuple[str, int]:
    """The page as text, and the number of its examples."""
    summary = audit.summary
    problems = sections.problems(summary)
    found = [problem_examples(audit, one, examples) for one in summary["problems"]]
    fill(found, media)
    for problem, pairs in zip(problems, found, strict=True):
        problem.examples = [example for example, _ in pairs]
    shown = sum(map(len, found))
    text = (
        page_environment()
        .get_template("audit.html.j2")
        .render(
            name=corpus.resolve().name,
            corpus=corpus,
            summary=summary,
            headline=headline(audit, problems),
            problems=problems,
            clips=media.sentence() if shown else "",
            splits=sections.split_rows(summary),
            distributions=sections.distributions(audit),
            quantiles=sections.quantiles(summary),
            balances=sections.balances(summary),
            age_by_gender=sections.age_by_gender(audit),
            speakers=sections.speaker_chart(audit),
            vocabulary=sections.vocabulary(summary),
            leakage=sections.leakage(audit),
            duplicates=sections.duplicates(audit),
            noise=summary["corpus"]["label_noise"],
            checks=sections.check_rows(summary),
            plain=plain,
            duration=duration,
            share=sections.share_words,
            visible=visible,
        )
    )
    return text, shown


def headline(audit: AuditRecord, problems: list[sections.Problem]) -> Headline:
    """The first lines of the page."""
    summary = audit.summary
    corpus, volume = summary["corpus"], summary["corpus"]["volume"]
    amount = ", ".join(
        [
            duration(corpus["seconds_of_audio"]),
            count(corpus["utterances"], "utterance"),
            count(corpus["speakers"], "speaker") if corpus["speakers"] else "speakers unknown",
        ]
    )
    hours = 3600 * (volume["hours_to_learn_from"] or 0.0)
    good_for = f"{duration(hours)} to learn from. Tier: {volume['tier']}; {volume['meaning']}."
    following = volume["next_tier"]
    more = f"These are {volume['caution']}."
    if following:
        missing = duration(3600 * following["hours"] - hours)
        more = f"Next tier: {following['name']}, from {plain(following['hours'])} h, which is {missing} more. {more}"
    untouched, clean_hours = audit.hours_without("error", "warning")
    clean = (
        f"{plain(untouched)} of {count(corpus['utterances'], 'utterance')} ({duration(3600 * clean_hours)}) "
        "have neither an error nor a warning of their own."
    )
    serious = [one for one in problems if one.severity in ("error", "warning")]
    steps: dict[str, sections.Problem] = {}
    for one in serious or problems:
        steps.setdefault(one.remedy, one)
    worst = summary["verdict"]["worst"] or "none"
    return Headline(
        summary["verdict"]["sentence"],
        worst,
        amount,
        good_for,
        more,
        clean,
        serious[:_MOST_BIGGEST],
        list(steps.items())[:_MOST_STEPS],
    )
