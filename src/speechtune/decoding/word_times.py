"""When each word of a known text is spoken, and how probable it is, by a Whisper model's own decoder.

The decoder is fed the known tokens; its cross-attention shows which audio frame each token looks at. As in
openai/whisper's ``timing.py``: the heads that attend to time (``generation_config.alignment_heads``; without them the
heads of the upper half of the layers), each normalised over the tokens, median-filtered over time, averaged, and a
monotone path of least cost through the result. Different from there: every token has at least one 20 ms frame.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from speechtune.audio.mel import FRAMES_PER_SECOND, SAMPLE_RATE_HZ
from speechtune.corpus.segmentation.pieces import TimedWord
from speechtune.models.config import Context
from speechtune.models.whisper import WhisperFamily

ENCODER_FRAME_S = 2 / FRAMES_PER_SECOND
_MEDIAN_FRAMES = 7
_ROWS_BYTES = 1 << 29
"""Memory for the logits of the texts that are scored together."""


@dataclass(slots=True)
class Encoded:
    """One window of audio after the encoder: ``hidden`` (1, frames, d_model), and the frames that hold audio."""

    hidden: torch.Tensor
    frames: int
    seconds: float


class WhisperTimer:
    """Teacher-forced passes of one Whisper model over windows of at most 30 s."""

    def __init__(self, family: WhisperFamily, context: Context = "full") -> None:
        self.family = family
        self.context = context
        self.model: Any = family.model
        self.device = next(family.model.parameters()).device
        self.heads = self._alignment_heads()
        self.max_tokens = family.limits.max_label_tokens - len(family.prompt) - 1
        self._ids: dict[str, list[int]] = {}

    def _alignment_heads(self) -> dict[int, list[int]]:
        """Heads by decoder layer."""
        config = self.family.config
        given = getattr(self.family.generation_config, "alignment_heads", None)
        upper = range(config.decoder_layers // 2, config.decoder_layers)
        pairs = given or [(layer, head) for layer in upper for head in range(config.decoder_attention_heads)]
        heads: dict[int, list[int]] = {}
        for layer, head in pairs:
            heads.setdefault(int(layer), []).append(int(head))
        return heads

    def tokens(self, words: Sequence[str]) -> list[list[int]]:
        """Token ids of each word. Whisper's pre-tokenizer never joins words, so these are the ids of the whole text."""
        leading = self.family._leading_space
        result = []
        for index, word in enumerate(words):
            spaced = word if index == 0 and not leading else " " + word
            if spaced not in self._ids:
                self._ids[spaced] = self.family.tokenizer.encode(spaced, add_special_tokens=False)
            result.append(self._ids[spaced])
        return result

    @torch.inference_mode()
    def encode(self, waveform: np.ndarray) -> Encoded:
        """Run the encoder on at most one window of audio."""
        seconds = len(waveform) / SAMPLE_RATE_HZ
        n_frames = self.family.context_frames(seconds + 0.2, self.context)
        features = self.family.front_end([waveform], n_frames, device=str(self.device))
        hidden = self.model.model.encoder(features).last_hidden_state
        frames = min(hidden.shape[1], max(1, -(-len(waveform) // (2 * SAMPLE_RATE_HZ // FRAMES_PER_SECOND))))
        return Encoded(hidden, frames, seconds)

    @torch.inference_mode()
    def times(self, encoded: Encoded, words: Sequence[str]) -> list[TimedWord]:
        """Times within the window and probabilities (geometric mean over the word's tokens) of ``words``.

        Raises:
            ValueError: more tokens than the decoder holds.
        """
        if not words:
            return []
        ids = self.tokens(words)
        body = [token for one in ids for token in one]
        if len(body) > self.max_tokens:
            raise ValueError(f"{len(body)} tokens do not fit a decoder of {self.max_tokens}")
        prompt = self.family.prompt
        inputs = torch.tensor([[*prompt, *body]], device=self.device)
        with self._watched() as seen:
            hidden = self.model.model.decoder(
                input_ids=inputs, encoder_hidden_states=encoded.hidden, use_cache=False
            ).last_hidden_state
        logits = self.model.proj_out(hidden[0, len(prompt) - 1 : -1]).float()
        log_probs = logits.log_softmax(-1).gather(1, inputs[0, len(prompt) :, None])[:, 0].cpu().numpy()
        weights = torch.cat([seen[layer][0, heads] for layer, heads in sorted(self.heads.items())])
        starts = token_starts(weights[..., : encoded.frames].float().cpu().numpy(), len(prompt) - 1)
        bounds = np.cumsum([0, *map(len, ids)])
        edges_s = np.minimum(starts[bounds] * ENCODER_FRAME_S, encoded.seconds)
        return [
            TimedWord(word, float(edges_s[i]), float(edges_s[i + 1]), float(np.exp(log_probs[a:b].mean())))
            for i, (word, a, b) in enumerate(zip(words, bounds, bounds[1:], strict=False))
        ]

    @contextmanager
    def _watched(self) -> Iterator[dict[int, torch.Tensor]]:
        """Inside: the layers with alignment heads attend eagerly and leave their cross-attentions in the result."""
        seen: dict[int, torch.Tensor] = {}
        undo = []
        for index in self.heads:
            attention = self.model.model.decoder.layers[index].encoder_attn
            undo.append((attention, attention.config))
            attention.config = copy.copy(attention.config)
            attention.config._attn_implementation = "eager"

            def keep(module: Any, args: Any, output: Any, index: int = index) -> None:
                seen[index] = output[1]

            undo.append((attention.register_forward_hook(keep), None))
        try:
            yield seen
        finally:
            for thing, config in undo:
                if config is None:
                    thing.remove()
                else:
                    thing.config = config

    @torch.inference_mode()
    def prefix_scores(self, encoded: Encoded, texts: Sequence[Sequence[str]]) -> list[np.ndarray]:
        """How well the first words of each text, and nothing more, explain the window.

        Returns:
            For each text an array of shape (words + 1,): entry ``n`` is the natural-log probability of its first
            ``n`` words followed by end-of-text; minus infinity where they are too many tokens for the decoder.
        """
        longest = max((sum(map(len, self.tokens(words))) for words in texts), default=0)
        row_bytes = 8 * (min(longest, self.max_tokens) + 1) * self.family.config.vocab_size  # logits and a copy
        at_once = max(1, _ROWS_BYTES // row_bytes)
        keys = self._prompt_cache(encoded)
        scores: list[np.ndarray] = []
        for first in range(0, len(texts), at_once):
            scores += self._score_rows(encoded, texts[first : first + at_once], *keys)
        return scores

    def _prompt_cache(self, encoded: Encoded) -> tuple[Any, torch.Tensor]:
        """The decoder's cache after the prompt (the cross-attention's keys are computed once), and what it says."""
        prompt = torch.tensor([self.family.prompt], device=self.device)
        output = self.model.model.decoder(input_ids=prompt, encoder_hidden_states=encoded.hidden, use_cache=True)
        return output.past_key_values, output.last_hidden_state[:, -1:]

    def _score_rows(
        self, encoded: Encoded, texts: Sequence[Sequence[str]], cache: Any, prompt_state: torch.Tensor
    ) -> list[np.ndarray]:
        ids = [self.tokens(words) for words in texts]
        bodies = [[token for word in one for token in word][: self.max_tokens] for one in ids]
        longest = max(map(len, bodies))
        hidden = prompt_state.expand(len(texts), -1, -1)
        rows = torch.full((len(texts), longest), self.family.eot, device=self.device)
        for row, body in zip(rows, bodies, strict=True):
            row[: len(body)] = torch.tensor(body, device=self.device)
        if longest:
            after = self.model.model.decoder(
                input_ids=rows,
                encoder_hidden_states=encoded.hidden,
                past_key_values=_repeated(cache, len(texts)),
                use_cache=True,
            ).last_hidden_state
            hidden = torch.cat([hidden, after], dim=1)
        logits = self.model.proj_out(hidden).float()
        norm = logits.logsumexp(-1)
        ends = (logits[..., self.family.eot] - norm).cpu().numpy()
        said = (functional.pad(logits[:, :-1].gather(2, rows[..., None])[..., 0] - norm[:, :-1], (1, 0))).cpu().numpy()
        result = []
        for index, words in enumerate(ids):
            bounds = np.cumsum([0, *map(len, words)])
            fits = bounds <= min(self.max_tokens, longest)
            places = np.where(fits, bounds, 0)
            total = np.cumsum(said[index])[places] + ends[index][places]
            result.append(np.where(fits, total, -np.inf))
        return result


def _repeated(cache: Any, rows: int) -> Any:
    """The cache of one row for several, sharing its memory."""
    from transformers import DynamicCache, EncoderDecoderCache

    parts = []
    for part in (cache.self_attention_cache, cache.cross_attention_cache):
        copied = DynamicCache([(layer.keys, layer.values) for layer in part.layers])
        for layer in copied.layers:
            layer.keys = layer.keys.expand(rows, -1, -1, -1)
            layer.values = layer.values.expand(rows, -1, -1, -1)
        parts.append(copied)
    return EncoderDecoderCache(*parts)


def token_starts(weights: np.ndarray, given: int) -> np.ndarray:
    """First frame of every token, and of the end of the text, from cross-attentions.

    Args:
        weights: attention of the alignment heads, shape (heads, tokens, frames): row ``t`` is the attention with which
            token ``t + 1`` was predicted.
        given: rows before the one that predicts the first token of the text.

    Returns:
        Frame numbers, shape (text tokens + 1,), rising; the last one is where the text ends.
    """
    weights = weights / np.maximum(weights.sum(-1, keepdims=True), 1e-9)  # as a softmax over these frames alone
    spread = np.maximum(weights.std(axis=1, keepdims=True), 1e-9)
    normal = (weights - weights.mean(axis=1, keepdims=True)) / spread
    cost = -median_filter(normal, _MEDIAN_FRAMES).mean(axis=0)[given:]
    tokens, frames = cost.shape
    if tokens > frames:  # more tokens than 20 ms frames: spread them evenly
        return np.floor(np.arange(tokens) * frames / tokens).astype(np.int64)
    return monotone_path(cost)


def median_filter(values: np.ndarray, width: int) -> np.ndarray:
    """Median over ``width`` neighbours (odd) along the last axis, mirrored at the ends; short rows stay as they are."""
    half = width // 2
    if values.shape[-1] <= half:
        return values
    padded = np.pad(values, [(0, 0)] * (values.ndim - 1) + [(half, half)], mode="reflect")
    return np.median(np.lib.stride_tricks.sliding_window_view(padded, width, axis=-1), axis=-1)


def monotone_path(cost: np.ndarray) -> np.ndarray:
    """The cheapest way to give every row a run of columns, in order, all columns used.

    Args:
        cost: shape (rows, columns), with at least as many columns as rows.

    Returns:
        First column of each row, shape (rows,).
    """
    rows, columns = cost.shape
    total = np.full(rows + 1, np.inf)  # total[r + 1]: row r; total[0]: before the first row
    total[0] = 0.0
    advanced = np.empty((columns, rows), bool)
    for column in range(columns):
        stay, come = total[1:], total[:-1]
        advanced[column] = come < stay
        total[1:] = np.minimum(stay, come) + cost[:, column]
        total[0] = np.inf
    starts = np.empty(rows, np.int64)
    column = columns - 1
    for row in range(rows - 1, -1, -1):
        while not advanced[column, row]:
            column -= 1
        starts[row] = column
        column -= 1
    return starts
