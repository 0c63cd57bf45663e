"""Time to normalise and score the children's challenge's 214,274 utterances, beside jiwer and Transformers.

    python benchmarks/scoring.py [--utterances 214274] [--plain 214274] [--workers 2] [--resamples 10000] [--out FILE]

The plain way is the challenge's: Transformers' ``EnglishTextNormalizer`` on both sides, then ``jiwer.process_words``
(and ``jiwer.process_characters`` for the CER, which speechtune reports as well). Texts are generated: 13.5 words on
average from a Zipf distribution over English words with numbers, contractions and punctuation, and hypotheses with
about 20 % word errors. ``--plain N`` gives the plain way only the first N utterances and scales its time. Both ways
must find the same counts, or the benchmark fails.
"""

# ruff: noqa: SIM905

from __future__ import annotations

import argparse
import random
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speechtune.core.files import write_json
from speechtune.core.progress import set_quiet
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.normalisation.whisper import spelling_map
from speechtune.scoring.normalisers import get_normaliser
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


def timed(work: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, wall-clock seconds, and processor seconds of this process."""
    wall, cpu = time.perf_counter(), time.process_time()
    result = work()
    return result, time.perf_counter() - wall, time.process_time() - cpu


def plain_way(
    references: list[str], hypotheses: list[str]
) -> tuple[dict[str, float], tuple[int, ...], tuple[int, ...]]:
    """Processor seconds of each step of the plain way, and its counts of words and characters."""
    import jiwer
    from transformers.models.whisper.english_normalizer import EnglishTextNormalizer

    normalise = EnglishTextNormalizer(spelling_map())
    texts, _, normalising = timed(
        lambda: ([normalise(one) for one in references], [normalise(one) for one in hypotheses])
    )
    words, _, words_s = timed(lambda: jiwer.process_words(*texts))
    chars, _, chars_s = timed(lambda: jiwer.process_characters(*texts))
    counts = [(one.hits, one.substitutions, one.deletions, one.insertions) for one in (words, chars)]
    return {"normalise_s": normalising, "words_s": words_s, "characters_s": chars_s}, counts[0], counts[1]


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


def _counts(score: Score) -> tuple[tuple[int, ...], tuple[int, ...]]:
    words, chars = ((one.hits, one.substitutions, one.deletions, one.insertions) for one in (score.words, score.chars))
    return words, chars


def measure(utterances: int, plain: int, workers: int, resamples: int) -> dict[str, Any]:
    """Every figure of the benchmark.

    Raises:
        SystemExit: the two ways find different counts.
    """
    references, hypotheses = make_texts(utterances)
    before_mib = _peak_mib()
    one, one_wall, one_cpu = timed(lambda: ours(references, hypotheses, 1, 0))
    _, many_wall, _ = timed(lambda: ours(references, hypotheses, workers, 0))
    _, with_intervals, _ = timed(lambda: ours(references, hypotheses, workers, resamples))
    peak_mib = _peak_mib()
    steps, words, chars = plain_way(references[:plain], hypotheses[:plain])
    same = _counts(one) if plain == utterances else _counts(ours(references[:plain], hypotheses[:plain], 1, 0))
    if same != (words, chars):
        raise SystemExit(f"the counts differ: {same} here, {(words, chars)} the plain way")
    get_normaliser.cache_clear()
    normalise = get_normaliser("whisper-english")
    _, _, normalising = timed(lambda: [normalise(text) for side in (references, hypotheses) for text in side])
    scale = utterances / plain
    plain_s = scale * sum(steps.values())
    return {
        "utterances": utterances,
        "plain_utterances": plain,
        "plain_cpu_s": plain_s,
        "plain_steps_cpu_s": {name: scale * value for name, value in steps.items()},
        "one_process_cpu_s": one_cpu,
        "one_process_wall_s": one_wall,
        "workers": workers,
        "workers_wall_s": many_wall,
        "intervals_extra_wall_s": with_intervals - many_wall,
        "resamples": resamples,
        "ratio_one_process": plain_s / one_cpu,
        "ratio_workers": plain_s / many_wall,
        "ratio_normaliser": scale * steps["normalise_s"] / normalising,
        "peak_mib_texts": before_mib,
        "peak_mib_scored": peak_mib,
        "wer": one.wer,
    }


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Run the benchmark and print its figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--utterances", type=int, default=214_274)
    parser.add_argument("--plain", type=int, default=214_274)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resamples", type=int, default=10_000)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    set_quiet(True)
    figures = measure(given.utterances, min(given.plain, given.utterances), given.workers, given.resamples)
    for name, value in figures.items():
        print(f"{name}: {value:.2f}" if isinstance(value, float) else f"{name}: {value}")
    if given.out:
        write_json(given.out, figures)


if __name__ == "__main__":
    main()
