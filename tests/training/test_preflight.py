"""Each proof fails when the thing it proves is broken."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import TrainingArguments

from speechtune.core.errors import InputError
from speechtune.corpus.config import DataConfig
from speechtune.corpus.table import Corpus
from speechtune.models.adapters import choose_trainable
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.family import load_family
from speechtune.training import preflight as room
from speechtune.training.config import TrainingConfig
from speechtune.training.data import TrainingSet, sampler_for
from speechtune.training.preflight import PreflightError, preflight
from speechtune.training.trainer import SpeechTrainer, training_arguments

Built = tuple[SpeechTrainer, Path]


@pytest.fixture
def build(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> Callable[..., Built]:
    def make(adapter: AdapterConfig | None = None, **training: Any) -> Built:
        config = TrainingConfig(trackers=[], **training)
        corpus = Corpus.load(tiny_corpus).split("train")
        family = load_family(tiny_model)
        data = TrainingSet(corpus, corpus.utterances, family, DataConfig(corpus=str(tiny_corpus)))
        sampler = sampler_for(config, data)
        model = choose_trainable(family, ModelConfig(), adapter or AdapterConfig())
        arguments: TrainingArguments = training_arguments(config, tmp_path, "cpu", len(sampler))
        return SpeechTrainer(model, arguments, data, sampler, evaluate=dict, callbacks=[]), tmp_path

    return make


@pytest.mark.parametrize("adapter", [None, AdapterConfig(kind="lora", rank=4, dropout=0.3)])
def test_passes_and_leaves_no_trace(build: Callable[..., Built], adapter: AdapterConfig | None) -> None:
    built = build(adapter, batch={"utterances": 4, "accumulate": 2})
    model = built[0].model
    assert isinstance(model, torch.nn.Module)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    result = preflight(*built)
    assert set(result.checks) == {
        *("precision", "disk", "memory", "labels", "loss", "gradients"),
        *("audio", "reach", "by hand", "optimiser", "decoding"),
    }
    assert torch.equal(state, torch.get_rng_state())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    if adapter:
        assert any(module.p == 0.3 for module in model.modules() if isinstance(module, torch.nn.Dropout))


def test_finds_a_loss_that_ignores_the_number_of_items(build: Callable[..., Built]) -> None:
    """Transformers 5.23's own fault: a mean loss that the Trainer does not divide."""
    built = build()
    model: Any = built[0].model
    forward = type(model).forward
    model.forward = lambda *args, num_items_in_batch=None, **kwargs: forward(model, *args, **kwargs)
    with pytest.raises(PreflightError, match="the loss changes with the batch split"):
        preflight(*built)


def test_finds_a_doubled_start_token(build: Callable[..., Built]) -> None:
    built = build()
    family: Any = built[0].data.family
    collate = family.collate

    def doubled(examples: Any, n_frames: int) -> dict[str, torch.Tensor]:
        batch = collate(examples, n_frames)
        batch["decoder_input_ids"] = torch.cat([batch["decoder_input_ids"][:, :1], batch["decoder_input_ids"]], 1)[
            :, :-1
        ]
        return batch

    family.collate = doubled
    with pytest.raises(PreflightError, match="start token does not stand exactly once"):
        preflight(*built)


@pytest.mark.parametrize("fault", ["prompt", "padding", "end"])
def test_finds_a_wrong_mask(build: Callable[..., Built], fault: str) -> None:
    built = build()
    family: Any = built[0].data.family
    collate = family.collate

    def wrong(examples: Any, n_frames: int) -> dict[str, torch.Tensor]:
        batch = collate(examples, n_frames)
        labels = batch["labels"]
        if fault == "prompt":
            labels[:, 0] = batch["decoder_input_ids"][:, 1]
        elif fault == "padding":
            labels[labels == -100] = family.eot
        else:
            labels[labels == family.eot] = -100
        return batch

    family.collate = wrong
    with pytest.raises(PreflightError, match="not exactly the text and its end token"):
        preflight(*built)


def test_finds_text_the_tokenizer_does_not_give_back(build: Callable[..., Built]) -> None:
    built = build()
    family: Any = built[0].data.family
    text = family.text
    family.text = lambda tokens: text(tokens).replace("thing", "think")
    with pytest.raises(PreflightError, match=r"utterance u00 is wrong: it decodes to 'the think', not to 'the thing'"):
        preflight(*built)


def test_finds_a_trainable_parameter_without_gradient(build: Callable[..., Built]) -> None:
    built = build()
    model: Any = built[0].model
    model.register_parameter("orphan", torch.nn.Parameter(torch.ones(2)))
    with pytest.raises(PreflightError, match="the trainable parameter orphan receives no finite gradient"):
        preflight(*built)


def test_finds_an_adapter_that_reaches_nothing(build: Callable[..., Built]) -> None:
    built = build(AdapterConfig(kind="lora", rank=2))
    model: Any = built[0].model
    for name, module in model.named_modules():
        if name.endswith("fc1.lora_B.default"):
            module.forward = lambda hidden, width=module.out_features: hidden.new_zeros(*hidden.shape[:-1], width)
    with pytest.raises(PreflightError, match=r"fc1\.lora_.*receives no finite gradient"):
        preflight(*built)


def test_says_what_to_lower_when_memory_will_not_suffice(
    build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "_free_memory", lambda device: 1e6)
    with pytest.raises(InputError, match=r"needs about .* lower training\.batch\.utterances"):
        preflight(*build())


def test_says_so_when_the_disk_will_not_suffice(build: Callable[..., Built], monkeypatch: pytest.MonkeyPatch) -> None:
    import shutil

    usage = shutil.disk_usage("/")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    with pytest.raises(InputError, match="free some space or choose another --out"):
        preflight(*build())
