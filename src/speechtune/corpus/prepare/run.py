"""The whole of ``speechtune prepare``: plan, chunks in parallel, assembly; interrupted anywhere, continued anywhere."""

from __future__ import annotations

import multiprocessing
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.core.files import write_json
from speechtune.core.progress import Bar, note
from speechtune.core.provenance import provenance
from speechtune.corpus.prepare.assemble import Totals, assemble
from speechtune.corpus.prepare.chunks import Work, run_chunk, run_in_worker, start_worker
from speechtune.corpus.prepare.draft import Draft, locked_draft, partial_of
from speechtune.corpus.prepare.filters import RowFilter
from speechtune.corpus.prepare.plan import Chunk, Plan, make_plan
from speechtune.corpus.prepare.policy import PreparePolicy
from speechtune.corpus.segmentation.pieces import Aligner
from speechtune.corpus.stream import table_of


@dataclass(frozen=True, slots=True)
class PrepareResult:
    """What a prepare did."""

    out: Path
    kept: int
    dropped_by_reason: dict[str, int]
    seconds_of_audio: float
    changed_by_rule: dict[str, int]
    resumed: bool

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {
            "out": str(self.out),
            "kept": self.kept,
            "dropped_by_reason": self.dropped_by_reason,
            "seconds_of_audio": self.seconds_of_audio,
            "changed_by_rule": self.changed_by_rule,
            "resumed": self.resumed,
        }

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped_by_reason.items()) or "none"
        changed = ", ".join(f"{count} by {rule}" for rule, count in self.changed_by_rule.items()) or "none"
        return (
            f"{self.out}: {self.kept} utterances, {self.seconds_of_audio / 60:.1f} minutes\n"
            f"dropped: {dropped}\nchanged: {changed}"
        )


@dataclass(frozen=True, slots=True)
class PrepareOptions:
    """How to work, as opposed to what to do (that is the policy); none of it changes the result.

    ``audit`` is the audit whose columns the filters may name; ``aligner`` is needed by some modes of segmentation
    (then everything runs in this process), ``aligner_name`` says which one it is; ``drop_bad`` leaves out recordings
    that cannot be used, otherwise the first one stops the work; ``jobs`` is the number of processes.
    """

    audit: Path | None = None
    aligner: Aligner | None = None
    aligner_name: str | None = None
    drop_bad: bool = False
    overwrite: bool = False
    jobs: int = 1


def prepare_corpus(
    corpus: Path, out: Path, policy: PreparePolicy, options: PrepareOptions | None = None
) -> PrepareResult:
    """Make a prepared copy of a corpus; the source is only read.

    The work grows in ``OUT.partial``. Stopped at any point, it continues when called again with the same corpus and
    policy, and the result is the same, byte for byte (``provenance.json``, which holds the time, excepted).

    Args:
        corpus: a corpus directory.
        out: the directory to make.
        policy: what to do.
        options: how to work.

    Raises:
        InputError: a recording cannot be used, the policy does not fit the corpus, another process writes ``out``, or
            ``out`` exists. What is finished stays in ``OUT.partial``.
    """
    options = options or PrepareOptions()
    _refuse_overlap(corpus, out)
    if policy.segmentation.mode == "align" and options.aligner is None:
        raise InputError("segmentation.mode align needs a model that locates the words: add --align-with MODEL")
    with locked_draft(out, options.overwrite) as draft:
        plan = make_plan(corpus, policy, options.audit, options.aligner_name)
        keep = RowFilter(policy.where, options.audit, plan.columns)
        resumed = draft.agree(plan.facts, options.overwrite)
        if resumed:
            note(f"continuing what {draft.root} holds")
        work = Work(corpus.resolve(), draft.corpus.resolve(), policy, plan.types, options.drop_bad, options.aligner)
        chunks = _run(draft, plan, keep, work, options.jobs)
        totals = assemble(draft, plan, policy, chunks)
        write_json(draft.corpus / "provenance.json", provenance(source=str(corpus.resolve()), resumed=resumed))
        draft.publish()
    return _result(out, totals, resumed)


def _refuse_overlap(corpus: Path, out: Path) -> None:
    table_of(corpus)
    source, target = corpus.resolve(), out.resolve()
    if source.is_relative_to(target) or source.is_relative_to(partial_of(target)):
        raise InputError(f"--out {out} would replace the corpus {corpus}: choose a directory beside it")
    if target.is_relative_to(source):
        raise InputError(f"--out {out} lies inside the corpus {corpus}: choose a directory beside it")


def _run(draft: Draft, plan: Plan, keep: RowFilter, work: Work, jobs: int) -> list[tuple[int, str | None]]:
    """Run every chunk that is not finished; returns number and split of all, in order."""
    order: list[tuple[int, str | None]] = []

    def unfinished() -> Iterator[Chunk]:
        for chunk in plan.chunks():
            order.append((chunk.number, chunk.split))
            if draft.finished(chunk.number):
                bar.advance(bar.done + len(chunk.items))
                continue
            for item in chunk.items:
                item.dropped = keep.reason(item.utterance)
            yield chunk

    with Bar("preparing", plan.rows) as bar:
        if jobs <= 1 or work.aligner is not None or plan.rows <= 16:
            for chunk in unfinished():
                draft.mark(chunk.number, run_chunk(chunk, work))
                bar.advance(bar.done + len(chunk.items))
        else:
            _run_parallel(unfinished(), draft, work, jobs, bar)
    return order


def _run_parallel(chunks: Iterator[Chunk], draft: Draft, work: Work, jobs: int, bar: Bar) -> None:
    """At most two chunks per process are in memory; when one fails, those under way are still finished."""
    spawn = multiprocessing.get_context("spawn")
    running: dict[Future[list[dict[str, Any]]], Chunk] = {}
    failure: BaseException | None = None
    with ProcessPoolExecutor(jobs, mp_context=spawn, initializer=start_worker, initargs=(work,)) as pool:
        try:
            for chunk in chunks:
                running[pool.submit(run_in_worker, chunk)] = chunk
                if len(running) >= 2 * jobs:
                    failure = _reap(running, draft, bar, FIRST_COMPLETED)
                if failure is not None:
                    break
            while running and failure is None:
                failure = _reap(running, draft, bar, FIRST_COMPLETED)
            for future in [one for one in running if one.cancel()]:
                del running[future]
            _reap(running, draft, bar)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)  # chunks under way are still waited for, no others begun
            raise
    if isinstance(failure, BrokenProcessPool):
        raise SpeechtuneError(
            f"a worker process died (out of memory?): what is finished is in {draft.root}; run the same command again "
            "with --jobs 1"
        ) from failure
    if failure is not None:
        raise failure


def _reap(
    running: dict[Future[list[dict[str, Any]]], Chunk], draft: Draft, bar: Bar, until: str = "ALL_COMPLETED"
) -> BaseException | None:
    """Remember the chunks that are done; returns the first failure among them."""
    failure: BaseException | None = None
    done, _ = wait(running, return_when=until)
    for future in sorted(done, key=lambda one: running[one].number):
        chunk = running.pop(future)
        error = future.exception()
        if error is not None:
            failure = failure or error
            continue
        draft.mark(chunk.number, future.result())
        bar.advance(bar.done + len(chunk.items))
    return failure


def _result(out: Path, totals: Totals, resumed: bool) -> PrepareResult:
    return PrepareResult(
        out=out,
        kept=totals.census.rows,
        dropped_by_reason=dict(totals.dropped.most_common()),
        seconds_of_audio=round(totals.census.seconds, 3),
        changed_by_rule=dict(totals.rules.most_common()),
        resumed=resumed,
    )
