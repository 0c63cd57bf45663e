"""Batches: every utterance once an epoch, bounds kept, draws a pure function of seed and epoch."""

from __future__ import annotations

import dataclasses
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from speechtune.core.errors import InputError
from speechtune.corpus.config import DataConfig
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.family import Example, load_family
from speechtune.training.config import AudioContextConfig, BatchConfig, SpeedConfig, TrainingConfig
from speechtune.training.data import BucketSampler, Pick, TrainingSet, evaluation_steps
from speechtune.training.pool import training_pool

DURATIONS_S = np.random.default_rng(0).gamma(3.0, 1.3, 500).clip(0.3, 29).tolist()


def sampler(seed: int = 0, epochs: int = 2, rank: int = 0, world: int = 1, **context: object) -> BucketSampler:
    return BucketSampler(
        DURATIONS_S,
        BatchConfig(utterances=16, seconds=200),
        AudioContextConfig(**context),  # type: ignore[arg-type]
        epochs=epochs,
        seed=seed,
        window_s=30.0,
        rank=rank,
        world=world,
    )


def test_every_utterance_comes_once_an_epoch_within_both_bounds() -> None:
    one = sampler()
    for epoch in range(2):
        batches = one.plan(epoch)
        assert Counter(pick.index for batch in batches for pick in batch) == Counter(range(500))
        for batch in batches:
            assert len(batch) <= 16
            assert len(batch) == 1 or len(batch) * max(pick.context_s for pick in batch) <= 200
            assert len({pick.context_s == 30.0 for pick in batch}) == 1


def test_a_clip_is_never_shown_less_than_its_length_nor_more_than_the_jitter_or_the_window() -> None:
    one = sampler(jitter_s=0.7, full_share=0.1)
    contexts_s = one.contexts_s(0)
    at_full = contexts_s == 30.0
    extra = (contexts_s - one.durations_s)[~at_full]
    assert (extra >= 0).all()
    assert (extra <= 0.7).all()
    assert extra.std() > 0.1
    assert 0.05 < at_full.mean() < 0.15
    assert (sampler(mode="full").contexts_s(0) == 30.0).all()
    assert (sampler(full_share=0.0, jitter_s=0.0).contexts_s(0) == one.durations_s).all()


def test_speeds_are_drawn_for_a_share_and_never_outgrow_the_window() -> None:
    durations_s = [*DURATIONS_S, 29.9]
    one = BucketSampler(
        durations_s,
        BatchConfig(),
        AudioContextConfig(jitter_s=0.0, full_share=0.0),
        SpeedConfig(share=0.5, range=0.1),
        epochs=1,
        seed=0,
        window_s=30.0,
    )
    speeds = one.speeds(0)
    assert 0.4 < (speeds != 1).mean() < 0.6
    assert ((speeds >= 0.9) & (speeds <= 1.1)).all()
    assert (one.contexts_s(0) <= 30).all()
    for batch in one.plan(0):
        for pick in batch:
            assert pick.speed == speeds[pick.index]
            assert pick.context_s == pytest.approx(durations_s[pick.index] / pick.speed)
    assert (sampler().speeds(0) == 1).all()


def test_draws_depend_on_seed_and_epoch_only() -> None:
    assert list(sampler(seed=1)) == list(sampler(seed=1))
    assert list(sampler(seed=1)) != list(sampler(seed=2))
    assert sampler().plan(0) != sampler().plan(1)
    later = sampler()
    later.plan(1)
    assert later.plan(0) == sampler().plan(0)


def test_lengths_are_similar_within_a_batch() -> None:
    """Bucketing pays: little of a batch is padding, compared with batches drawn at random."""
    one = sampler(full_share=0.0)
    batches = one.plan(0)
    shown = sum(len(batch) * max(pick.context_s for pick in batch) for batch in batches)
    needed = sum(pick.context_s for batch in batches for pick in batch)
    assert needed / shown > 0.9
    order = [batch[0].context_s for batch in batches]
    assert order != sorted(order)


def test_processes_share_one_plan_with_equal_counts() -> None:
    parts = [list(sampler(rank=rank, world=3)) for rank in range(3)]
    assert len({len(part) for part in parts}) == 1
    shown = Counter(pick.index for part in parts for batch in part for pick in batch)
    assert set(shown) == set(range(500))
    assert len(list(sampler(rank=1, world=3))) == len(sampler(rank=1, world=3))


def test_evaluations_fall_at_the_end_of_each_epoch_whatever_the_accumulation() -> None:
    assert evaluation_steps([10, 21], 1, 1) == {10: 1, 21: 2}
    assert evaluation_steps([10, 21], 4, 1) == {3: 1, 6: 2}
    assert evaluation_steps([10, 20], 1, 2) == {5: 0.5, 10: 1, 15: 1.5, 20: 2}


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"duration_s": 3.2}, "is too long, 3.20 s"),
        ({"text": "the " * 80}, "has too many tokens"),
        ({"text": "  "}, "has no text"),
    ],
)
def test_what_the_model_cannot_take_is_named_or_counted(
    tiny_model: Path, tiny_corpus: Path, changes: dict[str, object], reason: str
) -> None:
    family = load_family(tiny_model)
    corpus = Corpus.load(tiny_corpus)
    given = {"utterance_id": "bad", "file_name": "bad.wav", "text": "x", "duration_s": 1.0, "split": "train"}
    bad = Utterance(**{**given, **changes})  # type: ignore[arg-type]
    corpus.utterances.append(bad)
    with pytest.raises(InputError, match=f"bad .bad.wav. {reason}"):
        training_pool(corpus, family, DataConfig(corpus=str(tiny_corpus)))
    pool = training_pool(corpus, family, DataConfig(corpus=str(tiny_corpus), unusable="drop"))
    assert len(pool.utterances) == 16
    assert list(pool.dropped.values()) == [1]


def test_augmentation_and_masks_are_drawn_by_seed_epoch_and_place_alone(tiny_model: Path, tiny_corpus: Path) -> None:
    from speechtune.audio.augment import apply_masks
    from speechtune.training.data import augment_for, masks_for

    family = load_family(tiny_model)
    corpus = Corpus.load(tiny_corpus)
    config = TrainingConfig.model_validate(
        {
            "augment": {"effects": [{"kind": "noise", "snr_db": [10, 10], "sources": ["white"]}]},
            "spec_augment": {"time_masks": 1, "time_width": 30, "feature_masks": 1, "feature_width": 20},
        }
    )
    rows = corpus.utterances

    def items(picks: list[Pick], config: TrainingConfig = config) -> list[Example]:
        data = TrainingSet(
            corpus,
            rows,
            family,
            DataConfig(corpus=str(corpus.root)),
            augment=augment_for(config, corpus, family.limits.max_audio_s),
            masks=masks_for(config),
        )
        return [data[pick][0] for pick in picks]

    pick = Pick(0, 2.0, 1.0, epoch=1, place=3)
    first, again, other = items([pick, pick, Pick(0, 2.0, 1.0, epoch=2, place=3)])
    assert np.array_equal(first.waveform, again.waveform)
    assert first.masks == again.masks
    assert not np.array_equal(first.waveform, other.waveform)
    assert first.masks != other.masks
    (plain,) = items([pick], TrainingConfig())
    assert plain.masks is None
    noise = first.waveform - plain.waveform
    assert noise.std() > 0
    assert first.masks is not None
    frames = len(first.waveform) // 160
    assert all(start + width <= frames for start, width in first.masks.time)
    n_frames = family.context_frames(2.0)
    bare = dataclasses.replace(first, masks=None)
    with_masks = family.collate([first, plain], n_frames)["input_features"]
    without = family.collate([bare, plain], n_frames)["input_features"]
    assert torch.equal(with_masks[0], apply_masks(without[0], first.masks))
    assert torch.equal(with_masks[1], without[1])
