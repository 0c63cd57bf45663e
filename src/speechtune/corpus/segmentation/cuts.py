"""Where a recording may be cut: frame energy, silences, fixed windows, packed speech, and the cuts between words.

Everything here counts samples at 16 kHz; a span is ``(start, end)`` in samples, end excluded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160
"""Energy is measured every 10 ms, over 25 ms."""
_FRAME_SAMPLES = 400
_LOCAL_S = 5.0
_SILENCE_SHARE = 0.3
_CUT_BLUR_FRAMES = 9

Span = tuple[int, int]


@dataclass(frozen=True, slots=True)
class TimedWord:
    """One white-space word of a transcript, where it is spoken, and how sure the aligner is (0 to 1)."""

    text: str
    start_s: float
    end_s: float
    confidence: float


def frame_energy_db(waveform: np.ndarray) -> np.ndarray:
    """Level of every 10 ms hop (25 ms frames around its middle) in dB below full scale, shape (hops,)."""
    hops = max(1, -(-len(waveform) // HOP_SAMPLES))
    before = (_FRAME_SAMPLES - HOP_SAMPLES) // 2
    squares = np.square(waveform, dtype=np.float64)
    total = np.concatenate([[0.0], np.cumsum(squares)])
    first = np.clip(np.arange(hops) * HOP_SAMPLES - before, 0, len(waveform))
    last = np.clip(np.arange(hops) * HOP_SAMPLES - before + _FRAME_SAMPLES, 0, len(waveform))
    mean = (total[last] - total[first]) / np.maximum(last - first, 1)
    return 10.0 * np.log10(np.maximum(mean, 1e-10))


def silence_mask(energy_db: np.ndarray) -> np.ndarray:
    """Which hops are silent: within the lowest 30 % of the local range (10th to 95th percentile of 10 s around)."""
    block = round(1.0 * SAMPLE_RATE_HZ / HOP_SAMPLES)
    reach = round(_LOCAL_S * SAMPLE_RATE_HZ / HOP_SAMPLES)
    threshold = np.empty(len(energy_db))
    for first in range(0, len(energy_db), block):
        around = energy_db[max(0, first - reach) : first + block + reach]
        low, high = np.percentile(around, [10, 95])
        threshold[first : first + block] = low + _SILENCE_SHARE * (high - low)
    return energy_db < threshold


def runs_of(mask: np.ndarray, at_least: int = 1) -> list[tuple[int, int]]:
    """Runs of true values that are at least so long, as (first, one past the last)."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], mask, [False]]).astype(np.int8)))
    return [(int(a), int(b)) for a, b in zip(edges[::2], edges[1::2], strict=True) if b - a >= at_least]


def energy_spans(waveform: np.ndarray, min_silence_s: float = 0.3, margin_s: float = 0.05) -> list[Span]:
    """Where the level is above silence, in samples; silences shorter than ``min_silence_s`` are bridged."""
    hops = round(min_silence_s * SAMPLE_RATE_HZ / HOP_SAMPLES)
    energy_db = frame_energy_db(waveform)
    if energy_db.max() - energy_db.min() < 6.0:  # a steady level has no silence to tell apart
        return [(0, len(waveform))] if energy_db.max() > -70.0 else []
    silent = np.zeros(len(energy_db), bool)
    for first, last in runs_of(silence_mask(energy_db), hops):
        silent[first:last] = True
    margin = round(margin_s * SAMPLE_RATE_HZ)
    spans = [(a * HOP_SAMPLES, min(b * HOP_SAMPLES, len(waveform))) for a, b in runs_of(~silent)]
    return [(max(0, a - margin), min(len(waveform), b + margin)) for a, b in spans]


def lowest_point(energy_db: np.ndarray, first: int, last: int) -> int:
    """The sample between ``first`` and ``last`` around which the level, averaged over 90 ms, is lowest."""
    low, high = first // HOP_SAMPLES, max(first // HOP_SAMPLES + 1, last // HOP_SAMPLES)
    pad = _CUT_BLUR_FRAMES // 2
    around = np.pad(energy_db, pad, mode="edge")[low : high + 2 * pad]
    smooth = np.convolve(around, np.full(_CUT_BLUR_FRAMES, 1 / _CUT_BLUR_FRAMES), mode="valid")
    lowest = np.flatnonzero(smooth <= smooth.min() + 1e-9)
    middle = int(lowest[len(lowest) // 2])
    return int(np.clip((low + middle) * HOP_SAMPLES + HOP_SAMPLES // 2, first, last))


def fixed_windows(length: int, window: int, overlap: int) -> list[Span]:
    """Windows of exactly ``window`` samples, the last one shorter; none lies inside another.

    Raises:
        ValueError: the overlap is not smaller than the window.
    """
    if not 0 <= overlap < window:
        raise ValueError(f"an overlap of {overlap} samples does not fit windows of {window}")
    spans = []
    start = 0
    while True:
        spans.append((start, min(start + window, length)))
        if start + window >= length:
            return spans
        start += window - overlap


def split_long(span: Span, energy_db: np.ndarray, longest: int) -> list[Span]:
    """Cut a span into the fewest parts of at most ``longest`` samples, each cut at the lowest level near its place."""
    start, end = span
    parts = -(-(end - start) // longest)
    result = []
    while parts > 1:
        even = (end - start) // parts
        low = max(start + even // 2, end - (parts - 1) * longest)
        high = min(start + longest, start + even + even // 2)
        cut = lowest_point(energy_db, low, high)
        result.append((start, cut))
        start, parts = cut, parts - 1
    return [*result, (start, end)]


def pack_spans(spans: Sequence[Span], energy_db: np.ndarray, target: int, longest: int) -> list[Span]:
    """Join neighbouring spans while the whole, pauses included, is within ``target``; split what exceeds ``longest``.

    Every sample of every span is in exactly one result.
    """
    packed: list[Span] = []
    for span in spans:
        if packed and span[1] - packed[-1][0] <= target:
            packed[-1] = (packed[-1][0], span[1])
        else:
            packed.append(span)
    return [part for span in packed for part in split_long(span, energy_db, longest)]


def with_margins(spans: Sequence[Span], length: int, before: int, after: int, longest: int) -> list[Span]:
    """Widen spans by the margins, not beyond the middle of a pause, ``longest`` samples, or the recording."""
    widened = []
    for index, (start, end) in enumerate(spans):
        floor = (spans[index - 1][1] + start + 1) // 2 if index else 0
        ceiling = (end + spans[index + 1][0]) // 2 if index + 1 < len(spans) else length
        room = max(0, longest - (end - start))
        lead = min(before, max(0, start - floor), room)
        tail = min(after, max(0, ceiling - end), room - lead)
        widened.append((start - lead, end + tail))
    return widened


def snap_to_silence(words: Sequence[TimedWord], waveform: np.ndarray, pause_s: float = 0.2) -> list[TimedWord]:
    """Take the pauses out of words: attention and CTC paths give a pause to one of its neighbours.

    A word that reaches over silences of ``pause_s`` or more keeps its longest stretch of sound; what is left
    before (after) it goes to the word before (after) if there is no pause between them.
    """
    if not words:
        return []
    silent = silence_mask(frame_energy_db(waveform))
    pauses = np.zeros(len(silent), bool)
    for first, last in runs_of(silent, max(1, round(pause_s * SAMPLE_RATE_HZ / HOP_SAMPLES))):
        pauses[first:last] = True
    hop_s = HOP_SAMPLES / SAMPLE_RATE_HZ
    starts = [min(max(0, round(word.start_s / hop_s)), len(pauses) - 1) for word in words]
    ends = [min(max(a + 1, round(word.end_s / hop_s)), len(pauses)) for a, word in zip(starts, words, strict=True)]
    touched = [False] * len(words)
    for index in range(len(words)):
        first, last = starts[index], ends[index]
        sounds = runs_of(~pauses[first:last])
        if not sounds or (len(sounds) == 1 and sounds[0] == (0, last - first)):
            continue
        kept = max(sounds, key=lambda run: run[1] - run[0])
        starts[index], ends[index] = first + kept[0], first + kept[1]
        touched[index] = True
        before = [run for run in sounds if run[1] <= kept[0]]
        after = [run for run in sounds if run[0] >= kept[1]]
        if before and before[0][0] == 0 and index and ends[index - 1] == first:
            ends[index - 1], touched[index - 1] = first + before[0][1], True
        if after and after[-1][1] == last - first and index + 1 < len(words) and starts[index + 1] == last:
            starts[index + 1], touched[index + 1] = first + after[-1][0], True
    return [
        TimedWord(word.text, round(a * hop_s, 3), round(b * hop_s, 3), word.confidence) if changed else word
        for word, a, b, changed in zip(words, starts, ends, touched, strict=True)
    ]


def group_words(words: Sequence[TimedWord], target_s: float, longest_s: float, doubtful: np.ndarray) -> list[Span]:
    """Ranges of words (first, one past the last), each range a piece of at most ``longest_s``, by dynamic programming.

    The cost of a cut falls with the pause it lies in; the cost of a piece grows with its distance from ``target_s``
    and with the seconds that a minority of doubtful words puts in danger (or of good ones among doubtful).

    Args:
        words: in order of time.
        target_s: length that costs nothing.
        longest_s: from the first word's start to the last word's end; a single longer word stands alone.
        doubtful: which words the aligner doubts, shape (words,).
    """
    total = len(words)
    starts = np.array([word.start_s for word in words])
    ends = np.maximum.accumulate([word.end_s for word in words])
    doubted_s = np.concatenate(
        [[0.0], np.cumsum([(w.end_s - w.start_s) * d for w, d in zip(words, doubtful, strict=True)])]
    )
    spoken_s = np.concatenate([[0.0], np.cumsum([word.end_s - word.start_s for word in words])])
    pauses = np.maximum(0.0, np.append(starts[1:], np.inf) - ends)
    cut_cost = np.where(np.isinf(pauses), 0.0, 0.05 / (0.05 + pauses) ** 2 / 2.0)
    best = np.full(total + 1, np.inf)
    best[0] = 0.0
    origin = np.zeros(total + 1, np.int64)
    for last in range(1, total + 1):
        first = last - 1
        while first >= 0:
            length_s = ends[last - 1] - starts[first]
            if length_s > longest_s and first < last - 1:
                break
            doubted = doubted_s[last] - doubted_s[first]
            mixed = min(doubted, spoken_s[last] - spoken_s[first] - doubted)
            cost = best[first] + cut_cost[last - 1] + ((length_s - target_s) / target_s) ** 2 + 0.5 * mixed
            if cost < best[last]:
                best[last], origin[last] = cost, first
            first -= 1
    ranges = []
    last = total
    while last > 0:
        ranges.append((int(origin[last]), last))
        last = int(origin[last])
    return ranges[::-1]
