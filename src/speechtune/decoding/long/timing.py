"""Times of the words of a text that a model has just found, by the same model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from speechtune.audio.io import SAMPLE_RATE_HZ
from speechtune.core.errors import InputError
from speechtune.corpus.segmentation.cuts import TimedWord, snap_to_silence
from speechtune.models.config import Context
from speechtune.models.family import Family


class WordTimer:
    """Locates words within a waveform of at most the model's window: cross-attention for Whisper, CTC's path for CTC.

    Raises:
        InputError: a family that shows no times.
    """

    def __init__(self, family: Family, context: Context) -> None:
        self._aligner: Any = None
        known: Any = family
        if is_single_whisper(family):
            from speechtune.decoding.word_times import WhisperTimer

            self._aligner = WhisperTimer(known, context)
            self._whisper = True
        elif getattr(family, "vocabulary", None) is not None:
            from speechtune.decoding.ctc_alignment import CtcAligner

            tokenizer = known.vocabulary.tokenizer
            vocabulary = tokenizer.get_vocab()
            delimiter = vocabulary.get(getattr(tokenizer, "word_delimiter_token", None) or "|")
            self._aligner = CtcAligner(
                family.model, known.extractor, vocabulary, int(tokenizer.pad_token_id), delimiter
            )
            self._whisper = False
        else:
            raise InputError(
                f"a {family.name} model shows no word times here: use decoding.long=vad without long_form.words, or "
                "the model it was made from"
            )

    def times(self, waveform: np.ndarray, text: str) -> list[TimedWord]:
        """Every white-space word of ``text`` with seconds from the waveform's beginning.

        Where the text cannot be aligned (more words than the audio can hold), its words share the time evenly, with
        confidence 0.
        """
        words = text.split()
        if not words or not len(waveform):
            return []
        try:
            if self._whisper:
                return snap_to_silence(self._aligner.times(self._aligner.encode(waveform), words), waveform)
            return list(self._aligner.align(waveform, text, None))
        except (ValueError, InputError):
            return spread(words, 0.0, len(waveform) / SAMPLE_RATE_HZ)


def is_single_whisper(family: Family) -> bool:
    """Whether it is one Whisper model in torch, whose attentions can be looked at; an ensemble has several."""
    from speechtune.models.whisper import WhisperFamily

    return type(family) is WhisperFamily


def can_time(family: Family) -> bool:
    """Whether a `WordTimer` can be made for it."""
    return is_single_whisper(family) or getattr(family, "vocabulary", None) is not None


def spread(words: Sequence[str], start_s: float, end_s: float) -> list[TimedWord]:
    """Words over a stretch of time in proportion to their letters, confidence 0."""
    edges = np.cumsum([0, *(len(word) + 1 for word in words)]) / max(sum(len(word) + 1 for word in words), 1)
    at_s = start_s + edges * (end_s - start_s)
    return [TimedWord(word, float(a), float(b), 0.0) for word, a, b in zip(words, at_s, at_s[1:], strict=False)]


def word_rows(words: Sequence[TimedWord], offset_s: float = 0.0) -> list[dict[str, Any]]:
    """Words as rows of a transcript's segment."""
    return [
        {
            "word": one.text,
            "start_s": round(offset_s + one.start_s, 3),
            "end_s": round(offset_s + one.end_s, 3),
            "confidence": round(one.confidence, 4),
        }
        for one in words
    ]
