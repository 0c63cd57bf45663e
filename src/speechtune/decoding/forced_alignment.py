"""Aligners: where every word of a known transcript is spoken, in recordings of any length.

`WhisperAligner` works with any Whisper model: short audio by the decoder's cross-attention (`word_times`), long audio
window by window after the words have been shared out (`anchoring`). `CtcAligner` (`ctc_alignment`) works with any
Transformers CTC model. `open_aligner` makes either from a model's name.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.progress import Bar
from speechtune.corpus.segmentation.cuts import (
    SAMPLE_RATE_HZ,
    Span,
    frame_energy_db,
    snap_to_silence,
    split_long,
)
from speechtune.corpus.segmentation.pieces import Aligner, Detector, TimedWord, find_speech
from speechtune.decoding.anchoring import anchor_windows, boundary_choices, place_boundaries

if TYPE_CHECKING:
    from speechtune.decoding.word_times import Encoded, WhisperTimer
    from speechtune.models.config import Context
    from speechtune.models.whisper import WhisperFamily

_WINDOW_S = 20.0
_THRESHOLD = 0.3
"""Of the speech detector: a quiet voice that it misses has no window, noise that it takes for speech costs little."""
_LONGEST_PAUSE_S = 5.0
_EDGE_PAUSE_S = 0.2
_EDGE_REACH_S = 7.0
_TOKENS_PER_S = 8.0
_BATCH = 8


@dataclass(frozen=True, slots=True)
class Window:
    """A part of a recording, in samples; ``speech_s`` of it is speech; ``soft`` if its end may lie inside a word."""

    start: int
    end: int
    speech_s: float
    soft: bool


def plan_windows(waveform: np.ndarray, speech: Sequence[Span], longest_s: float = _WINDOW_S) -> list[Window]:
    """Windows of at most ``longest_s``, cut at the longest pauses; pauses over 5 s are left out between them.

    Args:
        waveform: float32 mono at 16 kHz.
        speech: speech regions in samples, in order.
        longest_s: upper bound; a window ends at the longest pause in its second half.
    """
    energy_db = frame_energy_db(waveform)
    longest = round(longest_s * SAMPLE_RATE_HZ)
    parts = [part for span in speech for part in split_long(span, energy_db, longest)]
    groups: list[list[Span]] = []
    index = 0
    while index < len(parts):
        last = index
        while (
            last + 1 < len(parts)
            and parts[last + 1][1] - parts[index][0] <= longest
            and parts[last + 1][0] - parts[last][1] <= _LONGEST_PAUSE_S * SAMPLE_RATE_HZ
        ):
            last += 1
        follows = last + 1 < len(parts) and parts[last + 1][0] - parts[last][1] <= _LONGEST_PAUSE_S * SAMPLE_RATE_HZ
        if follows:
            half = [i for i in range(index, last + 1) if parts[i][1] - parts[index][0] >= longest // 2] or [last]
            last = max(half, key=lambda i: parts[i + 1][0] - parts[i][1])
        groups.append(parts[index : last + 1])
        index = last + 1
    margin = round(0.5 * SAMPLE_RATE_HZ)
    windows = []
    for number, group in enumerate(groups):
        left = groups[number - 1][-1][1] if number else 0
        right = groups[number + 1][0][0] if number + 1 < len(groups) else len(waveform)
        start = max(group[0][0] - margin, (left + group[0][0] + 1) // 2 if number else 0)
        end = min(group[-1][1] + margin, (group[-1][1] + right) // 2 if number + 1 < len(groups) else right)
        spoken = sum(b - a for a, b in group) / SAMPLE_RATE_HZ
        soft = number + 1 < len(groups) and right - group[-1][1] < _EDGE_PAUSE_S * SAMPLE_RATE_HZ
        windows.append(Window(start, end, spoken, soft))
    return windows


def spelled_for_model(words: Sequence[str]) -> list[str]:
    """Lower case for a text that has none: recognisers find words in capitals improbable."""
    if any(letter.islower() for word in words for letter in word):
        return list(words)
    return [word.lower() for word in words]


class WhisperAligner:
    """An `Aligner` over one Whisper model.

    Args:
        family: the loaded model; a multilingual one with any language it knows.
        context: the audio context the model was trained for (``full`` for OpenAI's).
        language: of utterances that name none; without it a multilingual model refuses those.
        max_window_s: windows of long recordings; at most what the model takes, less the margins.
        detector: what finds the pauses in which those windows end.
    """

    def __init__(
        self,
        family: WhisperFamily,
        context: Context = "full",
        language: str | None = None,
        max_window_s: float = _WINDOW_S,
        detector: Detector = "silero",
    ) -> None:
        self.family = family
        self.context = context
        self.language = language
        self.detector = detector
        self.max_window_s = min(max_window_s, family.limits.max_audio_s - 1.0)
        self._timers: dict[str | None, WhisperTimer] = {}

    def align(self, waveform: np.ndarray, text: str, language: str | None) -> list[TimedWord]:
        """See `Aligner.align`; the whole text of audio that fits the model's window is taken at its word.

        Raises:
            InputError: the model does not know the language, the recording has no speech, or the text has more words
                than the audio can hold.
        """
        words = text.split()
        if not words:
            return []
        self.family.model.eval()
        timer = self._timer(language)
        spelled = spelled_for_model(words)
        if len(waveform) <= self.family.limits.max_audio_s * SAMPLE_RATE_HZ:
            try:
                timed = timer.times(timer.encode(waveform), spelled)
            except ValueError as error:
                raise _too_many(len(words), len(waveform)) from error
        else:
            timed = self._align_long(timer, waveform, spelled)
        timed = snap_to_silence(timed, waveform)
        return [TimedWord(word, one.start_s, one.end_s, one.confidence) for word, one in zip(words, timed, strict=True)]

    def _timer(self, language: str | None) -> WhisperTimer:
        from speechtune.decoding.word_times import WhisperTimer
        from speechtune.models.whisper import WhisperFamily

        name = language or self.language
        if name not in self._timers:
            own = WhisperFamily(self.family.model, self.family.tokenizer, name)  # type: ignore[arg-type]
            self._timers[name] = WhisperTimer(own, self.context)
        return self._timers[name]

    def _align_long(self, timer: WhisperTimer, waveform: np.ndarray, words: list[str]) -> list[TimedWord]:
        windows = plan_windows(waveform, find_speech(waveform, self.detector, _THRESHOLD), self.max_window_s)
        if not windows:
            raise InputError("a transcribed recording has no speech in it: check that text and audio belong together")
        with Bar("align", 3 * len(windows)) as bar:
            hypotheses = self._hear(timer, waveform, windows, bar)
            anchors = anchor_windows(words, hypotheses)
            choices = boundary_choices(anchors, [window.speech_s for window in windows])
            scorer = _WindowScores(timer, waveform, windows, words, choices, bar)
            try:
                bounds = place_boundaries(choices, scorer)
            except ValueError as error:
                raise _too_many(len(words), len(waveform)) from error
            timed: list[TimedWord] = []
            for number, window in enumerate(windows):
                inside = words[bounds[number] : bounds[number + 1]]
                timed += _shifted(timer.times(scorer.encoded(number), inside), window.start)
                bar.advance()
        for number, window in enumerate(windows):
            if window.soft:
                _repair_edge(timer, waveform, timed, window.end / SAMPLE_RATE_HZ, bounds[number + 1])
        return timed

    def _hear(self, timer: WhisperTimer, waveform: np.ndarray, windows: list[Window], bar: Bar) -> list[str]:
        """What the model hears in every window, greedily, without its loops."""
        texts = []
        for first in range(0, len(windows), _BATCH):
            batch = windows[first : first + _BATCH]
            clips = [waveform[window.start : window.end] for window in batch]
            longest_s = max(map(len, clips)) / SAMPLE_RATE_HZ
            n_frames = timer.family.context_frames(longest_s + 0.2, self.context)
            found = timer.family.generate(clips, n_frames, int(10 + _TOKENS_PER_S * longest_s))
            texts += [without_loops(one.text) for one in found]
            for _ in batch:
                bar.advance()
        return texts


class _WindowScores:
    """`anchoring.Score` over the windows of one recording; encodes each window once, scores all its starts together."""

    def __init__(
        self,
        timer: WhisperTimer,
        waveform: np.ndarray,
        windows: Sequence[Window],
        words: list[str],
        choices: Sequence[range],
        bar: Bar,
    ) -> None:
        self.timer, self.waveform, self.windows, self.words = timer, waveform, windows, words
        self.choices, self.bar = choices, bar
        self._encoded: dict[int, Encoded] = {}
        self._found: dict[tuple[int, int], np.ndarray] = {}

    def encoded(self, number: int) -> Encoded:
        """The encoder's output for a window."""
        if number not in self._encoded:
            window = self.windows[number]
            self._encoded[number] = self.timer.encode(self.waveform[window.start : window.end])
            self.bar.advance()
        return self._encoded[number]

    def __call__(self, window: int, first: int, last: int) -> np.ndarray:
        """See `anchoring.Score`."""
        have = self._found.get((window, first))
        if have is None or len(have) < last - first + 1:
            starts = {first, *(one for one in self.choices[window] if one <= last)}
            wanted = [one for one in sorted(starts) if len(self._found.get((window, one), ())) < last - one + 1]
            rows = self.timer.prefix_scores(self.encoded(window), [self.words[one:last] for one in wanted])
            for start, row in zip(wanted, rows, strict=True):
                self._found[window, start] = row
            have = self._found[window, first]
        return have


def without_loops(text: str, most: int = 3) -> str:
    """The text with anything repeated more than ``most`` times in a row (phrases of up to 8 words) cut to ``most``."""
    words = text.split()
    for size in range(1, 9):
        kept: list[str] = []
        for word in words:
            kept.append(word)
            tail = kept[-size * (most + 1) :]
            if len(tail) == size * (most + 1) and tail == tail[:size] * (most + 1):
                del kept[-size:]
        words = kept
    return " ".join(words)


def _shifted(words: Sequence[TimedWord], start: int) -> list[TimedWord]:
    by = start / SAMPLE_RATE_HZ
    return [TimedWord(word.text, word.start_s + by, word.end_s + by, word.confidence) for word in words]


def _repair_edge(timer: WhisperTimer, waveform: np.ndarray, timed: list[TimedWord], edge_s: float, middle: int) -> None:
    """Locate the words around a window's edge anew in a window that has the edge in its middle; in place."""
    first = last = middle
    while first > 0 and timed[first - 1].start_s > edge_s - _EDGE_REACH_S:
        first -= 1
    while last < len(timed) and timed[last].end_s < edge_s + _EDGE_REACH_S:
        last += 1
    if last - first < 2:
        return
    start = round(timed[first].start_s * SAMPLE_RATE_HZ)
    end = min(len(waveform), round(timed[last - 1].end_s * SAMPLE_RATE_HZ))
    if end - start < SAMPLE_RATE_HZ // 2:
        return
    try:
        again = timer.times(timer.encode(waveform[start:end]), [word.text for word in timed[first:last]])
    except ValueError:
        return
    timed[first:last] = _shifted(again, start)


def _too_many(words: int, length: int) -> InputError:
    return InputError(
        f"a transcript of {words} words does not fit a recording of {length / SAMPLE_RATE_HZ:.1f} s: "
        "check that text and audio belong together"
    )


def open_aligner(name: str, *, language: str | None = None, detector: Detector = "silero") -> Aligner:
    """An aligner over a catalogue name, ``hf:owner/name``, a run or a model directory.

    Args:
        name: a Whisper model, or a Transformers CTC model (wav2vec 2.0, HuBERT, WavLM, Parakeet-CTC, ...).
        language: for a multilingual Whisper; the language of an utterance, where it has one, comes first.
        detector: what finds the pauses at which long audio is cut into windows.

    Raises:
        InputError: no such model, or neither of the two kinds.
    """
    from speechtune.models.obtaining import resolve_model

    path = Path(name) / "model" if (Path(name) / "recipe.yaml").is_file() else resolve_model(name)
    config: dict[str, Any] = {}
    if (path / "config.json").is_file():
        config = json.loads((path / "config.json").read_text(encoding="utf-8"))
    if any(str(one).endswith("ForCTC") for one in config.get("architectures") or []):
        from speechtune.decoding.ctc_alignment import CtcAligner

        return CtcAligner.load(path)
    if config.get("model_type") != "whisper":
        raise InputError(f"{name} cannot align: give a Whisper model, or a Transformers model that ends in ForCTC")
    from speechtune.decoding.sources import open_model, trained_for

    known = language or trained_for(path).get("language")
    opened = open_model(name, language=known or "en")
    return WhisperAligner(opened.family, opened.decoding.context, known, detector=detector)  # type: ignore[arg-type]
