"""Short clips, the same weights, every runtime: speed, memory and word error rate side by side.

    python benchmarks/short_clips.py RUN CORPUS --split dev --clips 200 --rounds 5 --out short_clips/

Clips of 1 to 10 s are drawn from a corpus with a fixed seed and read before the clock starts; every system gets the
same arrays, in a process of its own, with the same number of threads, greedy, without timestamps and without fallback.
The clock runs over all clips, features included, after two warm-up clips; loading the model is told apart. Rounds are
interleaved: each system once, then each again. faster-whisper's batched pipeline gets all clips as one array with their
places as ``clip_timestamps``, which is how it can batch short clips at all.

``--window-s 28`` joins the clips of a speaker, with pauses of 0.3 s, to windows of that length at most: what is left of
the difference where there is nothing to fit. ``--parts 2`` lets speechtune's CTranslate2 decode two halves of a batch
at once, each with half of the threads, as its own choice of threads may.

RUN should be trained at fitted context (a run of speechtune is); the others pad every clip to 30 s.
"""

from __future__ import annotations

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from measuring import highest_mib, run_once

from speechtune.core.files import write_json
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus, Utterance

RATE_HZ = 16_000
PAUSE_S = 0.3
Texts = Callable[[Sequence[np.ndarray]], list[str]]
"""What a system does: the texts of clips, in their order."""


def speechtune(job: dict[str, Any], *overrides: str, context: str = "fit") -> Texts:
    """Speechtune with one of its engines."""
    from speechtune.decoding.batched import transcribe
    from speechtune.decoding.sources import open_model

    parts = job["parts"]
    threads = [f"decoding.intra_threads={job['threads'] // parts}", f"decoding.inter_threads={parts}"]
    opened = open_model(
        job["model"],
        language=job["language"],
        context=context,
        batch_size=job["batch_size"],
        overrides=[*overrides, *(threads if "decoding.engine=ctranslate2" in overrides else [])],
    )

    def texts(clips: Sequence[np.ndarray]) -> list[str]:
        rows = [
            Utterance(utterance_id=str(place), file_name="", text="", duration_s=len(clip) / RATE_HZ)
            for place, clip in enumerate(clips)
        ]
        said = transcribe(opened.family, rows, lambda one: clips[int(one.utterance_id)], opened.decoding, "clips")
        return [one.text for one in said]

    return texts


def transformers_pipeline(job: dict[str, Any]) -> Texts:
    """The pipeline of Transformers, batched."""
    from transformers import pipeline
    from transformers.utils import logging

    logging.set_verbosity_error()
    run = pipeline("automatic-speech-recognition", model=job["model"], device="cpu", batch_size=job["batch_size"])
    options: dict[str, Any] = {"num_beams": 1, "do_sample": False, "return_timestamps": False}
    if getattr(run.model.generation_config, "is_multilingual", False):
        options |= {"language": job["language"], "task": "transcribe"}

    def texts(clips: Sequence[np.ndarray]) -> list[str]:
        inputs = [{"raw": np.array(clip), "sampling_rate": RATE_HZ} for clip in clips]
        return [one["text"] for one in run(inputs, generate_kwargs=options)]

    return texts


def faster_whisper(job: dict[str, Any], compute_type: str, batched: bool) -> Texts:
    """faster-whisper, clip by clip or in batches."""
    from faster_whisper import BatchedInferencePipeline, WhisperModel

    model = WhisperModel(job["ctranslate2"], device="cpu", compute_type=compute_type, cpu_threads=job["threads"])
    options = {"beam_size": 1, "temperature": 0.0, "language": job["language"], "without_timestamps": True}
    if not batched:

        def one_by_one(clips: Sequence[np.ndarray]) -> list[str]:
            found = []
            for clip in clips:
                segments, _ = model.transcribe(clip, condition_on_previous_text=False, **options)
                found.append(" ".join(one.text.strip() for one in segments))
            return found

        return one_by_one
    pipeline = BatchedInferencePipeline(model)

    def together(clips: Sequence[np.ndarray]) -> list[str]:
        ends_s = np.cumsum([len(clip) for clip in clips]) / RATE_HZ
        starts_s = [0.0, *ends_s[:-1]]
        spans = [{"start": float(a), "end": float(b)} for a, b in zip(starts_s, ends_s, strict=True)]
        segments, _ = pipeline.transcribe(
            np.concatenate(list(clips)), clip_timestamps=spans, batch_size=job["batch_size"], **options
        )
        found: list[list[str]] = [[] for _ in clips]
        for one in segments:
            place = int(np.searchsorted(ends_s, (one.start + min(one.end, one.start + 0.2)) / 2))
            found[min(place, len(clips) - 1)].append(one.text.strip())
        return [" ".join(parts) for parts in found]

    return together


def openai_whisper(job: dict[str, Any]) -> Texts:
    """openai-whisper, clip by clip (it has no batches); its checkpoint is what ``speechtune export`` writes."""
    import torch
    import whisper

    torch.set_num_threads(job["threads"])
    model = whisper.load_model(job["openai"], device="cpu")

    def texts(clips: Sequence[np.ndarray]) -> list[str]:
        options = {"language": job["language"], "fp16": False, "temperature": 0.0, "without_timestamps": True}
        return [model.transcribe(np.array(clip), condition_on_previous_text=False, **options)["text"] for clip in clips]

    return texts


CT2 = "decoding.engine=ctranslate2"
SYSTEMS: dict[str, Callable[[dict[str, Any]], Texts]] = {
    "speechtune torch fit": lambda job: speechtune(job),
    "speechtune ctranslate2 fit float32": lambda job: speechtune(job, CT2),
    "speechtune ctranslate2 fit int8": lambda job: speechtune(job, CT2, "decoding.compute_type=int8"),
    "speechtune ctranslate2 full float32": lambda job: speechtune(job, CT2, context="full"),
    "speechtune ctranslate2 full int8": lambda job: speechtune(job, CT2, "decoding.compute_type=int8", context="full"),
    "transformers pipeline": transformers_pipeline,
    "faster-whisper float32": lambda job: faster_whisper(job, "float32", False),
    "faster-whisper int8": lambda job: faster_whisper(job, "int8", False),
    "faster-whisper batched float32": lambda job: faster_whisper(job, "float32", True),
    "faster-whisper batched int8": lambda job: faster_whisper(job, "int8", True),
    "openai-whisper": openai_whisper,
}
BASELINES = ("faster-whisper batched float32", "faster-whisper batched int8")


def work(job_file: Path, system: str) -> None:
    """One system in this process: warm up, run, and print what it took as JSON."""
    job = json.loads(job_file.read_text(encoding="utf-8"))
    held = np.load(job["clips"])
    clips = [held[f"clip_{number}"] for number in range(len(held.files))]
    if system.startswith(("speechtune torch", "transformers")):
        import torch

        torch.set_num_threads(job["threads"])
    before_mib = highest_mib()
    began_s = time.perf_counter()
    texts = SYSTEMS[system](job)
    load_s = time.perf_counter() - began_s
    texts(clips[:2])
    began_s = time.perf_counter()
    said = texts(clips)
    seconds = time.perf_counter() - began_s
    peak_mib = highest_mib()
    print(
        json.dumps(
            {"seconds": seconds, "load_s": load_s, "peak_mib": peak_mib, "before_mib": before_mib, "texts": said}
        )
    )


def choose(corpus: Corpus, count: int, seed: int, shortest_s: float, longest_s: float) -> Corpus:
    """The clips: as many as asked for, of lengths within the bounds, in a drawn order."""
    usable = [one for one in corpus.utterances if shortest_s <= one.duration_s <= longest_s]
    order = np.random.default_rng(seed).permutation(len(usable))[:count]
    return Corpus(corpus.root, [usable[int(place)] for place in order])


def windows(clips: Corpus, window_s: float) -> list[list[Utterance]]:
    """Clips of one speaker, one after the other, as many as fit a window; without a window each by itself."""
    groups: list[list[Utterance]] = []
    length_s = math.inf
    for one in sorted(clips, key=lambda one: str(one.speaker_id)) if window_s else clips:
        length_s += PAUSE_S + one.duration_s
        if length_s > window_s or one.speaker_id != groups[-1][-1].speaker_id:
            groups.append([])
            length_s = one.duration_s
        groups[-1].append(one)
    return groups


def joined(clips: Corpus, groups: list[list[Utterance]]) -> Corpus:
    """The corpus of the groups: for scoring."""
    rows = []
    for group in groups:
        length_s = sum(one.duration_s for one in group) + PAUSE_S * (len(group) - 1)
        rows.append(replace(group[0], text=" ".join(one.text for one in group), duration_s=length_s))
    return Corpus(clips.root, rows)


def waveform(clips: Corpus, group: list[Utterance]) -> np.ndarray:
    """The samples of a group."""
    from speechtune.audio.io import load_audio

    parts: list[np.ndarray] = []
    for one in group:
        pause = np.zeros(round(PAUSE_S * RATE_HZ) if parts else 0, np.float32)
        parts += [pause, load_audio(clips.path_of(one), one.start_s, one.end_s)]
    return np.concatenate(parts)


def prepare(
    arguments: argparse.Namespace, clips: Corpus, groups: list[list[Utterance]], folder: Path
) -> tuple[dict[str, Any], dict[str, str]]:
    """Waveforms and converted models; and the systems that cannot run here, with the reason."""
    from speechtune.decoding.engines.converting import converted
    from speechtune.decoding.sources import open_model

    arrays: dict[str, Any] = {f"clip_{number}": waveform(clips, group) for number, group in enumerate(groups)}
    np.savez(folder / "clips.npz", **arrays)
    opened = open_model(arguments.model, language=arguments.language)
    job = {
        "clips": str(folder / "clips.npz"),
        "model": str(opened.path),
        "language": opened.family.language,
        "ctranslate2": str(converted(opened.path, "float32")),
        "batch_size": arguments.batch_size,
        "threads": arguments.threads,
        "parts": getattr(arguments, "parts", 1),
    }
    absent: dict[str, str] = {}
    if find_spec("faster_whisper") is None:
        absent |= {name: "faster-whisper is not installed" for name in SYSTEMS if name.startswith("faster")}
    if find_spec("whisper") is None:
        absent["openai-whisper"] = "openai-whisper is not installed (it needs triton, 1 GB)"
    else:
        from speechtune.export.source import open_source
        from speechtune.export.to_openai import FILE, write_openai

        write_openai(open_source(arguments.model, arguments.language), folder / "openai", "float32")
        job["openai"] = str(folder / "openai" / FILE)
    return job, absent


def judge(clips: Corpus, language: str, results: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """For each system: RTFx (median, lowest, highest), memory, WER with its interval, difference to the baseline."""
    from speechtune.decoding.transcript import Transcript
    from speechtune.scoring.score import compare, score_transcripts

    names = [one.utterance_id for one in clips]
    scores = {}
    for system, runs in results.items():
        texts = runs[-1]["texts"]
        said = [Transcript(utterance_id=name, text=text) for name, text in zip(names, texts, strict=True)]
        scores[system] = score_transcripts(clips, said, language=language)
    base = next((name for name in BASELINES if name in scores), None)
    found = {}
    for system, runs in results.items():
        rtfx = sorted(clips.seconds_of_audio / one["seconds"] for one in runs)
        interval = scores[system].interval
        found[system] = {
            "rtfx": float(np.median(rtfx)),
            "rtfx_lowest": rtfx[0],
            "rtfx_highest": rtfx[-1],
            "load_s": float(np.median([one["load_s"] for one in runs])),
            "peak_mib": max(one["peak_mib"] for one in runs),
            "wer": scores[system].wer,
            "wer_interval": interval.to_json() if interval else None,
            "same_text_every_round": len({json.dumps(one["texts"]) for one in runs}) == 1,
        }
        if base and system != base:
            found[system]["difference_to_baseline"] = compare(scores[base], scores[system]).wer.to_json()
    fastest = max((found[name]["rtfx"] for name in BASELINES if name in found), default=None)
    for row in found.values():
        row["times_faster_whisper_batched"] = row["rtfx"] / fastest if fastest else None
    return found


def table(found: dict[str, Any], absent: dict[str, str]) -> str:
    """The result as Markdown."""
    lines = [
        "| system | RTFx (lowest-highest) | x faster-whisper batched | peak MiB | WER (95 %) |",
        "|---|---|---|---|---|",
    ]
    for name, row in sorted(found.items(), key=lambda item: -item[1]["rtfx"]):
        interval = row["wer_interval"]
        span = f" ({100 * interval['low']:.1f}-{100 * interval['high']:.1f})" if interval else ""
        times = f"{row['times_faster_whisper_batched']:.2f}" if row["times_faster_whisper_batched"] else "-"
        speed = f"{row['rtfx']:.1f} ({row['rtfx_lowest']:.1f}-{row['rtfx_highest']:.1f})"
        lines.append(f"| {name} | {speed} | {times} | {row['peak_mib']:.0f} | {100 * row['wer']:.2f} %{span} |")
    lines += [f"\n{name}: not run ({reason})" for name, reason in absent.items()]
    return "\n".join(lines)


def main() -> None:
    """Run the benchmark, or one system of it (``--work``)."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", nargs="?")
    parser.add_argument("corpus", nargs="?", type=Path)
    parser.add_argument("--split")
    parser.add_argument("--language")
    parser.add_argument("--clips", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--parts", type=int, default=1, help="of a batch, decoded at once by our CTranslate2")
    parser.add_argument("--batch-size", type=int, default=16)
    parser.add_argument("--shortest-s", type=float, default=1.0)
    parser.add_argument("--longest-s", type=float, default=10.0)
    parser.add_argument("--window-s", type=float, default=0.0, help="join clips to windows; 0: not")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--systems", nargs="*", help="only those whose name has one of these words in it")
    parser.add_argument("--out", type=Path, default=Path("short_clips"))
    parser.add_argument("--work", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--system", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.work:
        work(arguments.work, arguments.system)
        return
    if not arguments.model or not arguments.corpus:
        parser.error("give a model and a corpus")
    whole = Corpus.load(arguments.corpus)
    clips = choose(whole.split(arguments.split) if arguments.split else whole, arguments.clips, arguments.seed,
                   arguments.shortest_s, arguments.longest_s)  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        groups = windows(clips, arguments.window_s)
        job, absent = prepare(arguments, clips, groups, Path(folder))
        clips = joined(clips, groups)
        job_file = Path(folder) / "job.json"
        job_file.write_text(json.dumps(job), encoding="utf-8")
        wanted = [
            name for name in SYSTEMS
            if name not in absent and (not arguments.systems or any(word in name for word in arguments.systems))
        ]  # fmt: skip
        results: dict[str, list[dict[str, Any]]] = {}
        for number in range(arguments.rounds):
            for system in wanted[number % len(wanted) :] + wanted[: number % len(wanted)]:
                result = run_once(__file__, job_file, system, arguments.threads)
                if "error" in result:
                    absent[system] = result["error"]
                    note(f"{system}: {result['error']}")
                    continue
                results.setdefault(system, []).append(result)
                note(f"round {number + 1}, {system}: {result['seconds']:.2f} s")
        found = judge(clips, str(job["language"]), {name: runs for name, runs in results.items() if name not in absent})
    facts = {"model": job["model"], "clips": len(clips), "seconds_of_audio": round(clips.seconds_of_audio, 2),
             "threads": arguments.threads, "parts": arguments.parts, "rounds": arguments.rounds,
             "batch_size": arguments.batch_size}  # fmt: skip
    write_json(arguments.out / "short_clips.json", {**facts, "systems": found, "not_run": absent,
                                                    "provenance": provenance(None, **facts)})  # fmt: skip
    text = table(found, absent)
    (arguments.out / "short_clips.md").write_text(text + "\n", encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()
