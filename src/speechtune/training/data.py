"""Training examples, and batches of similar length that respect a budget of seconds.

Every draw (order, silence behind a clip, who is shown at the full window) is a pure function of
the seed and the epoch, so that an interrupted run continues with exactly the batches it would
have had.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch.utils.data import Dataset, Sampler

from speechtune.audio.augment import change_speed
from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.corpus.config import DataConfig
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.family import Example, Family
from speechtune.training.config import AudioContextConfig, BatchConfig, SpeedConfig, TrainingConfig


@dataclass(frozen=True, slots=True)
class Pick:
    """One utterance of a batch: the seconds of audio it is shown, and how fast it is played."""

    index: int
    context_s: float
    speed: float = 1.0


def usable_utterances(corpus: Corpus, family: Family, data: DataConfig) -> tuple[list[Utterance], dict[str, int]]:
    """The training utterances a model can take, and how many were left out for which reason.

    Raises:
        InputError: one cannot be used and ``data.unusable`` is ``error``; or none can.
    """
    limits = family.limits
    kept: list[Utterance] = []
    dropped: dict[str, int] = {}
    for utterance in corpus:
        reason = _why_unusable(utterance, family)
        if reason is None:
            kept.append(utterance)
        elif data.unusable == "error":
            raise InputError(
                f"{corpus.root} utterance {utterance.utterance_id} ({utterance.file_name}) {reason}: shorten or remove "
                "it, or set data.unusable=drop to leave such utterances out"
            )
        else:
            key = reason.split(",")[0].split(" (")[0]
            dropped[key] = dropped.get(key, 0) + 1
    if not kept:
        raise InputError(
            f"{corpus.root} has no training utterance the model can take (limits: {limits.max_audio_s:g} s, "
            f"{limits.max_label_tokens} tokens): check the split and the texts"
        )
    if data.max_utterances is not None and data.max_utterances < len(kept):
        chosen = np.random.default_rng(0).permutation(len(kept))[: data.max_utterances]
        dropped["not drawn for data.max_utterances"] = len(kept) - data.max_utterances
        kept = [kept[index] for index in sorted(chosen)]
    for reason, count in dropped.items():
        note(f"left out of training: {count} utterances, {reason}")
    return kept, dropped


def _why_unusable(utterance: Utterance, family: Family) -> str | None:
    limits = family.limits
    if utterance.duration_s > limits.max_audio_s:
        return f"is too long, {utterance.duration_s:.2f} s (the model's window is {limits.max_audio_s:g} s)"
    if not utterance.text.strip():
        return "has no text"
    tokens, _ = family.tokens(utterance.text)
    if len(tokens) - 1 > limits.max_label_tokens:
        return f"has too many tokens, {len(tokens) - 1} (the model takes {limits.max_label_tokens})"
    return None


class TrainingSet(Dataset[tuple[Example, float]]):
    """Utterances as examples; an item is asked for by a `Pick` and returned with its context."""

    def __init__(self, corpus: Corpus, utterances: list[Utterance], family: Family, data: DataConfig) -> None:
        self.corpus = corpus
        self.utterances = utterances
        self.family = family
        self.lower = data.case == "lower"

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, pick: Pick) -> tuple[Example, float]:
        utterance = self.utterances[pick.index]
        waveform = load_audio(self.corpus.path_of(utterance), utterance.start_s, utterance.end_s)
        tokens, prompt_tokens = self.family.tokens(self.label_text(utterance))
        return Example(change_speed(waveform, pick.speed), tokens, prompt_tokens), pick.context_s

    def label_text(self, utterance: Utterance) -> str:
        """The text an utterance is trained on."""
        return utterance.text.lower() if self.lower else utterance.text


class Collator:
    """Examples and their contexts to the model's keyword arguments."""

    def __init__(self, family: Family) -> None:
        self.family = family

    def __call__(self, items: list[tuple[Example, float]]) -> dict[str, torch.Tensor]:
        examples = [example for example, _ in items]
        longest_s = max(len(example.waveform) for example in examples) / 16_000
        context_s = max(max(context for _, context in items), longest_s)
        return self.family.collate(examples, self.family.context_frames(context_s))


class BucketSampler(Sampler[list[Pick]]):
    """All micro-batches of a run, epoch after epoch: similar lengths together, in shuffled order.

    An utterance's context is its length (at its drawn speed) plus a drawn silence, or the full window
    for a drawn share. Utterances are sorted by context with a little noise, cut into batches that respect both bounds
    (utterances, and utterances x longest context), and the batches are shuffled. With several
    processes each takes every ``world``-th batch of the same plan.
    """

    def __init__(
        self,
        durations_s: list[float],
        batch: BatchConfig,
        context: AudioContextConfig,
        speed: SpeedConfig | None = None,
        *,
        epochs: int,
        seed: int,
        window_s: float,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.durations_s = np.asarray(durations_s)
        self.batch = batch
        self.context = context
        self.speed = speed or SpeedConfig()
        self.epochs = epochs
        self.seed = seed
        self.window_s = window_s
        self.rank = rank
        self.world = world
        self.plan = lru_cache(maxsize=2)(self._plan)

    def speeds(self, epoch: int) -> np.ndarray:
        """How fast each utterance is played in an epoch, shape (utterances,); none outgrows the window."""
        draw = np.random.default_rng((self.seed, epoch, 2))
        drawn = draw.uniform(1 - self.speed.range, 1 + self.speed.range, len(self.durations_s))
        chosen = np.where(draw.random(len(self.durations_s)) < self.speed.share, drawn, 1.0)
        return np.where(self.durations_s / chosen > self.window_s, 1.0, chosen)

    def contexts_s(self, epoch: int) -> np.ndarray:
        """Seconds of audio each utterance is shown in an epoch, shape (utterances,)."""
        if self.context.mode == "full":
            return np.full(len(self.durations_s), self.window_s)
        draw = np.random.default_rng((self.seed, epoch, 0))
        jitter_s = draw.uniform(0, self.context.jitter_s, len(self.durations_s))
        at_full = draw.random(len(self.durations_s)) < self.context.full_share
        shown_s = self.durations_s / self.speeds(epoch) + jitter_s
        return np.where(at_full, self.window_s, np.minimum(shown_s, self.window_s))

    def _plan(self, epoch: int) -> list[list[Pick]]:
        """The batches of one epoch for all processes; their number is a multiple of ``world``."""
        contexts_s, speeds = self.contexts_s(epoch), self.speeds(epoch)
        draw = np.random.default_rng((self.seed, epoch, 1))
        order = np.argsort(contexts_s + draw.uniform(0, 0.25, len(contexts_s)), kind="stable")
        batches: list[list[Pick]] = []
        for index in order:
            pick = Pick(int(index), float(contexts_s[index]), float(speeds[index]))
            if batches and self._fits(batches[-1], pick):
                batches[-1].append(pick)
            else:
                batches.append([pick])
        shuffled = [batches[position] for position in draw.permutation(len(batches))]
        missing = -len(shuffled) % self.world
        return shuffled + shuffled[:missing]

    def _fits(self, batch: list[Pick], pick: Pick) -> bool:
        if (pick.context_s < self.window_s) != (batch[0].context_s < self.window_s):
            return False  # one clip shown at the full window would drag its whole batch there
        longest_s = max(pick.context_s, *(other.context_s for other in batch))
        size = len(batch) + 1
        return size <= self.batch.utterances and size * longest_s <= self.batch.seconds

    def epoch_ends(self) -> list[int]:
        """Micro-batches of one process at the end of each epoch, counted from the start of the run."""
        counts = [len(self.plan(epoch)) // self.world for epoch in range(self.epochs)]
        return np.cumsum(counts).tolist()

    def __len__(self) -> int:
        return self.epoch_ends()[-1]

    def __iter__(self) -> Iterator[list[Pick]]:
        for epoch in range(self.epochs):
            yield from self.plan(epoch)[self.rank :: self.world]


def sampler_for(config: TrainingConfig, data: TrainingSet) -> BucketSampler:
    """The batches of a run; under torchrun, this process's share of them."""
    return BucketSampler(
        [utterance.duration_s for utterance in data.utterances],
        config.batch,
        config.audio_context,
        config.speed,
        epochs=config.epochs,
        seed=config.seed,
        window_s=data.family.limits.max_audio_s,
        rank=int(os.environ.get("RANK", 0)),
        world=int(os.environ.get("WORLD_SIZE", 1)),
    )


def evaluation_steps(epoch_ends: list[int], accumulate: int, per_epoch: int) -> dict[int, float]:
    """Optimiser steps after which the model is evaluated, with the epoch (fractional) each stands for."""
    steps: dict[int, float] = {}
    start = 0
    for epoch, end in enumerate(epoch_ends):
        for part in range(1, per_epoch + 1):
            micro_batches = start + (end - start) * part / per_epoch
            steps[max(1, math.ceil(micro_batches / accumulate))] = epoch + part / per_epoch
        start = end
    return steps
