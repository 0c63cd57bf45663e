"""Live transcription of recordings under a simulated clock, with what is needed to judge it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples, load_audio, write_audio
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.long.timing import spread
from speechtune.decoding.streaming.clock import SimulatedClock
from speechtune.decoding.streaming.measures import Flicker
from speechtune.decoding.streaming.opening import Begin
from speechtune.decoding.streaming.printing import segment_row
from speechtune.decoding.streaming.transcriber import Segment, StreamingTranscriber
from speechtune.decoding.transcript import Transcript

_PAUSE_S = 1.0
"""Silence between two utterances that are joined (own choice)."""


@dataclass(slots=True)
class LiveRun:
    """One recording as it was transcribed live; ``delays_s``: commit time less the end of each word."""

    transcript: Transcript
    audio_s: float
    busy_s: float = 0.0
    longest_buffer_s: float = 0.0
    updates: int = 0
    committed_s: list[float] = field(default_factory=list)
    delays_s: list[float] = field(default_factory=list)
    guessed_times: int = 0
    flicker: Flicker = field(default_factory=Flicker)


def run_live(name: str, blocks: Iterable[Samples], begin: Begin, cost: float | None) -> LiveRun:
    """Feed a recording to a new stream.

    Args:
        name: the utterance's id.
        blocks: its samples at 16 kHz, in pieces.
        begin: makes the stream; where it has a timer, latencies are measured against its word times.
        cost: seconds of computing for each second that is decoded; ``None``: as measured.
    """
    transcriber = begin(SimulatedClock(None if cost is None else lambda seconds: cost * seconds))
    run = LiveRun(Transcript(utterance_id=name, text=""), 0.0)
    segments: list[Segment] = []
    for block in blocks:
        _note_updates(run, transcriber, segments, block)
    _note_updates(run, transcriber, segments, None)
    run.flicker.end()
    run.audio_s, run.busy_s = transcriber.heard_s, transcriber.clock.busy_s
    run.committed_s = [one.at_s for one in transcriber.committed]
    for segment in segments:
        _delays(run, segment)
    run.transcript.text = transcriber.text
    run.transcript.segments = [{k: v for k, v in segment_row(one).items() if k != "event"} for one in segments]
    return run


def _note_updates(
    run: LiveRun, transcriber: StreamingTranscriber, segments: list[Segment], block: Samples | None
) -> None:
    """Feed a block (or finish), keeping what was shown after each update."""
    final = [one.text for one in transcriber.committed]
    for update in transcriber.finish() if block is None else transcriber.feed(block):
        final += [one.text for one in update.committed]
        run.flicker.show([*final, *update.tentative])
        run.updates += 1
        if update.segment is not None:
            segments.append(update.segment)
    run.longest_buffer_s = transcriber.longest_buffer_s


def _delays(run: LiveRun, segment: Segment) -> None:
    times = segment.times
    if len(times) != len(segment.words):  # no timer, or a language without spaces
        times = spread([one.text for one in segment.words], segment.start_s, segment.end_s)
    run.guessed_times += sum(one.confidence == 0.0 for one in times)
    run.delays_s += [word.at_s - time.end_s for word, time in zip(segment.words, times, strict=True)]


def join_utterances(corpus: Corpus, seconds: float, folder: Path) -> Corpus:
    """Recordings of at least ``seconds`` made of a speaker's utterances in order, 1 s of silence between them.

    A speaker's last recording may be shorter. Their files are written into ``folder``.

    Raises:
        AudioError: a file cannot be read.
    """
    by_speaker: dict[str, list[Utterance]] = {}
    for one in corpus:
        by_speaker.setdefault(one.speaker_id or "", []).append(one)
    joined: list[Utterance] = []
    silence = np.zeros(round(_PAUSE_S * SAMPLE_RATE_HZ), np.float32)
    for speaker, utterances in by_speaker.items():
        parts: list[Samples] = []
        texts: list[str] = []
        for place, one in enumerate(utterances):
            parts += [load_audio(corpus.path_of(one), one.start_s, one.end_s), silence]
            texts.append(one.text)
            duration_s = sum(map(len, parts)) / SAMPLE_RATE_HZ
            if duration_s < seconds and place + 1 < len(utterances):
                continue
            name = f"{len(joined):05d}.wav"
            write_audio(folder / name, np.concatenate(parts))
            joined.append(
                Utterance(
                    utterance_id=f"{speaker or 'joined'}-{len(joined):05d}",
                    file_name=name,
                    text=" ".join(texts),
                    duration_s=duration_s,
                    speaker_id=speaker or None,
                    language=one.language,
                )
            )
            parts, texts = [], []
    return Corpus(folder, joined)
