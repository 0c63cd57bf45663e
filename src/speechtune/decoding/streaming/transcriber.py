"""Live transcription: audio in, as it comes; committed words and a tentative tail out.

At every ``listen_s`` of new audio the voice detector is asked; while somebody speaks, the audio since the last pause
is decoded at every ``step_s``, and what successive drafts agree on is committed. A pause ends the segment: it is
decoded once more, and all of it is committed. What is committed never changes. Where audio is looked at does not
depend on the pieces in which it is fed, so under a `SimulatedClock` with given costs neither does any result.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ, Samples
from speechtune.audio.vad import FRAME_SAMPLES
from speechtune.core.errors import InputError
from speechtune.corpus.segmentation.cuts import Span, TimedWord, frame_energy_db, lowest_point
from speechtune.decoding.streaming.agreement import LocalAgreement, follows, joined, joint
from speechtune.decoding.streaming.clock import Clock, instant
from speechtune.decoding.streaming.recogniser import Recogniser
from speechtune.decoding.streaming.streaming_config import StreamingConfig
from speechtune.decoding.streaming.voice import SileroStream, VoiceDetector, spans_within

Timer = Callable[[Samples, str], list[TimedWord]]
_BEFORE_SPEECH_S = 2.0
"""Silence that is kept: the detector may notice late that a word has begun (own choice)."""
_LEAST_SPEECH_S = 0.1
"""What is left of a span behind final audio is speech from this length on."""
_EARLIEST_CUT, _LATEST_CUT_S = 0.4, 1.0
"""A full buffer is cut behind this share of it and so long before its end, where words are not yet whole."""


@dataclass(frozen=True, slots=True)
class Committed:
    """A word that is final; ``at_s``: when it was committed, ``heard_s``: the audio that had arrived by then."""

    text: str
    at_s: float
    heard_s: float


@dataclass(frozen=True, slots=True)
class Segment:
    """Speech between two pauses (or cuts), finished; ``times``: of its words, from the beginning of the stream."""

    start_s: float
    end_s: float
    text: str
    words: list[Committed]
    times: list[TimedWord]


@dataclass(frozen=True, slots=True)
class Update:
    """What one decoding changed.

    ``committed`` are the new final words, ``tentative`` is the text shown behind all final ones; its first ``agreed``
    words are those that drafts agree on but a second pass may change. ``segment`` is one that ended.
    """

    kind: Literal["draft", "final"]
    at_s: float
    heard_s: float
    committed: list[Committed]
    tentative: list[str]
    agreed: int = 0
    segment: Segment | None = None


@dataclass(slots=True)
class _Open:
    """The segment that is being spoken: where its audio begins (in samples), and its words that are committed."""

    begin: int
    start: int
    known: list[Committed] = field(default_factory=list)
    tail: list[str] = field(default_factory=list)
    drafted: int = 0


class StreamingTranscriber:
    """One stream of audio.

    Args:
        recogniser: makes the drafts, and without a ``refiner`` the final texts.
        config: ``decoding.streaming``.
        clock: what computing costs; none by default.
        refiner: decodes finished speech anew; with it, nothing is committed before.
        timer: times of the words of a waveform, for the segments.
        voice: the voice detector.

    Raises:
        InputError: the buffer is longer than the model's window, or the detector's package is missing.
    """

    def __init__(
        self,
        recogniser: Recogniser,
        config: StreamingConfig,
        *,
        clock: Clock | None = None,
        refiner: Recogniser | None = None,
        timer: Timer | None = None,
        voice: VoiceDetector | None = None,
    ) -> None:
        longest_s = min(one.longest_s for one in (recogniser, refiner or recogniser))
        if config.max_buffer_s > longest_s:
            raise InputError(
                f"decoding.streaming.max_buffer_s is {config.max_buffer_s:g} and the model's window {longest_s:g} s: "
                f"set it to {longest_s:g} at most"
            )
        self.recogniser, self.refiner, self.config, self.timer = recogniser, refiner, config, timer
        self.unspaced = recogniser.unspaced
        self.clock = clock or instant()
        self.voice = voice or SileroStream()
        self.committed: list[Committed] = []
        self.segments = 0
        self.longest_buffer_s = 0.0
        self._updates: list[Update] = []
        self._agreement = LocalAgreement(config.agreement)
        self._incoming: Samples = np.zeros(0, np.float32)
        self._buffer: Samples = np.zeros(0, np.float32)
        self._probabilities: np.ndarray = np.zeros(0, np.float32)
        self._start = 0  # of the buffer, in samples, a whole number of the detector's frames
        self._position = 0
        self._done = 0  # audio before it is final
        self._open: _Open | None = None
        self._finished = False
        self._next = self._samples(config.listen_s)

    @staticmethod
    def _samples(seconds: float) -> int:
        return round(seconds * SAMPLE_RATE_HZ)

    @property
    def text(self) -> str:
        """Everything that is committed."""
        return joined([one.text for one in self.committed], self.unspaced)

    @property
    def tentative(self) -> list[str]:
        """The words behind it that may change."""
        return list(self._open.tail) if self._open else []

    @property
    def heard_s(self) -> float:
        """Audio that has been listened to."""
        return self._position / SAMPLE_RATE_HZ

    @property
    def buffered_s(self) -> float:
        """Audio that is held for decoding; at most ``max_buffer_s``."""
        return len(self._buffer) / SAMPLE_RATE_HZ

    def feed(self, samples: Samples) -> list[Update]:
        """Take more audio, mono at 16 kHz, shape (samples,), of any length; what it changed, in order.

        Raises:
            ValueError: the stream is finished, or the samples are not finite or of another shape.
        """
        if self._finished:
            raise ValueError("the stream is finished: begin another one")
        samples = np.asarray(samples, np.float32)
        if samples.ndim != 1 or not np.isfinite(samples).all():
            raise ValueError(f"needs finite samples of shape (samples,), got shape {samples.shape}")
        self._incoming = np.concatenate([self._incoming, samples])
        self._advance()
        return self._told()

    def finish(self) -> list[Update]:
        """The audio has ended: decode and commit what is left; the second call does nothing.

        It also works where an interrupt has broken off `feed`: what that had not told yet is told now.
        """
        if self._finished:
            return []
        self._advance()
        self._listen(len(self._incoming), last=True)
        self._finished = True
        self._buffer = self._buffer[:0]
        return self._told()

    def _told(self) -> list[Update]:
        updates, self._updates = self._updates, []
        return updates

    def _advance(self) -> None:
        """Look at the audio wherever it is time."""
        self._next = max(self._next, self._position + 1)  # an interrupt may have come in between
        while self._position + len(self._incoming) >= self._next:
            self._listen(self._next - self._position)

    def _listen(self, count: int, last: bool = False) -> None:
        """Take ``count`` samples and act on what is in the buffer then."""
        began_s = time.perf_counter()
        self._buffer = np.concatenate([self._buffer, self._incoming[:count]])
        self._incoming = self._incoming[count:]
        self._position += count
        self.longest_buffer_s = max(self.longest_buffer_s, self.buffered_s)
        new = self._buffer[len(self._probabilities) * FRAME_SAMPLES :]
        heard = self.voice.hear(new[: len(new) // FRAME_SAMPLES * FRAME_SAMPLES])
        self._probabilities = np.concatenate([self._probabilities, heard])
        spans = self._spans()
        self.clock.after(self.heard_s, 0.0, time.perf_counter() - began_s)
        while spans:
            group = self._first_group(spans, last)
            if group is None:
                self._ongoing(spans)
                break
            self._end(*group)
            spans = [span for span in spans if span[0] >= group[1]]
        if not spans and self._open is not None:  # the detector has changed its mind
            self._end(self._open.start, self._position)
        if self._open is None:
            self._forget(max(self._done, self._position - self._samples(_BEFORE_SPEECH_S)))
        limit = self._start + self._samples(self.config.max_buffer_s)
        wanted = max(self._position + self._samples(self.config.listen_s), self._samples(self.clock.arrived_s()))
        self._next = max(self._position + 1, min(wanted, limit))

    def _spans(self) -> list[Span]:
        """Speech in the buffer that is not final yet, in samples of the stream."""
        floor = self._open.start if self._open else self._done
        found = [(a + self._start, b + self._start) for a, b in spans_within(self._buffer, self._probabilities)]
        kept = [(max(a, floor), b) for a, b in found]
        return [span for span in kept if span[1] - span[0] >= self._samples(_LEAST_SPEECH_S)]

    def _first_group(self, spans: list[Span], last: bool) -> Span | None:
        """The first stretch of speech, if the pause that ends it is long enough; none while it may go on."""
        pause = self._samples(self.config.pause_s)
        start, end = spans[0]
        for following in spans[1:]:
            if following[0] - end >= pause:
                return start, end
            end = following[1]
        return (start, end) if last or self._position - end >= pause else None

    def _ongoing(self, spans: list[Span]) -> None:
        """Somebody is speaking: cut where the buffer is full, and draft where it is time."""
        segment = self._opened(spans[0][0])
        if self._position - self._start >= self._samples(self.config.max_buffer_s):
            self._forget(segment.begin)
            if self._position - self._start >= self._samples(self.config.max_buffer_s) - FRAME_SAMPLES:
                self._cut()
                segment = self._open or segment
        since = max(segment.drafted, segment.begin)
        told = segment.drafted >= spans[-1][1] + self._samples(self.config.margin_s)  # nothing was said since
        if self._position - since >= self._samples(self.config.step_s) and not told:
            self._draft(segment)

    def _opened(self, start: int) -> _Open:
        if self._open is None:
            begin = max(self._start, self._done, start - self._samples(self.config.margin_s))
            self._open = _Open(begin, start)
            self._agreement.restart()
        return self._open

    def _audio(self, begin: int, end: int) -> Samples:
        return self._buffer[begin - self._start : end - self._start]

    def _words(self, audio: Samples, given: list[str], draft: bool, again: bool = False) -> tuple[list[str], bool]:
        """Decode; with ``again`` by the refiner, where there is one."""
        model = self.refiner if again and self.refiner is not None else self.recogniser
        wanted = self.config.prompt_words
        known = len(self._open.known) if self._open else 0
        earlier = self.committed[: len(self.committed) - known]
        prompt = joined([one.text for one in earlier[-wanted:]], self.unspaced) if wanted else ""
        found = model.recognise(audio, given, prompt, draft)
        return found.units, found.looping

    def _draft(self, segment: _Open) -> None:
        began_s = time.perf_counter()
        audio = self._audio(segment.begin, self._position)
        given = [one.text for one in segment.known]
        heard, looping = self._words(audio, given, draft=True)
        segment.drafted = self._position
        agreed = 0
        if not looping:
            segment.tail = follows(given, heard)
            agreed = len(self._agreement.agreed(segment.tail))
        at_s = self.clock.after(self.heard_s, len(audio) / SAMPLE_RATE_HZ, time.perf_counter() - began_s)
        new: list[Committed] = []
        if agreed and self.refiner is None:
            new = self._commit(segment.tail[:agreed], at_s)
            segment.known += new
            self._agreement.commit(agreed)
            segment.tail, agreed = segment.tail[agreed:], 0
        self._updates.append(Update("draft", at_s, self.heard_s, new, list(segment.tail), agreed))

    def _end(self, start: int, end: int) -> None:
        """A pause: decode the segment as well as possible and commit it."""
        began_s = time.perf_counter()
        segment = self._opened(start)
        stop = min(self._position, end + self._samples(min(self.config.margin_s, self.config.pause_s / 2)))
        audio = self._audio(segment.begin, stop)
        given = [one.text for one in segment.known]
        tail = follows(given, self._words(audio, given, draft=False, again=True)[0])
        at_s = self.clock.after(self.heard_s, len(audio) / SAMPLE_RATE_HZ, time.perf_counter() - began_s)
        new = self._commit(tail, at_s)
        ended = self._segment(segment, stop, [*segment.known, *new])
        self._open = None
        self._done = stop
        self._forget(stop)
        self._updates.append(Update("final", at_s, self.heard_s, new, [], segment=ended))

    def _cut(self) -> None:
        """The buffer is full: the part before its most silent place becomes a segment, the rest goes on.

        Which committed words are of the part is found by decoding it by itself: no word times are needed.
        """
        assert self._open is not None
        began_s = time.perf_counter()
        segment = self._open
        whole = self._audio(segment.begin, self._position)
        first, last = round(_EARLIEST_CUT * len(whole)), len(whole) - self._samples(_LATEST_CUT_S)
        place = lowest_point(frame_energy_db(whole), first, max(first + 1, last))
        known = [one.text for one in segment.known]
        heard, _ = self._words(whole[:place], [], draft=False, again=True)
        mine, theirs = joint(known, heard)
        at_s = self.clock.after(self.heard_s, place / SAMPLE_RATE_HZ, time.perf_counter() - began_s)
        new = self._commit(heard[theirs:], at_s) if mine == len(known) else []
        middle = segment.begin + place
        ended = self._segment(segment, middle, [*segment.known[:mine], *new])
        tail = follows([one.text for one in new], segment.tail)
        self._open = _Open(middle, middle, segment.known[mine:], tail, segment.drafted)
        self._agreement.restart()
        self._done = middle
        self._forget(middle)
        self._updates.append(Update("final", at_s, self.heard_s, new, self.tentative, segment=ended))

    def _commit(self, words: list[str], at_s: float) -> list[Committed]:
        new = [Committed(word, at_s, self.heard_s) for word in words]
        self.committed += new
        return new

    def _segment(self, segment: _Open, stop: int, words: list[Committed]) -> Segment:
        """What a finished segment is, with times if they are wanted; called before its audio is forgotten."""
        text = joined([one.text for one in words], self.unspaced)
        start_s = segment.begin / SAMPLE_RATE_HZ
        times: list[TimedWord] = []
        if self.timer is not None and text:
            found = self.timer(self._audio(segment.begin, stop), text)
            times = [TimedWord(one.text, one.start_s + start_s, one.end_s + start_s, one.confidence) for one in found]
        self.segments += 1
        return Segment(start_s, stop / SAMPLE_RATE_HZ, text, words, times)

    def _forget(self, before: int) -> None:
        """Let go of the audio before a place, in whole frames of the detector."""
        frames = min((before - self._start) // FRAME_SAMPLES, len(self._probabilities))
        if frames > 0:
            self._buffer = self._buffer[frames * FRAME_SAMPLES :].copy()
            self._probabilities = self._probabilities[frames:]
            self._start += frames * FRAME_SAMPLES
