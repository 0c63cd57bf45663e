"""A package run as its runtime runs it: unpacked, in a clean process, without network; and what came out, judged."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
import zipfile
from dataclasses import asdict, dataclass, field
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

from speechtune.core.files import read_jsonl
from speechtune.core.intervals import wilson
from speechtune.decoding.submission import guarded
from speechtune.decoding.submission.checking import check_output
from speechtune.decoding.submission.sample import BROKEN, LONG, SILENT, Sample

UTTERANCES = 214_274
MEAN_S = 6.98
"""Test utterances of the children's challenge, and the mean length of its training utterances (children's plan)."""
SAME_TEXTS = 0.9
"""The share of texts that are the same in the package and in speechtune."""


@dataclass(frozen=True, slots=True)
class Limits:
    """What the whole run must keep to, and how the machine here compares with the one there."""

    hours: float | None = None
    size_gib: float | None = None
    utterances: int = UTTERANCES
    mean_s: float = MEAN_S
    speedup: float = 1.0
    timeout_s: float = 3600.0


@dataclass(slots=True)
class Verdict:
    """Whether the package is fit to be handed in, why not, and what was measured."""

    passed: bool
    problems: list[str]
    checks: dict[str, bool]
    size_bytes: int
    measured: dict[str, Any] = field(default_factory=dict)
    projected_hours: float | None = None
    log_tail: list[str] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """All of it."""
        return asdict(self)


def rehearse(package: Path, sample: Sample, limits: Limits, text_key: str, source: dict[str, str] | None) -> Verdict:
    """Run a package on a sample and judge it.

    Args:
        package: the zip.
        sample: the data folder.
        limits: of time and size.
        text_key: name of the prediction.
        source: what the model says of the sample's ordinary clips in speechtune itself; none: not compared.
    """
    checks: dict[str, list[str]] = {"archive": _check_archive(package, limits)}
    measured: dict[str, Any] = {}
    tail: list[str] = []
    if not checks["archive"] or not any("main.py" in one for one in checks["archive"]):
        with tempfile.TemporaryDirectory(prefix="speechtune-submit-") as folder:
            root = Path(folder) / "code_execution"
            result = _run(package, sample, root, limits.timeout_s)
            tail = result.log
            measured = result.stats
            checks["run"] = result.problems
            checks["network"] = [f"it tried to reach the network ({one})" for one in result.reached[:3]]
            checks["self_contained"] = [f"it needs speechtune ({one})" for one in result.imported[:3]]
            output = root / "submission" / "submission.jsonl"
            checks["format"] = check_output(sample.folder / "submission_format.jsonl", output, text_key)
            if not checks["format"]:
                said = {row["utterance_id"]: row[text_key] for row in read_jsonl(output)}
                checks["texts"] = _check_texts(said, sample)
                if source is not None:
                    checks["same_as_source"] = _check_source(said, source, measured)
    hours = project(measured, limits)
    checks["time"] = _check_time(hours, limits)
    problems = [f"{name}: {one}" for name, found in checks.items() for one in found]
    verdicts = {name: not found for name, found in checks.items()}
    return Verdict(not problems, problems, verdicts, package.stat().st_size, measured, hours, tail)


def _check_archive(package: Path, limits: Limits) -> list[str]:
    size = package.stat().st_size
    wrong = []
    if limits.size_gib is not None and size > limits.size_gib * 2**30:
        wrong.append(f"it has {size / 2**30:.2f} GiB and {limits.size_gib:g} are allowed")
    with zipfile.ZipFile(package) as archive:
        names = archive.namelist()
    if "main.py" not in names:
        wrong.append("there is no main.py at its root")
    if any(name.startswith("/") or ".." in Path(name).parts for name in names):
        wrong.append("a name in it leads outside (main.py is not run)")
    return wrong


@dataclass(slots=True)
class _Result:
    problems: list[str]
    stats: dict[str, Any]
    reached: list[str]
    imported: list[str]
    log: list[str]


def _run(package: Path, sample: Sample, root: Path, timeout_s: float) -> _Result:
    """Unpack to ``src``, lay the data beside it, and run there; the wall time is kept too."""
    with zipfile.ZipFile(package) as archive:
        archive.extractall(root / "src")
    shutil.copytree(sample.folder, root / "data")
    (root / "submission").mkdir()
    record = root.parent / "reached.txt"
    home = root.parent / "home"
    home.mkdir()
    keep = ("PATH", "LD_LIBRARY_PATH", "CUDA_VISIBLE_DEVICES", "OMP_NUM_THREADS", "LANG", "LC_ALL")
    environment = {name: os.environ[name] for name in keep if name in os.environ} | {"HOME": str(home)}
    words = [sys.executable, "-I", str(Path(guarded.__file__)), "src/main.py", str(record)]
    began_s = time.monotonic()
    problems = []
    try:
        done = subprocess.run(
            [*_without_network(), *words],
            cwd=root,
            env=environment,
            timeout=timeout_s,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        output = done.stdout
        if done.returncode:
            problems.append(f"main.py ended with exit code {done.returncode}")
    except subprocess.TimeoutExpired as error:
        output = error.stdout or b""
        problems.append(f"main.py was not done after {timeout_s:.0f} s")
    log = output.decode("utf-8", "replace").splitlines()
    stats: dict[str, Any] = {"wall_s": round(time.monotonic() - began_s, 3), "log_lines": len(log)}
    for line in log:
        if line.startswith("stats "):
            stats |= json.loads(line.removeprefix("stats "))
    noted = record.read_text(encoding="utf-8").splitlines() if record.is_file() else []
    imported = [line for line in noted if line.startswith("import of ")]
    if _names_and_sizes(root / "data") != _names_and_sizes(sample.folder):
        problems.append("main.py changed the data folder, which is read-only in the runtime")
    if problems and log:
        problems[-1] += f"; its last line: {log[-1].strip()[:200]}"
    return _Result(problems, stats, [line for line in noted if line not in imported], imported, log[-15:])


def _without_network() -> list[str]:
    """A prefix that starts a command without any network, where this system lets us; else the audit hook is alone."""
    words = ["unshare", "--map-root-user", "--net"]
    if shutil.which("unshare") and subprocess.run([*words, "true"], capture_output=True).returncode == 0:
        return words
    return []


def _names_and_sizes(folder: Path) -> dict[str, int]:
    return {str(one.relative_to(folder)): one.stat().st_size for one in folder.rglob("*") if one.is_file()}


def _check_texts(said: dict[str, str], sample: Sample) -> list[str]:
    wrong = [f"{name} is to have an empty text, not {said[name]!r}" for name in (SILENT, BROKEN) if said.get(name)]
    if not any(said.get(name) for name in sample.waveforms):
        wrong.append("not one clip has a text")
    elif sample.texts and not said.get(LONG):
        wrong.append("a clip longer than the model's window has no text")
    if any("\n" in text or "\r" in text for text in said.values()):
        wrong.append("a text has line ends in it")
    return wrong


def _check_source(said: dict[str, str], source: dict[str, str], measured: dict[str, Any]) -> list[str]:
    """Nine texts of ten are the model's own: half of the words at least, and all of them as far as so few clips tell.

    Rounding to 16 bits moves a word here and there, and so does the company of a batch: its longest clip decides the
    audio context. Hence the interval (Wilson's, 95 %) where only words differ, and none where a text is another one.
    """
    other = [name for name, text in source.items() if said[name].split() != text.split()]
    measured["same_text_share"] = round(1 - len(other) / max(len(source), 1), 4)
    if not other:
        return []
    foreign = [name for name in other if SequenceMatcher(None, said[name].split(), source[name].split()).ratio() < 0.5]
    likely = wilson(len(source) - len(other), len(source))[1]
    if likely >= SAME_TEXTS and 1 - len(foreign) / len(source) >= SAME_TEXTS:
        return []
    name = other[0]
    return [f"{len(other)} of {len(source)} texts are not the model's own, as in {said[name]!r} for {source[name]!r}"]


def project(measured: dict[str, Any], limits: Limits) -> float | None:
    """Hours of the whole run: by seconds of audio or by utterances, whichever is more; none: nothing was measured."""
    if not measured.get("seconds_of_audio"):
        return None
    by_audio_s = measured["decode_s"] / measured["seconds_of_audio"] * limits.mean_s * limits.utterances
    by_count_s = measured["decode_s"] / max(measured["utterances"], 1) * limits.utterances
    measured["rtfx"] = round(measured["seconds_of_audio"] / max(measured["decode_s"], 1e-9), 2)
    return round((measured["load_s"] + max(by_audio_s, by_count_s)) / limits.speedup / 3600, 3)


def _check_time(hours: float | None, limits: Limits) -> list[str]:
    if limits.hours is None:
        return []
    if hours is None:
        return ["nothing was measured"]
    if hours <= limits.hours:
        return []
    return [f"{limits.utterances} utterances would take {hours:.2f} h and {limits.hours:g} h are allowed"]
