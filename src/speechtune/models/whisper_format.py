"""Labels in Whisper's training format: timestamps, previous text, silence, language and task, noisy inputs.

The format is that of Radford et al. 2022 (arXiv 2212.04356, section 2.3 and figure 1); what cannot be read there is
taken from openai/whisper's ``decoding.py`` and ``transcribe.py``, which is what a label has to agree with.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np

from speechtune.core.errors import InputError

IGNORED = -100
"""The label value that no loss is computed for (PyTorch's ``ignore_index``)."""

TIME_STEP_S = 0.02
"""What one timestamp token counts: two mel frames, one position of the encoder."""

TASKS = ("transcribe", "translate")

SEED_LIMIT = 2**31


@dataclass(frozen=True, slots=True)
class Segment:
    """A stretch of speech: its text, and where it begins and ends in the example."""

    text: str
    start_s: float
    end_s: float


@dataclass(frozen=True, slots=True)
class LabelDraw:
    """What was drawn for one label; applying it draws nothing.

    ``previous`` is how many previous utterances are given. A seed of ``None`` switches its part off.
    """

    timestamps: bool = False
    previous: int = 0
    bpe_seed: int | None = None
    noise_seed: int | None = None

    def to_json(self) -> dict[str, Any]:
        """Plain values; ``LabelDraw(**values)`` is the inverse."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LabelText:
    """What a label says: its segments (none with text: nobody speaks), the text before them, language and task."""

    segments: tuple[Segment, ...]
    text: str
    previous: tuple[str, ...] = ()
    language: str | None = None
    task: str = "transcribe"


@dataclass(frozen=True, slots=True)
class WrittenLabel:
    """A label as the decoder sees it.

    ``tokens`` is the whole sequence, of which the first ``prompt_tokens`` are given. ``inputs`` and ``targets`` have
    one entry less: what the decoder is fed, and what it learns at each position (`IGNORED`: nothing).
    """

    tokens: list[int]
    prompt_tokens: int
    inputs: list[int]
    targets: list[int]


class WhisperFormat:
    """Writes labels for one tokenizer.

    Args:
        tokenizer: a `WhisperTokenizer`.
        prompt_of: the prompt of a language (``None``: the model's own) and a task, ending in ``<|notimestamps|>``.
        leading_space: what stands before a text in a language.
        max_tokens: the decoder's positions (448).
        window_s: the longest audio (30).
        vocabulary: how many tokens the model has.

    Attributes:
        bpe_dropout: probability of leaving out a merge, where a draw has a ``bpe_seed``.
        noise_share: share of the inputs that are replaced, where a draw has a ``noise_seed``.
        contrast: teach at the position of ``<|startoftranscript|>`` that somebody speaks, where somebody does.
    """

    def __init__(
        self,
        tokenizer: Any,
        prompt_of: Callable[[str | None, str], list[int]],
        leading_space: Callable[[str | None], str],
        *,
        max_tokens: int,
        window_s: float,
        vocabulary: int,
    ) -> None:
        ids = tokenizer.convert_tokens_to_ids
        self.tokenizer = tokenizer
        self.prompt_of = lru_cache(maxsize=512)(prompt_of)
        self.leading_space = leading_space
        self.no_timestamps = int(ids("<|notimestamps|>"))
        self.first_timestamp = self.no_timestamps + 1
        self.start_of_previous = int(ids("<|startofprev|>"))
        self.no_speech = self.no_timestamps - 1
        self.eot = int(ids("<|endoftext|>"))
        self.max_tokens = max_tokens
        self.last_step = min(round(window_s / TIME_STEP_S), vocabulary - self.first_timestamp - 1)
        self.window_s = window_s
        self.bpe_dropout = 0.0
        self.noise_share = 0.0
        self.contrast = False

    @property
    def max_previous(self) -> int:
        """Most tokens of previous text: 223 of 448, as openai/whisper has it (``n_text_ctx // 2 - 1``)."""
        return self.max_tokens // 2 - 1

    @property
    def max_text(self) -> int:
        """Most tokens that decoding generates for one window: 224 of 448 (openai/whisper's ``sample_len``)."""
        return self.max_tokens // 2

    def require_timestamps(self) -> None:
        """Refuse a model whose vocabulary cannot name every time of its window.

        Raises:
            InputError: it has fewer timestamp tokens.
        """
        if self.last_step * TIME_STEP_S < self.window_s - TIME_STEP_S / 2:
            raise InputError(
                f"this model has timestamp tokens up to {self.last_step * TIME_STEP_S:.2f} s only, for a window of "
                f"{self.window_s:g} s: set training.format.timestamps_share to 0"
            )

    def write(self, label: LabelText, draw: LabelDraw) -> WrittenLabel:
        """The tokens, inputs and targets of a label.

        A label that would not fit the decoder is written without BPE dropout, and if that is not enough without
        timestamps; previous text is cut from the left to what is free.

        Raises:
            InputError: even the plain text does not fit, or the language is not one the model has.
        """
        prompt, body = self._fitting(label, draw)
        start, before = 0, self._previous(label, draw, self.max_tokens - len(prompt) - len(body))
        if before:
            prompt, start = [self.start_of_previous, *before, *prompt], len(before) + 1
        tokens = [*prompt, *body, self.eot]
        targets = [IGNORED] * (len(prompt) - 1) + tokens[len(prompt) :]
        if not label.text.strip():
            targets[start] = self.no_speech
        elif self.contrast:
            targets[start] = tokens[start + 1]
        return WrittenLabel(tokens, len(prompt), self._noisy(tokens[:-1], len(prompt), draw), targets)

    def _fitting(self, label: LabelText, draw: LabelDraw) -> tuple[list[int], list[int]]:
        """The prompt and the body, in the first of three forms that fits."""
        prompt = self.prompt_of(label.language, label.task)
        with_times = [*prompt[:-1]]
        forms: list[tuple[bool, int | None]] = [
            (draw.timestamps, draw.bpe_seed),
            (draw.timestamps, None),
            (False, None),
        ]
        for timestamps, seed in forms:
            body = self._body(label, timestamps, seed)
            head = with_times if timestamps else prompt
            if len(head) + len(body) <= self.max_tokens:
                return list(head), body
        raise InputError(
            f"the text {label.text[:40]!r} has too many tokens ({len(prompt) + len(body)}, the model takes "
            f"{self.max_tokens}): shorten it or set data.unusable=drop"
        )

    def _body(self, label: LabelText, timestamps: bool, bpe_seed: int | None) -> list[int]:
        spoken = [segment for segment in label.segments if segment.text.strip()]
        rng = np.random.default_rng(bpe_seed) if bpe_seed is not None else None
        if not timestamps:
            return self.encode(label.text, label.language, rng) if spoken else []
        if not spoken:
            return [self.first_timestamp]
        body: list[int] = []
        last = 0
        for segment in spoken:
            first = min(max(last, round(segment.start_s / TIME_STEP_S)), self.last_step - 1)
            last = min(max(first + 1, round(segment.end_s / TIME_STEP_S)), self.last_step)
            text = self.encode(segment.text, label.language, rng)
            body += [self.first_timestamp + first, *text, self.first_timestamp + last]
        return body

    def encode(self, text: str, language: str | None = None, rng: np.random.Generator | None = None) -> list[int]:
        """Token ids of a text with the space that Whisper's transcripts begin with; merges drawn where ``rng`` is."""
        spaced = self.leading_space(language) + text.strip()
        if rng is None or self.bpe_dropout == 0:
            return list(self.tokenizer.encode(spaced, add_special_tokens=False))
        return self._merges.encode(spaced, self.bpe_dropout, rng)

    @property
    def _merges(self) -> MergeTable:
        if not hasattr(self, "_table"):
            self._table = MergeTable(self.tokenizer)
        return self._table

    def _previous(self, label: LabelText, draw: LabelDraw, free: int) -> list[int]:
        """The tokens of the last ``draw.previous`` previous texts, cut from the left; ``free`` counts their start."""
        given = label.previous[max(0, len(label.previous) - draw.previous) :]
        texts = [text for text in given if text.strip()]
        room = min(self.max_previous, free - 1)
        tokens = [token for text in texts for token in self.encode(text, label.language)]
        return tokens[-room:] if room > 0 else []

    def _noisy(self, inputs: list[int], prompt_tokens: int, draw: LabelDraw) -> list[int]:
        if draw.noise_seed is None or self.noise_share == 0:
            return inputs
        rng = np.random.default_rng(draw.noise_seed)
        hit = rng.random(len(inputs)) < self.noise_share
        other = rng.integers(0, self.eot, len(inputs))
        return [
            int(other[place]) if place >= prompt_tokens and token < self.eot and hit[place] else token
            for place, token in enumerate(inputs)
        ]


class MergeTable:
    """Byte-pair encoding with merges left out at random (Provilkov et al. 2020, arXiv 1910.13267, algorithm 1).

    The tokenizers library can do this too, but draws from a generator that cannot be seeded.
    """

    def __init__(self, tokenizer: Any) -> None:
        backend = tokenizer.backend_tokenizer
        model = json.loads(backend.to_str())["model"]
        pairs = [tuple(pair.split(" ")) if isinstance(pair, str) else tuple(pair) for pair in model["merges"]]
        self.backend = backend
        self.ranks = {pair: rank for rank, pair in enumerate(pairs)}
        self.vocabulary: dict[str, int] = model["vocab"]

    def encode(self, text: str, dropout: float, rng: np.random.Generator) -> list[int]:
        """Token ids of a text; with ``dropout`` 0 the tokenizer's own."""
        if self.backend.normalizer is not None:
            text = self.backend.normalizer.normalize_str(text)
        pieces = self.backend.pre_tokenizer.pre_tokenize_str(text)
        return [self.vocabulary[token] for piece, _ in pieces for token in self.split(piece, dropout, rng)]

    def split(self, piece: str, dropout: float, rng: np.random.Generator) -> Sequence[str]:
        """A pre-token in tokens: every merge that applies is dropped with the given probability, in every step."""
        tokens = list(piece)
        while len(tokens) > 1:
            found = [(self.ranks.get(pair, -1), place) for place, pair in enumerate(pairwise(tokens))]
            found = [(rank, place) for rank, place in found if rank >= 0]
            if dropout:
                kept = rng.random(len(found)) >= dropout
                found = [one for one, keep in zip(found, kept, strict=True) if keep]
            if not found:
                break
            _, place = min(found)
            tokens[place : place + 2] = [tokens[place] + tokens[place + 1]]
        return tokens
