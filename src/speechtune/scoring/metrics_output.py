"""Metrics of what a recogniser puts out: on silence, in loops, nothing at all, when, and how fast."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.scoring.alignment import Counts, align
from speechtune.scoring.alignment_weighted import TimedUnit, align_by_time

if TYPE_CHECKING:
    from speechtune.scoring.metrics import Metric, Pairs

LONGEST_LOOP_WORDS = 8
REPEATS_OF_ONE_WORD, REPEATS_OF_SEVERAL = 4, 3
"""So many times in a row make a loop: children say a word three times, recognisers in a loop do not stop there."""

_LATENCIES = ("latency_s", "first_token_s", "decode_s", "rtf")


def hallucination(pairs: Pairs) -> Metric:
    """Words recognised per minute of silence, over the utterances whose normalised reference is empty."""
    from speechtune.scoring.metrics import Metric

    empty = np.flatnonzero(pairs.counted.words[:, [0, 1, 2]].sum(axis=1) == 0)
    inserted = pairs.counted.words[empty, 3]
    seconds = float(sum(pairs.utterances[index].duration_s for index in empty.tolist()))
    details = {
        "empty_references": len(empty),
        "with_output": int((inserted > 0).sum()),
        "words": int(inserted.sum()),
        "seconds_of_silence": seconds,
    }
    reason = None if seconds else ("the durations are unknown" if len(empty) else "no reference is empty")
    rate = 60 * int(inserted.sum()) / seconds if seconds else None
    return Metric("hallucination", rate, "words per minute", details, reason)


def loop_words(words: Sequence[str]) -> int:
    """How many words of a text only repeat what stands right before them, in loops (`loop_places`)."""
    return len(loop_places(words))


def loop_places(words: Sequence[str]) -> set[int]:
    """The places of the words that only repeat what stands right before them, in loops.

    A loop is a group of 1 to 8 words that occurs at least 4 times in a row (one word) or 3 times (several).
    """
    if len(set(words)) == len(words):
        return set()
    repeated: set[int] = set()
    for size in range(1, LONGEST_LOOP_WORDS + 1):
        needed = (REPEATS_OF_ONE_WORD if size == 1 else REPEATS_OF_SEVERAL) - 1
        run = 0
        for index in range(size, len(words) + 1):
            if index < len(words) and words[index] == words[index - size]:
                run += 1
                continue
            if run >= needed * size:
                repeated.update(range(index - run, index))
            run = 0
    return repeated


def repetition(pairs: Pairs) -> Metric:
    """Share of utterances whose hypothesis has more words in loops than its reference."""
    from speechtune.scoring.metrics import Metric

    looping = words = 0
    for reference, hypothesis in zip(pairs.counted.references, pairs.counted.hypotheses, strict=True):
        looped = loop_words(hypothesis.split())
        if looped and (more := looped - loop_words(reference.split())) > 0:
            looping, words = looping + 1, words + more
    details = {"looping_utterances": looping, "repeated_words": words, "utterances": len(pairs.utterances)}
    return Metric("repetition", looping / len(pairs.utterances) if pairs.utterances else None, details=details)


def empty_output(pairs: Pairs) -> Metric:
    """Share of the utterances with reference words for which nothing was recognised."""
    from speechtune.scoring.metrics import Metric

    table = pairs.counted.words
    spoken = table[:, :3].sum(axis=1) > 0
    empty = int((spoken & (table[:, [0, 1, 3]].sum(axis=1) == 0)).sum())
    details = {"empty_outputs": empty, "utterances_with_words": int(spoken.sum())}
    return Metric("empty-output", empty / int(spoken.sum()) if spoken.any() else None, details=details)


def timed_words(words: Any, where: str) -> list[TimedUnit]:
    """Words with times from a column: dictionaries with ``word`` or ``text``, ``start_s`` and ``end_s``.

    ``start`` and ``end`` (seconds) are understood too.

    Raises:
        InputError: an entry has no text or no times.
    """
    units = []
    for number, one in enumerate(words, start=1):
        entry = one if isinstance(one, Mapping) else {}
        text = entry.get("word", entry.get("text"))
        times = [entry.get(f"{edge}_s", entry.get(edge)) for edge in ("start", "end")]
        if not isinstance(text, str) or not all(isinstance(time, int | float) for time in times):
            raise InputError(f"{where}: word {number} needs word, start_s and end_s: add them or leave words out")
        units.append(TimedUnit(text, float(times[0]), float(times[1])))
    return units


def _timed_pairs(pairs: Pairs) -> Iterator[tuple[list[TimedUnit], list[TimedUnit]]]:
    normalise = pairs.spec.build()
    for utterance, row in zip(pairs.utterances, pairs.rows, strict=True):
        sides = (utterance.extra.get("words"), row.get("words"))
        if all(isinstance(words, list) for words in sides):
            where = f"utterance {utterance.utterance_id!r}"
            reference, hypothesis = (
                [
                    TimedUnit(part, unit.start_s, unit.end_s)
                    for unit in timed_words(words, where)
                    for part in normalise(unit.text).split()
                ]
                for words in sides
            )
            yield reference, hypothesis


def word_timing(pairs: Pairs) -> Metric:
    """Mean absolute error of the beginnings and ends of words that both sides have (aligned by text)."""
    from speechtune.scoring.metrics import Metric

    errors: list[tuple[float, float]] = []
    timed = 0
    for reference, hypothesis in _timed_pairs(pairs):
        timed += 1
        i = j = -1
        for edit in align([one.text for one in reference], [one.text for one in hypothesis]):
            i, j = i + (edit.ref is not None), j + (edit.hyp is not None)
            if edit.op == "equal":
                errors.append(
                    (abs(reference[i].start_s - hypothesis[j].start_s), abs(reference[i].end_s - hypothesis[j].end_s))
                )
    if not errors:
        return Metric("word-timing", None, "s", {"utterances_with_times": timed}, "no word has times on both sides")
    table = np.array(errors)
    details = {
        "utterances_with_times": timed,
        "words": len(table),
        "mean_start_error_s": float(table[:, 0].mean()),
        "mean_end_error_s": float(table[:, 1].mean()),
        "median_error_s": float(np.median(table)),
        "within_100_ms": float((table <= 0.1).mean()),
        "within_200_ms": float((table <= 0.2).mean()),
    }
    return Metric("word-timing", float(table.mean()), "s", details)


def time_wer(pairs: Pairs) -> Metric:
    """WER of the utterances with word times on both sides; words match only where they were said."""
    from speechtune.scoring.metrics import Metric

    counts = Counts()
    timed = 0
    for reference, hypothesis in _timed_pairs(pairs):
        timed += 1
        ops = [edit.op for edit in align_by_time(reference, hypothesis)[0]]
        counts += Counts(ops.count("equal"), ops.count("substitute"), ops.count("delete"), ops.count("insert"))
    reason = None if timed else "no utterance has word times on both sides"
    return Metric("time-wer", counts.rate, details={**counts.to_json(), "utterances_with_times": timed}, reason=reason)


def latency(pairs: Pairs) -> Metric:
    """What the transcripts say of speed: ``decode_s`` over the length of the audio, and each column's distribution."""
    from speechtune.scoring.metrics import Metric

    details: dict[str, Any] = {}
    for name in _LATENCIES:
        values = [row[name] for row in pairs.rows if isinstance(row.get(name), int | float)]
        if values:
            median, high = np.quantile(values, [0.5, 0.95])
            mean = float(np.mean(values))
            details[name] = {"rows": len(values), "mean": mean, "median": float(median), "p95": float(high)}
    timed = [
        (row["decode_s"], utterance.duration_s)
        for utterance, row in zip(pairs.utterances, pairs.rows, strict=True)
        if isinstance(row.get("decode_s"), int | float)
    ]
    seconds = sum(length for _, length in timed)
    factor = sum(spent for spent, _ in timed) / seconds if seconds else details.get("rtf", {}).get("mean")
    reason = None if details else f"the transcripts have none of {', '.join(_LATENCIES)}"
    return Metric("latency", factor, "x real time", details, reason)
