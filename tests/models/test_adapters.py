"""Adapters: the identity at the start, merged equals unmerged, the base untouched."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from adapting import batch_of, logits, snapshot, steps, tiny_family

from speechtune.core.errors import InputError
from speechtune.models.adapters import choose_trainable, load_adapted, save_adapter, save_trained
from speechtune.models.config import AdaLoraConfig, AdapterConfig, ModelConfig
from speechtune.models.family import load_family
from speechtune.models.merging import merge_adapters
from speechtune.models.rank_allocation import RankAllocation, orthogonality, ranks_of

KINDS = ("lora", "rslora", "dora", "adalora")


def adapted(directory: Path, **settings: Any) -> tuple[Any, Any]:
    family = tiny_family(directory)
    return family, choose_trainable(family, ModelConfig(), AdapterConfig(**{"rank": 4, "dropout": 0.0, **settings}), 20)


def disturb(module: torch.nn.Module, seed: int = 3) -> None:
    """Give everything trainable an update of its own."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn(parameter.shape, generator=generator)


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_adapter_is_the_identity_and_merged_equals_unmerged(tiny_model: Path, kind: str) -> None:
    """For DoRA the first line is also the law that a zero update gives the base."""
    base = logits(tiny_family(tiny_model))
    family, trained = adapted(tiny_model, kind=kind, also_train=["norms", "encoder.front_end"])
    torch.testing.assert_close(logits(family, trained), base, rtol=1e-5, atol=1e-5)
    disturb(trained)
    unmerged = logits(family, trained)
    assert (unmerged - base).abs().max() > 0.1
    merged = trained.merge_and_unload()
    torch.testing.assert_close(logits(family, merged), unmerged, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", KINDS)
def test_steps_move_the_adapter_and_not_one_bit_of_the_base(tiny_model: Path, kind: str) -> None:
    family, trained = adapted(tiny_model, kind=kind, targets={"encoder": [0.5, 1.0]})
    before = snapshot(trained)
    free = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    steps(family, trained, torch.optim.AdamW(free, lr=1e-2))
    moved = {name for name, parameter in trained.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if ".lora_" in name}
    assert all(".encoder.layers.1." in name for name in moved)


@pytest.mark.parametrize(("kind", "divisor"), [("lora", 4.0), ("rslora", 2.0), ("dora", 4.0)])
def test_the_update_is_scaled_by_alpha_over_rank_or_its_root(tiny_model: Path, kind: str, divisor: float) -> None:
    _, trained = adapted(tiny_model, kind=kind, alpha=10.0)
    layers: list[Any] = [module for module in trained.modules() if hasattr(module, "lora_A")]
    assert layers and {layer.scaling["default"] for layer in layers} == {10.0 / divisor}
    if kind == "dora":
        return
    layer = layers[0]
    disturb(trained)
    expected = layer.get_base_layer().weight + 10.0 / divisor * layer.lora_B["default"].weight @ (
        layer.lora_A["default"].weight
    )
    name = next(name for name, module in trained.named_modules() if module is layer).removeprefix("base_model.model.")
    merged = trained.merge_and_unload()
    torch.testing.assert_close(merged.get_submodule(name).weight, expected)


def test_adalora_penalty_counts_once_however_the_step_is_split(tiny_model: Path) -> None:
    family, trained = adapted(tiny_model, kind="adalora", adalora=AdaLoraConfig(orthogonality=0.5))
    disturb(trained)
    trained.eval()
    whole = batch_of(family)
    items = (whole["labels"] != -100).sum()
    parts = [{name: value[row : row + 1] for name, value in whole.items()} for row in range(2)]
    one = trained(**whole, num_items_in_batch=items).loss
    split = sum(trained(**part, num_items_in_batch=items).loss for part in parts)
    torch.testing.assert_close(one, split)
    grams = [
        factor @ factor.T if "lora_A" in name else factor.T @ factor
        for name, factor in trained.named_parameters()
        if "lora_A" in name or "lora_B" in name
    ]
    penalty = sum(((gram - torch.eye(len(gram))) ** 2).sum().sqrt() for gram in grams) / len(grams)
    torch.testing.assert_close(orthogonality(trained, "default"), penalty)
    plain = family.model(**whole, num_items_in_batch=items).loss
    torch.testing.assert_close(one, plain + 0.5 * penalty)


def test_adalora_ends_at_its_budget_and_given_up_ranks_stay_given_up(tiny_model: Path, tmp_path: Path) -> None:
    settings = AdaLoraConfig(initial_rank=6, warmup_share=0.1, final_share=0.3)
    family, trained = adapted(tiny_model, kind="adalora", adalora=settings)
    free = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    optimiser, allocation = torch.optim.AdamW(free, lr=1e-2), RankAllocation(trained)
    batch = batch_of(family)
    totals, patterns = [], []
    for step in range(20):
        trained(**batch).loss.backward()
        optimiser.step()
        allocation.step(step)
        trained.zero_grad()
        totals.append(sum(ranks_of(trained).values()))
        patterns.append(ranks_of(trained))
        if step == 9:  # a resumed run starts with an allocation that knows nothing
            allocation.save(tmp_path)
            expected = {name: value.clone() for name, value in allocation.allocator.exp_avg_ipt.items()}
            allocation = RankAllocation(trained)
            allocation.allocator.reset_ipt()
            allocation.load(tmp_path)
            assert all(torch.equal(allocation.allocator.exp_avg_ipt[name], value) for name, value in expected.items())
    layers = len(patterns[0])
    assert totals[1] == 6 * layers and totals[-1] == 4 * layers
    assert all(later <= earlier for earlier, later in pairwise(totals))
    assert patterns[14] == patterns[-1] and len(set(patterns[-1].values())) > 1


def test_an_adapter_directory_finds_its_base_and_gives_the_same_logits(tiny_model: Path, tmp_path: Path) -> None:
    for kind in KINDS:
        family, trained = adapted(tiny_model, kind=kind, also_train="norms")
        disturb(trained)
        expected = logits(family, trained)
        save_adapter(trained, tmp_path / kind)
        loaded = load_family(tmp_path / kind, device="cpu")
        torch.testing.assert_close(logits(loaded), expected, rtol=1e-4, atol=1e-4)
    assert json.loads((tmp_path / "adalora" / "ranks.json").read_text())


def test_the_verb_merges_to_a_plain_directory(
    tiny_model: Path, tmp_path: Path, speechtune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    from transformers import WhisperForConditionalGeneration

    family, trained = adapted(tiny_model, kind="dora")
    disturb(trained)
    expected = logits(family, trained)
    save_adapter(trained, tmp_path / "adapter")
    done = speechtune("models", "merge", tiny_model, tmp_path / "adapter", "--out", tmp_path / "merged", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["loss_difference"] < 1e-4
    plain = WhisperForConditionalGeneration.from_pretrained(tmp_path / "merged")
    state = load_family(tmp_path / "merged", device="cpu")
    torch.testing.assert_close(logits(state), expected, rtol=1e-4, atol=1e-4)
    assert all(torch.equal(value, state.model.state_dict()[name]) for name, value in plain.state_dict().items())


def test_weighted_updates_add_up_and_a_mean_of_factors_would_not(tiny_model: Path, tmp_path: Path) -> None:
    updates = []
    base = snapshot(tiny_family(tiny_model).model)
    for number, kind in enumerate(("lora", "dora")):
        _, trained = adapted(tiny_model, kind=kind)
        disturb(trained, number)
        save_adapter(trained, tmp_path / kind)
        merged = snapshot(trained.merge_and_unload())
        updates.append({name: merged[name] - base[name] for name in base})
    merge_adapters(str(tiny_model), [tmp_path / "lora", tmp_path / "dora"], tmp_path / "out", [0.25, 0.75])
    both = snapshot(tiny_family(tmp_path / "out").model)
    for name, value in base.items():
        torch.testing.assert_close(both[name], value + 0.25 * updates[0][name] + 0.75 * updates[1][name])


def test_what_is_no_adapter_or_has_no_base_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is not an adapter directory"):
        merge_adapters(str(tiny_model), [tiny_model], tmp_path / "out")
    _, trained = adapted(tiny_model, kind="lora")
    save_adapter(trained, tmp_path / "lost")
    config = json.loads((tmp_path / "lost" / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = str(tmp_path / "gone")
    (tmp_path / "lost" / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"the base model of the adapter .* is not here"):
        load_adapted(tmp_path / "lost")


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"also_train": "decoder.embeddings"}, "input embedding and output layer in one"),
        ({"also_train": "biases"}, "whole modules are trained"),
        ({"also_train": "encoder_mlp"}, "has an adapter already"),
        ({"targets": "norms"}, "no linear layers"),
        ({"kind": "adalora", "adalora": {"initial_rank": 4}}, "no rank could be"),
    ],
)
def test_an_adapter_that_cannot_be_is_refused(tiny_model: Path, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        adapted(tiny_model, **{"kind": "lora", **settings})


@pytest.mark.parametrize("bits", [4, 8])
def test_qlora_trains_on_a_quantised_base_and_merges_into_the_exact_one(
    tiny_model: Path, tmp_path: Path, bits: int
) -> None:
    pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra: quantised)")
    base = logits(tiny_family(tiny_model))
    family, trained = adapted(tiny_model, kind="lora", bits=bits)
    close = (logits(family, trained) - base).abs().mean() / base.abs().mean()
    assert 0 < close < (0.3 if bits == 4 else 0.03)
    frozen = {name: value.clone() for name, value in snapshot(trained).items() if "lora_" not in name}
    free = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    steps(family, trained, torch.optim.AdamW(free, lr=1e-2))
    logits(family, trained)  # an evaluation in between must not repack the base either
    now = dict(trained.named_parameters())
    assert all(torch.equal(now[name], value) for name, value in frozen.items())
    factors = {name: now[name].detach().clone() for name in now if "lora_" in name}
    save_trained(family, trained, tmp_path)
    exact, merged = snapshot(tiny_family(tiny_model).model), snapshot(tiny_family(tmp_path / "model").model)
    name = "model.encoder.layers.0.fc1"
    a, b = (factors[f"base_model.model.{name}.lora_{factor}.default.weight"] for factor in "AB")
    torch.testing.assert_close(merged[name + ".weight"], exact[name + ".weight"] + 64.0 / 4 * b @ a)
