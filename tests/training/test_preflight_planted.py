"""Every silent mistake of other tools that is known, planted in each family where it can happen: preflight stops."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_ctc
import tiny_moonshine
import tiny_qwen3_asr
import tiny_voxtral
import torch
from tiny_whisper import make_transformers
from transformers import TrainingArguments

from speechtune.core.errors import InputError
from speechtune.corpus.config import DataConfig
from speechtune.corpus.table import Corpus
from speechtune.models.adapters import choose_trainable
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.family import load_family
from speechtune.models.trainable import Layout
from speechtune.training.config import TrainingConfig
from speechtune.training.data import TrainingSet, sampler_for
from speechtune.training.optimiser_config import OptimiserConfig, RatesConfig
from speechtune.training.parameter_groups import plan_parameters
from speechtune.training.preflight import preflight
from speechtune.training.preflight_checks import PreflightError
from speechtune.training.trainer import SpeechTrainer, training_arguments

TEXTS = tiny_ctc.TEXTS[:6]
FAMILIES = ("whisper", "wav2vec2", "parakeet", "qwen3_asr", "moonshine", "voxtral")
CTC = ("wav2vec2", "parakeet")
DECODERS = ("whisper", "qwen3_asr", "moonshine", "voxtral")
LORA = AdapterConfig(kind="lora", rank=2, targets=["attention"])

Mistake = Callable[[SpeechTrainer], None]


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("planted")
    make_transformers(root / "whisper", multilingual=False, positions=150, text_positions=64)
    tiny_ctc.make_ctc(root / "wav2vec2", "wav2vec2-layer")
    tiny_ctc.make_ctc(root / "parakeet", "parakeet")
    tiny_qwen3_asr.make_qwen3_asr(root / "qwen3_asr", spread=0.1)
    tiny_moonshine.make_moonshine(root / "moonshine", spread=0.1)
    tiny_voxtral.make_voxtral(root / "voxtral", spread=0.1)
    tiny_ctc.write_tones(root / "corpus", TEXTS)
    return root


@pytest.fixture
def build(stored: Path, tmp_path: Path) -> Callable[..., SpeechTrainer]:
    def make(kind: str, adapter: AdapterConfig | None = None, rate: float = 3e-5, **training: Any) -> SpeechTrainer:
        config = TrainingConfig(trackers=[], learning_rate=rate, **training)
        corpus = Corpus.load(stored / "corpus").split("train")
        family = load_family(stored / kind, language="en" if kind in ("qwen3_asr", "voxtral") else None, device="cpu")
        family.prepare(CtcConfig(), TEXTS, 0)
        data = TrainingSet(corpus, corpus.utterances, family, DataConfig(corpus=str(stored / "corpus")))
        sampler = sampler_for(config, data)
        layout = Layout(family)
        model = choose_trainable(family, ModelConfig(), adapter or AdapterConfig(), 10, layout)
        plan = plan_parameters(layout, model, rate, 0.01, RatesConfig(), OptimiserConfig())
        arguments: TrainingArguments = training_arguments(config, tmp_path, "cpu", len(sampler))
        return SpeechTrainer(model, arguments, data, sampler, evaluate=dict, callbacks=[], plan=plan)

    return make


def on_batch(change: Callable[[Any, dict[str, torch.Tensor], Any], None]) -> Mistake:
    """A mistake of a collator: ``change(family, batch, examples)`` in place."""

    def plant(trainer: SpeechTrainer) -> None:
        family: Any = trainer.data.family
        right = family.collate

        def wrong(examples: Any, n_frames: int) -> dict[str, torch.Tensor]:
            batch = right(examples, n_frames)
            change(family, batch, examples)
            return batch

        family.collate = wrong

    return plant


def on_model(change: Callable[[Any, dict[str, Any]], Any]) -> Mistake:
    """A mistake of a network: ``change(call, arguments)`` stands in for its forward."""

    def plant(trainer: SpeechTrainer) -> None:
        model: Any = trainer.data.family.model
        right = model.forward
        model.forward = lambda *args, **kwargs: change(right, kwargs)

    return plant


def _prompt(family: Any, batch: dict[str, torch.Tensor], examples: Any) -> None:
    source = batch["input_ids"] if "input_ids" in batch else batch["decoder_input_ids"]
    for row, labels in enumerate(batch["labels"]):
        first = int((labels != -100).int().argmax())
        labels[first - 1] = source[row, first]


def _padding(family: Any, batch: dict[str, torch.Tensor], examples: Any) -> None:
    labels = batch["labels"]
    filler = 0 if family.name == "ctc" else next(iter(getattr(family, "ends", (getattr(family, "eot", 0),))))
    last = (labels != -100).int().cumsum(1).argmax(1)
    for row in range(len(labels)):
        labels[row, int(last[row]) + 1 :] = filler


def _no_end(family: Any, batch: dict[str, torch.Tensor], examples: Any) -> None:
    for labels in batch["labels"]:
        labels[int((labels != -100).int().cumsum(0).argmax())] = -100


def _shifted(family: Any, batch: dict[str, torch.Tensor], examples: Any) -> None:
    labels = batch["labels"]
    labels[:, :-1] = labels[:, 1:].clone()
    labels[:, -1] = -100


def _silent(family: Any, batch: dict[str, torch.Tensor], examples: Any) -> None:
    for name in ("input_features", "input_values"):
        if name in batch:
            batch[name] = torch.zeros_like(batch[name])


def _left_without_positions(family: Any, batch: dict[str, torch.Tensor], examples: Any) -> None:
    """Padding moved to the left, its mask forgotten."""
    for row, count in enumerate(batch["attention_mask"].sum(1).tolist()):
        for name in ("input_ids", "labels"):
            batch[name][row] = torch.roll(batch[name][row], len(batch[name][row]) - count)
    batch["attention_mask"] = torch.ones_like(batch["attention_mask"])


def _doubled_start(trainer: SpeechTrainer) -> None:
    family: Any = trainer.data.family
    right = family.tokens
    family.tokens = lambda text: ([right(text)[0][0], *right(text)[0]], right(text)[1] + 1)


def _no_end_in_tokens(trainer: SpeechTrainer) -> None:
    family: Any = trainer.data.family
    right = family.tokens
    family.tokens = lambda text: (right(text)[0][:-1], right(text)[1])


def _cased(trainer: SpeechTrainer) -> None:
    family: Any = trainer.data.family
    right = family.tokens
    family.tokens = lambda text: right(text.replace("b", "d"))


def _shift_in_model(call: Any, given: dict[str, Any]) -> Any:
    if given.get("labels") is not None:
        given = {**given, "labels": torch.roll(given["labels"], -1, 1)}
        given["labels"][:, -1] = -100
    return call(**given)


def _mean(call: Any, given: dict[str, Any]) -> Any:
    return call(**{name: value for name, value in given.items() if name != "num_items_in_batch"})


def _by_batch(call: Any, given: dict[str, Any]) -> Any:
    """Transformers' ``ctc_loss_reduction="mean"``: divided by the clips of the micro-batch."""
    found = call(**{**given, "num_items_in_batch": 1})
    if given.get("labels") is not None:
        found.loss = found.loss / len(given["labels"])
    return found


def _frozen(trainer: SpeechTrainer) -> None:
    trainer.model.requires_grad_(False)


def _half(trainer: SpeechTrainer) -> None:
    trainer.model.to(torch.bfloat16)


def _switched_off(trainer: SpeechTrainer) -> None:
    trainer.model.disable_adapter_layers()


def _another_copy(trainer: SpeechTrainer) -> None:
    """The adapter hangs on a model that the forward pass does not use."""
    from copy import deepcopy

    model: Any = trainer.model
    bare = deepcopy(model).unload()
    model.forward = lambda **given: bare(**given)


def _scaled_to_nothing(trainer: SpeechTrainer) -> None:
    for module in trainer.model.modules():
        if hasattr(module, "scaling") and isinstance(module.scaling, dict):
            module.scaling = dict.fromkeys(module.scaling, 0.0)


def _forgotten_by_the_optimiser(trainer: SpeechTrainer) -> None:
    right = trainer.create_optimizer

    def wrong(model: Any = None) -> Any:
        made = right(model)
        made.param_groups[0]["params"] = made.param_groups[0]["params"][1:]
        return made

    trainer.create_optimizer = wrong  # type: ignore[method-assign]


def _wrong_bins(trainer: SpeechTrainer) -> None:
    on_batch(lambda family, batch, _: batch.update(input_features=_fewer(family, batch["input_features"])))(trainer)


def _fewer(family: Any, features: torch.Tensor) -> torch.Tensor:
    return features[..., :-2] if family.name == "ctc" else features[..., :-2, :]


def _other_blank(trainer: SpeechTrainer) -> None:
    trainer.data.family.model.config.pad_token_id = 1  # type: ignore[union-attr]


def _blank_in_labels(trainer: SpeechTrainer) -> None:
    family: Any = trainer.data.family
    right = family.tokens
    family.tokens = lambda text: ([*right(text)[0], family.vocabulary.blank], 0)


def _refuses_to_decode(trainer: SpeechTrainer) -> None:
    """The prefill runs in bfloat16 and meets float32 features: the evaluation of the Hebrew source."""
    family: Any = trainer.data.family
    right = family.generate

    def wrong(*args: Any, **kwargs: Any) -> Any:
        family.model.to(torch.bfloat16)
        features = torch.randn(1, 4)
        torch.nn.functional.linear(features, next(iter(family.model.parameters())).reshape(-1)[:4][None])
        return right(*args, **kwargs)

    family.generate = wrong


def _scores_of_nothing(trainer: SpeechTrainer) -> None:
    family: Any = trainer.data.family
    right = family.generate
    family.generate = lambda *args, **kwargs: [replace(one, log_prob=float("nan")) for one in right(*args, **kwargs)]


def _other_prompt(trainer: SpeechTrainer) -> None:
    """Trained with a context that decoding is not given (the winners' first place)."""
    family: Any = trainer.data.family
    right = family.tokens
    trained_with = replace(family.prompt, context="Transcribe only the children's voice.")
    family.tokens = lambda text: family.format.example(trained_with, text)
    assert right("a") != family.tokens("a")


def _other_language(trainer: SpeechTrainer) -> None:
    """Trained with a request that names no language and decoded with one that does."""
    family: Any = trainer.data.family
    right = family.tokens
    bare = [one for one in family.prompt if one < tiny_voxtral.SPECIAL]
    family.tokens = lambda text: ([*bare, *right(text)[0][right(text)[1] :]], len(bare))


def _silence_for_files(trainer: SpeechTrainer) -> None:
    trainer.data.waveform = lambda *args: np.zeros(16_000, np.float32)  # type: ignore[method-assign]


def _one_file_for_all(trainer: SpeechTrainer) -> None:
    first = trainer.data.waveform(0, 0, 0, 1.0)
    trainer.data.waveform = lambda *args: first  # type: ignore[method-assign]


NOT_THE_TEXT = "not exactly the text and its end"
MISTAKES: dict[str, tuple[tuple[str, ...], Mistake, str, dict[str, Any]]] = {
    "doubled start token": (("whisper",), _doubled_start, "start token does not stand exactly once|prompt is not", {}),
    "prompt trained": (DECODERS, on_batch(_prompt), NOT_THE_TEXT, {}),
    "padding trained": (FAMILIES, on_batch(_padding), NOT_THE_TEXT, {}),
    "end missing from labels": (DECODERS, on_batch(_no_end), NOT_THE_TEXT, {}),
    "end missing from tokens": (DECODERS, _no_end_in_tokens, "its end token is not learnt", {}),
    "labels shifted by the collator": (
        DECODERS,
        on_batch(_shifted),
        NOT_THE_TEXT + "|mask does not end where the prompt ends|computed from its logits",
        {},
    ),
    "labels shifted by the model": (DECODERS, on_model(_shift_in_model), "computed from its logits", {}),
    "label of another text": (FAMILIES, _cased, "decodes to", {}),
    "mean loss": (FAMILIES, on_model(_mean), "changes with the batch split|computed from its logits", {}),
    "loss by clips": (CTC, on_model(_by_batch), "changes with the batch split|computed from its logits", {}),
    "frozen everything": (FAMILIES, _frozen, "no parameter is trainable", {}),
    "adapter switched off": (FAMILIES, _switched_off, "no parameter is trainable", {"adapter": LORA}),
    "adapter on another copy": (FAMILIES, _another_copy, "no say in the loss", {"adapter": LORA}),
    "adapter scaled to nothing": (FAMILIES, _scaled_to_nothing, "zero everywhere", {"adapter": LORA}),
    "forgotten by the optimiser": (FAMILIES, _forgotten_by_the_optimiser, "it would not move", {}),
    "bf16 weights": (FAMILIES, _half, "small updates would be rounded away", {"rate": 1e-6}),
    "wrong mel bins": (
        ("whisper", "parakeet", "qwen3_asr", "voxtral"),
        _wrong_bins,
        "mel bins and the model takes",
        {},
    ),
    "audio lost": (FAMILIES, on_batch(_silent), "the audio is not heard|not take its own batch", {}),
    "silence for unreadable files": (FAMILIES, _silence_for_files, "digital silence", {}),
    "one file for all": (FAMILIES, _one_file_for_all, "the very same audio", {}),
    "blank is another token": (CTC, _other_blank, "takes token 1 for the blank", {}),
    "blank in the labels": (CTC, _blank_in_labels, "it holds the blank", {}),
    "padding on the left without positions": (
        ("qwen3_asr",),
        on_batch(_left_without_positions),
        "changes with the batch",
        {},
    ),
    "padding on the left, read as words": (
        ("voxtral",),
        on_batch(_left_without_positions),
        "changes with the batch|computed from its logits",
        {},
    ),
    "dtype mismatch in generation": (FAMILIES, _refuses_to_decode, "trains and does not decode", {}),
    "scores that are no numbers": (FAMILIES, _scores_of_nothing, "scores that are not numbers", {}),
    "another prompt than at inference": (("qwen3_asr",), _other_prompt, "not the one that decoding gives", {}),
    "another language than at inference": (("voxtral",), _other_language, "not the one that decoding gives", {}),
}


@pytest.mark.parametrize("kind", FAMILIES)
@pytest.mark.parametrize("adapter", [None, LORA])
def test_without_a_mistake_all_pass_in_seconds(kind: str, adapter: Any, build: Any, tmp_path: Path) -> None:
    trainer = build(kind, adapter)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    start_s = time.monotonic()
    checks = preflight(trainer, tmp_path).checks
    assert time.monotonic() - start_s < 20
    assert {"audio", "labels", "reach", "by hand", "loss", "gradients", "optimiser", "decoding"} <= set(checks)
    assert ("blank" in checks) == (kind in CTC)
    assert "rates" not in checks
    assert trainer.optimizer is None and trainer.model.training
    assert all(torch.equal(before[name], value) for name, value in trainer.model.state_dict().items())


@pytest.mark.parametrize(
    ("kind", "mistake"), [(kind, name) for name, (kinds, *_) in MISTAKES.items() for kind in kinds]
)
def test_a_planted_mistake_stops_the_run(kind: str, mistake: str, build: Any, tmp_path: Path) -> None:
    _, plant, sentence, how = MISTAKES[mistake]
    trainer = build(kind, **how)
    plant(trainer)
    with pytest.raises((PreflightError, InputError), match=sentence):
        preflight(trainer, tmp_path)


def test_a_rate_of_training_from_scratch_is_said_and_not_for_a_head_or_an_adapter(build: Any, tmp_path: Path) -> None:
    assert "a rate for training from scratch" in preflight(build("whisper", rate=1e-3), tmp_path).checks["rates"]
    assert "rates" not in preflight(build("whisper", LORA, rate=1e-3), tmp_path).checks
