"""Focal and summed CTC losses, CTC on intermediate layers and over a second vocabulary: by hand, clip by clip."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_ctc
import torch
from test_objectives import build, call, columns, gradients
from torch.nn import functional

from speechtune.core.errors import InputError
from speechtune.models.adapters import choose_trainable
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.ctc import CtcFamily
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.ctc_loading import SECOND_HEAD
from speechtune.models.family import Example, load_family
from speechtune.models.trainable import Layout
from speechtune.training.config import TrainingConfig
from speechtune.training.objectives.combine import objectives_for

TEXTS = ("abba", "c", "bad cab")
KINDS = ("wav2vec2-layer", "wav2vec2-group", "parakeet", "wav2vec2-bert")


def made(kind: str, root: Path, **settings: Any) -> CtcFamily:
    found = load_family(tiny_ctc.make_ctc(root / kind, kind), device="cpu")
    assert isinstance(found, CtcFamily)
    found.prepare(CtcConfig(**settings), TEXTS, 0)
    found.config.apply_spec_augment = False
    found.regularise(0.0, 0.0)
    for module in found.model.modules():
        for name in ("p", "dropout", "attention_dropout", "activation_dropout"):
            if isinstance(module.__dict__.get(name), float):
                setattr(module, name, 0.0)
    return found


def examples(family: CtcFamily) -> list[Example]:
    rng = np.random.default_rng(0)
    return [Example(tiny_ctc.spoken(text, rng), *family.tokens(text)) for text in TEXTS]


def losses_alone(family: CtcFamily) -> list[torch.Tensor]:
    """PyTorch's own loss of every clip, without batch, padding or division."""
    found = []
    for item in examples(family):
        batch = family.collate([item], 0)
        del batch["labels"]
        logits = family.model(**batch).logits[0, : family.logit_frames(len(item.waveform))]
        target = torch.tensor([item.tokens])
        lengths = torch.tensor([len(logits)]), torch.tensor([len(item.tokens)])
        found.append(functional.ctc_loss(logits.log_softmax(-1)[:, None], target, *lengths, blank=0, reduction="sum"))
    return found


def accumulated(family: CtcFamily, cuts: list[list[int]]) -> tuple[float, dict[str, torch.Tensor]]:
    """Loss and gradient of one optimiser step cut into micro-batches, with the items that the Trainer gives."""
    items = examples(family)
    family.model.zero_grad(set_to_none=True)
    labels, total = torch.tensor(sum(len(item.tokens) for item in items)), 0.0
    for cut in cuts:
        loss = family.model(**family.collate([items[place] for place in cut], 0), num_items_in_batch=labels).loss
        loss.backward()
        total += float(loss.detach())
    return total, gradients(family.model)


@pytest.mark.parametrize("kind", ["wav2vec2-layer", "parakeet"])
@pytest.mark.parametrize("reduction", ["tokens", "sum"])
@pytest.mark.parametrize("gamma", [0.0, 0.5, 2.0])
def test_focal_and_summed_losses_are_their_definitions_however_the_step_is_cut(
    kind: str, reduction: str, gamma: float, tmp_path: Path
) -> None:
    family = made(kind, tmp_path, focal_gamma=gamma, reduction=reduction)
    with torch.no_grad():
        family.part("head").bias[0] += 2.0  # type: ignore[operator, index]
    family.model.train()
    family.model.zero_grad(set_to_none=True)
    expected = torch.zeros(())
    for loss in losses_alone(family):
        expected = expected + (1 - torch.exp(-loss)) ** gamma * loss
    if reduction == "tokens":
        expected = expected / sum(len(item.tokens) for item in examples(family))
    expected.backward()
    wanted = gradients(family.model)
    for cuts in ([[0, 1, 2]], [[0], [1, 2]], [[2], [0], [1]]):
        total, found = accumulated(family, cuts)
        assert total == pytest.approx(float(expected), rel=1e-5)
        for name, gradient in wanted.items():
            torch.testing.assert_close(found[name], gradient, rtol=1e-3, atol=1e-4 * (1 + float(gradient.abs().max())))
    family.model.eval()  # the dev loss stays comparable
    plain = sum(float(loss) for loss in losses_alone(family)) / sum(len(item.tokens) for item in examples(family))
    assert float(family.model(**family.collate(examples(family), 0)).loss) == pytest.approx(plain, rel=1e-5)


def test_the_focal_factor_takes_weight_from_what_is_right_already() -> None:
    from speechtune.models.ctc_network import summed_ctc_loss

    sure = torch.zeros(1, 3, 4)
    sure[0, torch.arange(3), torch.tensor([0, 1, 0])] = 5.0
    unsure = torch.zeros(1, 3, 4)
    frames, labels = torch.tensor([3]), torch.tensor([[1]])
    shares = []
    for logits in (sure, unsure, sure * 20):
        logits.requires_grad_()
        plain = summed_ctc_loss(logits, frames, labels, 0)[0]
        focal = summed_ctc_loss(logits, frames, labels, 0, 2.0)[0]
        focal.backward()
        assert logits.grad is not None and bool(logits.grad.isfinite().all())
        shares.append(float(focal / plain.clamp(min=1e-9)))
    assert shares[0] < 0.02 < 0.5 < shares[1] < 1


def _first_of(module: Any) -> Any:
    layers = module.__dict__.get("_modules", {}).get("layers")
    return layers[0] if layers is not None and len(layers) else None


@pytest.mark.parametrize("kind", KINDS)
def test_inter_ctc_is_the_loss_of_a_network_that_ends_there(kind: str, tmp_path: Path) -> None:
    """Independent: the blocks behind the middle are taken out of the network, and each clip runs through it alone."""
    family = made(kind, tmp_path)
    family.model.eval()
    objectives = build(family, tmp_path, inter_ctc={"weight": 0.3, "layers": [0.5]})  # type: ignore[arg-type]
    batch = family.collate(examples(family), 0)
    loss = objectives.loss(call(family.model, batch))
    found = columns(objectives)
    assert float(loss) == pytest.approx(found["label_loss"] + 0.3 * found["inter_ctc"], rel=1e-5)
    stack = family.taps().blocks["encoder"]
    owner: Any = next(one for one in family.model.modules() if _first_of(one) is stack[0])
    whole, owner.layers = owner.layers, owner.layers[:1]
    labels = sum(len(item.tokens) for item in examples(family))
    expected = sum(float(one) for one in losses_alone(family)) / labels
    owner.layers = whole
    assert found["inter_ctc"] == pytest.approx(expected, rel=1e-4)
    assert abs(found["inter_ctc"] - found["label_loss"]) > 1e-4


@pytest.mark.parametrize("units", ["bpe", "graphemes"])
def test_the_second_vocabulary_learns_the_same_texts_through_its_own_layer(units: str, tmp_path: Path) -> None:
    family = made("wav2vec2-layer", tmp_path)
    family.add_second_head(units, 16, TEXTS, 0)  # type: ignore[arg-type]
    family.model.eval()
    objectives = build(family, tmp_path, second_ctc={"weight": 0.3, "units": units})  # type: ignore[arg-type]
    term: Any = objectives.terms[0]
    batch = family.collate(examples(family), 0)
    second = term.labels(batch["labels"])
    assert family.second is not None
    texts = [family.second.decode(row[row != -100].tolist()) for row in second]
    assert texts == list(TEXTS)
    objectives.loss(call(family.model, batch)).backward()
    head: Any = family.model.get_submodule(SECOND_HEAD)
    assert bool(head.weight.grad.any())
    expected = 0.0
    for item, row in zip(examples(family), second, strict=True):
        one = family.collate([item], 0)
        model: Any = family.model
        hidden = model.wav2vec2(one["input_values"], attention_mask=one["attention_mask"]).last_hidden_state[0]
        log_probs = head(hidden).log_softmax(-1)[:, None]
        target = row[row != -100]
        lengths = torch.tensor([len(log_probs)]), torch.tensor([len(target)])
        expected += float(
            functional.ctc_loss(log_probs, target[None], *lengths, blank=family.second.blank, reduction="sum")
        )
    labels = sum(len(item.tokens) for item in examples(family))
    assert columns(objectives)["second_ctc"] == pytest.approx(expected / labels, rel=1e-5)
    family.save(tmp_path / "saved")
    from safetensors.torch import load_file

    assert not any(name.startswith(SECOND_HEAD) for name in load_file(tmp_path / "saved" / "model.safetensors"))
    assert Layout(family).place(f"{SECOND_HEAD}.weight").part == SECOND_HEAD


def test_cutting_a_step_changes_no_term(tmp_path: Path) -> None:
    family = made("parakeet", tmp_path)
    family.add_second_head("bpe", 16, TEXTS, 0)
    family.model.train()
    terms = {"inter_ctc": {"weight": 0.3}, "second_ctc": {"weight": 0.5}, "consistency": {"weight": 0.2}}
    config = TrainingConfig(objectives=terms, spec_augment={"time_prob": 0.1})  # so that consistency may be had
    family.config.apply_spec_augment = False
    objectives = objectives_for(config, family, family.model, tmp_path)
    assert objectives is not None
    items = examples(family)
    found = []
    labels = torch.tensor(sum(len(item.tokens) for item in items))
    for cuts in ([items], [[items[1]], [items[0], items[2]]]):
        family.model.zero_grad(set_to_none=True)
        total = 0.0
        for cut in cuts:
            loss = objectives.loss(call(family.model, family.collate(cut, 0), labels))
            loss.backward()
            total += float(loss.detach())
        found.append((total, gradients(family.model)))
    assert found[1][0] == pytest.approx(found[0][0], rel=1e-4)
    for name, gradient in found[0][1].items():
        torch.testing.assert_close(found[1][1][name], gradient, rtol=2e-2, atol=2e-3)
    row = columns(objectives)
    assert row["consistency"] == pytest.approx(0, abs=1e-6)  # two equal views
    single = build(family, tmp_path, inter_ctc={"weight": 0.3})  # type: ignore[arg-type]
    single.loss(call(family.model, family.collate(items, 0), labels))
    assert columns(single)["inter_ctc"] == pytest.approx(row["inter_ctc"] / 2, rel=1e-4)  # that was two passes


def test_a_detached_target_gets_no_gradient(tmp_path: Path) -> None:
    """CR-CTC: the gradient of one view is that of KL to the other as a constant."""
    from speechtune.training.objectives.base import Step
    from speechtune.training.objectives.config import ConsistencyConfig
    from speechtune.training.objectives.consistency import Consistency

    one, two = (torch.randn(5, 4, generator=torch.manual_seed(seed)).requires_grad_() for seed in (0, 1))

    class Shown:
        seen, views = None, 2
        label_weights = torch.full((10,), 0.5)

        def logits(self, seen: Any) -> torch.Tensor:
            return torch.cat([one, two])

    step: Step = Shown()  # type: ignore[assignment]
    plain = Consistency(ConsistencyConfig(weight=1))(step)
    held = Consistency(ConsistencyConfig(weight=1, detach=True))(step)
    assert float(held) == pytest.approx(float(plain), rel=1e-5)
    held.backward()
    expected = (one.softmax(-1) - two.softmax(-1)).detach() / 2  # d KL(target || softmax(z)) / dz = softmax(z) - target
    torch.testing.assert_close(one.grad, expected, atol=1e-6, rtol=1e-4)


def test_what_cannot_be_had_is_refused_in_a_sentence(tmp_path: Path) -> None:
    family = made("wav2vec2-layer", tmp_path)
    for config, words in (
        ({"objectives": {"inter_ctc": {"weight": 0.3}}, "sharding": "fsdp"}, "training.sharding=none"),
        ({"objectives": {"inter_ctc": {"weight": 0.3}}}, "layerdrop=0"),
    ):
        family.config.layerdrop = 0.1 if words == "layerdrop=0" else 0.0
        with pytest.raises(InputError, match=words):
            objectives_for(TrainingConfig(**config), family, family.model, tmp_path)
    family.config.layerdrop = 0.0
    family.prepare(CtcConfig(reduction="sum"), TEXTS, 0)
    with pytest.raises(InputError, match="reduction=sum has no common unit"):
        objectives_for(TrainingConfig(objectives={"inter_ctc": {"weight": 0.3}}), family, family.model, tmp_path)
    family.prepare(CtcConfig(), TEXTS, 0)
    family.add_second_head("bpe", 16, TEXTS, 0)
    adapted = choose_trainable(family, ModelConfig(), AdapterConfig(kind="lora", rank=2))
    with pytest.raises(InputError, match="an adapter cannot hold"):
        objectives_for(TrainingConfig(objectives={"second_ctc": {"weight": 0.3}}), family, adapted, tmp_path)
    with pytest.raises(ValueError, match="above 0 and below 1"):
        TrainingConfig(objectives={"inter_ctc": {"weight": 0.3, "layers": [1.0]}})


def test_a_run_with_all_of_them_learns_and_saves_a_plain_model(tmp_path: Path) -> None:
    from transformers import AutoModelForCTC

    from speechtune.training.recipe import load_recipe
    from speechtune.training.run import train

    corpus = tiny_ctc.write_tones(tmp_path / "corpus", tiny_ctc.TEXTS[:6])
    base = tiny_ctc.make_encoder(tmp_path / "encoder", "wav2vec2-layer")
    recipe = tiny_ctc.write_recipe(
        tmp_path / "recipe.yaml",
        base,
        corpus,
        model={"base": str(base), "ctc": {"head": "new", "focal_gamma": 0.2}},
        training={
            "epochs": 3,
            "schedule": "tri_stage",
            "rates": {"rules": [{"part": "head", "rate": 1e-2}, {"part": "second_head", "rate": 1e-2}]},
            "averages": {"ema_decay": 0.9},
            "spec_augment": {"time_prob": 0.1, "time_length": 2},
            "objectives": {
                "label_weight": 0.7,
                "inter_ctc": {"weight": 0.3},
                "second_ctc": {"weight": 0.3, "bpe_size": 16},
                "consistency": {"weight": 0.2, "detach": True},
            },
        },
    )
    train(load_recipe(recipe), tmp_path / "run")
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    trained = [row for row in rows if row["kind"] == "train"]
    for name in ("label_loss", "inter_ctc", "second_ctc"):
        assert trained[-1][name] < trained[0][name]
    table = json.loads((tmp_path / "run" / "parameters.json").read_text())["table"]
    assert {row["part"]: row["rates"] for row in table if "head" in row["part"]} == {
        "head": [0.01],
        "second_head": [0.01],
    }
    _, report = AutoModelForCTC.from_pretrained(tmp_path / "run" / "model", output_loading_info=True)
    assert not report["unexpected_keys"] and not report["missing_keys"]
