"""Where speech is in a long recording, and the pieces that are decoded: each in one piece of the model's window."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples
from speechtune.audio.vad import (
    FRAME_SAMPLES,
    VadConfig,
    heard_spans,
    spans_from_probabilities,
    speech_probabilities,
)
from speechtune.core.progress import Bar
from speechtune.corpus.segmentation.cuts import (
    HOP_SAMPLES,
    Span,
    fixed_windows,
    frame_energy_db,
    pack_spans,
    with_margins,
)
from speechtune.decoding.long.recording import Recording

_BLOCK_S = 64
_BEFORE_S = 8
"""The detector's state settles well within 8 s; both are whole numbers of its 32 ms frames."""
_BLOCKS_AT_ONCE = 32
"""The detector runs 32 clips as fast as one; 32 blocks are about 150 MB."""


@dataclass(frozen=True, slots=True)
class Scan:
    """A recording's speech: spans in samples, in order; level of every 10 ms in dB, shape (hops,)."""

    spans: list[Span]
    energy_db: np.ndarray


def scan(recording: Recording, vad: VadConfig | None = None, title: str = "listen") -> Scan:
    """Find the speech of a recording of any length, in blocks.

    Speech is what Silero finds and what is heard beside it (`heard_spans`): the detector overlooks some words, and a
    word in no piece is lost.

    Raises:
        AudioError: the file cannot be read.
        InputError: the detector's package is not installed.
    """
    probabilities: list[np.ndarray] = []
    energies: list[np.ndarray] = []
    heard: list[Span] = []
    blocks = recording.blocks(_BLOCK_S, _BEFORE_S)
    with Bar(title, -(-recording.length // (_BLOCK_S * SAMPLE_RATE_HZ))) as bar:
        while group := list(islice(blocks, _BLOCKS_AT_ONCE)):
            for (start, waveform), found in zip(group, speech_probabilities([one for _, one in group]), strict=True):
                own = _BEFORE_S * SAMPLE_RATE_HZ if start or probabilities else 0
                probabilities.append(found[own // FRAME_SAMPLES :])
                energies.append(frame_energy_db(waveform)[own // HOP_SAMPLES :])
                local = heard_spans(waveform, spans_from_probabilities(found, len(waveform), vad))
                heard += [(start + round(a.start_s * 16_000), start + round(a.end_s * 16_000)) for a in local]
                bar.advance()
    if not probabilities:
        return Scan([], np.zeros(0))
    whole = spans_from_probabilities(np.concatenate(probabilities), recording.length, vad)
    spans = [(round(one.start_s * SAMPLE_RATE_HZ), round(one.end_s * SAMPLE_RATE_HZ)) for one in whole]
    return Scan(_united([*spans, *heard]), np.concatenate(energies))


def _united(spans: list[Span]) -> list[Span]:
    """The same samples as spans in order that do not touch."""
    merged: list[Span] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        else:
            merged.append((start, end))
    return merged


@dataclass(frozen=True, slots=True)
class Piece:
    """What is decoded at once: spans of a recording, in samples and in order, heard one right after the other."""

    spans: tuple[Span, ...]

    @property
    def start(self) -> int:
        """The first sample in the recording."""
        return self.spans[0][0]

    @property
    def end(self) -> int:
        """One after the last sample in the recording."""
        return self.spans[-1][1]

    @property
    def heard(self) -> int:
        """How many samples are heard."""
        return sum(end - start for start, end in self.spans)

    def read(self, recording: Recording) -> Samples:
        """The samples that are heard.

        Raises:
            AudioError: the file cannot be read.
        """
        return np.concatenate([samples_of(recording, span) for span in self.spans])

    def place_s(self, heard_s: float) -> tuple[int, float]:
        """Of a time in what is heard the span it is in, by number, and the recording's time, both in seconds."""
        left = heard_s * SAMPLE_RATE_HZ
        for number, (start, end) in enumerate(self.spans):
            if left < end - start or number == len(self.spans) - 1:
                return number, (start + left) / SAMPLE_RATE_HZ
            left -= end - start
        raise AssertionError("a piece has a span")


@dataclass(frozen=True, slots=True)
class PiecePlan:
    """Lengths of pieces, in seconds: wanted, possible, the pause that always divides, the margin kept around speech."""

    target_s: float
    longest_s: float
    max_pause_s: float
    margin_s: float


def plan_pieces(found: Scan, length: int, plan: PiecePlan) -> list[Span]:
    """Pieces, in samples and in order: every sample of every span is in exactly one, none exceeds ``longest_s``."""
    rate = SAMPLE_RATE_HZ
    packed: list[Span] = []
    for group in _groups(found.spans, round(plan.max_pause_s * rate)):
        packed += pack_spans(group, found.energy_db, round(plan.target_s * rate), round(plan.longest_s * rate))
    margin = round(plan.margin_s * rate)
    return with_margins(packed, length, margin, margin, round(plan.longest_s * rate))


def heard_together(spans: Sequence[Span], most: int) -> list[Piece]:
    """Neighbouring spans as one piece, what is between them left out, while no more than ``most`` samples are heard.

    Spans that touch (but for a sample, where the middle of a pause was rounded) become one.
    """
    pieces: list[Piece] = []
    for start, end in spans:
        before = pieces[-1] if pieces else Piece(())
        touches = bool(before.spans) and start - before.end <= 1
        if not before.spans or before.heard + end - (before.end if touches else start) > most:
            pieces.append(Piece(((start, end),)))
        elif touches:
            pieces[-1] = Piece((*before.spans[:-1], (before.spans[-1][0], end)))
        else:
            pieces[-1] = Piece((*before.spans, (start, end)))
    return pieces


def _groups(spans: list[Span], pause: int) -> Iterator[list[Span]]:
    """Runs of spans without a pause of ``pause`` samples or more between them."""
    group: list[Span] = []
    for span in spans:
        if group and span[0] - group[-1][1] >= pause:
            yield group
            group = []
        group.append(span)
    if group:
        yield group


def plan_chunks(length: int, chunk_s: float, overlap_s: float) -> list[Span]:
    """Overlapping windows in samples.

    Raises:
        ValueError: the overlap is not shorter than the chunk.
    """
    return fixed_windows(length, round(chunk_s * SAMPLE_RATE_HZ), round(overlap_s * SAMPLE_RATE_HZ))


def samples_of(recording: Recording, span: Span) -> Samples:
    """The samples of a span."""
    return recording.read(span[0] / SAMPLE_RATE_HZ, span[1] / SAMPLE_RATE_HZ)
