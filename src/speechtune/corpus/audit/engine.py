"""One audit: measure what is new, judge everything, publish ``audit.parquet`` and ``audit.json``.

Nothing here holds more of the corpus than a few pieces of the table. What was measured is committed to the cache piece
by piece, so an audit that was killed, or that met a full disk, continues where it stood; and the result is a function
of the corpus, the policy and the options alone.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import speechtune
from speechtune.audio.io import AUDIO_SUFFIXES
from speechtune.core.errors import InputError, explain_write_errors
from speechtune.core.files import sha256, write_json
from speechtune.core.progress import Bar
from speechtune.core.provenance import provenance
from speechtune.corpus.audit.cache import MeasureCache
from speechtune.corpus.audit.checks import judged_by
from speechtune.corpus.audit.corpus_checks import CORPUS_CHECKS
from speechtune.corpus.audit.database import Database
from speechtune.corpus.audit.judging import judge, relate
from speechtune.corpus.audit.policy import Policy
from speechtune.corpus.audit.rows import (
    PIECE_ROWS,
    Job,
    Measured,
    Piece,
    load_pyarrow,
    measure_piece,
    measures_version,
    schema,
)
from speechtune.corpus.audit.summary import summarise
from speechtune.corpus.audit.tokens import load_tokenizer
from speechtune.corpus.audit.utterance_checks import UTTERANCE_CHECKS
from speechtune.corpus.stream import count_rows, iter_utterances, table_sha256
from speechtune.corpus.workers import in_order

TABLE = "audit.parquet"
SUMMARY = "audit.json"
RUN = "audit_run.json"
CACHE = "measures.sqlite"
_DRAFT = ".draft-"
_PIECES_IN_A_ROW_GROUP = 64


@dataclass(frozen=True, slots=True)
class AuditResult:
    """What an audit wrote, and how much of it was new.

    ``measured`` and ``known`` count utterances whose audio was measured now and before.
    """

    out: Path
    summary: dict[str, Any]
    measured: int
    known: int
    seconds: float


def audit(
    root: Path | str,
    out: Path | str | None = None,
    *,
    policy: Policy | None = None,
    tokenizers: Sequence[tuple[str, Path]] = (),
    workers: int | None = None,
    full: bool = False,
) -> AuditResult:
    """Audit a corpus.

    Args:
        root: the corpus directory; only read, unless ``out`` lies in it.
        out: where ``audit.parquet``, ``audit.json`` and the cache of measures go (default: ``root/audit``). An audit
            that is there is continued, or judged again.
        policy: the limits (default: those of `Policy`).
        tokenizers: (name, path of a ``tokenizer.json``) of each model whose label length is counted.
        workers: processes (default: the cores this process may use).
        full: list every utterance id of a problem in the summary.

    Raises:
        InputError: the corpus, the policy or ``out`` cannot be used, or the disk is full.
    """
    started = time.monotonic()
    root = Path(root)
    out = Path(out) if out is not None else root / "audit"
    policy = policy or Policy()
    check_names(policy)
    tokenizers = _named(tokenizers)
    for _, path in tokenizers:
        load_tokenizer(path)
    total = count_rows(root)
    if not total:
        raise InputError(f"{root} holds no utterances: import some first")
    workers = workers or _cores()
    _claim(out, root)
    with _scratch(out) as scratch:
        measures = scratch / "measures.parquet"
        job = Job(root, out / CACHE, tuple(tokenizers))
        measured, known = _measure(job, measures, total, min(workers, -(-total // PIECE_ROWS)))
        with contextlib.closing(Database(scratch)) as db:
            relate(db, measures, policy)
            db.fill("orphans", "file_name VARCHAR", ((name,) for name in _recordings(root, out)))
            db.run("DELETE FROM orphans WHERE file_name IN (SELECT file_name FROM measured)")
            judge(db, policy, scratch / TABLE)
            columns = [f"tokens_{name}" for name, _ in tokenizers]
            summary = summarise(db, policy, full=full, token_columns=columns)
        summary = {
            "speechtune": speechtune.__version__,
            "measures_version": measures_version(),
            "table_sha256": table_sha256(root),
            "audit_sha256": sha256(scratch / TABLE),
            **summary,
        }
        seconds = time.monotonic() - started
        run = provenance(measured=measured, known=known, seconds=round(seconds, 1), workers=workers)
        _publish(scratch / TABLE, out, summary, run)
    return AuditResult(out, summary, measured, known, seconds)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_names(policy: Policy) -> None:
    """Refuse a policy that names a check that does not exist.

    Raises:
        InputError: it does; the nearest names are given.
    """
    import difflib

    names = [check.name for check in UTTERANCE_CHECKS] + [check.name for check in CORPUS_CHECKS]
    for name in [*policy.disabled, *policy.severity]:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=3, cutoff=0.4) or names
            raise InputError(
                f"the policy names a check {name!r} that does not exist: did you mean {' or '.join(near)}?"
            )
    judged_by(policy, UTTERANCE_CHECKS)


def _named(tokenizers: Sequence[tuple[str, Path]]) -> list[tuple[str, Path]]:
    """Names as column names, each once."""
    named: dict[str, Path] = {}
    for name, path in tokenizers:
        plain = "".join(char if char.isalnum() else "_" for char in name)
        if plain in named:
            raise InputError(f"two models are called {name!r}: name each once with --tokens-of")
        named[plain] = path
    return list(named.items())


def _claim(out: Path, root: Path) -> None:
    """Make sure that ``out`` is new, empty or an audit."""
    if out.exists() and not out.is_dir():
        raise InputError(f"{out} is a file: choose another --out")
    if out.resolve() == root.resolve():
        raise InputError(f"{out} is the corpus itself: choose another --out, for example {root / 'audit'}")
    ours = any((out / name).exists() for name in (CACHE, SUMMARY))
    if out.is_dir() and not ours and any(not path.name.startswith(".") for path in out.iterdir()):
        raise InputError(f"{out} is not empty and holds no audit: choose another --out")
    with explain_write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
    MeasureCache(out / CACHE).close()


@contextlib.contextmanager
def _scratch(out: Path) -> Iterator[Path]:
    """A directory below ``out`` for this audit alone; those of audits that were killed are removed."""
    with explain_write_errors(out):
        for path in out.glob(f"{_DRAFT}*"):
            if not _alive(path.name.removeprefix(_DRAFT).split("-")[0]):
                shutil.rmtree(path, ignore_errors=True)
        scratch = Path(tempfile.mkdtemp(dir=out, prefix=f"{_DRAFT}{os.getpid()}-"))
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def _alive(process: str) -> bool:
    try:
        os.kill(int(process), 0)
    except (ProcessLookupError, ValueError):
        return False
    except PermissionError:
        return True
    return True


def _pieces(job: Job) -> Iterator[Piece]:
    rows = iter_utterances(job.root)
    first = 0
    while utterances := list(itertools.islice(rows, PIECE_ROWS)):
        yield Piece(job, first, utterances)
        first += len(utterances)


def _measure(job: Job, target: Path, total: int, workers: int) -> tuple[int, int]:
    """Write the measures of every row to a Parquet file; returns how many clips were new and how many known."""
    pyarrow = load_pyarrow()
    kinds = schema([name for name, _ in job.tokenizers])
    measured = known = done = 0
    with (
        MeasureCache(job.cache) as cache,
        explain_write_errors(target),
        pyarrow.parquet.ParquetWriter(target, kinds, compression="zstd") as writer,
        Bar("audit", total) as bar,
    ):
        results = in_order(measure_piece, _pieces(job), workers)
        with contextlib.closing(results):
            while some := list(_collect(results, cache, bar)):
                writer.write_table(pyarrow.Table.from_batches([one.batch for one in some]))
                measured += sum(len(one.fresh) for one in some)
                known += sum(one.known for one in some)
                done += sum(one.batch.num_rows for one in some)
    return measured, known


def _collect(results: Iterator[Measured], cache: MeasureCache, bar: Bar) -> Iterator[Measured]:
    """The pieces of the next row group; each is in the cache before it counts as done."""
    for one in itertools.islice(results, _PIECES_IN_A_ROW_GROUP):
        cache.put(one.fresh)
        bar.advance(bar.done + one.batch.num_rows)
        yield one


def _recordings(root: Path, out: Path) -> Iterator[str]:
    """Every recording below the corpus, by its path in it; a directory may hold more names than fit into memory."""
    waiting = [root]
    while waiting:
        try:
            listing = os.scandir(waiting.pop())
        except OSError:  # a directory that may not be looked into holds nothing that the table could miss
            continue
        with listing as entries:
            for entry in entries:
                if entry.is_dir(follow_symlinks=False):
                    if Path(entry.path).resolve() != out.resolve():
                        waiting.append(Path(entry.path))
                elif Path(entry.name).suffix.lower() in AUDIO_SUFFIXES:
                    yield Path(entry.path).relative_to(root).as_posix()


def _publish(table: Path, out: Path, summary: dict[str, Any], run: dict[str, Any]) -> None:
    """Put the finished files in their places, the summary last; it names the table by its hash."""
    with _locked(out), explain_write_errors(out):
        (out / SUMMARY).unlink(missing_ok=True)
        os.replace(table, out / TABLE)
        write_json(out / RUN, run)
        write_json(out / SUMMARY, summary)


@contextlib.contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Let one audit publish at a time (where the system has file locks)."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    with (out / CACHE).open("rb") as stream:
        fcntl.flock(stream, fcntl.LOCK_EX)  # another kind of lock than SQLite's own on this file
        yield
