"""Speed, memory and WER of every runtime with the same weights: clips of 1 to 10 s, and long files.

    python benchmarks/decoding.py RUN CORPUS --split dev --clips 200 --rounds 5 --minutes 60 --out decoding/

Short clips are measured by ``benchmarks/short_clips.py``; the long file is built by ``benchmarks/long_form.py`` from
the same corpus. Every system runs in a process of its own, greedy, without fallback, with the same number of threads;
rounds are interleaved, each beginning with another system. Ratios are to faster-whisper's batched mode of the same
round (the faster one of float32 and int8), with their lowest and highest; WER has its interval, over utterances for
the long file, to which a word error is given by alignment.

speechtune reads the long file itself, block by block; the others get it as an array that was read before the clock
starts. faster-whisper's batched mode cuts with its own voice detector; Transformers' pipeline in chunks of 30 s.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import long_form
import numpy as np
import short_clips
from measuring import highest_mib, run_once

from speechtune.core.files import write_json
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus

Read = Callable[[], str]
"""What a system does with the long file: its text."""


def speechtune(job: dict[str, Any], *overrides: str, context: str = "fit") -> Read:
    """Speechtune's default way through long recordings, with one of its engines."""
    from speechtune.corpus.table import Utterance
    from speechtune.decoding.sources import open_model, transcribe_to

    threads = [f"decoding.intra_threads={job['threads']}", "decoding.inter_threads=1"]
    chosen = [*overrides, *(threads if short_clips.CT2 in overrides else [])]
    opened = open_model(
        job["model"], language=job["language"], context=context, batch_size=job["batch_size"], overrides=chosen
    )
    path = Path(job["long"])
    row = Utterance(utterance_id="long", file_name=path.name, text="", duration_s=job["seconds"])
    return lambda: transcribe_to(opened, Corpus(path.parent, [row], {}), None)[0].text


def samples_of(job: dict[str, Any]) -> np.ndarray:
    """The whole file, float32."""
    import soundfile

    return soundfile.read(job["long"], dtype="float32")[0]


def transformers_pipeline(job: dict[str, Any]) -> Read:
    """The pipeline of Transformers over chunks of 30 s."""
    from transformers import pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    run = pipeline(
        "automatic-speech-recognition",
        model=job["model"],
        device="cpu",
        batch_size=job["batch_size"],
        chunk_length_s=30,
        ignore_warning=True,
    )
    options: dict[str, Any] = {"num_beams": 1, "do_sample": False}
    if getattr(run.model.generation_config, "is_multilingual", False):
        options |= {"language": job["language"], "task": "transcribe"}
    samples = samples_of(job)
    return lambda: run({"raw": samples.copy(), "sampling_rate": short_clips.RATE_HZ}, generate_kwargs=options)["text"]


def faster_whisper(job: dict[str, Any], compute_type: str, batched: bool) -> Read:
    """faster-whisper, window after window or in batches."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(job["ctranslate2"], device="cpu", compute_type=compute_type, cpu_threads=job["threads"])
    run: Any = BatchedInferencePipeline(model) if batched else model
    options: dict[str, Any] = {"beam_size": 1, "temperature": 0.0, "language": job["language"]}
    options |= {"batch_size": job["batch_size"], "without_timestamps": True} if batched else {}
    samples = samples_of(job)
    return lambda: " ".join(one.text.strip() for one in run.transcribe(samples, **options)[0])


def openai_whisper(job: dict[str, Any]) -> Read:
    """openai-whisper's sequential algorithm."""
    import torch
    import whisper

    torch.set_num_threads(job["threads"])
    model = whisper.load_model(job["openai"], device="cpu")
    samples = samples_of(job)
    options = {"language": job["language"], "fp16": False, "temperature": 0.0}
    return lambda: model.transcribe(samples, **options)["text"]


SYSTEMS: dict[str, Callable[[dict[str, Any]], Read]] = {
    "speechtune torch fit": lambda job: speechtune(job),
    "speechtune ctranslate2 fit float32": lambda job: speechtune(job, short_clips.CT2),
    "speechtune ctranslate2 fit int8": lambda job: speechtune(job, short_clips.CT2, "decoding.compute_type=int8"),
    "speechtune ctranslate2 full float32": lambda job: speechtune(job, short_clips.CT2, context="full"),
    "speechtune ctranslate2 full int8": lambda job: speechtune(
        job, short_clips.CT2, "decoding.compute_type=int8", context="full"
    ),
    "transformers pipeline": transformers_pipeline,
    "faster-whisper float32": lambda job: faster_whisper(job, "float32", False),
    "faster-whisper int8": lambda job: faster_whisper(job, "int8", False),
    "faster-whisper batched float32": lambda job: faster_whisper(job, "float32", True),
    "faster-whisper batched int8": lambda job: faster_whisper(job, "int8", True),
    "openai-whisper": openai_whisper,
}


def work(job_file: Path, system: str) -> None:
    """One system over the long file in this process; prints what it took as JSON."""
    job = json.loads(job_file.read_text(encoding="utf-8"))
    if system.startswith(("speechtune torch", "transformers")):
        import torch

        torch.set_num_threads(job["threads"])
    before_mib = highest_mib()
    began_s = time.perf_counter()
    read = SYSTEMS[system](job)
    load_s = time.perf_counter() - began_s
    began_s = time.perf_counter()
    text = read()
    taken_s = time.perf_counter() - began_s
    facts = {"seconds": taken_s, "load_s": load_s, "peak_mib": highest_mib(), "before_mib": before_mib}
    print(json.dumps({**facts, "texts": [text]}))


def rounds(
    once: Callable[[Path, str, int], dict[str, Any]],
    job_file: Path,
    systems: list[str],
    given: argparse.Namespace,
    absent: dict[str, str],
) -> dict[str, list[dict[str, Any]]]:
    """Every system in every round; one that fails is said and left out from then on."""
    results: dict[str, list[dict[str, Any]]] = {}
    for number in range(given.rounds):
        first = number % len(systems)
        for system in systems[first:] + systems[:first]:
            if system in absent:
                continue
            result = once(job_file, system, given.threads)
            if "error" in result:
                absent[system] = result["error"]
                results.pop(system, None)
                note(f"{system}: {result['error']}")
                continue
            results.setdefault(system, []).append(result)
            note(f"round {number + 1}, {system}: {result['seconds']:.2f} s")
    return results


def ratios(results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """How much faster than faster-whisper's batched mode each system is, round by round: median, lowest, highest."""
    bases = [results[name] for name in short_clips.BASELINES if name in results]
    if not bases:
        return {}
    best = [min(one["seconds"] for one in own) for own in zip(*bases, strict=True)]
    found = {}
    for system, runs in results.items():
        own = sorted(base / one["seconds"] for base, one in zip(best, runs, strict=True))
        found[system] = {"median": float(np.median(own)), "lowest": own[0], "highest": own[-1]}
    return found


def judge_long(facts: dict[str, Any], language: str, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """RTFx, memory, and WER with its interval over the utterances of the file."""
    from speechtune.scoring.bootstrap import bootstrap_interval, paired_difference

    judged = {
        name: long_form.errors_by_utterance(facts, runs[-1]["texts"][0], language) for name, runs in results.items()
    }
    base = next((name for name in short_clips.BASELINES if name in judged), None)
    found = {}
    for system, runs in results.items():
        errors, lengths = judged[system]
        rtfx = sorted(facts["seconds"] / one["seconds"] for one in runs)
        interval = bootstrap_interval(errors, lengths)
        found[system] = {
            "rtfx": float(np.median(rtfx)),
            "rtfx_lowest": rtfx[0],
            "rtfx_highest": rtfx[-1],
            "load_s": float(np.median([one["load_s"] for one in runs])),
            "peak_mib": max(one["peak_mib"] for one in runs),
            "wer": float(errors.sum() / lengths.sum()),
            "wer_interval": interval.to_json() if interval else None,
        }
        if base and system != base:
            found[system]["difference_to_baseline"] = paired_difference(judged[base][0], errors, lengths).to_json()
    return found


def table(title: str, found: dict[str, Any], absent: dict[str, str]) -> str:
    """The result as Markdown."""
    lines = [
        f"**{title}**\n",
        "| system | RTFx (lowest-highest) | x faster-whisper batched | peak MiB | WER (95 %) |",
        "|---|---|---|---|---|",
    ]
    for name, row in sorted(found.items(), key=lambda item: -item[1]["rtfx"]):
        interval, ratio = row["wer_interval"], row.get("ratio")
        span = f" ({100 * interval['low']:.1f}-{100 * interval['high']:.1f})" if interval else ""
        times = f"{ratio['median']:.2f} ({ratio['lowest']:.2f}-{ratio['highest']:.2f})" if ratio else "-"
        speed = f"{row['rtfx']:.1f} ({row['rtfx_lowest']:.1f}-{row['rtfx_highest']:.1f})"
        lines.append(f"| {name} | {speed} | {times} | {row['peak_mib']:.0f} | {100 * row['wer']:.2f} %{span} |")
    lines += [f"\n{name}: not run ({reason})" for name, reason in absent.items()]
    return "\n".join(lines)


def wanted(names: dict[str, Any], given: argparse.Namespace, absent: dict[str, str]) -> list[str]:
    """The systems that are asked for and can run."""
    chosen = [name for name in names if not given.systems or any(word in name for word in given.systems)]
    return [name for name in chosen if name not in absent]


def measure(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Both parts: rows and what could not run, by part."""
    whole = Corpus.load(given.corpus)
    pool = whole.split(given.split) if given.split else whole
    clips = short_clips.choose(pool, given.clips, given.seed, given.shortest_s, given.longest_s)
    groups = short_clips.windows(clips, 0.0)  # every clip by itself
    job, absent = short_clips.prepare(given, clips, groups, folder)
    clips = short_clips.joined(clips, groups)
    parts: dict[str, Any] = {}
    language = str(job["language"])
    job_file = folder / "job.json"
    if "short" in given.parts:
        job_file.write_text(json.dumps(job), encoding="utf-8")
        missing = dict(absent)
        results = rounds(
            partial(run_once, short_clips.__file__),
            job_file,
            wanted(short_clips.SYSTEMS, given, absent),
            given,
            missing,
        )
        parts["short"] = {"rows": short_clips.judge(clips, language, results), "not_run": missing}
        parts["short"]["seconds_of_audio"] = clips.seconds_of_audio
        _with_ratios(parts["short"]["rows"], results)
    if "long" in given.parts:
        facts = long_form.build(given.corpus, folder / "long.wav", given.minutes, given.seed)
        more = {"long": str(folder / "long.wav"), "seconds": facts["seconds"]}
        job_file.write_text(json.dumps({**job, **more}), encoding="utf-8")
        missing = {name: reason for name, reason in absent.items() if name in SYSTEMS}
        results = rounds(partial(run_once, __file__), job_file, wanted(SYSTEMS, given, absent), given, missing)
        parts["long"] = {"rows": judge_long(facts, language, results), "not_run": missing}
        parts["long"]["seconds_of_audio"] = facts["seconds"]
        _with_ratios(parts["long"]["rows"], results)
    return parts


def _with_ratios(rows: dict[str, Any], results: dict[str, list[dict[str, Any]]]) -> None:
    for name, ratio in ratios(results).items():
        rows[name]["ratio"] = ratio


def main() -> None:
    """Run the benchmark, or one system of it (``--work``)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--language")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--parts", nargs="+", choices=("short", "long"), default=["short", "long"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--shortest-s", type=float, default=1.0)
    parser.add_argument("--longest-s", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--systems", nargs="*", help="only those whose name has one of these words in it")
    parser.add_argument("--out", type=Path, default=Path("decoding"))
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--system", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.work:
        work(given.work, given.system)
        return
    if not given.model or not given.corpus:
        parser.error("give a model and a corpus")
    with tempfile.TemporaryDirectory() as folder:
        parts = measure(given, Path(folder))
    facts = {"model": given.model, "threads": given.threads, "rounds": given.rounds, "batch_size": given.batch_size}
    write_json(given.out / "decoding.json", {**facts, **parts, "provenance": provenance(None, **facts)})
    titles = {"short": f"{given.clips} clips of 1 to 10 s", "long": f"one file of {given.minutes:g} minutes"}
    text = "\n\n".join(table(titles[name], part["rows"], part["not_run"]) for name, part in parts.items())
    (given.out / "decoding.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
