"""``speechtune audit``: what is wrong with a corpus, and what it is good for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Quiet, verb
from speechtune.core.errors import InputError


@verb
def command(
    corpus: Annotated[Path | None, typer.Argument(help="Directory of a speechtune corpus.")] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Where the audit goes; one that is there is continued. Default: CORPUS/audit."
        ),
    ] = None,
    policy: Annotated[Path | None, typer.Option("--policy", help="YAML file with limits that differ.")] = None,
    show_policy: Annotated[
        bool, typer.Option("--show-policy", help="Print every limit with its source, as YAML, and leave.")
    ] = False,
    tokens_of: Annotated[
        list[str] | None,
        typer.Option("--tokens-of", help="Count label tokens for this model (name or directory); repeatable."),
    ] = None,
    workers: Annotated[
        int | None, typer.Option("--workers", min=1, help="Processes. Default: one for each core.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="List every utterance id of a problem, not the first 20.")
    ] = False,
    fail_on: Annotated[
        str | None, typer.Option("--fail-on", help="Exit with code 1 if there is an error (or a warning).")
    ] = None,
    report: Annotated[
        bool, typer.Option("--report/--no-report", help="Write report.html: the findings as a page with examples.")
    ] = True,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Measure every utterance once, judge it by a policy, and rank what is wrong."""
    from speechtune.corpus.audit.engine import audit
    from speechtune.corpus.audit.policy import load_policy, policy_as_yaml
    from speechtune.corpus.audit.tokens import find_tokenizer
    from speechtune.corpus.audit.wording import as_text, outcome
    from speechtune.models.obtaining import resolve_model
    from speechtune.report.audit_report import write_audit_report

    limits = load_policy(policy)
    if show_policy:
        return {"policy": limits.model_dump()}, policy_as_yaml(limits).rstrip()
    if corpus is None:
        raise InputError("no corpus was named: give its directory, as in speechtune audit corpus/")
    if fail_on not in (None, "error", "warning"):
        raise InputError(f"--fail-on is error or warning, not {fail_on!r}")
    tokenizers = [find_tokenizer(name, resolve_model) for name in tokens_of or ()]
    result = audit(corpus, out, policy=limits, tokenizers=tokenizers, workers=workers, full=full)
    found, text = outcome(result, fail_on), as_text(result)
    if report:
        page = write_audit_report(corpus, result.out)
        found, text = {**found, "report": page.to_json()}, f"{text}\nwritten: {page.page} (open it in a browser)"
    return found, text
