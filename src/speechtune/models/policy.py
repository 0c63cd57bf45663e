"""A model as a policy over token sequences: drawing them, and their log-probabilities with a graph.

`Policy` is what a family must offer; Whisper's is here, the others in ``policy_*.py``.

Both sides see one distribution: logits divided by the temperature, over the tokens that decoding allows (Whisper's
suppressed tokens and timestamps are left out).
"""

from __future__ import annotations

from importlib import import_module
from typing import Any, Protocol

import torch
from torch.nn import functional
from transformers import GenerationMixin, LogitsProcessor, LogitsProcessorList
from transformers.modeling_outputs import BaseModelOutput

from speechtune.core.errors import InputError
from speechtune.models.family import Family
from speechtune.models.observe import IGNORED, Batch, Needs, Seen

BELOW_ONE = 1 - 1e-12
"""Keeps a draw from landing behind the last token that has any probability, by rounding."""


class Policy(Protocol):
    """A family's model as a policy, given what it hears of a batch of clips and what stands before its answers.

    ``hidden`` (one entry a clip, with a graph) and ``prompts`` (rows, …) are its own; they are repeated by row for the
    sequences of a clip. ``end`` ends a sequence and fills what is behind it.
    """

    family: Any
    end: int
    needs: Needs
    """What must be watched during the labels' forward pass."""

    def draws(self, wanted: int, prompts: torch.Tensor) -> list[int]:
        """How many uniform numbers a sequence of each clip takes, of which it has at most ``wanted`` tokens."""

    def heard(self, batch: Batch, seen: Seen) -> torch.Tensor:
        """``hidden`` of a batch from a pass that was watched."""

    def encode(self, batch: Batch) -> torch.Tensor:
        """``hidden`` of a batch, computed anew."""

    def prompts(self, batch: Batch) -> torch.Tensor:
        """``prompts`` of a batch."""

    def answers(self, batch: Batch) -> list[torch.Tensor]:
        """The labels of each clip as sequences."""

    def content(self, batch: Batch, row: int) -> torch.Tensor:
        """What the model is given of a clip: the same in any batch."""

    def draw(
        self, hidden: torch.Tensor, prompts: torch.Tensor, uniforms: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """One sampled sequence a row, (rows, tokens)."""

    def best(self, hidden: torch.Tensor, prompts: torch.Tensor, count: int, limit: int) -> torch.Tensor:
        """The ``count`` best sequences of a beam search a clip, (clips x count, tokens)."""

    def counted(self, tokens: torch.Tensor) -> torch.Tensor:
        """Which positions belong to a sequence, like ``tokens``."""

    def log_probs(
        self, hidden: torch.Tensor, prompts: torch.Tensor, tokens: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Log-probabilities with a graph, (rows, tokens); their sum is that of the sequence."""


class WhisperPolicy:
    """Whisper, decoder side, given what its encoder says of a batch of clips.

    Args:
        family: a `speechtune.models.whisper.WhisperFamily`; its model is used as it is, adapters included.
    """

    needs = Needs(parts=frozenset({"encoder"}))

    def __init__(self, family: Any) -> None:
        self.family = family
        self.end: int = family.eot
        blocked = torch.zeros(int(family.config.vocab_size), dtype=torch.bool)
        blocked[family.generation_config.suppress_tokens or []] = True
        blocked[family.first_timestamp :] = True
        self._never = blocked
        self._never_first = blocked.clone()
        self._never_first[family.generation_config.begin_suppress_tokens or []] = True

    def draws(self, wanted: int, prompts: torch.Tensor) -> list[int]:
        """How many uniform numbers one sequence of each clip takes: one a token, as many as fit behind the prompt."""
        return [min(wanted, self.family.limits.max_label_tokens - prompts.shape[1])] * len(prompts)

    def heard(self, batch: Batch, seen: Seen) -> torch.Tensor:
        """The encoder's hidden states of a pass that was watched."""
        return seen.hidden["encoder"][-1]

    def answers(self, batch: Batch) -> list[torch.Tensor]:
        """The labels of each clip, the end included."""
        return [row[row != IGNORED] for row in batch["labels"]]

    def content(self, batch: Batch, row: int) -> torch.Tensor:
        """The features of a clip: the same in any batch of the same audio context."""
        return batch["input_features"][row]

    def encode(self, batch: Batch) -> torch.Tensor:
        """The encoder's hidden states of a batch, (clips, frames, width)."""
        return self.family.part("encoder")(batch["input_features"]).last_hidden_state

    def prompts(self, batch: Batch) -> torch.Tensor:
        """The tokens before each label, (clips, prompt tokens).

        Raises:
            InputError: the prompts of the batch are not equally long.
        """
        inputs, labels = batch["decoder_input_ids"], batch["labels"]
        lengths = (labels != IGNORED).int().argmax(1) + 1
        first = int(lengths[0])
        if bool((lengths != first).any()):
            raise InputError("the prompts of a batch differ in length: leave out training.format with this objective")
        return inputs[:, :first]

    @torch.no_grad()
    def draw(
        self, hidden: torch.Tensor, prompts: torch.Tensor, uniforms: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Sample one sequence a row, (rows, tokens), padded with the end token.

        Args:
            hidden: the encoder's states, one row a sequence.
            prompts: (rows, prompt tokens).
            uniforms: (rows, most tokens) numbers in [0, 1) that decide every token by inversion, so that a row's
                sequence depends on its own numbers and not on its neighbours.
            temperature: of the policy.
        """
        drawn = Drawn(uniforms.to(hidden.device, torch.float64), prompts.shape[1], temperature)
        return self._generate(hidden, prompts, self.family._search(uniforms.shape[1], 1), [drawn])

    @torch.no_grad()
    def best(self, hidden: torch.Tensor, prompts: torch.Tensor, count: int, limit: int) -> torch.Tensor:
        """The ``count`` best sequences of a beam search a clip, (clips x count, tokens), padded with the end token."""
        search = self.family._search(limit, count)
        search.num_return_sequences = count
        return self._generate(hidden, prompts, search, [])

    def _generate(
        self, hidden: torch.Tensor, prompts: torch.Tensor, search: Any, more: list[LogitsProcessor]
    ) -> torch.Tensor:
        model = self.family.model
        was_training = model.training
        model.eval()
        try:
            found: Any = GenerationMixin.generate(
                model,
                encoder_outputs=BaseModelOutput(last_hidden_state=hidden.clone()),
                decoder_input_ids=prompts,
                generation_config=search,
                logits_processor=LogitsProcessorList([self.family.no_timestamps(), *more]),
            )
        finally:
            model.train(was_training)
            torch.clear_autocast_cache()  # weights that were cast without a graph must not serve the pass with one
        return found[:, prompts.shape[1] :]

    def counted(self, tokens: torch.Tensor) -> torch.Tensor:
        """Which positions belong to a sequence: up to its first end token, that included; like ``tokens``."""
        ends = (tokens == self.end).cumsum(1)
        return (ends == 0) | ((ends == 1) & (tokens == self.end))

    def log_probs(
        self, hidden: torch.Tensor, prompts: torch.Tensor, tokens: torch.Tensor, temperature: float
    ) -> torch.Tensor:
        """Log-probability of every token under the policy, (rows, tokens), float32; 0 behind a sequence's end."""
        model = self.family.model
        inputs = torch.cat([prompts, tokens[:, :-1]], 1)
        states = model.model(encoder_outputs=(hidden,), decoder_input_ids=inputs, use_cache=False).last_hidden_state
        states = states[:, prompts.shape[1] - 1 :]
        counted = self.counted(tokens)
        logits = model.proj_out(states[counted]).float() / temperature
        first = torch.zeros_like(counted)
        first[:, 0] = True
        never = torch.where(first[counted][:, None], self._never_first.to(logits.device), self._never.to(logits.device))
        found = -functional.cross_entropy(logits.masked_fill(never, -torch.inf), tokens[counted], reduction="none")
        return torch.zeros(tokens.shape, device=found.device).masked_scatter(counted, found)


class Drawn(LogitsProcessor):
    """Leaves of every row only the token that its uniform number falls on."""

    def __init__(self, uniforms: torch.Tensor, prompt_tokens: int, temperature: float) -> None:
        self.uniforms = uniforms
        self.prompt_tokens = prompt_tokens
        self.temperature = temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores with 0 at the drawn token and minus infinity elsewhere."""
        uniforms = self.uniforms[:, input_ids.shape[1] - self.prompt_tokens]
        token = by_inversion(scores.float() / self.temperature, uniforms)
        return torch.full_like(scores, -torch.inf).scatter_(1, token[:, None], 0.0)


def by_inversion(scores: torch.Tensor, uniforms: torch.Tensor) -> torch.Tensor:
    """The tokens (…) that uniform numbers (…) fall on in the distributions of scores (…, vocabulary)."""
    below = torch.softmax(scores, -1).double().cumsum(-1)
    wanted = uniforms[..., None] * below[..., -1:] * BELOW_ONE
    return torch.searchsorted(below, wanted, right=True)[..., 0]


POLICIES = {
    "whisper": "speechtune.models.policy:WhisperPolicy",
    "ctc": "speechtune.models.policy_ctc:CtcPolicy",
    "qwen3_asr": "speechtune.models.policy_qwen3_asr:Qwen3AsrPolicy",
}
"""The policy of each family by its name."""


def policy_of(family: Family, purpose: str) -> Any:
    """The policy of a family.

    Raises:
        InputError: it has none; ``purpose`` says what it was wanted for.
    """
    if family.name not in POLICIES:
        raise InputError(
            f"models of family {family.name!r} have no way to draw transcripts: {purpose} is for {', '.join(POLICIES)}"
        )
    module, name = POLICIES[family.name].split(":")
    return getattr(import_module(module), name)(family)
