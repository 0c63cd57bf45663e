"""Weights stay float32, recomputed activations give the same gradient, kernels that are not there are one sentence."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model

from speechtune.core.errors import InputError
from speechtune.corpus.config import DataConfig
from speechtune.corpus.table import Corpus
from speechtune.models.family import load_family
from speechtune.training.config import TrainingConfig
from speechtune.training.data import TrainingSet, sampler_for, total_steps
from speechtune.training.precision import apply_liger, attention_of, check_master_weights, precision_of
from speechtune.training.trainer import Schedule, SpeechTrainer, training_arguments

Build = Callable[..., SpeechTrainer]


@pytest.fixture
def build(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> Build:
    def make(lora: bool = False, **training: Any) -> SpeechTrainer:
        torch.manual_seed(0)
        config = TrainingConfig(trackers=[], learning_rate=1e-3, epochs=1, batch={"utterances": 4}, **training)
        corpus = Corpus.load(tiny_corpus).split("train")
        family = load_family(tiny_model)
        model = family.model
        if lora:
            model = get_peft_model(model, LoraConfig(r=4, target_modules=["q_proj", "fc1"], init_lora_weights=False))
        data = TrainingSet(corpus, corpus.utterances, family, DataConfig(corpus=str(tiny_corpus)))
        sampler = sampler_for(config, data)
        arguments = training_arguments(config, tmp_path, "cpu", total_steps(config, sampler))
        return SpeechTrainer(model, arguments, data, sampler, dict, callbacks=[Schedule(config, sampler)])

    return make


def step(trainer: SpeechTrainer) -> tuple[float, dict[str, torch.Tensor]]:
    model: Any = trainer.model
    trainer.accelerator.prepare(model)
    if trainer.args.activation_checkpointing:
        model.activation_checkpointing_enable()
    batches = iter(trainer.get_train_dataloader())
    (batch,), items = trainer.get_batch_samples(batches, 1, trainer.args.device)
    model.zero_grad()
    loss = float(trainer.training_step(model, batch, items))
    return loss, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def test_bf16_rounds_the_arithmetic_and_never_the_weights(build: Build) -> None:
    exact, rounded = build(precision="fp32"), build(precision="bf16")
    seen: set[torch.dtype] = set()
    model: Any = rounded.model
    layer = next(module for module in model.modules() if isinstance(module, torch.nn.Linear))
    layer.register_forward_hook(lambda module, args, out: seen.add(out.dtype))
    losses = [step(exact)[0], step(rounded)[0]]
    rounded.train()
    assert seen == {torch.bfloat16}
    assert all(p.dtype == torch.float32 for p in rounded.model.parameters())  # type: ignore[union-attr]
    moments = [value for state in rounded.optimizer.state.values() for value in state.values() if value.numel() > 1]
    assert moments
    assert all(value.dtype == torch.float32 for value in moments)
    # An update far below bfloat16's spacing at 1 (2**-8) survives in the weights.
    weights = torch.cat([p.detach().flatten() for p in rounded.model.parameters()])  # type: ignore[union-attr]
    assert not torch.equal(weights, weights.bfloat16().float())
    assert losses[0] != losses[1]
    assert losses[0] == pytest.approx(losses[1], rel=2e-2)


def test_a_trained_weight_in_half_precision_is_refused(build: Build) -> None:
    model: Any = build().model
    assert check_master_weights(model, "bf16") == "trained weights are float32, arithmetic bf16"
    name = next(name for name, p in model.named_parameters() if p.requires_grad)
    model.get_parameter(name).data = model.get_parameter(name).data.bfloat16()
    with pytest.raises(InputError, match="is bfloat16: small updates would be rounded away"):
        check_master_weights(model, "bf16")


@pytest.mark.parametrize("lora", [False, True])
def test_recomputed_activations_give_the_same_gradient(build: Build, lora: bool) -> None:
    plain = step(build(lora))
    trainer = build(lora, gradient_checkpointing=True)
    calls = []
    import transformers.modeling_layers as layers

    seen = [module for module in trainer.model.modules() if isinstance(module, layers.GradientCheckpointingLayer)]  # type: ignore[union-attr]
    for module in seen:
        module.fc1.register_forward_pre_hook(lambda *args: calls.append(1))  # type: ignore[union-attr]
    recomputed = step(trainer)
    assert len(calls) == 2 * len(seen)  # forward, and again in the backward pass
    assert recomputed[0] == plain[0]
    assert recomputed[1].keys() == plain[1].keys()
    assert max(float((recomputed[1][n] - plain[1][n]).abs().max()) for n in plain[1]) < 1e-7


def test_attention_is_sdpa(tiny_model: Path) -> None:
    assert attention_of(load_family(tiny_model).model) == "sdpa"


def test_fp16_without_a_gpu_is_one_sentence() -> None:
    assert precision_of(TrainingConfig(), "cpu") == "fp32"
    with pytest.raises(InputError, match="fp16 needs a GPU"):
        precision_of(TrainingConfig(precision="fp16"), "cpu")


@pytest.mark.parametrize(("able", "expected"), [("avx512_bf16", "bf16"), ("amx_bf16", "bf16"), ("avx512_f", "fp32")])
def test_bf16_on_a_processor_only_where_it_computes_it(
    monkeypatch: pytest.MonkeyPatch, able: str, expected: str
) -> None:
    """Elsewhere bf16 is emulated and slower than fp32; asked for by name it is still what is used."""
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: {able: True})
    assert precision_of(TrainingConfig(precision="bf16_or_fp32"), "cpu") == expected
    assert precision_of(TrainingConfig(precision="bf16"), "cpu") == "bf16"


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens without a GPU")
def test_liger_without_a_gpu_is_one_sentence(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="needs an NVIDIA GPU"):
        apply_liger(load_family(tiny_model))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile on a CPU needs g++, which is not here")
def test_a_compiled_model_gives_the_same_weights(build: Build) -> None:
    plain, compiled = build(max_steps=2), build(max_steps=2, compile=True)
    plain.train()
    compiled.train()
    assert type(compiled.model_wrapped).__name__ == "OptimizedModule" or compiled.model._compiled_call_impl is not None
    ours, theirs = (dict(one.model.named_parameters()) for one in (compiled, plain))  # type: ignore[union-attr]
    assert max(float((ours[name].detach() - theirs[name].detach()).abs().max()) for name in theirs) < 1e-5


def test_compiling_without_a_compiler_is_one_sentence(build: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(InputError, match=r"needs a C\+\+ compiler"):
        build(compile=True)
