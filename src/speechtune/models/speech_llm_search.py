"""Decoding with language models that read audio: greedy, beams, N-best lists and sampling, by ``generate``.

The audio is encoded once for a clip, however many beams there are, and prompts are padded on the left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, Protocol

import numpy as np
import torch
from torch.nn import functional
from transformers import GenerationMixin, LogitsProcessorList

from speechtune.models.family import Example, Hypothesis, best_of
from speechtune.models.generation import LogProbs, generation_config
from speechtune.models.observe import IGNORED
from speechtune.models.search_config import SearchConfig, check_n_best

_LOGITS_PER_CHUNK = 200_000_000


class ReadsAudio(Protocol):
    """What the search asks of a family."""

    model: torch.nn.Module
    tokenizer: Any
    config: Any

    @property
    def ends(self) -> Collection[int]:
        """The tokens that end an answer."""

    @property
    def filler(self) -> int:
        """The token that stands where there is none."""

    def prompt_rows(self, waveforms: Sequence[np.ndarray], search: SearchConfig) -> list[list[int]]:
        """The prompt of each clip, with as many places for the audio as it takes."""

    def embed(self, tokens: torch.Tensor, waveforms: Sequence[np.ndarray]) -> torch.Tensor:
        """Prompts with the encoded audio in their places, (clips, positions, width)."""

    def text(self, tokens: Sequence[int]) -> str:
        """The transcript in an answer."""


def search_speech_llm(
    family: ReadsAudio,
    waveforms: Sequence[np.ndarray],
    max_new_tokens: int,
    beams: int,
    search: SearchConfig,
) -> list[Hypothesis]:
    """The best hypothesis of each clip, with all kept ones in its ``nbest``, best first.

    Their order is the search's, that of sampled ones the mean log-probability. Log-probabilities are the model's own
    (temperature 1, no penalties), of the tokens and the end.

    Raises:
        InputError: more hypotheses than beams, or suppressed tokens that hold the end.
    """
    check_n_best(search, beams)
    device = next(family.model.parameters()).device
    given, attention, prefix = _prompts(family, waveforms, search)
    model: Any = family.model
    embedded = family.embed(given.to(device), waveforms)
    attention = attention.to(device)
    recorder = LogProbs()
    plain = beams == 1 and search.is_plain()
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else [], enabled=search.sample):
        if search.sample:
            torch.manual_seed(search.seed)
        found: Any = GenerationMixin.generate(
            model,
            inputs_embeds=embedded,
            attention_mask=attention,
            generation_config=generation_config(
                family.tokenizer,
                search,
                max_new_tokens,
                beams,
                ends=family.ends,
                filler=family.filler,
            ),
            logits_processor=LogitsProcessorList([recorder] if plain else []),
        )
    kept = search.n_best
    log_probs = recorder.by_row() if plain else teacher_forced(family, embedded, attention, found, kept)
    rows = [
        Hypothesis.of_row(row, own, family.text, family.ends, max_new_tokens, prefix)
        for row, own in zip(found.tolist(), log_probs, strict=True)
    ]
    return [best_of(rows[first : first + kept], search) for first in range(0, len(rows), kept)]


def _prompts(
    family: ReadsAudio, waveforms: Sequence[np.ndarray], search: SearchConfig
) -> tuple[torch.Tensor, torch.Tensor, list[int]]:
    """Prompts padded on the left, their attention mask, and the tokens of ``search.prefix``."""
    prefix = family.tokenizer.encode(search.prefix, add_special_tokens=False) if search.prefix else []
    rows = [[*row, *prefix] for row in family.prompt_rows(waveforms, search)]
    return (*padded(rows, family.filler, "left"), prefix)


def padded(rows: Sequence[Sequence[int]], filler: int, side: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Token rows as one tensor (batch, positions), and 1 where a token stands."""
    longest = max(len(row) for row in rows)
    tokens = torch.full((len(rows), longest), filler)
    mask = torch.zeros(len(rows), longest, dtype=torch.long)
    for number, row in enumerate(rows):
        place = slice(longest - len(row), longest) if side == "left" else slice(0, len(row))
        tokens[number, place] = torch.tensor(list(row))
        mask[number, place] = 1
    return tokens, mask


def answer_batch(
    examples: Sequence[Example],
    expand: Callable[[Sequence[int], int], list[int]],
    places: Sequence[int],
    filler: int,
    side: str,
) -> dict[str, torch.Tensor]:
    """Tokens of a training batch, their mask, positions where padding shifts them, and the answers as labels.

    Labels stand at the position that predicts them; the prompt, the audio and the padding have none (-100).

    Args:
        examples: labelled clips, with one place for the audio in their tokens.
        expand: what makes as many places of it as are asked for.
        places: positions that each clip takes.
        filler: the token of padding.
        side: of padding, left or right.
    """
    rows, targets = [], []
    for one, count in zip(examples, places, strict=True):
        row = expand(one.tokens, count)
        given = one.prompt_tokens + count - 1
        rows.append(row[:-1])
        targets.append([*[IGNORED] * (given - 1), *row[given:]])
    input_ids, attention = padded(rows, filler, side)
    batch = {"input_ids": input_ids, "attention_mask": attention, "labels": padded(targets, IGNORED, side)[0]}
    if side == "left":
        batch["position_ids"] = (attention.cumsum(1) - 1).clamp(min=0)
    return batch


def answer_loss(
    hidden: torch.Tensor,
    labels: torch.Tensor,
    logits_of: Callable[[torch.Tensor], torch.Tensor],
    smoothing: float,
    items: torch.Tensor | int | None,
) -> torch.Tensor:
    """Summed cross-entropy over the labels that are not -100, divided by ``items`` or, without, by their number.

    ``logits_of`` is given the hidden states (labels, width) at these positions only: 152,000 logits for each of the
    audio's positions would be most of the memory.
    """
    counted = labels != IGNORED
    logits = logits_of(hidden[counted]).float()
    total = functional.cross_entropy(logits, labels[counted], reduction="sum", label_smoothing=smoothing)
    return total / (counted.sum() if items is None else items)


def teacher_forced(
    family: ReadsAudio, embedded: torch.Tensor, attention: torch.Tensor, tokens: torch.Tensor, kept: int
) -> list[list[float]]:
    """Log-probability of every token of ``tokens``, shape (clips x kept, length), computed anew behind its prompt.

    Args:
        family: its model is used as it is.
        embedded: what stands before them, (clips, positions, width), padded on the left.
        attention: its mask.
        tokens: what was generated.
        kept: rows of ``tokens`` of each clip.
    """
    model: Any = family.model
    length = tokens.shape[1]
    clips = max(1, _LOGITS_PER_CHUNK // (kept * length * int(family.config.text_config.vocab_size)))
    rows: list[list[float]] = []
    for first in range(0, len(embedded), clips):
        part = tokens[first * kept : (first + clips) * kept]
        before = embedded[first : first + clips].repeat_interleave(kept, dim=0)
        mask = attention[first : first + clips].repeat_interleave(kept, dim=0)
        mask = torch.cat([mask, mask.new_ones(len(part), length - 1)], 1)
        after = model.get_input_embeddings()(part[:, :-1]).to(before.dtype)
        logits = model(
            inputs_embeds=torch.cat([before, after], 1),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
            logits_to_keep=length,
        ).logits.float()
        rows += logits.log_softmax(-1).gather(-1, part[..., None]).squeeze(-1).tolist()
    return rows
