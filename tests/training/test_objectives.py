"""Every term of the loss against an independent computation, and the laws that all of them keep."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import WhisperForConditionalGeneration

from speechtune.core.errors import InputError
from speechtune.models.adapters import choose_trainable
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.disturb import HiddenMask
from speechtune.models.family import Example, load_family
from speechtune.models.whisper import WhisperFamily
from speechtune.training.config import TrainingConfig
from speechtune.training.objectives.combine import Call, Objectives, objectives_for

TEXTS = ("the thing", "sing", "in the inn and out", "go on")
SECONDS = (1.1, 0.6, 1.4, 0.8)
FIT, FULL = 160, 300


@pytest.fixture
def family(tiny_model: Path) -> WhisperFamily:
    """A fresh tiny Whisper in training mode (it has no dropout)."""
    found = load_family(tiny_model, device="cpu")
    assert isinstance(found, WhisperFamily)
    # Random weights of 0.3 saturate the softmax; smaller ones keep float32 sums comparable.
    with torch.no_grad():
        for parameter in found.model.parameters():
            parameter.mul_(0.5)
    found.model.train()
    return found


@pytest.fixture
def examples(family: WhisperFamily) -> list[Example]:
    rng = np.random.default_rng(1)
    waves = [rng.normal(0, 0.1, round(16_000 * seconds)).astype(np.float32) for seconds in SECONDS]
    return [Example(wave, *family.tokens(text)) for wave, text in zip(waves, TEXTS, strict=True)]


def build(family: WhisperFamily, run: Path, **terms: Any) -> Objectives:
    objectives = objectives_for(TrainingConfig(objectives=terms), family, family.model, run)
    assert objectives is not None
    return objectives


def call(
    model: Any, batch: dict[str, torch.Tensor], items: Any = None, *, processes: int = 1, progress: float = 0.0
) -> Call:
    """A micro-batch as `SpeechTrainer.compute_loss` hands it over."""

    def forward(inputs: dict[str, Any], count: Any) -> torch.Tensor:
        return model(**inputs, num_items_in_batch=count).loss * (processes if count is not None else 1)

    return Call(batch, items, forward, contextlib.nullcontext, progress, processes, True)


def columns(objectives: Objectives) -> dict[str, float]:
    return objectives.columns(lambda value: value)


def nudge(model: torch.nn.Module, seed: int = 3, size: float = 0.02) -> None:
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.add_(size * torch.randn_like(parameter))


ALL: dict[str, Any] = {
    "kl": {"weight": 0.7, "temperature": 2.0},
    "acft": {"weight": 0.4, "parts": ["encoder", "decoder"]},
    "l2sp": {"weight": 0.1},
}
AT_START = {
    "kl forward": {"kl": {"weight": 1.0}},
    "kl reverse": {"kl": {"weight": 1.0, "direction": "reverse", "temperature": 2.0}},
    "acft": {"acft": {"weight": 1.0, "parts": ["encoder", "decoder"]}},
    "l2sp": {"l2sp": {"weight": 1.0}},
}


@pytest.mark.parametrize("terms", AT_START.values(), ids=AT_START)
def test_terms_are_zero_with_zero_gradient_at_the_start_and_only_there(
    family: WhisperFamily, examples: list[Example], tmp_path: Path, terms: dict[str, Any]
) -> None:
    batch = family.collate(examples, FULL)
    objectives = build(family, tmp_path, label_weight=0.0, **terms)
    loss = objectives.loss(call(family.model, batch))
    loss.backward()
    assert abs(float(loss)) < 1e-6
    grads = [one.grad.abs().max() for one in family.model.parameters() if one.grad is not None]
    assert grads
    assert max(grads) < 1e-5
    nudge(family.model)
    assert float(objectives.loss(call(family.model, batch))) > 1e-4


def test_ewc_is_zero_at_the_start(
    family: WhisperFamily, examples: list[Example], tiny_corpus: Path, tmp_path: Path
) -> None:
    terms = {"ewc": {"weight": 5.0, "corpus": str(tiny_corpus), "utterances": 3}}
    objectives = build(family, tmp_path, label_weight=0.0, **terms)
    batch = family.collate(examples, FULL)
    loss = objectives.loss(call(family.model, batch))
    loss.backward()
    assert float(loss) == 0.0
    assert all(not one.grad.any() for one in family.model.parameters() if one.grad is not None)
    nudge(family.model)
    assert float(objectives.loss(call(family.model, batch))) > 0


def test_acft_sees_the_fitted_context_even_with_the_same_weights(
    family: WhisperFamily, examples: list[Example], tmp_path: Path
) -> None:
    objectives = build(family, tmp_path, label_weight=0.0, acft={"weight": 1.0})
    assert float(objectives.loss(call(family.model, family.collate(examples, FIT)))) > 1e-5


def logits_alone(model: Any, family: WhisperFamily, example: Example, frames: int = FULL) -> np.ndarray:
    """Logits of one clip's label positions from Transformers' plain forward, float64."""
    features = family.front_end([example.waveform], frames)
    with torch.no_grad():
        found = model(input_features=features, decoder_input_ids=torch.tensor([example.tokens[:-1]])).logits[0]
    return found[example.prompt_tokens - 1 :].double().numpy()


def log_softmax(logits: np.ndarray) -> np.ndarray:
    shifted = logits - logits.max(-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_kl_equals_numpy_on_single_unpadded_clips(
    family: WhisperFamily, examples: list[Example], tmp_path: Path, direction: str
) -> None:
    objectives = build(family, tmp_path, kl={"weight": 1.0, "direction": direction, "temperature": 2.0})
    start = [logits_alone(family.model, family, example) for example in examples]
    nudge(family.model)
    total, count = 0.0, 0
    for example, old in zip(examples, start, strict=True):
        base, own = log_softmax(old / 2), log_softmax(logits_alone(family.model, family, example) / 2)
        one, two = (base, own) if direction == "forward" else (own, base)
        total += 4 * float((np.exp(one) * (one - two)).sum())
        count += len(own)
    objectives.loss(call(family.model, family.collate(examples, FULL)))
    assert columns(objectives)["kl"] == pytest.approx(total / count, rel=1e-3)


def decoder_states(family: WhisperFamily, example: Example, frames: int) -> list[np.ndarray]:
    """Hidden states behind every decoder block at the label positions, from Transformers' own record of them."""
    model: Any = family.model
    with torch.no_grad():
        encoded = model.model.encoder(family.front_end([example.waveform], frames))
        found = model.model.decoder(
            input_ids=torch.tensor([example.tokens[:-1]]),
            encoder_hidden_states=encoded.last_hidden_state,
            output_hidden_states=True,
        ).hidden_states
    return [one[0, example.prompt_tokens - 1 :].double().numpy() for one in found[1:]]


def test_acft_equals_numpy_on_single_clips_against_stock_transformers(
    family: WhisperFamily, examples: list[Example], tmp_path: Path
) -> None:
    objectives = build(family, tmp_path, acft={"weight": 1.0})
    stock = WhisperForConditionalGeneration(family.config).eval()
    stock.load_state_dict(family.model.state_dict())
    nudge(family.model)
    total, count = 0.0, 0
    for example in examples:
        features = family.front_end([example.waveform], FULL)
        tokens = torch.tensor([example.tokens[:-1]])
        with torch.no_grad():
            shown = stock(input_features=features, decoder_input_ids=tokens, output_hidden_states=True)
        wanted = [one[0, example.prompt_tokens - 1 :].double().numpy() for one in shown.decoder_hidden_states[1:]]
        own = decoder_states(family, example, FIT)
        layers = [((a - b) ** 2).mean(-1) for a, b in zip(own, wanted, strict=True)]
        total += float(np.mean(layers, axis=0).sum())
        count += len(layers[0])
    objectives.loss(call(family.model, family.collate(examples, FIT)))
    assert columns(objectives)["acft"] == pytest.approx(total / count, rel=1e-3)


def test_acft_on_the_encoder_weighs_clips_by_their_labels(
    family: WhisperFamily, examples: list[Example], tmp_path: Path
) -> None:
    objectives = build(family, tmp_path, acft={"weight": 1.0, "parts": ["encoder"]})
    model: Any = family.model

    def states(example: Example, frames: int) -> list[np.ndarray]:
        features = family.front_end([example.waveform], frames)
        encoder = model.model.encoder
        with torch.no_grad():
            hidden = torch.nn.functional.gelu(encoder.conv2(torch.nn.functional.gelu(encoder.conv1(features))))
            hidden = hidden.permute(0, 2, 1) + encoder.embed_positions.weight[: frames // 2]
            first = encoder.layers[0](hidden, None)
            last = encoder.layer_norm(encoder.layers[1](first, None))
        return [one[0].double().numpy() for one in (first, last)]

    wanted = [states(example, FULL) for example in examples]
    nudge(family.model)
    total, count = 0.0, 0
    for example, base in zip(examples, wanted, strict=True):
        labels = len(example.tokens) - example.prompt_tokens
        own = states(example, FIT)
        total += labels * float(np.mean([((a - b[: FIT // 2]) ** 2).mean() for a, b in zip(own, base, strict=True)]))
        count += labels
    objectives.loss(call(family.model, family.collate(examples, FIT)))
    assert columns(objectives)["acft"] == pytest.approx(total / count, rel=1e-3)


def test_l2sp_equals_numpy_and_may_be_for_one_part(
    family: WhisperFamily, examples: list[Example], tmp_path: Path
) -> None:
    both = build(family, tmp_path, l2sp={"weight": 1.0})
    encoder = build(family, tmp_path, l2sp={"weight": 1.0, "parts": ["encoder"]})
    start = {name: one.detach().double().numpy().copy() for name, one in family.model.named_parameters()}
    nudge(family.model)
    moved = {
        name: 0.5 * float(((one.detach().double().numpy() - start[name]) ** 2).sum())
        for name, one in family.model.named_parameters()
    }
    batch = family.collate(examples, FIT)
    for objectives, wanted in (
        (both, sum(moved.values())),
        (encoder, sum(value for name, value in moved.items() if ".encoder." in name)),
    ):
        objectives.loss(call(family.model, batch))
        assert columns(objectives)["l2sp"] == pytest.approx(wanted, rel=1e-4)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: one.grad.clone() for name, one in model.named_parameters() if one.grad is not None}


@pytest.mark.parametrize("views", [1, 2])
def test_loss_and_gradient_do_not_depend_on_the_split_into_micro_batches_and_processes(
    family: WhisperFamily, examples: list[Example], tiny_corpus: Path, tmp_path: Path, views: int
) -> None:
    terms = {**ALL, "ewc": {"weight": 0.5, "corpus": str(tiny_corpus), "utterances": 2}}
    if views == 2:
        terms["consistency"] = {"weight": 1.0}
        terms["encoder_masks"] = {"time_masks": 1}
    objectives = build(family, tmp_path, **terms)
    for module in family.model.modules():
        if isinstance(module, HiddenMask):
            module.p = 0.0  # both views alike, as in the preflight
    nudge(family.model)

    def step(parts: list[list[Example]], processes: int = 1) -> tuple[float, dict[str, torch.Tensor]]:
        family.model.zero_grad(set_to_none=True)
        batches = [family.collate(part, FIT) for part in parts]
        items = sum((batch["labels"] != -100).sum() for batch in batches)
        loss = 0.0
        for batch in batches:
            one = objectives.loss(call(family.model, batch, items, processes=processes)) / processes
            one.backward()
            loss += float(one)
        return loss, gradients(family.model)

    whole, grads = step([examples])
    shown = columns(objectives)
    assert {"label_loss", "kl", "acft", "l2sp", "ewc"} <= set(shown)
    weights = {"kl": 0.7, "acft": 0.4, "l2sp": 0.1, "ewc": 0.5, "consistency": 1.0}
    by_hand = shown["label_loss"] + sum(weights[name] * value for name, value in shown.items() if name in weights)
    assert whole == pytest.approx(by_hand, rel=1e-4)
    for parts, processes in (
        ([[one] for one in examples], 1),
        ([examples[:1], examples[1:]], 1),
        ([examples[:3], examples[3:]], 2),
    ):
        loss, other = step(parts, processes)
        columns(objectives)
        assert loss == pytest.approx(whole, rel=1e-4)
        assert other.keys() == grads.keys()
        for name, grad in grads.items():
            torch.testing.assert_close(other[name], grad, rtol=2e-3, atol=2e-5)


def test_frozen_weights_never_move_and_the_copy_is_shared(
    family: WhisperFamily, examples: list[Example], tmp_path: Path, tiny_model: Path
) -> None:
    terms = {**ALL, "distil": {"teacher": str(tiny_model), "kl": {"weight": 1.0}, "hidden": {"weight": 1.0}}}
    objectives = build(family, tmp_path, **terms)
    held = {id(one.frozen.family.model) for one in objectives.terms if one.name in ("kl", "acft")}  # type: ignore[attr-defined]
    assert len(held) == 1
    frozen = [one.frozen.family.model for one in objectives.terms if hasattr(one, "frozen")]
    penalty = next(one for one in objectives.terms if one.name == "l2sp")
    start = penalty.start["model.encoder.conv1.weight"]  # type: ignore[attr-defined]
    assert start.data_ptr() == frozen[0].model.encoder.conv1.weight.data_ptr()
    before = [{name: one.clone() for name, one in model.state_dict().items()} for model in frozen]
    optimiser = torch.optim.AdamW(family.model.parameters(), lr=1e-2)
    for _ in range(3):
        objectives.loss(call(family.model, family.collate(examples, FIT))).backward()
        optimiser.step()
        optimiser.zero_grad()
    for model, old in zip(frozen, before, strict=True):
        assert all(torch.equal(one, old[name]) for name, one in model.state_dict().items())
        assert all(one.grad is None for one in model.parameters())
    moved = family.model.state_dict()["model.encoder.conv1.weight"]
    assert not torch.equal(moved, before[0]["model.encoder.conv1.weight"])


def test_with_lora_the_start_is_the_model_without_its_adapter(
    family: WhisperFamily, examples: list[Example], tmp_path: Path
) -> None:
    start = [logits_alone(family.model, family, example) for example in examples]
    trained = choose_trainable(family, ModelConfig(), AdapterConfig(kind="lora", rank=2, alpha=4, dropout=0.0))
    config = TrainingConfig(objectives={"kl": {"weight": 1.0}})
    objectives = objectives_for(config, family, trained, tmp_path)
    assert objectives is not None
    frozen = objectives.terms[0].frozen  # type: ignore[attr-defined]
    assert frozen.by_switching
    assert frozen.held_weights() is None
    batch = family.collate(examples, FULL)
    assert float(objectives.loss(call(trained, batch))) == pytest.approx(columns(objectives)["label_loss"], rel=1e-5)
    for name, one in trained.named_parameters():
        if "lora_B" in name:
            one.data.normal_(0, 0.1)
    objectives.loss(call(trained, batch)).backward()
    own = [logits_alone(family.model, family, example) for example in examples]
    rows = [
        (np.exp(log_softmax(a)) * (log_softmax(a) - log_softmax(b))).sum(-1) for a, b in zip(start, own, strict=True)
    ]
    assert columns(objectives)["kl"] == pytest.approx(float(np.concatenate(rows).mean()), rel=1e-3)
    trainable = {name for name, one in trained.named_parameters() if one.requires_grad}
    assert trainable
    assert all("lora_" in name for name in trainable)
    assert all(one.grad is not None for name, one in trained.named_parameters() if name in trainable)


def test_distillation_equals_numpy_and_a_model_taught_by_itself_has_nothing_to_learn(
    family: WhisperFamily, examples: list[Example], tmp_path: Path
) -> None:
    family.save(tmp_path / "teacher")
    terms = {"teacher": str(tmp_path / "teacher"), "kl": {"weight": 0.8}, "hidden": {"weight": 1.0}}
    objectives = build(family, tmp_path, distil=terms)
    full, fit = family.collate(examples, FULL), family.collate(examples, FIT)
    objectives.loss(call(family.model, full))
    same = columns(objectives)
    assert abs(same["distil_kl"]) < 1e-6
    assert same["distil_hidden"] < 1e-6
    nudge(family.model)
    teacher = load_family(tmp_path / "teacher", device="cpu")
    rows = []
    for example in examples:
        base = log_softmax(logits_alone(teacher.model, family, example))
        own = log_softmax(logits_alone(family.model, family, example, FIT))
        rows.append((np.exp(base) * (base - own)).sum(-1))
    objectives.loss(call(family.model, fit))
    assert columns(objectives)["distil_kl"] == pytest.approx(float(np.concatenate(rows).mean()), rel=1e-3)


def test_consistency_is_the_symmetric_kl_of_two_passes_with_masks_of_their_own(
    family: WhisperFamily, examples: list[Example], tmp_path: Path
) -> None:
    masks = {"time_masks": 2, "time_width": 20, "channel_masks": 1, "channel_width": 8}
    objectives = build(family, tmp_path, consistency={"weight": 1.0}, encoder_masks=masks)
    batch = family.collate(examples, FIT)
    twice = {name: torch.cat([value, value]) for name, value in batch.items()}
    torch.manual_seed(11)
    objectives.loss(call(family.model, batch))
    shown = columns(objectives)
    torch.manual_seed(11)
    counted = twice["labels"] != -100
    with torch.no_grad():
        logits = family.model(
            input_features=twice["input_features"], decoder_input_ids=twice["decoder_input_ids"]
        ).logits[counted]
    one, two = (log_softmax(part.double().numpy()) for part in logits.chunk(2))
    wanted = 0.5 * float((np.exp(one) * (one - two) + np.exp(two) * (two - one)).sum(-1).mean())
    assert wanted > 1e-4
    assert shown["consistency"] == pytest.approx(wanted, rel=1e-3)
    labels = -np.mean([np.concatenate([one, two])[row, label] for row, label in enumerate(twice["labels"][counted])])
    assert shown["label_loss"] == pytest.approx(labels, rel=1e-4)


def test_weights_follow_their_schedules(family: WhisperFamily, examples: list[Example], tmp_path: Path) -> None:
    from speechtune.training.objectives.config import Weighted

    for progress in (0.0, 0.25, 0.7, 1.0):
        assert Weighted(weight=2.0).weight_at(progress) == 2.0
        linear = Weighted(weight=2.0, anneal="linear", end_weight=0.5)
        assert linear.weight_at(progress) == pytest.approx(2.0 - 1.5 * progress)
        cosine = Weighted(weight=0.0, anneal="cosine", end_weight=3.0)
        assert cosine.weight_at(progress) == pytest.approx(3.0 * (1 - math.cos(math.pi * progress)) / 2)
        assert cosine.enabled
    objectives = build(family, tmp_path, kl={"weight": 1.0, "anneal": "linear"})
    nudge(family.model)
    batch = family.collate(examples, FIT)
    losses = [float(objectives.loss(call(family.model, batch, progress=progress))) for progress in (0.0, 0.5, 1.0)]
    assert losses[1] == pytest.approx((losses[0] + losses[2]) / 2, rel=1e-5)
    assert losses[0] > losses[2]
    assert columns(objectives)["kl_weight"] == 0.0


def test_nothing_asked_for_leaves_the_trainers_own_loss(family: WhisperFamily, tmp_path: Path) -> None:
    assert objectives_for(TrainingConfig(), family, family.model, tmp_path) is None


REFUSED: list[tuple[dict[str, Any], str]] = [
    ({"consistency": {"weight": 1.0}}, "two passes that would be equal"),
    ({"distil": {"teacher": "no-such-model", "kl": {"weight": 1.0}}}, "no-such-model"),
]


@pytest.mark.parametrize(("terms", "words"), REFUSED)
def test_what_cannot_be_had_is_refused_in_a_sentence(
    family: WhisperFamily, tmp_path: Path, terms: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        build(family, tmp_path, **terms)


def test_a_teacher_must_have_the_students_tokens_and_widths(family: WhisperFamily, tmp_path: Path) -> None:
    from tiny_whisper import make_transformers

    make_transformers(tmp_path / "multilingual", multilingual=True, positions=150, text_positions=64)
    with pytest.raises(InputError, match="other tokens"):
        build(family, tmp_path, distil={"teacher": str(tmp_path / "multilingual"), "kl": {"weight": 1.0}})


def test_weight_penalties_refuse_adapters_and_other_families_refuse_hidden_states(
    family: WhisperFamily, tmp_path: Path
) -> None:
    class Other:
        name = "other"
        model = family.model

    config = TrainingConfig(objectives={"kl": {"weight": 1.0}})
    with pytest.raises(InputError, match="do not show their hidden states"):
        objectives_for(config, Other(), family.model, tmp_path)  # type: ignore[arg-type]
    trained = choose_trainable(family, ModelConfig(), AdapterConfig(kind="lora", rank=2))
    config = TrainingConfig(objectives={"l2sp": {"weight": 1.0}})
    with pytest.raises(InputError, match="adapter"):
        objectives_for(config, family, trained, tmp_path)
