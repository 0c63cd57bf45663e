"""What the ``audit`` verb says: its JSON object and the text a person reads."""

from __future__ import annotations

from typing import Any

from speechtune.corpus.audit.engine import SUMMARY, TABLE, AuditResult

_SHOWN_IDS = 3


def outcome(result: AuditResult, fail_on: str | None = None) -> dict[str, Any]:
    """The JSON object: the summary without its distributions (they are in ``audit.json``), and where all of it is.

    ``exit_code`` is 1 where a problem is as severe as ``fail_on`` or worse.
    """
    summary = result.summary
    counts = summary["verdict"]["problems_by_severity"]
    failed = bool(fail_on and (counts["error"] or (fail_on == "warning" and counts["warning"])))
    return {
        "out": str(result.out),
        "table": str(result.out / TABLE),
        "summary": str(result.out / SUMMARY),
        "measured": result.measured,
        "known": result.known,
        "seconds": round(result.seconds, 1),
        **{name: summary[name] for name in ("verdict", "utterances_by_worst", "problems", "corpus")},
        "exit_code": int(failed),
    }


def as_text(result: AuditResult) -> str:
    """Verdict, ranked problems with their first ids, and what the corpus is."""
    summary, corpus = result.summary, result.summary["corpus"]
    lines = [
        f"{corpus['utterances']} utterances, {corpus['hours']:.2f} h, {corpus['speakers']} speakers "
        f"({result.measured} measured now, {result.known} known; {result.seconds:.1f} s)",
        summary["verdict"]["sentence"],
        "",
    ]
    for problem in summary["problems"]:
        lines.append(f"{problem['severity']:8} {problem['check']:22} {problem['sentence']}")
        lines.append(f"{'':31} {problem['meaning']} {problem['remedy']}")
        ids = problem["utterance_ids"]
        if ids:
            more = f" and {problem['count'] - _SHOWN_IDS} more" if problem["count"] > _SHOWN_IDS else ""
            lines.append(f"{'':31} {', '.join(ids[:_SHOWN_IDS])}{more if problem['unit'] == 'utterances' else ''}")
    volume = corpus["volume"]
    lines += ["", f"{volume['hours_to_learn_from']:.2f} h to learn from: {volume['tier']}; {volume['meaning']}."]
    for split, facts in corpus["vocabulary"]["evaluation"].items():
        oov = facts["oov_frac_by_train_share"]
        lines.append(f"{split}: {oov[-1]:.1%} of the running words are not in train ({oov[3]:.1%} with half of train).")
    lines.append(f"written: {result.out / TABLE}, {result.out / SUMMARY}")
    return "\n".join(lines)
