"""Forced alignment over CTC log-probabilities: the exact Viterbi path, and an aligner over Transformers' CTC models.

CTC: Graves et al. 2006 (ICML). The path is exact and its memory bounded: states are kept at every k-th frame and the
stretch between two of them is computed again on the way back (k about the square root of the frames).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.progress import Bar
from speechtune.corpus.segmentation.cuts import SAMPLE_RATE_HZ, snap_to_silence
from speechtune.corpus.segmentation.pieces import TimedWord

_CHUNK_S = 20.0
_CONTEXT_S = 2.0


@dataclass(frozen=True, slots=True)
class CtcPath:
    """The most probable path.

    ``frames`` (frames,): index into the tokens that each frame emits, -1 for blank. ``log_prob``: natural log of the
    path's probability. ``starts``, ``ends`` (tokens,): first frame of each token and one past its last.
    ``token_log_prob`` (tokens,): mean log-probability over its frames.
    """

    frames: np.ndarray
    log_prob: float
    starts: np.ndarray
    ends: np.ndarray
    token_log_prob: np.ndarray


def ctc_align(log_probs: np.ndarray, tokens: Sequence[int], blank: int) -> CtcPath:
    """The most probable CTC path that says exactly ``tokens``.

    Args:
        log_probs: natural-log probabilities, shape (frames, vocabulary).
        tokens: ids to be said in order, none of them blank; equal neighbours have a blank between them.
        blank: the blank's id.

    Raises:
        ValueError: a token is blank or out of range, or the frames are too few (one for every token and one for every
            pair of equal neighbours).
    """
    frames, vocabulary = log_probs.shape
    said = np.asarray(tokens, np.int64)
    if len(said) and ((said == blank).any() or said.min() < 0 or said.max() >= vocabulary):
        raise ValueError("a token is the blank or outside the vocabulary")
    needed = len(said) + int((said[1:] == said[:-1]).sum())
    if frames < needed:
        raise ValueError(f"{len(said)} tokens need {needed} frames, and there are {frames}")
    states = np.full(2 * len(said) + 1, blank, np.int64)
    states[1::2] = said
    may_skip = np.zeros(len(states), bool)
    may_skip[3::2] = said[1:] != said[:-1]
    log_prob, path = _viterbi(log_probs, states, may_skip)
    emitted = np.where(path % 2 == 1, path // 2, -1)
    starts, ends = np.zeros(len(said), np.int64), np.zeros(len(said), np.int64)
    means = np.zeros(len(said))
    spoken = np.flatnonzero(emitted >= 0)
    if len(said):
        owner = emitted[spoken]
        firsts = np.searchsorted(owner, np.arange(len(said)), "left")
        lasts = np.searchsorted(owner, np.arange(len(said)), "right")
        starts, ends = spoken[firsts], spoken[lasts - 1] + 1
        values = log_probs[spoken, said[owner]]
        means = np.bincount(owner, values, len(said)) / (lasts - firsts)
    return CtcPath(emitted, log_prob, starts, ends, means)


def _viterbi(log_probs: np.ndarray, states: np.ndarray, may_skip: np.ndarray) -> tuple[float, np.ndarray]:
    """The path's log-probability and the state of every frame."""
    frames = len(log_probs)
    if frames == 0:
        return 0.0, np.zeros(0, np.int64)
    block = max(1, math.isqrt(frames))
    skip = np.where(may_skip, 0.0, -np.inf)
    current = np.full(len(states) + 2, -np.inf)
    current[2:4] = log_probs[0, states[:2]]
    kept = {0: current}
    for frame in range(1, frames):
        current = _step(current, log_probs[frame, states], skip)
        if frame % block == 0:
            kept[frame] = current
    path = np.empty(frames, np.int64)
    path[-1] = len(states) - (1 if len(states) == 1 or current[-1] >= current[-2] else 2)
    moves = np.empty((block, len(states)), np.uint8)
    for first in sorted(kept, reverse=True):
        stop = min(first + block, frames - 1)
        current = kept[first]
        for frame in range(first + 1, stop + 1):
            current = _step(current, log_probs[frame, states], skip, moves[frame - first - 1])
        for frame in range(stop, first, -1):
            path[frame - 1] = path[frame] - moves[frame - first - 1][path[frame]]
    return float(log_probs[np.arange(frames), states[path]].sum()), path


def _step(before: np.ndarray, emit: np.ndarray, skip: np.ndarray, moves: np.ndarray | None = None) -> np.ndarray:
    """One frame: the best score of every state; ``moves`` receives how many states back it came from (0, 1 or 2).

    ``before`` and the result have two more entries in front, minus infinity; ``skip`` is 0 where two states may be
    passed at once and minus infinity elsewhere.
    """
    after = np.full(len(before), -np.inf)
    best = np.maximum(before[2:], before[1:-1])
    jump = before[:-2] + skip
    if moves is not None:
        np.greater(before[1:-1], before[2:], out=moves, casting="unsafe")
        np.putmask(moves, jump > best, 2)
    np.maximum(best, jump, out=best)
    np.add(best, emit, out=after[2:])
    return after


class CtcAligner:
    """An `Aligner` over a Transformers CTC model with a character vocabulary (wav2vec 2.0, HuBERT, MMS, ...).

    Args:
        model: the loaded model, in evaluation mode.
        extractor: its feature extractor.
        vocabulary: token ids by character (or longer unit; only single characters are used).
        blank: the id of its blank.
        delimiter: the id of the mark between words, if the vocabulary has one.
    """

    def __init__(
        self, model: Any, extractor: Any, vocabulary: dict[str, int], blank: int, delimiter: int | None
    ) -> None:
        self.model, self.extractor = model, extractor
        self.vocabulary, self.blank, self.delimiter = vocabulary, blank, delimiter

    @classmethod
    def load(cls, path: Path) -> CtcAligner:
        """Load a model directory that has a tokenizer and a feature extractor.

        Raises:
            InputError: a part of it is missing or does not load.
        """
        try:
            import torch
            from transformers import AutoFeatureExtractor, AutoModelForCTC, AutoTokenizer
        except ImportError as error:
            from speechtune.core.errors import missing_extra

            raise missing_extra("transformers", "train") from error
        from speechtune.models.family import pick_device

        try:
            model = AutoModelForCTC.from_pretrained(path, dtype=torch.float32, local_files_only=True)
            tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
            extractor = AutoFeatureExtractor.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} does not load as a CTC model ({str(error).splitlines()[0]})") from error
        vocabulary = tokenizer.get_vocab()
        delimiter = vocabulary.get(getattr(tokenizer, "word_delimiter_token", None) or "|")
        return cls(model.eval().to(pick_device()), extractor, vocabulary, int(tokenizer.pad_token_id), delimiter)

    def align(self, waveform: np.ndarray, text: str, language: str | None) -> list[TimedWord]:
        """See `Aligner.align`. A word without a letter of the vocabulary is put between its neighbours, confidence 0.

        Raises:
            InputError: the text has more letters than the recording can hold.
        """
        words = text.split()
        if not words:
            return []
        tokens, owner = self.encode(words)
        log_probs, frame_s = self.log_probs(waveform)
        try:
            path = ctc_align(log_probs, tokens, self.blank)
        except ValueError as error:
            raise InputError(
                f"a transcript of {len(words)} words does not fit a recording of "
                f"{len(waveform) / SAMPLE_RATE_HZ:.1f} s ({error}): check that text and audio belong together"
            ) from error
        return snap_to_silence(_words_of(words, owner, path, frame_s), waveform)

    def encode(self, words: Sequence[str]) -> tuple[list[int], list[int]]:
        """Token ids of the text with delimiters, and the word each belongs to (-1: a delimiter)."""
        tokens: list[int] = []
        owner: list[int] = []
        for index, word in enumerate(words):
            ids = [found for letter in word if (found := self._letter(letter)) is not None]
            if ids and tokens and self.delimiter is not None:
                tokens.append(self.delimiter)
                owner.append(-1)
            tokens += ids
            owner += [index] * len(ids)
        return tokens, owner

    def _letter(self, letter: str) -> int | None:
        for form in (letter, letter.upper(), letter.lower()):
            found = self.vocabulary.get(form)
            if found is not None and found not in (self.blank, self.delimiter):
                return found
        return None

    def log_probs(self, waveform: np.ndarray) -> tuple[np.ndarray, float]:
        """Log-probabilities of the whole recording, shape (frames, vocabulary), and the seconds a frame stands for.

        The model sees 20 s at a time with 2 s of context on both sides.
        """
        import torch

        device = next(self.model.parameters()).device
        chunk, context = round(_CHUNK_S * SAMPLE_RATE_HZ), round(_CONTEXT_S * SAMPLE_RATE_HZ)
        parts = []
        starts = range(0, max(len(waveform), 1), chunk)
        with Bar("align", len(starts)) as bar, torch.inference_mode():
            for start in starts:
                low, high = max(0, start - context), min(len(waveform), start + chunk + context)
                clip = waveform[low:high]
                if len(clip) < context:
                    clip = np.pad(clip, (0, context - len(clip)))
                inputs = self.extractor(clip, sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt").to(device)
                found = self.model(**inputs).logits[0].float().log_softmax(-1).cpu().numpy()
                rate = len(found) / len(clip)
                end = min(start + chunk, len(waveform))
                parts.append(found[round((start - low) * rate) : round((end - low) * rate)])
                bar.advance()
        joined = np.concatenate(parts)
        return joined, len(waveform) / SAMPLE_RATE_HZ / max(len(joined), 1)


def _words_of(words: Sequence[str], owner: Sequence[int], path: CtcPath, frame_s: float) -> list[TimedWord]:
    """Word times from token times; a word without tokens lasts no time after the word before it."""
    tokens_of: dict[int, list[int]] = {}
    for token, index in enumerate(owner):
        tokens_of.setdefault(index, []).append(token)
    result: list[TimedWord] = []
    for index, word in enumerate(words):
        mine = tokens_of.get(index)
        if mine:
            start_s, end_s = path.starts[mine[0]] * frame_s, path.ends[mine[-1]] * frame_s
            sure = float(np.exp(path.token_log_prob[mine].mean()))
        else:
            start_s = end_s = result[-1].end_s if result else 0.0
            sure = 0.0
        result.append(TimedWord(word, float(start_s), float(end_s), sure))
    return result
