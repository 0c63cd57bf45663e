"""Cutting a long recording into pieces that a model can take, without a lost, doubled or cut word.

Modes: ``fixed`` windows and ``vad`` (for recordings without a transcript, or with an aligner), ``sentences`` (times
that came with the text, as in subtitles), ``align`` (the known transcript is located word by word, and cuts fall into
the pauses between words). An aligner is anything with `Aligner.align`; those of ``decoding/forced_alignment.py`` work
with any Whisper or CTC model.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from speechtune.core.errors import InputError
from speechtune.corpus.segmentation.cuts import (
    HOP_SAMPLES,
    SAMPLE_RATE_HZ,
    Span,
    TimedWord,
    energy_spans,
    fixed_windows,
    frame_energy_db,
    group_words,
    lowest_point,
    pack_spans,
    runs_of,
    silence_mask,
    with_margins,
)
from speechtune.corpus.table import Utterance

__all__ = ["Aligner", "Piece", "SegmentationConfig", "TimedWord", "count_hows", "segment"]

Detector = Literal["silero", "energy"]

LOW_CONFIDENCE = "low_confidence"
UNTRANSCRIBED = "untranscribed_speech"
CUT_WORD = "cut_word"
TOO_LONG = "word_over_limit"
_CONTEXT_WORDS = 3
_DOUBTFUL_SHARE = 0.25
"""Of a piece's speech; chosen on the recording described in docs/results/segmentation.md."""
_EDGE_SLACK_S = 0.08


class SegmentationConfig(BaseModel):
    """How recordings longer than ``max_s`` are cut; shorter ones stay whole."""

    model_config = ConfigDict(extra="forbid")

    mode: Literal["off", "fixed", "vad", "sentences", "align"] = Field(
        "off",
        description="off: nothing is cut. fixed: windows of max_s. vad: speech regions packed together. "
        "sentences: by the times in the column segments. align: by forced alignment of the known transcript.",
    )
    max_s: float = Field(30.0, gt=0, description="No piece is longer, by sample count (Whisper's window).")
    target_s: float = Field(
        20.0, gt=0, description="Length that pieces are packed towards (vad, sentences, align); at most max_s is used."
    )
    detector: Detector = Field(
        "silero",
        description="vad, and align where there is no text: silero is the network of the silero-vad package, energy "
        "calls speech whatever is louder than the pauses around it.",
    )
    min_s: float = Field(
        0.3, ge=0, description="A vad piece shorter than this is joined to its nearest neighbour where max_s allows it."
    )
    overlap_s: float = Field(0.0, ge=0, description="fixed only: how much of a window is repeated in the next one.")
    margin_before_s: float = Field(
        0.05, ge=0, description="Kept before a piece's first word (the word-track winner's value, WINNERS.md)."
    )
    margin_after_s: float = Field(
        0.35, ge=0, description="Kept behind a piece's last word, at most half the pause (the same winner's value)."
    )
    min_confidence: float = Field(
        0.02,
        ge=0,
        le=1,
        description="align: a piece is marked low_confidence (its text may not be what is said) if its words have a "
        "lower geometric mean probability, or a quarter of its speech is in stretches that have. Measured in "
        "docs/results/segmentation.md.",
    )
    max_untranscribed_s: float = Field(
        2.0,
        gt=0,
        description="align: a piece with more sound than this outside its words is marked untranscribed_speech.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> SegmentationConfig:
        if self.overlap_s >= self.max_s:
            raise ValueError(f"overlap_s {self.overlap_s:g} must be smaller than max_s {self.max_s:g}")
        return self


class Aligner(Protocol):
    """Locates the words of a known text in a recording."""

    def align(self, waveform: np.ndarray, text: str, language: str | None) -> list[TimedWord]:
        """One `TimedWord` per white-space word of ``text``, in order, always all of them.

        ``waveform`` is float32 mono at 16 kHz, of any length. Times are in seconds from its beginning.
        """


@dataclass(slots=True)
class Piece:
    """A part of a recording, in seconds from the beginning of the utterance it was cut from.

    ``how`` is ``whole`` or the mode, followed by ``+`` and each mark a reader should know: ``low_confidence``,
    ``untranscribed_speech``, ``cut_word``, ``word_over_limit``. ``confidence`` (0 to 1) is known in mode ``align``.
    Both times lie on samples: ``round(end_s * 16000) - round(start_s * 16000)`` is the exact length.
    """

    start_s: float
    end_s: float
    text: str
    how: str
    confidence: float | None = None

    @property
    def marks(self) -> list[str]:
        """What speaks against using the piece; empty for a good one."""
        return self.how.split("+")[1:]


def segment(
    utterance: Utterance, waveform: np.ndarray, config: SegmentationConfig, aligner: Aligner | None = None
) -> list[Piece]:
    """Cut one utterance.

    Args:
        utterance: its text, language and, for mode ``sentences``, the extra column ``segments``: a list of
            ``{"start_s", "end_s", "text"}`` with times from the beginning of ``waveform``.
        waveform: its samples, float32 mono at 16 kHz.
        config: the mode and its limits.
        aligner: needed by ``align``, and by ``fixed`` and ``vad`` where the utterance has a transcript.

    Returns:
        Pieces in order of time. Every word of the transcript is in exactly one of them (except ``fixed`` with an
        overlap: there a word is in every window that holds it), none is longer than ``max_s``.

    Raises:
        InputError: a transcribed recording is to be cut and nothing says where its words are, or its sentence times
            are wrong.
    """
    longest = round(config.max_s * SAMPLE_RATE_HZ)
    if config.mode == "off" or len(waveform) <= longest:
        return [_piece((0, len(waveform)), utterance.text, "whole")]
    if config.mode == "sentences":
        return _by_sentences(utterance, waveform, config)
    words: list[TimedWord] = []
    if utterance.text.strip():
        if aligner is None:
            raise InputError(
                f"{utterance.utterance_id} is {len(waveform) / SAMPLE_RATE_HZ:.1f} s long and transcribed, and mode "
                f"{config.mode} without an aligner cannot say which words are in which piece: give an aligner model, "
                "or use mode sentences where the text has times"
            )
        words = _in_order(aligner.align(waveform, utterance.text, utterance.language), len(waveform))
        if [word.text for word in words] != utterance.text.split():
            raise AssertionError(f"{type(aligner).__name__} did not return every word of {utterance.utterance_id}")
    if config.mode == "align":
        return _by_words(words, waveform, config)
    spans = (
        fixed_windows(len(waveform), longest, round(config.overlap_s * SAMPLE_RATE_HZ))
        if config.mode == "fixed"
        else _speech_pieces(waveform, config)
    )
    return _share_out(words, spans, config.mode)


def count_hows(pieces: Sequence[Piece]) -> dict[str, int]:
    """How many pieces there are of each ``how``, most frequent first."""
    counts: dict[str, int] = {}
    for piece in pieces:
        counts[piece.how] = counts.get(piece.how, 0) + 1
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def find_speech(waveform: np.ndarray, detector: Detector = "silero", threshold: float = 0.5) -> list[Span]:
    """Speech regions in samples, in order; what Silero overlooks but is as loud as the speech around it counts too.

    Args:
        waveform: float32 mono at 16 kHz.
        detector: see `SegmentationConfig.detector`.
        threshold: of Silero's probability.
    """
    if detector == "energy":
        return energy_spans(waveform)
    from speechtune.audio.vad import VadConfig, heard_spans, speech_spans

    spans = heard_spans(waveform, speech_spans(waveform, VadConfig(threshold=threshold)))
    return [(round(one.start_s * SAMPLE_RATE_HZ), round(one.end_s * SAMPLE_RATE_HZ)) for one in spans]


def _piece(span: Span, text: str, how: str, confidence: float | None = None) -> Piece:
    return Piece(span[0] / SAMPLE_RATE_HZ, span[1] / SAMPLE_RATE_HZ, text, how, confidence)


def _target(config: SegmentationConfig) -> int:
    return round(min(config.target_s, config.max_s) * SAMPLE_RATE_HZ)


def _speech_pieces(waveform: np.ndarray, config: SegmentationConfig) -> list[Span]:
    longest = round(config.max_s * SAMPLE_RATE_HZ)
    energy_db = frame_energy_db(waveform)
    packed = pack_spans(find_speech(waveform, config.detector), energy_db, _target(config), longest)
    shortest = round(config.min_s * SAMPLE_RATE_HZ)
    joined: list[Span] = []
    for span in packed:
        short = span[1] - span[0] < shortest or (joined and joined[-1][1] - joined[-1][0] < shortest)
        if joined and short and span[1] - joined[-1][0] <= longest:
            joined[-1] = (joined[-1][0], span[1])
        else:
            joined.append(span)
    before, after = round(config.margin_before_s * SAMPLE_RATE_HZ), round(config.margin_after_s * SAMPLE_RATE_HZ)
    return with_margins(joined, len(waveform), before, after, longest)


def _share_out(words: Sequence[TimedWord], spans: Sequence[Span], mode: str) -> list[Piece]:
    """The words of each span; a word that an edge cuts is marked in every piece that holds a part of it."""
    if not words:
        return [_piece(span, "", mode) for span in spans]
    if not spans:
        raise InputError("a transcribed recording has no speech in it: check that text and audio belong together")
    texts: list[list[str]] = [[] for _ in spans]
    cut = [False] * len(spans)
    for word in words:
        first, last = round(word.start_s * SAMPLE_RATE_HZ), round(word.end_s * SAMPLE_RATE_HZ)
        inside = [i for i, span in enumerate(spans) if span[0] <= first and last <= span[1]]
        touching = [i for i, span in enumerate(spans) if first < span[1] and last > span[0]]
        for index in touching:
            cut[index] |= index not in inside
        if not inside:
            middle = (first + last) / 2
            nearest = min(range(len(spans)), key=lambda i: max(spans[i][0] - middle, middle - spans[i][1]))
            cut[nearest] = True
            inside = [nearest]
        for index in inside:
            texts[index].append(word.text)
    return [
        _piece(span, " ".join(text), f"{mode}+{CUT_WORD}" if broken else mode)
        for span, text, broken in zip(spans, texts, cut, strict=True)
    ]


def _by_sentences(utterance: Utterance, waveform: np.ndarray, config: SegmentationConfig) -> list[Piece]:
    rows = _checked_sentences(utterance, len(waveform))
    longest = round(config.max_s * SAMPLE_RATE_HZ)
    groups: list[tuple[Span, list[str]]] = []
    for span, text in rows:
        if span[1] - span[0] > longest:
            raise InputError(
                f"{utterance.utterance_id}: the segment at {span[0] / SAMPLE_RATE_HZ:g} s is longer than "
                f"{config.max_s:g} s: use mode align, or give its sentences times of their own"
            )
        if groups and span[1] - groups[-1][0][0] <= _target(config):
            groups[-1] = ((groups[-1][0][0], span[1]), [*groups[-1][1], text])
        else:
            groups.append((span, [text]))
    before, after = round(config.margin_before_s * SAMPLE_RATE_HZ), round(config.margin_after_s * SAMPLE_RATE_HZ)
    spans = with_margins([span for span, _ in groups], len(waveform), before, after, longest)
    return [
        _piece(span, " ".join(text for text in texts if text), "sentences")
        for span, (_, texts) in zip(spans, groups, strict=True)
    ]


def _checked_sentences(utterance: Utterance, length: int) -> list[tuple[Span, str]]:
    name = utterance.utterance_id
    segments = utterance.extra.get("segments")
    if not isinstance(segments, list) or not segments:
        raise InputError(f"{name} has no column segments with start_s, end_s and text: use mode align or vad instead")
    rows: list[tuple[Span, str]] = []
    for number, row in enumerate(segments, start=1):
        start_s, end_s, text = _sentence(row, f"{name}: segment {number}")
        start, end = round(start_s * SAMPLE_RATE_HZ), round(end_s * SAMPLE_RATE_HZ)
        if not 0 <= start < end <= length + round(0.5 * SAMPLE_RATE_HZ) or start >= length:
            raise InputError(
                f"{name}: segment {number} ({start_s:g}-{end_s:g} s) is not inside the recording of "
                f"{length / SAMPLE_RATE_HZ:.3f} s: correct its times"
            )
        if rows and start < rows[-1][0][1]:
            if start < rows[-1][0][0]:
                raise InputError(f"{name}: segment {number} starts before segment {number - 1}: sort them by time")
            # subtitles overlap by a few frames; the later one's start is believed
            rows[-1] = ((rows[-1][0][0], max(start, rows[-1][0][0] + 1)), rows[-1][1])
        rows.append(((start, min(end, length)), text))
    said = " ".join(text for _, text in rows).split()
    if utterance.text.strip() and said != utterance.text.split():
        raise InputError(f"{name}: its segments do not join to its text: make one of them agree with the other")
    return rows


def _sentence(row: Any, where: str) -> tuple[float, float, str]:
    try:
        return float(row["start_s"]), float(row["end_s"]), " ".join(str(row["text"]).split())
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"{where} needs the numbers start_s and end_s and a text: add them") from error


def _in_order(words: Sequence[TimedWord], length: int) -> list[TimedWord]:
    """The same words with times that lie inside the recording and do not run backwards."""
    end_s = length / SAMPLE_RATE_HZ
    result: list[TimedWord] = []
    for word in words:
        start = min(max(word.start_s, 0.0), end_s)
        last = min(max(word.end_s, start), end_s)
        if result and start < result[-1].end_s:
            previous = result[-1]
            meet = min(max((start + previous.end_s) / 2, previous.start_s), end_s)
            result[-1] = TimedWord(previous.text, previous.start_s, meet, previous.confidence)
            start, last = meet, max(last, meet)
        result.append(TimedWord(word.text, start, last, word.confidence))
    return result


def _by_words(words: list[TimedWord], waveform: np.ndarray, config: SegmentationConfig) -> list[Piece]:
    if not words:
        return [_piece(span, "", "align") for span in _speech_pieces(waveform, config)]
    longest = round(config.max_s * SAMPLE_RATE_HZ)
    logs = np.log(np.maximum([word.confidence for word in words], 1e-6))
    doubtful = _smoothed(logs) < np.log(max(config.min_confidence, 1e-6))
    slack_s = config.margin_before_s + 2 * _EDGE_SLACK_S
    ranges = group_words(
        words, _target(config) / SAMPLE_RATE_HZ, max(config.max_s - slack_s, config.max_s / 2), doubtful
    )
    energy_db = frame_energy_db(waveform)
    spans = _spoken_spans(words, ranges, energy_db)
    over = [span[1] - span[0] > longest for span in spans]
    spans = [(a, min(b, a + longest)) for a, b in spans]
    before, after = round(config.margin_before_s * SAMPLE_RATE_HZ), round(config.margin_after_s * SAMPLE_RATE_HZ)
    sound = ~silence_mask(energy_db)
    pieces = []
    for (first, last), span, too_long in zip(
        ranges, with_margins(spans, len(waveform), before, after, longest), over, strict=True
    ):
        confidence = float(np.exp(logs[first:last].mean()))
        marks = [TOO_LONG] if too_long else []
        spoken = np.array([word.end_s - word.start_s for word in words[first:last]]) + 0.1
        if confidence < config.min_confidence or spoken @ doubtful[first:last] > _DOUBTFUL_SHARE * spoken.sum():
            marks.append(LOW_CONFIDENCE)
        if _uncovered_s(words[first:last], span, sound) > config.max_untranscribed_s:
            marks.append(UNTRANSCRIBED)
        text = " ".join(word.text for word in words[first:last])
        pieces.append(_piece(span, text, "+".join(["align", *marks]), round(confidence, 4)))
    return pieces


def _smoothed(values: np.ndarray) -> np.ndarray:
    """The mean over three values before and after each."""
    total = np.concatenate([[0.0], np.cumsum(values)])
    place = np.arange(len(values))
    low, high = np.maximum(place - _CONTEXT_WORDS, 0), np.minimum(place + _CONTEXT_WORDS + 1, len(values))
    return (total[high] - total[low]) / (high - low)


def _spoken_spans(words: Sequence[TimedWord], ranges: Sequence[Span], energy_db: np.ndarray) -> list[Span]:
    """First word's start to last word's end; where two ranges touch, the cut goes to the lowest level nearby."""
    spans = []
    for first, last in ranges:
        spans.append([round(words[first].start_s * SAMPLE_RATE_HZ), round(words[last - 1].end_s * SAMPLE_RATE_HZ)])
    for left, right, (_, last) in zip(spans, spans[1:], ranges, strict=False):
        if right[0] - left[1] < 2 * HOP_SAMPLES:
            before, after = words[last - 1], words[last]
            low = max(left[1] / SAMPLE_RATE_HZ - _EDGE_SLACK_S, (before.start_s + before.end_s) / 2)
            high = min(right[0] / SAMPLE_RATE_HZ + _EDGE_SLACK_S, (after.start_s + after.end_s) / 2)
            left[1] = right[0] = lowest_point(energy_db, round(low * SAMPLE_RATE_HZ), round(high * SAMPLE_RATE_HZ))
    return [(start, max(end, start + 1)) for start, end in spans]


def _uncovered_s(words: Sequence[TimedWord], span: Span, sound: np.ndarray) -> float:
    """Seconds of sound in a span that lie in no word, stretches under 0.2 s (breaths, clicks) not counted."""
    rate = SAMPLE_RATE_HZ / HOP_SAMPLES
    left = sound.copy()[: span[1] // HOP_SAMPLES]
    left[: span[0] // HOP_SAMPLES] = False
    for word in words:
        left[max(0, int(word.start_s * rate) - 5) : int(word.end_s * rate) + 5] = False
    return sum(b - a for a, b in runs_of(left, round(0.2 * rate))) / rate
