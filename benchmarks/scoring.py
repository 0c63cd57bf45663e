"""Time to normalise and score the children's challenge's 214,274 utterances, beside jiwer and Transformers.

    python benchmarks/scoring.py [--utterances 214274] [--rounds 3] [--workers 2] [--resamples 10000] [--out FILE]

The plain way is the challenge's: Transformers' ``EnglishTextNormalizer`` on both sides, then ``jiwer.process_words``
(and ``jiwer.process_characters`` for the CER, which speechtune reports as well). Texts are generated: 13.5 words on
average from a Zipf distribution over English words with numbers, contractions and punctuation, and hypotheses with
about 20 % word errors.

Each measurement is a process of its own with nothing remembered, from texts in memory to the score; speechtune's
includes building its corpus and transcripts from the texts. A round measures both ways in turn, so that load from other
programs meets both, and has its own ratios; the middle one of all rounds is reported, with the least and the greatest.
Wall-clock seconds mean something only on an idle machine, processor seconds (of all processes) nearly always. All
measurements must find the same counts, or the benchmark fails.
"""

# ruff: noqa: SIM905

from __future__ import annotations

import argparse
import json
import os
import platform
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from speechtune.core.files import write_json
from speechtune.core.progress import set_quiet
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.normalisation.whisper import spelling_map
from speechtune.scoring.score import Score, score_transcripts

_COMMON = (
    "the a and I to it is in you that he was on my of we they she like with have but so then what this do not can go "
    "me "
    "one at are there all because when up for dog cat house school mom dad friend play ball red blue big little two "
    "don't it's can't I'm gonna he's what's three twenty first um okay yeah no see look want make get put goed tooths"
).split()


def make_texts(number: int, seed: int = 0) -> tuple[list[str], list[str]]:
    """References and hypotheses of as many utterances."""
    draw = random.Random(seed)
    vocabulary = (
        _COMMON + sorted(spelling_map())[:1500] + ["".join(draw.choices("abcdeiorst", k=6)) for _ in range(8000)]
    )
    weights = [1 / rank for rank in range(1, len(vocabulary) + 1)]
    # One long draw is cut up: drawing utterance by utterance would take longer than the scoring.
    pool = draw.choices(vocabulary, weights, k=number * 14)
    references, hypotheses, position = [], [], 0
    for _ in range(number):
        length = min(60, 1 + int(draw.expovariate(1 / 12.5)))
        words = pool[position : position + length]
        position = (position + length) % (len(pool) - 60)
        text = " ".join(words)
        references.append(f"{text[:1].upper()}{text[1:]}." if draw.random() < 0.5 else text)
        hypotheses.append(" ".join(_misheard(words, vocabulary, draw)))
    return references, hypotheses


def _misheard(words: list[str], vocabulary: list[str], draw: random.Random) -> list[str]:
    heard = []
    for word in words:
        chance = draw.random()
        if chance < 0.12:
            heard.append(draw.choice(vocabulary))
        elif chance < 0.16:
            heard += [word, draw.choice(vocabulary)]
        elif chance > 0.04 + 0.16:
            heard.append(word)
    return heard


def timed(work: Callable[[], Any]) -> tuple[Any, dict[str, float]]:
    """The result; wall-clock seconds, and processor seconds of this process and those it waited for."""
    wall, cpu = time.perf_counter(), _processor_s()
    result = work()
    return result, {"wall_s": time.perf_counter() - wall, "cpu_s": _processor_s() - cpu}


def _processor_s() -> float:
    return sum(
        used.ru_utime + used.ru_stime
        for used in map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    )


def _peak_mib(who: int = resource.RUSAGE_SELF) -> float:
    return resource.getrusage(who).ru_maxrss / 1024


def plain_way(references: list[str], hypotheses: list[str]) -> dict[str, Any]:
    """The plain way's time, its steps' processor seconds, and its counts of words and characters."""
    import jiwer
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalise = EnglishTextNormalizer(spelling_map())
    texts, first = timed(lambda: ([normalise(one) for one in references], [normalise(one) for one in hypotheses]))
    words, second = timed(lambda: jiwer.process_words(*texts))
    chars, third = timed(lambda: jiwer.process_characters(*texts))
    steps = {"normalise": first, "words": second, "characters": third}
    return {
        **{unit: sum(one[unit] for one in steps.values()) for unit in first},
        "steps_cpu_s": {name: one["cpu_s"] for name, one in steps.items()},
        "counts": [_counts(one) for one in (words, chars)],
    }


def ours(references: list[str], hypotheses: list[str], workers: int, resamples: int) -> Score:
    """The score with speechtune."""
    ids = [f"u{number:06d}" for number in range(len(references))]
    utterances = [
        Utterance(utterance_id=name, file_name="", text=text, duration_s=5.0, speaker_id=f"s{number % 2000}")
        for number, (name, text) in enumerate(zip(ids, references, strict=True))
    ]
    transcripts = [Transcript(utterance_id=name, text=text) for name, text in zip(ids, hypotheses, strict=True)]
    config = ScoringConfig(normaliser="whisper-english", workers=workers, resamples=resamples)
    return score_transcripts(Corpus(Path("generated"), utterances), transcripts, confidence=config)


def _counts(of: Any) -> list[int]:
    return [of.hits, of.substitutions, of.deletions, of.insertions]


def measure_one(way: str, texts: Path, workers: int, resamples: int) -> dict[str, Any]:
    """One measurement, in this process."""
    references, hypotheses = json.loads(texts.read_text(encoding="utf-8"))
    before_mib = _peak_mib()
    if way == "plain":
        found = plain_way(references, hypotheses)
    else:
        score, took = timed(lambda: ours(references, hypotheses, workers, resamples))
        found = {**took, "counts": [_counts(score.words), _counts(score.chars)], "wer": score.wer}
    peaks = {"peak_mib": _peak_mib(), "peak_of_a_worker_mib": _peak_mib(resource.RUSAGE_CHILDREN)}
    return {**found, "texts_mib": before_mib, **peaks}


def measure(utterances: int, rounds: int, workers: int, resamples: int) -> dict[str, Any]:
    """Every figure of the benchmark.

    Raises:
        SystemExit: two measurements find different counts.
    """
    ways = {
        "one_process": ("ours", 1, 0),
        "workers": ("ours", workers, 0),
        "workers_with_intervals": ("ours", workers, resamples),
        "plain": ("plain", 1, 0),
    }
    found: dict[str, list[dict[str, Any]]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory() as folder:
        texts = Path(folder) / "texts.json"
        texts.write_text(json.dumps(make_texts(utterances)), encoding="utf-8")
        for _ in range(rounds):
            for name, (way, processes, draws) in ways.items():
                found[name].append(_in_a_process(way, texts, processes, draws))
    counts = [one["counts"] for several in found.values() for one in several]
    if any(one != counts[0] for one in counts):
        raise SystemExit(f"the counts differ: {counts}")
    plain = found["plain"]
    extra = [
        with_them["wall_s"] - without["wall_s"]
        for with_them, without in zip(found["workers_with_intervals"], found["workers"], strict=True)
    ]
    return {
        "machine": {
            "processor": _processor(),
            "cores": os.cpu_count(),
            "load": os.getloadavg(),
            "python": platform.python_version(),
            **{name: version(name) for name in ("jiwer", "rapidfuzz", "transformers", "numpy")},
        },
        "utterances": utterances,
        "rounds": rounds,
        "workers": workers,
        "resamples": resamples,
        "ratio_one_process_cpu": _ratio(plain, found["one_process"], "cpu_s"),
        "ratio_one_process_wall": _ratio(plain, found["one_process"], "wall_s"),
        "ratio_workers_cpu": _ratio(plain, found["workers"], "cpu_s"),
        "ratio_workers_wall": _ratio(plain, found["workers"], "wall_s"),
        "intervals_extra_wall_s": _spread(extra),
        "seconds": {
            name: {unit: _spread([one[unit] for one in several]) for unit in ("wall_s", "cpu_s", "peak_mib")}
            for name, several in found.items()
        },
        "plain_steps_cpu_s": plain[0]["steps_cpu_s"],
        "peak_of_a_worker_mib": max(one["peak_of_a_worker_mib"] for one in found["workers"]),
        "texts_mib": plain[0]["texts_mib"],
        "counts_words_chars": counts[0],
    }


def _in_a_process(way: str, texts: Path, workers: int, resamples: int) -> dict[str, Any]:
    options = ["--way", way, "--texts", str(texts), "--workers", str(workers), "--resamples", str(resamples)]
    done = subprocess.run([sys.executable, __file__, *options], stdout=subprocess.PIPE, check=True)
    return json.loads(done.stdout)


def _ratio(plain: Sequence[dict[str, Any]], fast: Sequence[dict[str, Any]], unit: str) -> dict[str, float]:
    return _spread([slow[unit] / quick[unit] for slow, quick in zip(plain, fast, strict=True)])


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "least": min(values), "greatest": max(values)}


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines() if Path("/proc/cpuinfo").is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def main() -> None:
    """Run the benchmark and print its figures as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=214_274)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    parser.add_argument("--way", choices=("ours", "plain"), help="one measurement of --texts, as the rounds do it")
    parser.add_argument("--texts", type=Path, help="with --way: JSON with the references and the hypotheses")
    given = parser.parse_args()
    set_quiet(True)
    if given.way:
        figures = measure_one(given.way, given.texts, given.workers, given.resamples)
    else:
        figures = measure(given.utterances, given.rounds, given.workers, given.resamples)
    print(json.dumps(figures, indent=2))
    if given.out:
        write_json(given.out, figures)


if __name__ == "__main__":
    main()
