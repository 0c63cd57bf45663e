"""Training examples, and batches of similar length that respect a budget of seconds.

Every draw (order, silence behind a clip, who is shown at the full window) is a pure function of
the seed and the epoch, so that an interrupted run continues with exactly the batches it would
have had.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch.utils.data import Dataset, Sampler

from speechtune.audio.augment import (
    Augmenter,
    MaskDraw,
    change_speed,
    draw_masks_by_count,
    draw_masks_by_share,
    rng_for,
)
from speechtune.audio.io import load_audio
from speechtune.audio.mel import HOP_SAMPLES
from speechtune.corpus.augmenting import clip_info, speech_of
from speechtune.corpus.config import DataConfig
from speechtune.corpus.sampling import PoolDraw
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.family import Example, Family
from speechtune.training.asides import Asides, Twofold, collate
from speechtune.training.config import AudioContextConfig, BatchConfig, SpeedConfig, TrainingConfig
from speechtune.training.draws import Change
from speechtune.training.format_plan import Part, Unit
from speechtune.training.formatting import TrainingFormat

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

    ``place`` is its position in the draw of ``epoch``, which also holds repetitions. ``parts`` follow it in the same
    example. With ``empty_s`` > 0 it is a clip of so many seconds without speech that takes the utterance's place.
    """

    index: int
    context_s: float
    speed: float = 1.0
    epoch: int = 0
    place: int = 0
    parts: tuple[Part, ...] = ()
    empty_s: float = 0.0

    @property
    def indices(self) -> list[int]:
        """The utterances of the example."""
        return [self.index, *(part.index for part in self.parts)]


class TrainingSet(Dataset[tuple[Example, float]]):
    """Utterances as examples; an item is asked for by a `Pick` and returned with its context.

    ``draw`` says which of them an epoch shows (``None``: each once); ``augment`` changes their waveforms before the
    speed does; ``format`` puts clips together and writes labels in a training format (``None``: the family's own);
    ``asides`` adds what some objectives want beside an example.
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
        format: TrainingFormat | None = None,
        asides: Asides | None = None,
    ) -> None:
        self.corpus = corpus
        self.utterances = utterances
        self.family = family
        self.lower = data.case == "lower"
        self.draw = draw
        self.augment = augment
        self.masks = masks
        self.format = format
        self.asides = asides

    def __len__(self) -> int:
        return len(self.utterances)

    def __getitem__(self, pick: Pick) -> tuple[Example, float]:
        utterance = self.utterances[pick.index]
        if self.format is not None:
            example = self.format.read(pick, self.waveform)
        else:
            waveform = self.waveform(pick.index, pick.epoch, pick.place, pick.speed)
            example = Example(waveform, *self.family.tokens(self.label_text(utterance)))
        if self.masks is not None:
            frames = max(1, len(example.waveform) // HOP_SAMPLES)
            masks = self.masks(utterance, pick.epoch, pick.place, frames, self.family.mel_bins)
            example = replace(example, masks=masks)
        if self.asides is not None:
            example = self.asides.beside(example, self, pick)
        return example, pick.context_s

    def waveform(self, index: int, epoch: int, place: int, speed: float) -> Waveform:
        """An utterance's samples with the changes of its place in an epoch, and at its speed."""
        utterance = self.utterances[index]
        waveform = load_audio(self.corpus.path_of(utterance), utterance.start_s, utterance.end_s)
        if self.augment is not None:
            waveform = self.augment(utterance, epoch, place)(waveform)
        return change_speed(waveform, speed)

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
        return Change(augmenter, draw)

    return augment


def masks_for(config: TrainingConfig, by_share: bool = False) -> Masks | None:
    """The masks of ``training.spec_augment`` where they are given by count; by share, Transformers draws them.

    With ``by_share`` those are drawn here too, for a model that masks nothing itself.
    """
    wanted, seed = config.spec_augment, config.seed
    if by_share and (wanted.time_prob > 0 or wanted.feature_prob > 0):
        return lambda utterance, epoch, place, frames, bins: draw_masks_by_share(
            rng_for(seed, epoch, f"{utterance.utterance_id}\n{place}\nmasks"),
            frames,
            bins,
            time_prob=wanted.time_prob,
            time_length=wanted.time_length,
            bin_prob=wanted.feature_prob,
            bin_length=wanted.feature_length,
        )
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
    """Examples and their contexts to the model's keyword arguments, with ``asides`` also what goes beside them."""

    def __init__(self, family: Family, asides: bool = False) -> None:
        self.family = family
        self.asides = asides

    def __call__(self, items: list[tuple[Example, float]]) -> dict[str, torch.Tensor]:
        examples = [example for example, _ in items]
        longest_s = max(len(example.waveform) for example in examples) / 16_000
        context_s = max(max(context for _, context in items), longest_s)
        if self.asides:
            seconds = [one.second for one in examples if isinstance(one, Twofold) and one.second is not None]
            context_s = max(context_s, *(len(one.waveform) / 16_000 for one in seconds), 0.0)
            return collate(self.family, examples, self.family.context_frames(context_s))
        return self.family.collate(examples, self.family.context_frames(context_s))


class BucketSampler(Sampler[list[Pick]]):
    """All micro-batches of a run, epoch after epoch: similar lengths together, in shuffled order.

    An utterance's context is its length (at its drawn speed) plus a drawn silence, or the full window
    for a drawn share. Utterances are sorted by context with a little noise, cut into batches that respect both bounds
    (utterances, and utterances x longest context), and the batches are shuffled. With several
    processes each takes every ``world``-th batch of the same plan. With ``updates`` above 1 the batches of an optimiser
    step come so many times in a row. A ``draw`` decides which utterances an epoch shows
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
        format: TrainingFormat | None = None,
        updates: int = 1,
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
        self.format = format
        self.updates = updates
        self.units = lru_cache(maxsize=2)(self._units)
        self.shown = lru_cache(maxsize=2)(self._shown)
        self.plan = lru_cache(maxsize=2)(self._plan)
        self.speeds = lru_cache(maxsize=2)(self._speeds)

    def _shown(self, epoch: int) -> npt.NDArray[np.int64]:
        """The utterances an epoch shows, ascending, shape (shown,); one may stand several times."""
        return np.arange(len(self.durations_s)) if self.draw is None else self.draw(self.seed, epoch)

    def _speeds(self, epoch: int) -> np.ndarray:
        """How fast each shown utterance is played in an epoch, shape (shown,); none outgrows the window."""
        draw = np.random.default_rng((self.seed, epoch, 2))
        durations_s = self.durations_s[self.shown(epoch)]
        drawn = draw.uniform(1 - self.speed.range, 1 + self.speed.range, len(durations_s))
        chosen = np.where(draw.random(len(durations_s)) < self.speed.share, drawn, 1.0)
        return np.where(durations_s / chosen > self.window_s, 1.0, chosen)

    def _units(self, epoch: int) -> list[Unit] | None:
        """The examples that the shown utterances make up in an epoch; ``None``: each is one by itself."""
        if self.format is None:
            return None
        shown = self.shown(epoch)
        return self.format.units(self.seed, epoch, shown.tolist(), self.durations_s[shown] / self.speeds(epoch))

    def lengths_s(self, epoch: int) -> np.ndarray:
        """Seconds of audio of each example of an epoch, at its speed."""
        units = self.units(epoch)
        if units is None:
            return self.durations_s[self.shown(epoch)] / self.speeds(epoch)
        return np.array([unit.duration_s for unit in units])

    def contexts_s(self, epoch: int) -> np.ndarray:
        """Seconds of audio the model is given for each example of an epoch."""
        durations_s = self.lengths_s(epoch)
        if self.context.mode == "full":
            return np.full(len(durations_s), self.window_s)
        draw = np.random.default_rng((self.seed, epoch, 0))
        jitter_s = draw.uniform(0, self.context.jitter_s, len(durations_s))
        at_full = draw.random(len(durations_s)) < self.context.full_share
        shown_s = durations_s + jitter_s
        return np.where(at_full, self.window_s, np.minimum(shown_s, self.window_s))

    def _plan(self, epoch: int) -> list[list[Pick]]:
        """The batches of one epoch for all processes; their number is a multiple of ``world``."""
        contexts_s = self.contexts_s(epoch)
        draw = np.random.default_rng((self.seed, epoch, 1))
        order = np.argsort(contexts_s + draw.uniform(0, 0.25, len(contexts_s)), kind="stable")
        batches: list[list[Pick]] = []
        for place in order:
            pick = self._pick(epoch, int(place), float(contexts_s[place]))
            if batches and self._fits(batches[-1], pick):
                batches[-1].append(pick)
            else:
                batches.append([pick])
        shuffled = [batches[position] for position in draw.permutation(len(batches))]
        if self.draw is not None and self.draw.difficulty is not None and self.draw.is_sorted(epoch):
            difficulty = self.draw.difficulty
            shuffled.sort(key=lambda batch: float(np.mean([difficulty[one] for pick in batch for one in pick.indices])))
        missing = -len(shuffled) % self.world
        planned = shuffled + [shuffled[position % len(shuffled)] for position in range(missing)]
        return repeated(planned, self.batch.accumulate * self.world, self.updates)

    def _pick(self, epoch: int, number: int, context_s: float) -> Pick:
        shown, speeds, units = self.shown(epoch), self.speeds(epoch), self.units(epoch)
        if units is None:
            return Pick(int(shown[number]), context_s, float(speeds[number]), epoch, number)
        unit = units[number]
        first, *rest = unit.places
        if unit.empty_s > 0:
            return Pick(int(shown[first]), context_s, 1.0, epoch, len(shown) + number, empty_s=unit.empty_s)
        parts = tuple(
            Part(int(shown[place]), place, float(speeds[place]), gap_s)
            for place, gap_s in zip(rest, unit.gaps_s[1:], strict=True)
        )
        return Pick(int(shown[first]), context_s, float(speeds[first]), epoch, first, parts)

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


T = TypeVar("T")


def repeated(items: list[T], size: int, times: int) -> list[T]:
    """The items in groups of ``size``, each group ``times`` times in a row: several steps on the same batches."""
    if times == 1:
        return items
    starts = range(0, len(items), size)
    return [item for start in starts for _ in range(times) for item in items[start : start + size]]


def sampler_for(config: TrainingConfig, data: TrainingSet) -> BucketSampler:
    """The batches of a run; under torchrun, this process's share of them."""
    context = config.audio_context
    if "full" not in data.family.contexts:  # no fixed window: silence behind a clip is masked padding
        context = AudioContextConfig(mode="fit", jitter_s=0, full_share=0)
    kind = BucketSampler
    if config.batch.has_target:
        from speechtune.training.steps import StepSampler

        kind = StepSampler
    sampler = kind(
        [utterance.duration_s for utterance in data.utterances],
        config.batch,
        context,
        config.speed,
        epochs=config.epochs,
        seed=config.seed,
        window_s=data.family.limits.max_audio_s,
        rank=int(os.environ.get("RANK", 0)),
        world=int(os.environ.get("WORLD_SIZE", 1)),
        draw=data.draw,
        format=data.format,
        updates=config.objectives.grpo.updates,
    )
    if config.max_steps is not None:
        sampler.epochs = 1
        while len(sampler) < config.max_steps * config.batch.accumulate:
            sampler.epochs += 1
    return sampler


def total_steps(config: TrainingConfig, sampler: BucketSampler) -> int:
    """Optimiser steps of a training."""
    planned = -(-len(sampler) // config.batch.accumulate)
    return planned if config.max_steps is None else config.max_steps


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
