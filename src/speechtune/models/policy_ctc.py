"""A CTC model as a policy over transcripts.

Frames are independent given the sound, so a path is drawn frame by frame and collapsed; the probability of a
transcript is the sum over all its alignments, which is what the CTC loss computes. It is spread evenly over the
transcript's tokens: ratios of single tokens do not exist, and a ratio of whole transcripts to the power of 1 / tokens
is that of GSPO (Zheng et al. 2025, arXiv 2507.18071).
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch.nn import functional

from speechtune.core.errors import InputError
from speechtune.models.observe import IGNORED, Batch, Needs, Seen

_INPUTS = ("input_values", "input_features")


class CtcPolicy:
    """A CTC network; ``hidden`` is its logits (clips, frames, vocabulary), ``prompts`` the frames of each, (clips, 1).

    A sequence is a transcript's token ids, ended and padded with the blank, which never is one of them.

    Args:
        family: a `speechtune.models.ctc.CtcFamily`; its model is used as it is, adapters included.
    """

    needs = Needs(logits=True)

    def __init__(self, family: Any) -> None:
        self.family = family
        self.end: int = int(family.config.pad_token_id)

    def draws(self, wanted: int, prompts: torch.Tensor) -> list[int]:
        """How many uniform numbers one sequence of each clip takes: one a frame, whatever number is ``wanted``."""
        return prompts[:, 0].tolist()

    def heard(self, batch: Batch, seen: Seen) -> torch.Tensor:
        """The logits of a forward pass that was watched."""
        assert seen.logits is not None
        return seen.logits

    def encode(self, batch: Batch) -> torch.Tensor:
        """The logits of a batch, (clips, frames, vocabulary)."""
        return self.family.model(**{name: one for name, one in batch.items() if name != "labels"}).logits

    def prompts(self, batch: Batch) -> torch.Tensor:
        """The frames of each clip, (clips, 1)."""
        return self.family.model.frames_of(batch["attention_mask"].sum(-1))[:, None]

    def answers(self, batch: Batch) -> list[torch.Tensor]:
        """The labels of each clip with an end."""
        return [functional.pad(row[row != IGNORED], (0, 1), value=self.end) for row in batch["labels"]]

    def content(self, batch: Batch, row: int) -> torch.Tensor:
        """What the model is given of a clip, without padding."""
        name = next(one for one in _INPUTS if one in batch)
        return batch[name][row][batch["attention_mask"][row].bool()]

    @torch.no_grad()
    def draw(
        self, hidden: torch.Tensor, prompts: torch.Tensor, uniforms: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Sample one transcript a row, (rows, tokens), ended and padded with the blank.

        Args:
            hidden: logits, one row a transcript.
            prompts: their frames, (rows, 1).
            uniforms: (rows, at least the frames) numbers in [0, 1) that decide every frame by inversion.
            temperature: of the policy.
        """
        from speechtune.models.policy import by_inversion

        frames = hidden.shape[1]
        wide = functional.pad(uniforms[:, :frames], (0, max(0, frames - uniforms.shape[1]))).to(hidden.device)
        path = by_inversion(hidden.float() / temperature, wide.double())
        path = path.masked_fill(torch.arange(frames, device=path.device) >= prompts, self.end)
        changed = torch.ones_like(path, dtype=torch.bool)
        changed[:, 1:] = path[:, 1:] != path[:, :-1]
        rows = [row[keep] for row, keep in zip(path, changed & (path != self.end), strict=True)]
        return self._padded(rows, path.device)

    @torch.no_grad()
    def best(self, hidden: torch.Tensor, prompts: torch.Tensor, count: int, limit: int) -> torch.Tensor:
        """The ``count`` likeliest transcripts of a beam search a clip, (clips x count, tokens); no ``limit`` applies.

        Raises:
            InputError: the search finds fewer.
        """
        from speechtune.models.ctc_search import CtcGuide, CtcSearchConfig, Units, beam_search

        units = Units.of(self.family.vocabulary, hidden.shape[-1])
        guide, rows = CtcGuide(CtcSearchConfig(token_log_prob=-20.0, beam_log_prob=-60.0)), []
        for own, frames in zip(hidden.float().log_softmax(-1), prompts[:, 0].tolist(), strict=True):
            values = np.asarray(own[:frames].cpu(), np.float64)
            found = beam_search(values, units, 2 * count, count, guide)
            if len(found) < count:
                raise InputError(
                    f"a clip has {len(found)} likely transcripts and objectives.grpo.samples asks for {count}: lower "
                    "it, or set objectives.grpo.candidates=sampled"
                )
            rows += [torch.tensor(one.tokens, dtype=torch.long) for one in found]
        return self._padded(rows, hidden.device)

    def _padded(self, rows: list[torch.Tensor], device: torch.device) -> torch.Tensor:
        tokens = torch.full((len(rows), 1 + max(len(row) for row in rows)), self.end, device=device)
        for place, row in enumerate(rows):
            tokens[place, : len(row)] = row.to(device)
        return tokens

    def counted(self, tokens: torch.Tensor) -> torch.Tensor:
        """Which positions belong to a sequence: up to its first end, that included; like ``tokens``."""
        ends = (tokens == self.end).cumsum(1)
        return (ends == 0) | ((ends == 1) & (tokens == self.end))

    def log_probs(
        self, hidden: torch.Tensor, prompts: torch.Tensor, tokens: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Log-probability of every transcript in equal parts over its tokens and end, (rows, tokens), float32."""
        counted = self.counted(tokens)
        lengths = counted.sum(1)
        with torch.autocast(hidden.device.type, enabled=False):
            values = (hidden.float() / temperature).log_softmax(-1).transpose(0, 1)
            whole = -functional.ctc_loss(
                values, tokens, prompts[:, 0], lengths - 1, blank=self.end, reduction="none", zero_infinity=False
            )
        return (whole / lengths)[:, None] * counted
