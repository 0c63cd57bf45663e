"""Laws of the engine: the result depends on corpus and policy alone, whatever happens on the way."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import soundfile
from noise_corpus import write_noise

from speechtune.core.errors import InputError
from speechtune.corpus import duplicates, fingerprint_pairs
from speechtune.corpus.audit import engine
from speechtune.corpus.audit.cache import MeasureCache
from speechtune.corpus.audit.engine import AuditResult, audit
from speechtune.corpus.audit.policy import Policy
from speechtune.corpus.audit.rows import load_pyarrow

SMALL_PIECES = """
import sys
from speechtune.corpus.audit import engine
engine.PIECE_ROWS = 8
if __name__ == "__main__":
    engine.audit(sys.argv[1], sys.argv[2], workers=int(sys.argv[3]))
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "go.py"
    path.write_text(SMALL_PIECES, encoding="utf-8")
    return path


def start(script: Path, *words: object, **options: object) -> subprocess.Popen[str]:
    command = [sys.executable, str(script), *map(str, words)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True, **options)  # type: ignore[call-overload]


def outcome(out: Path) -> tuple[bytes, bytes]:
    return (out / "audit.parquet").read_bytes(), (out / "audit.json").read_bytes()


def entries(out: Path) -> int:
    try:
        with MeasureCache(out / engine.CACHE, read_only=True) as cache:
            return len(cache)
    except InputError:
        return 0


def test_killed_at_any_point_and_run_again_gives_the_same_bytes(
    planted: Path, audited: AuditResult, script: Path, tmp_path: Path
) -> None:
    out = tmp_path / "audit"
    kept = 0
    for least in (1, 60):
        process = start(script, planted, out, 2)
        deadline_s = time.monotonic() + 60
        while entries(out) < least and process.poll() is None and time.monotonic() < deadline_s:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert entries(out) >= kept
        kept = entries(out)
    assert kept
    assert start(script, planted, out, 1).wait() == 0
    assert outcome(out) == outcome(audited.out)
    assert not list(out.glob(".draft-*"))


def test_two_at_once_share_one_audit(planted: Path, audited: AuditResult, script: Path, tmp_path: Path) -> None:
    both = [start(script, planted, tmp_path / "audit", 1) for _ in range(2)]
    errors = [process.communicate()[1] for process in both]
    assert [process.returncode for process in both] == [0, 0], errors
    assert outcome(tmp_path / "audit") == outcome(audited.out)


def test_workers_end_with_their_parent(planted: Path, script: Path, tmp_path: Path) -> None:
    psutil = pytest.importorskip("psutil")
    process = start(script, planted, tmp_path / "audit", 2)
    children: list = []
    while len(children) < 2 and process.poll() is None:
        time.sleep(0.02)
        children = psutil.Process(process.pid).children(recursive=True)
    os.kill(process.pid, signal.SIGKILL)
    process.communicate()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive


def test_another_policy_judges_again_without_measuring(noise_corpus: Path, tmp_path: Path) -> None:
    first = audit(noise_corpus, tmp_path / "a", workers=1)
    policy = Policy.model_validate({"duration": {"note_below_s": 0.1, "warn_below_s": 0.1}, "disabled": ["no_speech"]})
    second = audit(noise_corpus, tmp_path / "a", policy=policy, workers=1)
    assert (first.measured, second.measured, second.known) == (10, 0, 10)
    names = [{problem["check"] for problem in one.summary["problems"]} for one in (first, second)]
    assert {"duration_short", "no_speech"} <= names[0] and not {"duration_short", "no_speech"} & names[1]


def test_the_cache_goes_by_content(noise_corpus: Path, tmp_path: Path) -> None:
    audit(noise_corpus, tmp_path / "a", workers=1)
    table = noise_corpus / "metadata.jsonl"
    (noise_corpus / "audio/3.wav").rename(noise_corpus / "audio/moved.wav")
    table.write_text(table.read_text().replace("audio/3.wav", "audio/moved.wav"))
    assert audit(noise_corpus, tmp_path / "a", workers=1).measured == 0
    soundfile.write(noise_corpus / "audio/4.wav", np.random.default_rng(9).normal(0, 0.05, 8_000), 16_000)
    assert audit(noise_corpus, tmp_path / "a", workers=1).measured == 1


def test_what_is_nearly_equal_to_a_row_is_said_of_its_copies_too(tmp_path: Path) -> None:
    rng = np.random.default_rng(2)
    steps = np.repeat(10 ** rng.uniform(-3, -1, 40), 1_600)  # noise whose colour and level change, 4 s
    sound = np.convolve(steps * rng.standard_normal(len(steps)), np.ones(3) / 3, "same")
    other = np.convolve(steps[::-1] * rng.standard_normal(len(steps)), np.ones(3) / 3, "same")
    text = "seven quiet farmers painted the old wooden bridge"
    rows = {
        "first": (sound + 1e-4 * rng.standard_normal(len(sound)), text),
        "near": (sound, f"{text}s"),
        "unlike": (other, "nothing that the others say"),
        "copy of near": (sound, f"{text}s"),
        "copy of unlike": (other, "nothing that the others say"),
    }
    (tmp_path / "corpus").mkdir()
    with (tmp_path / "corpus/metadata.jsonl").open("w") as table:
        for number, (name, (samples, said)) in enumerate(rows.items()):
            soundfile.write(tmp_path / f"corpus/{number}.wav", samples, 16_000)
            row = {"utterance_id": name, "file_name": f"{number}.wav", "text": said, "duration_s": 4.0}
            table.write(json.dumps(row) + "\n")
    out = audit(tmp_path / "corpus", tmp_path / "a", workers=1).out
    found = load_pyarrow().parquet.read_table(out / "audit.parquet").to_pydict()
    assert found["duplicate_audio_of"] == [None, None, None, "near", "unlike"]
    assert found["near_duplicate_audio_of"] == [None, "first", None, "first", None]
    assert found["near_duplicate_text_of"] == [None, "first", None, "first", None]
    assert found["near_label_conflict"] == [True, True, False, True, False]


def test_severity_can_be_forced_and_full_lists_every_id(tmp_path: Path) -> None:
    corpus = write_noise(tmp_path / "corpus", 25)
    policy = Policy.model_validate({"severity": {"duration_short": "error"}})
    result = audit(corpus, tmp_path / "a", policy=policy, workers=1)
    (problem,) = (one for one in result.summary["problems"] if one["check"] == "duration_short")
    assert (problem["severity"], problem["count"], len(problem["utterance_ids"])) == ("error", 25, 20)
    full = audit(corpus, tmp_path / "a", policy=policy, workers=1, full=True).summary["problems"]
    (problem,) = (one for one in full if one["check"] == "duration_short")
    assert problem["utterance_ids"] == [f"u{number}" for number in range(25)]


def test_a_file_that_cannot_be_opened_is_a_problem_and_not_a_crash(noise_corpus: Path, tmp_path: Path) -> None:
    (noise_corpus / "audio/2.wav").unlink()
    (noise_corpus / "audio/2.wav").mkdir()
    problems = audit(noise_corpus, tmp_path / "a", workers=1).summary["problems"]
    assert [one["utterance_ids"] for one in problems if one["check"] == "audio_unreadable"] == [["u2"]]


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda corpus, out: (out.parent / "none", out), "is not a speechtune corpus"),
        (lambda corpus, out: (corpus, corpus), "is the corpus itself"),
        (lambda corpus, out: (corpus, corpus / "audio"), "holds no audit"),
        (lambda corpus, out: (corpus, corpus / "metadata.jsonl"), "is a file"),
    ],
)
def test_wrong_places_are_one_sentence(change, sentence: str, noise_corpus: Path, tmp_path: Path) -> None:
    corpus, out = change(noise_corpus, tmp_path / "a")
    with pytest.raises(InputError, match=sentence):
        audit(corpus, out, workers=1)


def test_an_unknown_check_in_the_policy_is_named(noise_corpus: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="did you mean clipping"):
        audit(noise_corpus, tmp_path / "a", policy=Policy.model_validate({"disabled": ["cliping"]}))


def test_a_foreign_cache_file_is_refused(noise_corpus: Path, tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / engine.CACHE).write_text("not a database " * 99)
    with pytest.raises(InputError, match="delete it"):
        audit(noise_corpus, tmp_path / "a", workers=1)


class FullDisk:
    """Stands in for the module ``tempfile``."""

    @staticmethod
    def TemporaryFile(dir: Path | None = None) -> None:  # noqa: N802 - the names of the standard library
        raise OSError(errno.ENOSPC, "No space left on device")


@pytest.mark.parametrize("module", [duplicates, fingerprint_pairs])
def test_a_full_disk_while_searching_copies_is_one_sentence_and_what_was_measured_is_kept(
    noise_corpus: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, module: ModuleType
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(module, "tempfile", FullDisk)
        with pytest.raises(InputError, match="the disk is full"):
            audit(noise_corpus, tmp_path / "a", workers=1)
    assert not list((tmp_path / "a").glob(".draft-*"))
    result = audit(noise_corpus, tmp_path / "a", workers=1)
    assert (result.measured, result.known) == (0, result.summary["corpus"]["utterances"])


def test_memory_holds_a_few_pieces_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The table is not read ahead of the measuring by more than the pieces in flight."""
    corpus = write_noise(tmp_path / "corpus", 60)
    monkeypatch.setattr(engine, "PIECE_ROWS", 4)
    read, ahead = 0, []
    original = engine.iter_utterances

    def counted(root: Path):
        nonlocal read
        for one in original(root):
            read += 1
            yield one

    def measured(piece):
        ahead.append(read - piece.first_row)
        return measure(piece)

    measure = engine.measure_piece
    monkeypatch.setattr(engine, "iter_utterances", counted)
    monkeypatch.setattr(engine, "measure_piece", measured)
    audit(corpus, tmp_path / "a", workers=1)
    assert read == 60 and max(ahead) == 4


def test_the_summary_names_the_table_it_belongs_to(noise_corpus: Path, tmp_path: Path) -> None:
    from speechtune.core.files import sha256

    result = audit(noise_corpus, tmp_path / "a", workers=1)
    written = json.loads((tmp_path / "a" / "audit.json").read_text())
    assert written == json.loads(json.dumps(result.summary))
    assert written["audit_sha256"] == sha256(tmp_path / "a" / "audit.parquet")
