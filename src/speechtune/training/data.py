"""Training examples, and batches of similar length that respect a budget of seconds.

Every draw (order, silence behind a clip, who is shown at the full window) is a pure function of
the seed and the epoch, so that an interrupted run continues with exactly the batches it would
have had.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler

from speechtune.audio.augment import Augmenter, MaskDraw, change_speed, draw_masks_by_count, rng_for
from speechtune.audio.io import load_audio
from speechtune.audio.mel import HOP_SAMPLES
from speechtune.corpus.augmenting import clip_info, speech_of
from speechtune.corpus.config import DataConfig
from speechtune.corpus.sampling import PoolDraw
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.family import Example, Family
from speechtune.training.config import AudioContextConfig, BatchConfig, SpeedConfig, TrainingConfig

Waveform = npt.NDArray[np.float32]

Augment = Callable[[Utterance, int, int], Callable[[Waveform], Waveform]]
"""From an utterance, the epoch and the place in that epoch's draw to what is done to its waveform (16 kHz).

The three arguments decide every draw, so that a resumed run, and any number of processes, apply the same; the place
tells the repetitions of one utterance within an epoch apart. The result should not outgrow the model's window.
"""


Masks = Callable[[Utterance, int, int, int, int], MaskDraw]
"""From an utterance, the epoch, the place, and the clip's frames and mel bins to its SpecAugment masks."""


@dataclass(frozen=True, slots=True)
class Pick:
    """One utterance of a batch: the seconds of audio it is shown, and how fast it is played.

    ``place`` is its position in the draw of ``epoch``, which also holds repetitions.
    """

    index: int
    context_s: float
    speed: float = 1.0
    epoch: int = 0
    place: int = 0


class TrainingSet(Dataset[tuple[Example, float]]):
    """Utterances as examples; an item is asked for by a `Pick` and returned with its context.

    ``draw`` says which of them an epoch shows (``None``: each once); ``augment`` changes their waveforms before the
    speed does.
    """

    def __init__(
        self,
        corpus: Corpus,
        utterances: list[Utterance],
        family: Family,
        data: DataConfig,
        *,
        draw: PoolDraw | None = None,
        augment: Augment | None = None,
        masks: Masks | None = None,
    ) -> None:
        self.corpus = corpus
        self.utterances = utterances
        self.family = family
        self.lower = data.case == "lower"
        self.draw = draw
        self.augment = augment
        self.masks = masks

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, pick: Pick) -> tuple[Example, float]:
        utterance = self.utterances[pick.index]
        waveform = load_audio(self.corpus.path_of(utterance), utterance.start_s, utterance.end_s)
        if self.augment is not None:
            waveform = self.augment(utterance, pick.epoch, pick.place)(waveform)
        waveform = change_speed(waveform, pick.speed)
        masks = None
        if self.masks is not None:
            frames = max(1, len(waveform) // HOP_SAMPLES)
            masks = self.masks(utterance, pick.epoch, pick.place, frames, self.family.mel_bins)
        tokens, prompt_tokens = self.family.tokens(self.label_text(utterance))
        return Example(waveform, tokens, prompt_tokens, masks), pick.context_s

    def label_text(self, utterance: Utterance) -> str:
        """The text an utterance is trained on."""
        return utterance.text.lower() if self.lower else utterance.text


def augment_for(config: TrainingConfig, pool: Corpus, window_s: float) -> Augment | None:
    """What a recipe's ``training.augment`` does to waveforms; babble is made of ``pool``, the training utterances.

    Raises:
        InputError: a directory is missing or empty, or an effect needs a library or a noise that is not there.
    """
    if not config.augment.enabled:
        return None
    longest_s = min(config.augment.max_duration_s, window_s * (1 - config.speed.range * (config.speed.share > 0)))
    augmenter = Augmenter(config.augment.model_copy(update={"max_duration_s": longest_s}), speech_of(pool))

    def augment(utterance: Utterance, epoch: int, place: int) -> Callable[[Waveform], Waveform]:
        clip = clip_info(utterance)
        draw = augmenter.draw(rng_for(config.seed, epoch, f"{utterance.utterance_id}\n{place}"), clip)
        return (lambda waveform: waveform) if draw is None else (lambda waveform: augmenter.apply(draw, waveform))

    return augment


def masks_for(config: TrainingConfig) -> Masks | None:
    """The masks of ``training.spec_augment`` where they are given by count; by share, Transformers draws them."""
    wanted, seed = config.spec_augment, config.seed
    if not wanted.by_count:
        return None

    def masks(utterance: Utterance, epoch: int, place: int, frames: int, bins: int) -> MaskDraw:
        return draw_masks_by_count(
            rng_for(seed, epoch, f"{utterance.utterance_id}\n{place}\nmasks"),
            frames,
            bins,
            time_masks=wanted.time_masks,
            time_width=wanted.time_width,
            bin_masks=wanted.feature_masks,
            bin_width=wanted.feature_width,
        )

    return masks


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
    processes each takes every ``world``-th batch of the same plan. A ``draw`` decides which utterances an epoch shows
    and how often (without one: each once), and in which epochs the batches come in order of difficulty.
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
        draw: PoolDraw | None = None,
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
        self.draw = draw
        self.shown = lru_cache(maxsize=2)(self._shown)
        self.plan = lru_cache(maxsize=2)(self._plan)

    def _shown(self, epoch: int) -> npt.NDArray[np.int64]:
        """The utterances an epoch shows, ascending, shape (shown,); one may stand several times."""
        return np.arange(len(self.durations_s)) if self.draw is None else self.draw(self.seed, epoch)

    def speeds(self, epoch: int) -> np.ndarray:
        """How fast each shown utterance is played in an epoch, shape (shown,); none outgrows the window."""
        draw = np.random.default_rng((self.seed, epoch, 2))
        durations_s = self.durations_s[self.shown(epoch)]
        drawn = draw.uniform(1 - self.speed.range, 1 + self.speed.range, len(durations_s))
        chosen = np.where(draw.random(len(durations_s)) < self.speed.share, drawn, 1.0)
        return np.where(durations_s / chosen > self.window_s, 1.0, chosen)

    def contexts_s(self, epoch: int) -> np.ndarray:
        """Seconds of audio each shown utterance is shown in an epoch, shape (shown,)."""
        durations_s = self.durations_s[self.shown(epoch)]
        if self.context.mode == "full":
            return np.full(len(durations_s), self.window_s)
        draw = np.random.default_rng((self.seed, epoch, 0))
        jitter_s = draw.uniform(0, self.context.jitter_s, len(durations_s))
        at_full = draw.random(len(durations_s)) < self.context.full_share
        shown_s = durations_s / self.speeds(epoch) + jitter_s
        return np.where(at_full, self.window_s, np.minimum(shown_s, self.window_s))

    def _plan(self, epoch: int) -> list[list[Pick]]:
        """The batches of one epoch for all processes; their number is a multiple of ``world``."""
        shown, contexts_s, speeds = self.shown(epoch), self.contexts_s(epoch), self.speeds(epoch)
        draw = np.random.default_rng((self.seed, epoch, 1))
        order = np.argsort(contexts_s + draw.uniform(0, 0.25, len(contexts_s)), kind="stable")
        batches: list[list[Pick]] = []
        for place in order:
            pick = Pick(int(shown[place]), float(contexts_s[place]), float(speeds[place]), epoch, int(place))
            if batches and self._fits(batches[-1], pick):
                batches[-1].append(pick)
            else:
                batches.append([pick])
        shuffled = [batches[position] for position in draw.permutation(len(batches))]
        if self.draw is not None and self.draw.difficulty is not None and self.draw.is_sorted(epoch):
            difficulty = self.draw.difficulty
            shuffled.sort(key=lambda batch: float(np.mean([difficulty[pick.index] for pick in batch])))
        missing = -len(shuffled) % self.world
        return shuffled + [shuffled[position % len(shuffled)] for position in range(missing)]

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
        draw=data.draw,
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
