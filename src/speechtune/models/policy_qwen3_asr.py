"""Qwen3-ASR as a policy over token sequences, behind the prompt that inference gives it."""

from __future__ import annotations

from typing import Any

import torch
from torch.nn import functional
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList

from speechtune.models.observe import IGNORED, Batch, Needs, Seen
from speechtune.models.search_config import SearchConfig

PADDING = -1
"""Where a shorter prompt has no token."""


class Qwen3AsrPolicy:
    """The language model; ``hidden`` is its embedded prompt with the audio, (clips, positions, width).

    ``prompts``, its tokens, are padded on the left with -1. Where the language is known its tag belongs to the prompt,
    as at inference, and only the text is drawn; else the model writes its own tag.

    Args:
        family: a `speechtune.models.qwen3_asr.Qwen3AsrFamily`; its model is used as it is, adapters included.
    """

    needs = Needs()

    def __init__(self, family: Any) -> None:
        self.family = family
        self.end: int = family.format.end
        self.ends = sorted(family.ends)

    def draws(self, wanted: int, prompts: torch.Tensor) -> list[int]:
        """How many uniform numbers one sequence of each clip takes: one a token."""
        return [min(wanted, self.family.limits.max_label_tokens)] * len(prompts)

    def heard(self, batch: Batch, seen: Seen) -> torch.Tensor:
        """The embedded prompts; the audio is encoded once more, for the labels' pass keeps it in other rows."""
        return self.encode(batch)

    def encode(self, batch: Batch) -> torch.Tensor:
        """The embedded prompts of a batch, (clips, positions, width); what is left of a prompt is that of the end."""
        tokens = self.prompts(batch)
        tokens = tokens.masked_fill(tokens == PADDING, self.end)
        return self.family.model.embed(tokens, batch["input_features"], batch["input_features_mask"])

    def prompts(self, batch: Batch) -> torch.Tensor:
        """The tokens before each answer, (clips, positions), padded on the left with -1."""
        rows = []
        for row in range(len(batch["labels"])):
            begin, first = int(batch["attention_mask"][row].int().argmax()), self._first(batch, row)
            rows.append(batch["input_ids"][row, begin : first + 1])
        longest = max(len(row) for row in rows)
        return torch.stack([functional.pad(row, (longest - len(row), 0), value=PADDING) for row in rows])

    def _first(self, batch: Batch, row: int) -> int:
        """The position that predicts the first token of the answer."""
        labels = batch["labels"][row]
        marks = (labels == self.family.format.marker).nonzero().flatten()
        if self.family.prompt.language is not None and len(marks):
            return int(marks[0]) + 1
        return int((labels != IGNORED).int().argmax())

    def answers(self, batch: Batch) -> list[torch.Tensor]:
        """The labels of each clip behind its prompt, the end included."""
        rows = [batch["labels"][row, self._first(batch, row) :] for row in range(len(batch["labels"]))]
        return [row[row != IGNORED] for row in rows]

    def content(self, batch: Batch, row: int) -> torch.Tensor:
        """What the model is given of a clip, without padding."""
        return batch["input_features"][row][:, batch["input_features_mask"][row].bool()]

    @torch.no_grad()
    def draw(
        self, hidden: torch.Tensor, prompts: torch.Tensor, uniforms: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Sample one sequence a row, (rows, tokens), padded with the end token; see `WhisperPolicy.draw`."""
        from speechtune.models.policy import Drawn

        drawn = Drawn(uniforms.to(hidden.device, torch.float64), 0, temperature)
        return self._generate(hidden, prompts, uniforms.shape[1], 1, 1, [drawn])

    @torch.no_grad()
    def best(self, hidden: torch.Tensor, prompts: torch.Tensor, count: int, limit: int) -> torch.Tensor:
        """The ``count`` best sequences of a beam search a clip, (clips x count, tokens), padded with the end token."""
        return self._generate(hidden, prompts, limit, count, count, [])

    def _generate(
        self,
        hidden: torch.Tensor,
        prompts: torch.Tensor,
        limit: int,
        beams: int,
        kept: int,
        more: list[LogitsProcessor],
    ) -> torch.Tensor:
        from speechtune.models.generation import generation_config

        model = self.family.model
        was_training = model.training
        model.eval()
        search = SearchConfig(n_best=kept)
        try:
            found: Any = GenerationMixin.generate(
                model,
                inputs_embeds=hidden.clone(),
                attention_mask=(prompts != PADDING).long(),
                generation_config=generation_config(
                    self.family.tokenizer, search, limit, beams, ends=self.family.ends, filler=self.end
                ),
                logits_processor=LogitsProcessorList(more),
            )
        finally:
            model.train(was_training)
            torch.clear_autocast_cache()
        return found

    def counted(self, tokens: torch.Tensor) -> torch.Tensor:
        """Which positions belong to a sequence: up to its first end token, that included; like ``tokens``."""
        is_end = torch.isin(tokens, torch.tensor(self.ends, device=tokens.device))
        ends = is_end.cumsum(1)
        return (ends == 0) | ((ends == 1) & is_end)

    def log_probs(
        self, hidden: torch.Tensor, prompts: torch.Tensor, tokens: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Log-probability of every token under the policy, (rows, tokens), float32; 0 behind a sequence's end."""
        model = self.family.model
        after = model.get_input_embeddings()(tokens[:, :-1]).to(hidden.dtype)
        before = (prompts != PADDING).long()
        mask = torch.cat([before, torch.ones_like(tokens[:, :-1])], 1)
        states = model.model(
            inputs_embeds=torch.cat([hidden, after], 1),
            attention_mask=mask,
            position_ids=(mask.cumsum(1) - 1).clamp(min=0),
            use_cache=False,
        ).last_hidden_state[:, prompts.shape[1] - 1 :]
        counted = self.counted(tokens)
        logits = model.lm_head(states[counted]).float() / temperature
        found = -functional.cross_entropy(logits, tokens[counted], reduction="none")
        return torch.zeros(tokens.shape, device=found.device).masked_scatter(counted, found)
