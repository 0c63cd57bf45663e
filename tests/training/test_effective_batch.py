"""One optimiser step is the same however it is cut: by micro-batch, by accumulation, by process, or by memory."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from speechtune.corpus.config import DataConfig
from speechtune.corpus.table import Corpus
from speechtune.models.family import load_family
from speechtune.training.batch_finder import BatchFinder, OutOfMemoryError, cut, is_out_of_memory
from speechtune.training.config import AudioContextConfig, BatchConfig, TrainingConfig
from speechtune.training.data import TrainingSet, sampler_for, total_steps
from speechtune.training.schedules import rates
from speechtune.training.steps import StepSampler
from speechtune.training.trainer import Schedule, SpeechTrainer, training_arguments

DURATIONS_S = [0.2 + 0.13 * (number * 7 % 20) for number in range(41)]


def plan(world: int = 1, rank: int = 0, **batch: Any) -> StepSampler:
    return StepSampler(
        DURATIONS_S,
        BatchConfig(**batch),
        AudioContextConfig(jitter_s=0.3, full_share=0.1),
        epochs=2,
        seed=5,
        window_s=30.0,
        rank=rank,
        world=world,
    )


def sets(sampler: StepSampler) -> list[set[int]]:
    return [{pick.place for batch in step for pick in batch} for step in sampler]


def test_a_step_holds_the_same_utterances_for_any_micro_batch_and_any_number_of_processes() -> None:
    wanted = sets(plan(effective=8, utterances=8))
    assert [len(step) for step in wanted] == [8, 8, 8, 8, 9] * 2 or sorted(map(len, wanted)) == [8] * 8 + [9] * 2
    for utterances, seconds in ((1, 480.0), (3, 480.0), (8, 4.0)):
        assert sets(plan(effective=8, utterances=utterances, seconds=seconds)) == wanted
    for world in (2, 3):
        shares = [sets(plan(world, rank, effective=8, utterances=3)) for rank in range(world)]
        assert [set().union(*step) for step in zip(*shares, strict=True)] == wanted
        assert all(sum(map(len, step)) == len(set().union(*step)) for step in zip(*shares, strict=True))


def test_the_bounds_of_a_micro_batch_hold() -> None:
    for step in plan(effective=16, utterances=4, seconds=6.0):
        for batch in step:
            assert len(batch) <= 4
            assert len(batch) == 1 or len(batch) * max(pick.context_s for pick in batch) <= 6.0


def test_seconds_are_held_within_an_utterance() -> None:
    total_s = sum(DURATIONS_S)
    for step in plan(effective_seconds=10.0, utterances=3):
        own_s = sum(DURATIONS_S[pick.index] for batch in step for pick in batch)
        assert own_s == pytest.approx(total_s / round(total_s / 10), abs=max(DURATIONS_S))
    assert [len(list(plan(effective_seconds=10.0, utterances=u))) for u in (1, 8)] == [2 * round(total_s / 10)] * 2


def test_processes_get_equally_many_micro_batches_where_that_can_be() -> None:
    shares = [[len(step) for step in plan(2, rank, effective=8, utterances=5)] for rank in (0, 1)]
    assert shares[0] == shares[1]


def test_accumulation_beside_an_effective_batch_is_refused() -> None:
    with pytest.raises(ValidationError, match="accumulate follows from the effective batch"):
        BatchConfig(effective=8, accumulate=2)
    with pytest.raises(ValidationError, match="keep one of them"):
        BatchConfig(effective=8, effective_seconds=60)


Build = Callable[..., SpeechTrainer]


@pytest.fixture
def build(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> Build:
    """A trainer of the tiny model on the tiny corpus, for a training configuration."""

    def make(record: Path | None = None, attempt: str = "run", **training: Any) -> SpeechTrainer:
        torch.manual_seed(0)
        config = TrainingConfig(trackers=[], learning_rate=1e-3, **training)
        corpus = Corpus.load(tiny_corpus).split("train")
        family = load_family(tiny_model)
        data = TrainingSet(corpus, corpus.utterances, family, DataConfig(corpus=str(tiny_corpus)))
        sampler = sampler_for(config, data)
        steps = total_steps(config, sampler)
        return SpeechTrainer(
            family.model,
            training_arguments(config, tmp_path / attempt, "cpu", steps),
            data,
            sampler,
            evaluate=lambda: {"wer": 1.0},
            callbacks=[Schedule(config, sampler)],
            finder=BatchFinder(record),
            rate=rates("constant", config.schedule_shape, steps, 0.0, None),
        )

    return make


def first_step(trainer: SpeechTrainer) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient of the first optimiser step, through the Trainer's own methods."""
    batches = iter(trainer.get_train_dataloader())
    samples, items = trainer.get_batch_samples(batches, trainer.args.gradient_accumulation_steps, trainer.args.device)
    model: Any = trainer.model
    model.zero_grad()
    loss = sum(float(trainer.training_step(model, batch, items)) for batch in samples)
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def close(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> float:
    return max(float((one[name] - other[name]).abs().max()) for name in one)


FIT: dict[str, Any] = {"audio_context": {"jitter_s": 0.2, "full_share": 0.2}}


def test_loss_and_gradient_do_not_depend_on_the_micro_batch(build: Build) -> None:
    # The context is the micro-batch's longest clip's, and the model is shown it: only full context compares.
    full: dict[str, Any] = {"audio_context": {"mode": "full"}}
    whole = first_step(build(batch={"effective": 8, "utterances": 8}, **full))
    for utterances in (1, 3):
        loss, gradient = first_step(build(batch={"effective": 8, "utterances": utterances}, **full))
        assert loss == pytest.approx(whole[0], rel=1e-6)
        assert close(gradient, whole[1]) < 1e-6


class Short:
    """Memory that ends: a forward pass with more than ``most`` rows raises, once its gradients are half done."""

    def __init__(self, trainer: SpeechTrainer, most: int, from_step: int, error: Exception) -> None:
        self.forward = trainer.model.forward  # type: ignore[union-attr]
        self.trainer, self.most, self.from_step, self.error = trainer, most, from_step, error
        trainer.model.forward = self  # type: ignore[union-attr, method-assign]
        self.refused = 0

    def __call__(self, *args: Any, **inputs: Any) -> Any:
        if len(inputs["labels"]) > self.most and self.trainer.state.global_step >= self.from_step:
            self.refused += 1
            parameter = next(p for p in self.trainer.model.parameters() if p.requires_grad)  # type: ignore[union-attr]
            parameter.grad = torch.ones_like(parameter)  # what a backward pass that broke off leaves behind
            torch.rand(3)
            raise self.error
        return self.forward(*args, **inputs)


ERRORS = [
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
    RuntimeError("[enforce fail at alloc_cpu.cpp:121] DefaultCPUAllocator: can't allocate memory: you tried"),
    MemoryError(),
]


@pytest.mark.parametrize("error", ERRORS, ids=["cuda", "cpu", "python"])
@pytest.mark.parametrize(
    "batch", [{"utterances": 4, "accumulate": 2}, {"utterances": 8, "effective": 8}], ids=["accumulate", "effective"]
)
def test_out_of_memory_cuts_the_micro_batch_and_changes_nothing_else(
    build: Build, tmp_path: Path, error: Exception, batch: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    plain = build(attempt="plain", epochs=2, batch=batch, **FIT)
    plain.train()
    short = build(tmp_path / "cuts.json", "short", epochs=2, batch=batch, **FIT)
    memory = Short(short, 2, 1, error)
    short.train()
    assert memory.refused >= 1
    assert short.state.global_step == plain.state.global_step
    ours, theirs = dict(short.model.named_parameters()), dict(plain.model.named_parameters())  # type: ignore[union-attr]
    assert max(float((ours[name] - theirs[name]).abs().max()) for name in ours) < 2e-5
    losses = [[row["loss"] for row in one.state.log_history if "loss" in row] for one in (short, plain)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    cuts = json.loads((tmp_path / "cuts.json").read_text())["cuts"]
    assert len(cuts) == memory.refused
    assert cuts[0]["step"] >= 1
    assert "out of memory in optimiser step" in capsys.readouterr().err


def test_a_second_run_with_the_record_of_the_first_gives_its_very_weights(build: Build, tmp_path: Path) -> None:
    """What a resumed run does: it cuts at the same steps without running out of memory again, draws included."""
    options: dict[str, Any] = {"epochs": 2, "batch": {"utterances": 8, "effective": 8}, "dropout": 0.2, **FIT}
    trainers = []
    for attempt, most in (("first", 3), ("second", 99)):
        trainer = build(tmp_path / "cuts.json", attempt, **options)
        trainer.data.family.regularise(0.2, 0.0)
        torch.manual_seed(1)
        memory = Short(trainer, most, 1, MemoryError())
        trainer.train()
        assert bool(memory.refused) == (attempt == "first")
        trainers.append(dict(trainer.model.named_parameters()))  # type: ignore[union-attr]
    assert all(torch.equal(trainers[0][name], trainers[1][name]) for name in trainers[0])


def test_one_utterance_that_does_not_fit_is_one_sentence(build: Build) -> None:
    trainer = build(epochs=1, batch={"utterances": 4})
    Short(trainer, 0, 0, MemoryError())
    with pytest.raises(OutOfMemoryError, match="with a single utterance"):
        trainer.train()


def test_another_error_is_not_taken_for_a_lack_of_memory(build: Build) -> None:
    assert all(is_out_of_memory(error) for error in ERRORS)
    assert not is_out_of_memory(RuntimeError("shape mismatch"))
    trainer = build(epochs=1, batch={"utterances": 4})
    Short(trainer, 0, 0, RuntimeError("shape mismatch"))
    with pytest.raises(RuntimeError, match="shape mismatch"):
        trainer.train()


def test_parts_hold_every_row_once_and_keep_the_limit() -> None:
    batch = {"labels": torch.arange(7)[:, None], "input_features": torch.randn(7, 10, 4), "scale": 2.0}
    parts = cut(batch, 3 * 40)
    assert [len(part["labels"]) for part in parts] == [2, 3, 2]
    assert torch.equal(torch.cat([part["labels"] for part in parts]), batch["labels"])
    assert torch.equal(torch.cat([part["input_features"] for part in parts]), batch["input_features"])
    assert all(part["scale"] == 2.0 for part in parts)
    assert cut(batch, 280) == [batch]


def test_max_steps_cuts_an_epoch_short_or_adds_epochs(build: Build) -> None:
    for most in (3, 11):
        trainer = build(attempt=f"max{most}", epochs=1, max_steps=most, batch={"utterances": 4})
        trainer.train()
        assert trainer.state.global_step == most
        assert [row["step"] for row in trainer.state.log_history if "eval_wer" in row][-1] == most
