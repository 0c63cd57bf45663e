"""GRPO and minimum word error rate training: the policy, the loss and its laws, and whole runs."""

from __future__ import annotations

import contextlib
import json
import math
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jiwer
import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from speechtune.core.errors import InputError
from speechtune.models.family import Example, load_family
from speechtune.models.policy import Policy, WhisperPolicy, policy_of
from speechtune.models.whisper import WhisperFamily
from speechtune.training.config import BatchConfig, TrainingConfig
from speechtune.training.data import BucketSampler, repeated
from speechtune.training.objectives.combine import Call, Objectives, objectives_for
from speechtune.training.objectives.grpo import GroupPolicy, advantages, expected_errors, is_flat, policy_loss
from speechtune.training.objectives.grpo_config import GrpoConfig, RewardConfig
from speechtune.training.rewards import Reward, repeated_share

TEXTS = ("the thing", "sing", "in the inn and out", "go on")
SECONDS = (1.1, 0.6, 1.4, 0.8)
FRAMES = 160
QUICK = ["--quiet", "evaluation.contexts=[fit]"]
TERM: dict[str, Any] = {"weight": 1.0, "samples": 4, "max_new_tokens": 8}

Command = Callable[..., subprocess.CompletedProcess[str]]
Write = Callable[..., Path]


@pytest.fixture
def family(tiny_model: Path) -> WhisperFamily:
    found = load_family(tiny_model, device="cpu")
    assert isinstance(found, WhisperFamily)
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter.mul_(0.5)
    found.model.train()
    return found


@pytest.fixture
def batch(family: WhisperFamily) -> dict[str, torch.Tensor]:
    return family.collate(examples(family), FRAMES)


def examples(family: WhisperFamily) -> list[Example]:
    rng = np.random.default_rng(1)
    waves = [rng.normal(0, 0.1, round(16_000 * seconds)).astype(np.float32) for seconds in SECONDS]
    return [Example(wave, *family.tokens(text)) for wave, text in zip(waves, TEXTS, strict=True)]


def build(family: WhisperFamily, run: Path, label_weight: float = 0.0, **grpo: Any) -> tuple[Objectives, GroupPolicy]:
    terms = {"label_weight": label_weight, "grpo": {**TERM, **grpo}}
    objectives = objectives_for(TrainingConfig(objectives=terms), family, family.model, run)
    assert objectives is not None
    term = objectives.terms[0]
    assert isinstance(term, GroupPolicy)
    return objectives, term


def call(model: Any, batch: dict[str, torch.Tensor], items: Any = None, step: int = 0, training: bool = True) -> Call:
    def forward(inputs: dict[str, Any], count: Any) -> torch.Tensor:
        return model(**inputs, num_items_in_batch=count).loss

    return Call(batch, items, forward, contextlib.nullcontext, 0.0, 1, training, step)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


def columns(objectives: Objectives) -> dict[str, float]:
    return objectives.columns(lambda value: value)


def plain_log_probs(
    family: WhisperFamily, batch: dict[str, torch.Tensor], row: int, tokens: list[int], heat: float
) -> torch.Tensor:
    """Log-probabilities of one sequence of one clip, from the model's whole logits; tokens end at the end token."""
    prompt = family.prompt
    model: Any = family.model
    ids = torch.tensor([[*prompt, *tokens]])
    logits = model(input_features=batch["input_features"][row : row + 1], decoder_input_ids=ids[:, :-1]).logits[0]
    logits = logits[len(prompt) - 1 :] / heat
    allowed = torch.ones_like(logits, dtype=torch.bool)
    allowed[:, family.generation_config.suppress_tokens] = False
    allowed[:, family.first_timestamp :] = False
    allowed[0, family.generation_config.begin_suppress_tokens] = False
    log_probs = torch.log_softmax(torch.where(allowed, logits, -1e30), -1)
    return log_probs[torch.arange(len(tokens)), torch.tensor(tokens)]


def ended(policy: Policy, row: torch.Tensor) -> list[int]:
    return row[policy.counted(row[None])[0]].tolist()


def drawn(policy: WhisperPolicy, batch: dict[str, torch.Tensor], uniforms: torch.Tensor, heat: float) -> torch.Tensor:
    hidden = policy.encode(batch).detach()
    return policy.draw(hidden, policy.prompts(batch), uniforms, heat)


@pytest.mark.parametrize("heat", [1.0, 0.6])
def test_teacher_forced_log_probs_are_those_of_the_sampling_distribution(
    family: WhisperFamily, batch: dict[str, torch.Tensor], heat: float
) -> None:
    policy = policy_of(family, "a test")
    tokens = drawn(policy, batch, torch.rand(4, 12, generator=torch.manual_seed(0), dtype=torch.float64), heat)
    hidden, prompts = policy.encode(batch), policy.prompts(batch)
    found = policy.log_probs(hidden, prompts, tokens, heat)
    for row in range(4):
        own = ended(policy, tokens[row])
        alone = plain_log_probs(family, batch, row, own, heat)
        torch.testing.assert_close(found[row, : len(own)], alone, rtol=1e-4, atol=1e-5)
        assert not found[row, len(own) :].any()
        assert torch.isfinite(found[row]).all()
        never = {*family.generation_config.suppress_tokens, *range(family.first_timestamp, family.config.vocab_size)}
        assert not never & set(own) and own[0] not in family.generation_config.begin_suppress_tokens


def test_first_tokens_are_drawn_with_their_probability_and_a_row_does_not_depend_on_its_neighbours(
    family: WhisperFamily, batch: dict[str, torch.Tensor]
) -> None:
    policy = policy_of(family, "a test")
    hidden, prompts = policy.encode(batch).detach()[[1]], policy.prompts(batch)[[1]]
    places = (torch.arange(4000, dtype=torch.float64) + 0.5) / 4000
    tokens = policy.draw(hidden.expand(4000, -1, -1), prompts.expand(4000, -1), places[:, None], 1.0)[:, 0]
    shares = torch.bincount(tokens, minlength=family.config.vocab_size) / 4000
    every = torch.arange(family.config.vocab_size)[:, None]
    wide = hidden.expand(len(every), -1, -1), prompts.expand(len(every), -1)
    with torch.no_grad():
        probability = policy.log_probs(*wide, every, 1.0)[:, 0].exp()
    assert float((shares - probability).abs().max()) < 1 / 2000
    uniforms = torch.rand(4, 10, generator=torch.manual_seed(1), dtype=torch.float64)
    together = drawn(policy, batch, uniforms, 1.0)
    alone = drawn(policy, {name: value[2:3] for name, value in batch.items()}, uniforms[2:3], 1.0)
    assert ended(policy, together[2]) == ended(policy, alone[0])


def test_advantages_sum_to_zero_and_flat_groups_have_none() -> None:
    rewards = torch.tensor([[0.0, -1.0, -0.5, -0.25], [-0.3, -0.3, -0.3, -0.3]])
    for divide in (True, False):
        found = advantages(rewards, divide)
        torch.testing.assert_close(found.sum(-1), torch.zeros(2), atol=1e-6, rtol=0)
        assert not found[1].any()
    expected = (rewards[0].numpy() - rewards[0].numpy().mean()) / (np.std(rewards[0].numpy()) + 1e-4)
    np.testing.assert_allclose(advantages(rewards, True)[0].numpy(), expected, rtol=1e-5)
    assert is_flat(rewards).tolist() == [False, True]


def test_the_gradient_is_reinforce_with_the_groups_baseline_at_ratio_one(
    family: WhisperFamily, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """Independent: each transcript alone through the model's own forward, its reward from jiwer."""
    objectives, term = build(family, tmp_path, divide_by_std=False, updates=2, clip=0.2)
    loss = objectives.loss(call(family.model, batch))
    loss.backward()
    found = gradients(family.model)
    family.model.zero_grad()
    groups, policy, expected = list(term.groups.values()), term.policy, torch.zeros(())
    labels, flat = [int((row != -100).sum()) for row in batch["labels"]], 0
    for row, group in enumerate(groups):
        texts = [family.text(ended(policy, one)) for one in group.tokens]
        rewards = [-jiwer.wer(term.reward.normalise(TEXTS[row]), term.reward.normalise(text)) for text in texts]
        np.testing.assert_allclose(group.rewards.numpy(), rewards, rtol=1e-6)
        baseline = sum(rewards) / len(rewards)
        flat += len(set(rewards)) == 1
        for tokens, reward in zip(group.tokens, rewards, strict=True):
            log_probs = plain_log_probs(family, batch, row, ended(policy, tokens), 1.0)
            expected = expected - labels[row] / sum(labels) / 4 * (reward - baseline) * log_probs.mean()
    assert flat < 4
    expected.backward()
    for name, gradient in gradients(family.model).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=2e-6)
    logged = columns(objectives)
    assert logged["grpo_kl"] == logged["grpo_clip_share"] == 0.0
    assert logged["grpo_zero_variance_share"] == flat / 4
    assert logged["grpo_reward"] == pytest.approx(float(torch.stack([one.rewards for one in groups]).mean()), rel=1e-5)


def test_ratios_are_clipped_on_the_side_that_would_overshoot_and_carry_no_gradient_there() -> None:
    config = GrpoConfig(weight=1, clip=0.2, clip_high=0.3, kl=0.0)
    ratios = torch.tensor([[0.5, 0.9, 1.25, 1.5]]).repeat(2, 1)
    new = ratios.log().requires_grad_()
    advantage = torch.tensor([2.0, -1.0])
    loss, _, clipped = policy_loss(new, torch.zeros(2, 4), None, advantage, config)
    expected = [[-1.0, -1.8, -2.5, -2.6], [0.8, 0.9, 1.25, 1.5]]
    torch.testing.assert_close(loss, torch.tensor(expected))
    assert clipped.tolist() == [[False, False, False, True], [True, False, False, False]]
    loss.sum().backward()
    assert new.grad is not None
    assert ((new.grad == 0) == clipped).all()


def test_the_kl_estimate_is_unbiased_and_its_weight_counts() -> None:
    generator = torch.manual_seed(0)
    p, q = (torch.randn(6, generator=generator).log_softmax(0) for _ in range(2))
    config = GrpoConfig(weight=1, kl=0.5)
    every = torch.arange(6)
    loss, divergence, _ = policy_loss(p[every][:, None], p[every][:, None], q[every][:, None], torch.zeros(6), config)
    exact = float((p.exp() * (p - q)).sum())
    assert float((p.exp() * divergence[:, 0]).sum()) == pytest.approx(exact, rel=1e-5)
    torch.testing.assert_close(loss, 0.5 * divergence)


def test_the_reference_is_the_start_and_kl_rises_once_weights_move(
    family: WhisperFamily, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    objectives, _ = build(family, tmp_path, kl=0.1)
    objectives.loss(call(family.model, batch))
    assert columns(objectives)["grpo_kl"] == 0.0
    torch.manual_seed(3)
    with torch.no_grad():
        for parameter in family.model.parameters():
            parameter.add_(0.02 * torch.randn_like(parameter))
    objectives.loss(call(family.model, batch))
    assert columns(objectives)["grpo_kl"] > 1e-4


@pytest.mark.parametrize("more", [{}, {"method": "mwer"}, {"divide_by_std": False, "mean_over_tokens": False}])
def test_cutting_a_step_changes_neither_samples_nor_gradient(
    family: WhisperFamily, batch: dict[str, torch.Tensor], tmp_path: Path, more: dict[str, Any]
) -> None:
    objectives, _ = build(family, tmp_path, **more)
    items = (batch["labels"] != -100).sum()
    objectives.loss(call(family.model, batch, items)).backward()
    whole, logged = gradients(family.model), columns(objectives)
    family.model.zero_grad()
    for rows in ([0, 2], [1], [3]):
        part = {name: value[rows] for name, value in batch.items()}
        objectives.loss(call(family.model, part, items)).backward()
    assert columns(objectives)["grpo_reward"] == pytest.approx(logged["grpo_reward"], rel=1e-6)
    assert any(bool(one.any()) for one in whole.values())
    for name, gradient in gradients(family.model).items():
        torch.testing.assert_close(gradient, whole[name], rtol=1e-3, atol=1e-6)


def test_another_step_draws_other_samples_unless_they_are_kept(
    family: WhisperFamily, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    objectives, term = build(family, tmp_path, updates=2)
    seen = []
    for step in range(4):
        objectives.loss(call(family.model, batch, step=step))
        seen.append(torch.cat([group.tokens.flatten() for group in term.groups.values()]).tolist())
    assert seen[0] == seen[1] != seen[2] == seen[3]


def test_the_expected_reward_of_a_tiny_model_rises(
    family: WhisperFamily, batch: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    """From a model that was taught a little with labels, as in use: the reward of the same draws, before and after."""
    optimiser = torch.optim.Adam(family.model.parameters(), lr=5e-3)
    for _ in range(25):
        optimiser.zero_grad()
        family.model(**batch).loss.backward()
        optimiser.step()
    objectives, _ = build(family, tmp_path, samples=8, max_new_tokens=16, kl=0.0, reward={"wer": 0.0, "cer": 1.0})

    def mean_reward() -> float:
        with torch.no_grad():
            objectives.loss(call(family.model, batch, step=10_000))
        return columns(objectives)["grpo_reward"]

    before = mean_reward()
    optimiser = torch.optim.Adam(family.model.parameters(), lr=1e-3)
    for step in range(20):
        optimiser.zero_grad()
        objectives.loss(call(family.model, batch, step=step)).backward()
        optimiser.step()
    columns(objectives)
    assert mean_reward() > before + 0.1


@pytest.mark.parametrize("candidates", ["sampled", "beam"])
def test_minimum_word_error_rate_is_the_expectation_over_the_list(
    family: WhisperFamily, batch: dict[str, torch.Tensor], tmp_path: Path, candidates: str
) -> None:
    one = {name: value[2:3] for name, value in batch.items()}
    objectives, term = build(family, tmp_path, method="mwer", candidates=candidates, reward={"wer": 0, "cer": 1})
    kept: list[torch.Tensor] = []
    original = term._candidates

    def listen(*words: Any) -> torch.Tensor:
        kept.append(original(*words))
        return kept[-1]

    term._candidates = listen  # type: ignore[method-assign, assignment]
    loss = objectives.loss(call(family.model, one))
    loss.backward()
    found = gradients(family.model)
    family.model.zero_grad()
    rows = [ended(term.policy, row) for row in kept[0][0]]
    errors = torch.tensor(
        [jiwer.cer(term.reward.normalise(TEXTS[2]), term.reward.normalise(family.text(row))) for row in rows]
    )
    if candidates == "beam":
        assert len({tuple(row) for row in rows}) == 4
    log_probs = torch.stack([plain_log_probs(family, one, 0, row, 1.0).sum() for row in rows])
    weights = log_probs.exp() / log_probs.exp().sum()
    expected = (weights * (errors - errors.mean())).sum()
    assert float(loss) == pytest.approx(float(expected), rel=1e-3, abs=1e-6)
    expected.backward()
    for name, gradient in gradients(family.model).items():
        torch.testing.assert_close(found[name], gradient, rtol=1e-2, atol=1e-6)
    assert float(expected_errors(torch.tensor([[0.0, 0.0]]), torch.tensor([[-1.0, 0.0]]))) == 0.0


def test_rewards_are_the_scoring_rooms_rates() -> None:
    reward = Reward(RewardConfig(wer=1, cer=0.5, exact=0.25, length=0.1, repetition=2), "en")
    ref, hyp = "the cat sat", "the the bat sat"
    expected = -jiwer.wer(ref, hyp) - 0.5 * jiwer.cer(ref, hyp) - 0.1 / 3 - 2 / 4
    assert reward(ref, ["The cat, sat!", hyp]) == pytest.approx([0.25, expected])
    assert reward("", ["", "word"])[0] == 0.25
    assert repeated_share(["go", "on"] * 3) == pytest.approx(4 / 6)
    assert Reward(RewardConfig(wer=0, cer=1), "en")("color", ["colour"]) == [0.0]  # the normaliser's spelling


def test_what_cannot_be_had_is_refused_in_a_sentence(family: WhisperFamily, tmp_path: Path) -> None:
    for more, words in (
        ({"format": {"timestamps_share": 0.4}}, "training.format"),
        ({"sharding": "fsdp"}, "training.sharding=none"),
    ):
        with pytest.raises(InputError, match=words):
            objectives_for(TrainingConfig(objectives={"grpo": TERM}, **more), family, family.model, tmp_path)
    for grpo in ({"candidates": "beam"}, {"method": "mwer", "updates": 2}, {"reward": {"wer": 0}}, {"samples": 1}):
        with pytest.raises(ValueError, match=r"grpo|updates|reward|samples"):
            TrainingConfig(objectives={"grpo": {**TERM, **grpo}})

    class Unknown:
        name = "unknown"

    with pytest.raises(InputError, match=r"no way to draw transcripts: objectives\.grpo is for whisper, ctc"):
        policy_of(Unknown(), "objectives.grpo")  # type: ignore[arg-type]


def test_the_batches_of_a_step_come_as_often_as_there_are_updates() -> None:
    assert repeated([1, 2, 3, 4, 5], 2, 2) == [1, 2, 1, 2, 3, 4, 3, 4, 5, 5]
    config = TrainingConfig()
    options: dict[str, Any] = {"epochs": 2, "seed": 0, "window_s": 3.0}
    batches = BatchConfig(utterances=2, accumulate=2)
    once = BucketSampler([1.0] * 8, batches, config.audio_context, **options)
    twice = BucketSampler([1.0] * 8, batches, config.audio_context, **options, updates=2)
    assert len(twice) == 2 * len(once)
    assert list(twice)[4:8] == list(once)[2:4] * 2


def rows(run: Path) -> list[dict[str, Any]]:
    found = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [row for row in found if row["kind"] == "train"]


def test_a_stage_of_several_updates_is_logged_and_a_killed_one_continues_to_the_same_bits(
    write_recipe: Write, tmp_path: Path, speechtune: Command
) -> None:
    recipe = write_recipe(
        training={
            "epochs": 1,
            "batch": {"utterances": 4, "accumulate": 2},
            "audio_context": {"jitter_s": 0.2, "full_share": 0.2},
            "checkpoint_every_steps": 1,
            "learning_rate": 1e-4,
            "trackers": [],
            "objectives": {"label_weight": 0.0, "grpo": {**TERM, "updates": 3, "reward": {"cer": 1.0}}},
        }
    )
    done = speechtune("train", recipe, "--out", tmp_path / "whole", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    train = rows(tmp_path / "whole")
    names = {f"grpo_{name}" for name in ("reward", "reward_std", "kl", "clip_share", "zero_variance_share", "tokens")}
    assert all(names <= set(row) and math.isfinite(row["loss"]) for row in train)
    assert train[0]["grpo_kl"] == 0.0
    assert train[-1]["grpo_kl"] > 0.0
    killer = (
        "import os, signal, sys, transformers\n"
        "original = transformers.Trainer.training_step\n"
        "def step(self, *a, **k):\n"
        "    if self.state.global_step == 2: os.kill(os.getpid(), signal.SIGKILL)\n"
        "    return original(self, *a, **k)\n"
        "transformers.Trainer.training_step = step\n"
        "from speechtune.cli.app import main\nmain()"
    )
    parts = tmp_path / "parts"
    command = [sys.executable, "-c", killer, "train", str(recipe), "--out", str(parts), *QUICK]
    killed = subprocess.run(command, capture_output=True)
    assert killed.returncode == -9
    again = speechtune("train", recipe, "--out", parts, "--resume", *QUICK)
    assert again.returncode == 0, again.stderr
    one, two = (load_file(run / "model" / "model.safetensors") for run in (tmp_path / "whole", parts))
    assert all((one[name] == two[name]).all() for name in one)


def test_an_adapter_bf16_and_checkpointing_go_with_it(write_recipe: Write, tmp_path: Path, speechtune: Command) -> None:
    recipe = write_recipe(
        adapter={"kind": "lora", "rank": 2, "alpha": 4},
        training={
            "epochs": 1,
            "batch": {"effective": 8},
            "precision": "bf16",
            "gradient_checkpointing": True,
            "trackers": [],
            "objectives": {"label_weight": 0.1, "grpo": {**TERM, "reward": {"cer": 1.0}}},
        },
    )
    done = speechtune("train", recipe, "--out", tmp_path / "run", "--json", *QUICK)
    assert done.returncode == 0, done.stderr
    assert all(row["grpo_tokens"] > 0 for row in rows(tmp_path / "run"))


def test_two_processes_equal_one_with_accumulation(write_recipe: Write, tmp_path: Path, speechtune: Command) -> None:
    """The same samples, since they depend on seed, step and clip alone, and so the same losses and weights."""
    recipe = write_recipe(
        training={
            "epochs": 1,
            "batch": {"utterances": 4},
            "audio_context": {"jitter_s": 0.0, "full_share": 0.0},
            "learning_rate": 1e-4,
            "trackers": [],
            "objectives": {"label_weight": 0.0, "grpo": {**TERM, "reward": {"cer": 1.0}}},
        }
    )
    one, two = tmp_path / "one", tmp_path / "two"
    alone = speechtune("train", recipe, "--out", one, "training.batch.accumulate=2", *QUICK)
    assert alone.returncode == 0, alone.stderr[-3000:]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2"]
    done = subprocess.run(
        [*launch, "-m", "speechtune.cli", "train", str(recipe), "--out", str(two), *QUICK],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert done.returncode == 0, done.stderr[-3000:]
    for first, second in zip(rows(one), rows(two), strict=True):
        for name in ("grpo_reward", "grpo_tokens", "grpo_zero_variance_share"):
            assert second[name] == pytest.approx(first[name], rel=1e-5), name
        assert second["loss"] == pytest.approx(first["loss"], rel=1e-2, abs=1e-6)
    left, right = (load_file(run / "model" / "model.safetensors") for run in (one, two))
    assert max(float(abs(left[name] - right[name]).max()) for name in left) < 1e-5
