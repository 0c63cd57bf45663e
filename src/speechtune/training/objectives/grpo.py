"""Group relative policy optimisation on error rates, and minimum word error rate training.

For each utterance the model writes a group of transcripts; each gets a reward, and its advantage is the reward against
the group's mean. See `speechtune.training.objectives.grpo_config` for the papers.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from speechtune.core.errors import InputError
from speechtune.models.observe import IGNORED, Needs
from speechtune.models.policy import Policy, policy_of
from speechtune.training.config import TrainingConfig
from speechtune.training.objectives.base import Objective, Scope, Setup, Step
from speechtune.training.objectives.frozen import Frozen
from speechtune.training.objectives.grpo_config import GrpoConfig
from speechtune.training.processes import world_size
from speechtune.training.rewards import Reward

STD_FLOOR = 1e-4
"""Added to the standard deviation of a group's rewards."""

COLUMNS = ("reward", "reward_std", "zero_variance_share", "tokens", "kl", "clip_share")


@dataclass(slots=True)
class Group:
    """The transcripts of one utterance; everything but ``tokens`` (group, tokens) has a row a transcript."""

    step: int
    tokens: torch.Tensor
    rewards: torch.Tensor
    old: torch.Tensor | None = None
    """Their tokens' log-probabilities when they were first trained on, where they are used more than once."""


def advantages(rewards: torch.Tensor, divide_by_std: bool) -> torch.Tensor:
    """Reward minus the group's mean, shape (..., group), if asked divided by its (population) standard deviation.

    A group whose rewards are all the same has advantages of 0.
    """
    centred = rewards - rewards.mean(-1, keepdim=True)
    centred = torch.where(is_flat(rewards)[..., None], torch.zeros_like(centred), centred)
    return centred / (rewards.std(-1, keepdim=True, correction=0) + STD_FLOOR) if divide_by_std else centred


def is_flat(rewards: torch.Tensor) -> torch.Tensor:
    """Whether a group's rewards are all the same, shape (...)."""
    return rewards.amax(-1) - rewards.amin(-1) < 1e-8


def policy_loss(
    new: torch.Tensor,
    old: torch.Tensor,
    reference: torch.Tensor | None,
    advantage: torch.Tensor,
    config: GrpoConfig,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """The loss of every token, and what is logged of it: its KL estimate and whether its ratio was clipped.

    Args:
        new: log-probabilities under the policy, (transcripts, tokens), with a graph.
        old: the same when the transcripts were drawn.
        reference: the same under the frozen start; ``None``: no KL.
        advantage: (transcripts,).
        config: clipping and the weight of the KL.

    The KL is estimated without bias and never below zero by ``exp(d) - d - 1``, d = reference - new (Schulman's k3).
    """
    ratio = (new - old).exp()
    high = config.clip if config.clip_high is None else config.clip_high
    free, held = ratio * advantage[:, None], ratio.clamp(1 - config.clip, 1 + high) * advantage[:, None]
    divergence = torch.zeros_like(new)
    if reference is not None:
        divergence = (reference - new).exp() - (reference - new) - 1
    return config.kl * divergence - torch.minimum(free, held), divergence, held < free


def expected_errors(log_probs: torch.Tensor, rewards: torch.Tensor) -> torch.Tensor:
    """Minus the expected reward over each group, against its plain mean: shape (groups,).

    Args:
        log_probs: of whole transcripts, (groups, group), with a graph; they are made to sum to one in the group.
        rewards: (groups, group).
    """
    return (log_probs.softmax(-1) * (rewards.mean(-1, keepdim=True) - rewards)).sum(-1)


class GroupPolicy:
    """The term: an utterance's loss, weighted by its labels as in the cross-entropy (and as in the WER)."""

    name = "grpo"
    scope: Scope = "labels"
    views = 1

    def __init__(self, config: GrpoConfig, policy: Policy, reward: Reward, reference: Frozen | None, seed: int) -> None:
        self.config = config
        self.policy = policy
        self.needs: Needs = policy.needs
        self.reward = reward
        self.reference = reference
        self.seed = seed
        self.groups: dict[str, Group] = {}
        self._sums: torch.Tensor | None = None

    def weight_at(self, progress: float) -> float:
        """The weight, which does not change."""
        return self.config.weight

    def __call__(self, step: Step) -> torch.Tensor:
        """The sum over the utterances of the micro-batch."""
        clips = step.batch["labels"].shape[0] // step.views
        batch = {name: value[:clips] for name, value in step.batch.items()}
        with step.autocast():
            hidden, prompts = self.policy.heard(batch, step.seen)[:clips], self.policy.prompts(batch)
        groups = self._groups(step, batch, hidden.detach(), prompts) if step.training else self._labels(batch)
        rewards = torch.stack([group.rewards for group in groups]).to(hidden.device)
        informative = ~is_flat(rewards) if step.training else torch.ones(clips, dtype=torch.bool)
        rows = informative.nonzero().flatten().tolist() or [0]  # never none: every weight keeps its place in the graph
        weight = (batch["labels"] != IGNORED).sum(1).float() * informative.to(hidden.device)
        chosen = [groups[row] for row in rows]
        with step.autocast():
            losses = self._losses(step, batch, rows, chosen, hidden, prompts, rewards[rows])
        if step.training:
            self._tally(0, rewards.mean(-1))
            self._tally(1, rewards.std(-1, correction=0))
            self._tally(2, (~informative).float())
        return (losses * weight[rows]).sum()

    def _losses(
        self,
        step: Step,
        batch: dict[str, torch.Tensor],
        rows: list[int],
        chosen: list[Group],
        hidden: torch.Tensor,
        prompts: torch.Tensor,
        rewards: torch.Tensor,
    ) -> torch.Tensor:
        """The loss of every chosen utterance, shape (chosen,)."""
        config, size = self.config, len(chosen[0].rewards)
        tokens = self._joined(chosen, hidden.device)
        repeated = [row for row in rows for _ in range(size)]
        new = self.policy.log_probs(hidden[repeated], prompts[repeated], tokens, config.temperature)
        counted = self.policy.counted(tokens)
        lengths = counted.sum(1)
        if step.training:
            self._tally(3, lengths.float())
        if config.method == "mwer" and step.training:
            return expected_errors(new.sum(1).view(-1, size), rewards)
        old = self._old(chosen, new)
        reference = self._reference(step, batch, rows, size, tokens)
        advantage = advantages(rewards, config.divide_by_std) if step.training else torch.ones_like(rewards)
        loss, divergence, clipped = policy_loss(new, old, reference, advantage.flatten(), config)
        if step.training:
            self._tally(4, divergence.detach()[counted])
            self._tally(5, clipped[counted].float())
        scale = lengths if config.mean_over_tokens else torch.full_like(lengths, config.max_new_tokens)
        return ((loss * counted).sum(1) / scale).view(-1, size).mean(1)

    def _groups(
        self, step: Step, batch: dict[str, torch.Tensor], hidden: torch.Tensor, prompts: torch.Tensor
    ) -> list[Group]:
        """The group of every clip: kept ones while they last, the others drawn now."""
        self.groups = {
            key: group for key, group in self.groups.items() if 0 <= step.number - group.step < self.config.updates
        }
        keys = [_key(self.policy.content(batch, row), batch["labels"][row]) for row in range(len(hidden))]
        missing = [row for row, key in enumerate(keys) if key not in self.groups]
        found: dict[str, Group] = {}
        if missing:
            with step.autocast():
                own_keys = [keys[row] for row in missing]
                tokens = self._candidates(step.number, own_keys, hidden[missing], prompts[missing])
            for row, own in zip(missing, tokens, strict=True):
                reference = self._text(batch["labels"][row])
                rewards = self.reward(reference, [self._text(sequence) for sequence in own])
                found[keys[row]] = Group(step.number, own, torch.tensor(rewards, dtype=torch.float32))
        result = [self.groups[key] if key in self.groups else found[key] for key in keys]
        if self.config.updates > 1:
            self.groups |= found
        return result

    def _candidates(
        self, number: int, keys: Sequence[str], hidden: torch.Tensor, prompts: torch.Tensor
    ) -> torch.Tensor:
        """Their tokens, (clips, group, tokens); drawn from (seed, step, clip) alone."""
        config = self.config
        limits = self.policy.draws(config.max_new_tokens, prompts)
        if config.candidates == "beam":
            found = self.policy.best(hidden, prompts, config.samples, max(limits))
        else:
            uniforms = torch.zeros(len(keys) * config.samples, max(limits), dtype=torch.float64)
            for place, (key, limit) in enumerate(zip(keys, limits, strict=True)):
                own = np.random.default_rng((self.seed, number, int(key, 16))).random((config.samples, limit))
                uniforms[place * config.samples : (place + 1) * config.samples, :limit] = torch.from_numpy(own)
            repeated = [row for row in range(len(keys)) for _ in range(config.samples)]
            found = self.policy.draw(hidden[repeated], prompts[repeated], uniforms, config.temperature)
        return found.view(len(keys), config.samples, -1)

    def _labels(self, batch: dict[str, torch.Tensor]) -> list[Group]:
        """What the preflight tries: the labels themselves, so that its checks do not depend on draws."""
        size = self.config.samples
        return [Group(0, row.expand(size, -1), torch.zeros(size)) for row in self.policy.answers(batch)]

    def _joined(self, groups: Sequence[Group], device: torch.device) -> torch.Tensor:
        longest = max(int(self.policy.counted(group.tokens).sum(1).max()) for group in groups)
        joined = torch.full((len(groups), len(groups[0].rewards), longest), self.policy.end, device=device)
        for place, group in enumerate(groups):
            width = min(longest, group.tokens.shape[1])
            joined[place, :, :width] = group.tokens[:, :width].to(device)
        return joined.flatten(0, 1)

    def _old(self, groups: Sequence[Group], new: torch.Tensor) -> torch.Tensor:
        """Log-probabilities at the first use of the samples: now, or kept from then."""
        now = new.detach()
        if self.config.updates == 1:
            return now
        size, old = len(groups[0].rewards), now.clone()
        for place, group in enumerate(groups):
            own = slice(place * size, (place + 1) * size)
            if group.old is None:
                group.old = now[own].clone()
            width = min(group.old.shape[1], old.shape[1])
            old[own, :width] = group.old[:, :width].to(old.device)
        return old

    def _reference(
        self,
        step: Step,
        batch: dict[str, torch.Tensor],
        rows: list[int],
        size: int,
        tokens: torch.Tensor,
    ) -> torch.Tensor | None:
        if self.reference is None:
            return None
        with self.reference.looked_at() as family, step.autocast():
            frozen = policy_of(family, "objectives.grpo")
            part = {name: value[rows] for name, value in batch.items()}
            wide = [row for row in range(len(rows)) for _ in range(size)]
            found = frozen.log_probs(
                frozen.encode(part)[wide], frozen.prompts(part)[wide], tokens, self.config.temperature
            )
            torch.clear_autocast_cache()
        return found

    def _text(self, tokens: torch.Tensor) -> str:
        written = tokens[tokens != IGNORED].tolist()
        ended = written.index(self.policy.end) if self.policy.end in written else len(written)
        return self.policy.family.text(written[:ended])

    def _tally(self, column: int, values: torch.Tensor) -> None:
        if self._sums is None:
            self._sums = torch.zeros(len(COLUMNS), 2, dtype=torch.float64, device=values.device)
        self._sums[column] += torch.stack([values.sum().double(), torch.tensor(values.numel(), device=values.device)])

    def columns(self, gather: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, float]:
        """Means since the last call, over utterances, transcripts (tokens) or their tokens (kl, clip_share).

        ``gather`` joins the processes' values.
        """
        if self._sums is None:
            return {}
        total = gather(self._sums.float()[None]).sum(0).tolist()
        self._sums = None
        return {
            f"grpo_{name}": float(f"{value / count:.6g}")
            for name, (value, count) in zip(COLUMNS, total, strict=True)
            if count
        }

    def state(self) -> dict[str, Any]:
        """The samples that are still in use, for a checkpoint."""
        return {
            key: {"step": group.step, "tokens": group.tokens, "rewards": group.rewards, "old": group.old}
            for key, group in self.groups.items()
        }

    def load(self, state: dict[str, Any]) -> None:
        """Go on with the samples of a checkpoint."""
        self.groups = {key: Group(**values) for key, values in state.items()}


def _key(content: torch.Tensor, labels: torch.Tensor) -> str:
    """What tells a clip with its label from others: the same in any micro-batch of the same audio context."""
    digest = hashlib.blake2b(digest_size=8)
    for part in (content, labels[labels != IGNORED]):
        digest.update(part.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


def check(config: TrainingConfig) -> None:
    """Refuse what does not go with sampling.

    Raises:
        InputError: a training format, a model divided among processes, or several steps on one set of samples in
            several processes (their samples would not be in the checkpoint).
    """
    if config.format.enabled:
        raise InputError("objectives.grpo samples plain transcripts: leave out training.format, or use two stages")
    if config.sharding != "none":
        raise InputError("objectives.grpo samples from the whole model: set training.sharding=none")
    if config.objectives.grpo.updates > 1 and world_size() > 1:
        raise InputError("objectives.grpo.updates above 1 is for one process: set it to 1, or train in one process")


def build(setup: Setup) -> list[Objective]:
    """The term, with the start of the run kept where there is a weight on the KL to it.

    Raises:
        InputError: the family has no policy, or there is no such normaliser.
    """
    config = setup.config.grpo
    policy = policy_of(setup.family, "objectives.grpo")
    with_reference = config.kl > 0 and config.method == "grpo"
    if with_reference:
        setup.frozen.keep()
    reward = Reward(config.reward, setup.family.language)
    return [GroupPolicy(config, policy, reward, setup.frozen if with_reference else None, setup.seed)]
