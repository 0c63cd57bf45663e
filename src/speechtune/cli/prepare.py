"""``speechtune prepare``: clean and shape a corpus by a policy file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from speechtune.cli.common import Json, Outcome, Overwrite, Quiet, verb
from speechtune.core.errors import InputError


@verb
def command(
    corpus: Annotated[Path | None, typer.Argument(help="Directory of a speechtune corpus; it is only read.")] = None,
    policy: Annotated[Path | None, typer.Option(help="Policy file (YAML); default: what --show-policy prints.")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Directory to make (with --undo: a table).")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Policy key=value; repeat for several.")] = None,
    audit: Annotated[Path | None, typer.Option(help="audit.parquet, or its directory, for filters.")] = None,
    align_with: Annotated[str | None, typer.Option(help="Model that aligns long recordings to be cut.")] = None,
    jobs: Annotated[int, typer.Option(min=0, help="Processes; 0: one per core.")] = 0,
    drop_bad: Annotated[bool, typer.Option("--drop-bad", help="Leave unusable recordings out and count them.")] = False,
    push_to: Annotated[str | None, typer.Option(help="Hub data set owner/name to upload to.")] = None,
    public: Annotated[bool, typer.Option("--public", help="With --push-to: everybody may read it.")] = False,
    overwrite: Overwrite = False,
    show_policy: Annotated[bool, typer.Option("--show-policy", help="Print the default policy and leave.")] = False,
    undo: Annotated[Path | None, typer.Option(help="Prepared corpus whose original table is wanted.")] = None,
    as_json: Json = False,
    quiet: Quiet = False,
) -> Outcome:
    """Clean and shape a corpus: audio, text, filters, segmentation; resumable and reversible."""
    import os

    from speechtune.corpus.prepare import policy as policies
    from speechtune.corpus.prepare import push, run
    from speechtune.corpus.prepare import undo as undoing

    if show_policy:
        return policies.PreparePolicy().model_dump(by_alias=True), policies.show_policy().rstrip("\n")
    if undo is not None:
        restored = undoing.undo(undo, out)
        return restored.to_json(), str(restored)
    if corpus is None or out is None:
        raise InputError("give a corpus and --out (or --show-policy, or --undo DIRECTORY)")
    if push_to is not None:
        push.check_repository(push_to)
    wanted = policies.load_policy(policy, settings or ())
    aligner = None
    if align_with is not None:
        from speechtune.decoding.forced_alignment import open_aligner

        aligner = open_aligner(align_with, detector=wanted.segmentation.detector)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    options = run.PrepareOptions(audit, aligner, align_with, drop_bad, overwrite, jobs or cores)
    result = run.prepare_corpus(corpus, out, wanted, options)
    if push_to is None:
        return result.to_json(), str(result)
    address = push.push(out, push_to, public)
    return {**result.to_json(), "pushed_to": address}, f"{result}\nuploaded to {address}"
