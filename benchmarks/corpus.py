"""The corpus room's speed and memory, side by side with other tools on the same work, in one run.

- ``audit``: hours of audio that a full audit measures and judges per minute, with one process and with all cores.
- ``features``: Whisper features of short clips, against Transformers' extractor (which pads to 30 s).
- ``read``: recordings decoded to 16 kHz mono arrays through a table of utterances, against lhotse's cuts.
- ``rows``: an audit's table part (reading, relating, judging, summarising) at growing numbers of rows, made by tiling
  real measures with other ids, texts and hashes; time and peak memory of a process of its own. Iterating a table is
  timed beside lhotse's lazy manifests and ``datasets``.

    OMP_NUM_THREADS=1 python benchmarks/corpus.py --corpus CORPUS --out results.json [audit features read rows]
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.files import write_json
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus

PARTS = ("audit", "features", "read", "rows")
ROWS = (1_000, 10_000, 100_000, 1_000_000)


def timed(work: Callable[[], object], rounds: int) -> list[float]:
    """Seconds of each round."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        work()
        times.append(time.perf_counter() - start)
    return times


def ratio(theirs: list[float], ours: list[float]) -> dict[str, Any]:
    """How many times faster we are: the median and the range over rounds run in turn."""
    ratios = [a / b for a, b in zip(theirs, ours, strict=True)]
    return {"ratio": float(np.median(ratios)), "low": min(ratios), "high": max(ratios)}


def audit_speed(corpus: Path, rounds: int) -> dict[str, Any]:
    """Real-time factors of a whole audit (processes started, table written, report left out)."""
    from speechtune.corpus.audit.engine import audit

    hours = Corpus.load(corpus).seconds_of_audio / 3600
    found: dict[str, Any] = {"hours": hours}
    for workers in sorted({1, len(os.sched_getaffinity(0))}):
        times = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                times.append(audit(corpus, Path(folder) / "audit", workers=workers).seconds)
        found[f"{workers}_processes"] = {
            "seconds": times,
            "hours_per_minute": hours / (np.median(times) / 60),
            "times_real_time_per_core": hours * 3600 / np.median(times) / workers,
        }
    return found


def feature_speed(corpus: Path, rounds: int) -> dict[str, Any]:
    """Features of the corpus's clips in batches of 16 of similar length, one thread."""
    import torch
    from transformers import WhisperFeatureExtractor

    from speechtune.audio.io import load_audio
    from speechtune.audio.mel import LogMel

    torch.set_num_threads(1)
    loaded = Corpus.load(corpus)
    waveforms = sorted((load_audio(loaded.path_of(one)) for one in loaded.utterances[:320]), key=len)
    batches = [waveforms[first : first + 16] for first in range(0, len(waveforms), 16)]
    extractor, front_end = WhisperFeatureExtractor(), LogMel()

    def plain() -> None:
        for batch in batches:
            extractor(batch, sampling_rate=16_000, return_tensors="pt")

    def fitted() -> None:
        for batch in batches:
            front_end(batch, 2 * -(-max(map(len, batch)) // 320))

    plain()
    fitted()
    pairs = [(timed(plain, 1)[0], timed(fitted, 1)[0]) for _ in range(rounds)]
    seconds = sum(map(len, waveforms)) / 16_000 / len(waveforms)
    return {"mean_clip_s": seconds, **ratio([a for a, _ in pairs], [b for _, b in pairs])}


def read_speed(corpus: Path, rounds: int) -> dict[str, Any]:
    """Every clip of the corpus as a 16 kHz mono array, through our table and through a lhotse cut set."""
    from lhotse import CutSet

    from speechtune.audio.io import load_audio
    from speechtune.corpus.exporting import export_corpus

    loaded = Corpus.load(corpus)
    with tempfile.TemporaryDirectory() as folder:
        export_corpus(loaded, "lhotse", Path(folder) / "lhotse", audio="reference")
        manifests = sorted((Path(folder) / "lhotse").rglob("*cuts*.jsonl*"))

        def ours() -> None:
            for one in loaded:
                load_audio(loaded.path_of(one), one.start_s, one.end_s)

        def theirs() -> None:
            for manifest in manifests:
                for cut in CutSet.from_jsonl_lazy(manifest):
                    cut.resample(16_000).load_audio()

        ours()
        theirs()
        pairs = [(timed(theirs, 1)[0], timed(ours, 1)[0]) for _ in range(rounds)]
    return {
        "ours_times_real_time": loaded.seconds_of_audio / float(np.median([b for _, b in pairs])),
        "against_lhotse": ratio([a for a, _ in pairs], [b for _, b in pairs]),
    }


def tile(measures: Any, rows: int, folder: Path) -> Path:
    """A measures file and a table of ``rows`` rows: the real ones again and again, with other ids, texts and hashes."""
    import pyarrow
    import pyarrow.parquet

    root = folder / "corpus"
    root.mkdir(parents=True)
    path = folder / "measures.parquet"
    names = ("utterance_id", "file_name", "speaker_id", "text", "text_key", "samples_sha256", "audio_sha256")
    real = measures.select([*names[1:3], *names[5:], "duration_s", "fingerprint", "text"]).to_pydict()
    words = np.array(sorted({word for text in real["text"] for word in text.split()}), dtype=object)
    word_ends = np.cumsum([len(text.split()) + 2 for text in real["text"]]).tolist()
    print_ends = np.cumsum([len(digits or "") for digits in real["fingerprint"]]).tolist()
    draw = np.random.default_rng(0)
    with (
        pyarrow.parquet.ParquetWriter(path, measures.schema, compression="zstd") as writer,
        (root / "metadata.jsonl").open("w", encoding="utf-8") as table,
    ):
        for first in range(0, rows, measures.num_rows):
            size = min(measures.num_rows, rows - first)
            drawn = words[draw.integers(len(words), size=word_ends[-1])].tolist()
            hexes = draw.bytes(print_ends[-1] // 2).hex()
            lap = first // measures.num_rows
            texts = [" ".join(drawn[a:b]) for a, b in zip([0, *word_ends], word_ends[:size], strict=False)]
            prints = [hexes[a:b] for a, b in zip([0, *print_ends], print_ends[:size], strict=False)]
            new: dict[str, list[Any]] = {
                "row": list(range(first, first + size)),
                "utterance_id": [f"u{number}" for number in range(first, first + size)],
                "speaker_id": [f"{speaker}-{lap}" for speaker in real["speaker_id"][:size]],
                "text": texts,
                "text_key": [text.lower() for text in texts],
                "samples_sha256": [f"{first}-{digest}" for digest in real["samples_sha256"][:size]],
                "audio_sha256": [f"{first}-{digest}" for digest in real["audio_sha256"][:size]],
                "fingerprint": [
                    digits if old else old for digits, old in zip(prints, real["fingerprint"], strict=False)
                ],
            }
            block = measures.slice(0, size)
            for name, values in new.items():
                place = measures.schema.get_field_index(name)
                block = block.set_column(place, measures.schema.field(name), pyarrow.array(values, block[name].type))
            writer.write_table(block)
            kept = ("utterance_id", "file_name", "text", "duration_s", "speaker_id")
            columns = [new[name] if name in new else real[name][:size] for name in kept]
            for row in zip(*columns, strict=True):
                table.write(json.dumps(dict(zip(kept, row, strict=True))) + "\n")
    return path


def table_part(folder: Path, near: bool) -> dict[str, Any]:
    """The table part of an audit on a folder of `tile`; meant for a process of its own."""
    import contextlib

    from speechtune.corpus.audit.database import Database
    from speechtune.corpus.audit.judging import judge, relate
    from speechtune.corpus.audit.policy import Policy
    from speechtune.corpus.audit.summary import summarise
    from speechtune.corpus.stream import iter_utterances

    start = time.perf_counter()
    rows = sum(1 for _ in iter_utterances(folder / "corpus"))
    reading_s = time.perf_counter() - start
    policy = Policy() if near else Policy(disabled=["near_duplicate_text", "near_duplicate_audio"])
    with contextlib.closing(Database(folder)) as db:
        relate(db, folder / "measures.parquet", policy)
        db.fill("orphans", "file_name VARCHAR", ())
        judge(db, policy, folder / "audit.parquet")
        summarise(db, policy, full=False, token_columns=[])
    return {
        "rows": rows,
        "reading_s": reading_s,
        "seconds": time.perf_counter() - start,
        "processor_s": time.process_time(),
        "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def iterate_with(tool: str, folder: Path) -> dict[str, Any]:
    """Go through a table once with another tool (``lhotse``: its lazy cuts; ``datasets``: its JSON builder)."""
    start = time.perf_counter()
    table = folder / "corpus" / "metadata.jsonl"
    if tool == "datasets":
        from datasets import load_dataset

        rows = sum(1 for _ in load_dataset("json", data_files=str(table), split="train", cache_dir=str(folder / "hf")))
    else:
        from lhotse import CutSet

        cuts = folder / "cuts.jsonl"
        with table.open(encoding="utf-8") as lines, cuts.open("w", encoding="utf-8") as out:
            for line in lines:
                row = json.loads(line)
                recording = {
                    "id": row["utterance_id"],
                    "sources": [{"type": "file", "channels": [0], "source": row["file_name"]}],
                    "sampling_rate": 16000,
                    "num_samples": round(row["duration_s"] * 16000),
                    "duration": round(row["duration_s"] * 16000) / 16000,
                }
                said = {
                    "id": row["utterance_id"],
                    "recording_id": row["utterance_id"],
                    "start": 0,
                    "duration": recording["duration"],
                    "channel": 0,
                    "text": row["text"],
                    "speaker": row["speaker_id"],
                }
                cut = {"id": row["utterance_id"], "start": 0, "duration": recording["duration"], "channel": 0}
                cut |= {"supervisions": [said], "recording": recording, "type": "MonoCut"}
                out.write(json.dumps(cut) + "\n")
        start = time.perf_counter()
        rows = sum(1 for _ in CutSet.from_jsonl_lazy(cuts))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    seconds = time.perf_counter() - start
    return {"rows": rows, "seconds": seconds, "processor_s": time.process_time(), "peak_mib": peak}


def rows_at_scale(corpus: Path, most: int) -> list[dict[str, Any]]:
    """The table part at 1 k, 10 k, ... rows, each in its own process."""
    import pyarrow.parquet

    from speechtune.corpus.audit import engine
    from speechtune.corpus.audit.rows import PIECE_ROWS, Job, load_pyarrow

    load_pyarrow()
    found = []
    with tempfile.TemporaryDirectory() as name:
        scratch = Path(name)
        job = Job(corpus, scratch / "cache.sqlite", ())
        total = len(Corpus.load(corpus))
        engine._measure(job, scratch / "real.parquet", total, min(2, -(-total // PIECE_ROWS)))
        measures = pyarrow.parquet.read_table(scratch / "real.parquet")
        for rows in (size for size in ROWS if size <= most):
            folder = scratch / str(rows)
            tile(measures, rows, folder)
            row: dict[str, Any] = {"rows": rows}
            for key, words in {
                "table_part": ["--inner", "plain"],
                "with_near_duplicates": ["--inner", "near"],
                "lhotse": ["--inner", "lhotse"],
                "datasets": ["--inner", "datasets"],
            }.items():
                command = [sys.executable, __file__, "--corpus", str(folder), *words]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                row[key] = json.loads(done.stdout.splitlines()[-1])
            found.append(row)
            print(json.dumps(row), file=sys.stderr)
            subprocess.run(["rm", "-rf", str(folder)], check=True)
    return found


def main() -> None:
    """Run the parts and write one JSON file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("parts", nargs="*", default=list(PARTS), help=f"of {', '.join(PARTS)}")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=Path("corpus_benchmark.json"))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=ROWS[-1], help="the largest simulated table")
    parser.add_argument("--inner", choices=("plain", "near", "lhotse", "datasets"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inner:
        inner = arguments.inner
        scaled = inner in ("plain", "near")
        result = table_part(arguments.corpus, inner == "near") if scaled else iterate_with(inner, arguments.corpus)
        print(json.dumps(result))
        return
    work: dict[str, Callable[[], Any]] = {
        "audit": lambda: audit_speed(arguments.corpus, arguments.rounds),
        "features": lambda: feature_speed(arguments.corpus, arguments.rounds),
        "read": lambda: read_speed(arguments.corpus, arguments.rounds),
        "rows": lambda: rows_at_scale(arguments.corpus, arguments.rows),
    }
    results = {}
    for part in arguments.parts:
        results[part] = work[part]()
        print(json.dumps({part: results[part]}, indent=2), file=sys.stderr)
    write_json(arguments.out, {**results, "provenance": provenance(None)})
    print(json.dumps(results, indent=2))


if __name__ == "__main__":
    main()
