"""Five thousand files, killed with -9 on the way and started again: nothing lost, nothing doubled.

    python benchmarks/transcribe_scale.py RUN CORPUS --files 5000 --kills 2 --longest-s 2.2 --batch-size 64 \\
        --reference 200 --out scale/ decoding.engine=ctranslate2 decoding.compute_type=int8

The files are links to the clips of a corpus (repeated until there are enough), three of them or more broken. Clips
beyond ``--longest-s`` are left out, so that thousands of files take minutes. ``speechtune transcribe --stream`` is
started, killed after a drawn share of the files, and started again until it ends by itself; then every line is compared
with its file, and the first ``--reference`` of them with a run that was never killed. Time, RTFx and the highest memory
of every start are told.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from speechtune.core.files import write_json, write_jsonl
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus

BROKEN = 3


def make_files(corpus: Corpus, folder: Path, count: int, longest_s: float) -> None:
    """Links to clips in folders of a hundred, and a few files that are no audio."""
    shutil.rmtree(folder, ignore_errors=True)
    utterances = [one for one in corpus.utterances if one.duration_s <= longest_s and one.start_s is None]
    if not utterances:
        raise SystemExit(f"the corpus has no whole file of at most {longest_s:g} s: give a larger --longest-s")
    for number in range(count):
        source = corpus.path_of(utterances[number % len(utterances)]).resolve()
        target = folder / f"{number // 100:03d}" / f"{number:06d}{source.suffix}"
        target.parent.mkdir(parents=True, exist_ok=True)
        if number % (count // BROKEN) == 1:
            target.write_bytes(b"not a recording")
        else:
            target.symlink_to(source)


def lines_in(*files: Path) -> int:
    """How many lines the files have together."""
    return sum(file.read_bytes().count(b"\n") for file in files if file.is_file())


def run(command: list[str], out: Path, kill_at: int | None) -> dict[str, Any]:
    """One start; killed when the file and its journal hold ``kill_at`` lines."""
    began_s, peak_kib = time.monotonic(), 0
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    journal = out.with_name(out.name + ".journal")
    while process.poll() is None:
        status = Path(f"/proc/{process.pid}/status")
        if status.is_file():
            found = [line.split()[1] for line in status.read_text().splitlines() if line.startswith("VmHWM")]
            peak_kib = max([peak_kib, *map(int, found)])
        if kill_at is not None and lines_in(out, journal) >= kill_at:
            os.kill(process.pid, signal.SIGKILL)
            break
        time.sleep(0.05)
    printed = process.communicate()[0]
    killed = process.returncode == -signal.SIGKILL
    return {
        "killed_at": kill_at if killed else None,
        "seconds": round(time.monotonic() - began_s, 2),
        "peak_mib": round(peak_kib / 1024),
        "result": {} if killed or not printed else json.loads(printed),
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("overrides", nargs="*")
    parser.add_argument("--files", type=int, default=5_000)
    parser.add_argument("--kills", type=int, default=2)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--longest-s", type=float, default=30.0, help="clips of the corpus beyond it are not used")
    parser.add_argument("--reference", type=int, default=200, help="files that an unkilled run decodes too; 0: none")
    parser.add_argument("--out", type=Path, default=Path("scale"))
    arguments = parser.parse_intermixed_args()
    folder = arguments.out / "files"
    make_files(Corpus.load(arguments.corpus), folder, arguments.files, arguments.longest_s)
    words = [sys.executable, "-m", "speechtune.cli", "transcribe", arguments.model]
    options = [
        *arguments.overrides,
        "--stream",
        "--workers",
        str(arguments.workers),
        "--batch-size",
        str(arguments.batch_size),
        "--json",
        "-q",
    ]
    out = arguments.out / "killed.jsonl"
    for file in arguments.out.glob("*.jsonl*"):
        file.unlink()
    rng = random.Random(arguments.seed)
    places = sorted(rng.sample(range(arguments.files // 10, arguments.files * 9 // 10), arguments.kills))
    starts = []
    for place in [*places, None]:
        starts.append(run([*words, str(folder), *options, "--out", str(out)], out, place))
        note(f"start {len(starts)}: {starts[-1]}")
    rows = [json.loads(line) for line in out.read_text(encoding="utf-8").split("\n")[:-1]]
    expected = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.suffix)
    found = [row["utterance_id"] for row in rows]
    facts: dict[str, Any] = {
        "files": len(expected),
        "lines": len(rows),
        "lost": len(set(expected) - set(found)),
        "doubled": len(found) - len(set(found)),
        "in_order": found == expected,
        "failed": sum("failed" in row.get("flags", []) for row in rows),
        "done_again": sum(one["result"].get("new", 0) for one in starts[-1:]),
        "starts": starts,
    }
    if arguments.reference:
        listed = arguments.out / "reference.jsonl"
        lines = [{"utterance_id": name, "file_name": str((folder / name).absolute())} for name in expected]
        write_jsonl(listed, lines[: arguments.reference])
        whole = arguments.out / "whole.jsonl"
        facts["whole"] = run([*words, str(listed), *options, "--out", str(whole)], whole, None)
        texts = [json.loads(line)["text"] for line in whole.read_text(encoding="utf-8").split("\n")[:-1]]
        same = sum(text == row["text"] for text, row in zip(texts, rows, strict=False))
        facts["same_text_share"] = same / max(1, len(texts))  # a batch's longest clip decides its audio context
    write_json(arguments.out / "scale.json", {**facts, "provenance": provenance(None, model=arguments.model)})
    print(json.dumps(facts, indent=2))
    good = not facts["lost"] and not facts["doubled"] and facts["in_order"] and facts["failed"] >= BROKEN
    raise SystemExit(0 if good else 1)


if __name__ == "__main__":
    main()
