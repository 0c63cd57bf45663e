"""Bottleneck adapters: the identity at the start, and exactly a wider plain model at the end."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_ctc
import tiny_qwen3_asr
import torch
from adapting import batch_of, logits, snapshot, steps, tiny_family
from torch.nn import functional

from speechtune.core.errors import InputError
from speechtune.core.files import read_json
from speechtune.models.adapters import choose_trainable, save_trained
from speechtune.models.bottleneck import WiderOut, blocks_of
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.family import load_family
from speechtune.models.merging import merge_adapters
from speechtune.training.recipe import load_recipe
from speechtune.training.run import train
from speechtune.training.soups import merge_adapter


def adapted(family: Any, **settings: Any) -> Any:
    values = {"kind": "bottleneck", "rank": 5, "alpha": 10.0, "dropout": 0.0, "targets": ["mlp"], **settings}
    return choose_trainable(family, ModelConfig(), AdapterConfig(**values))


def disturb(module: torch.nn.Module) -> None:
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.requires_grad:
                parameter += 0.1 * torch.randn(parameter.shape, generator=generator)


def families(kind: str, tiny_model: Path, tmp_path: Path) -> Any:
    if kind == "whisper":
        return tiny_family(tiny_model)
    if kind == "qwen3_asr":
        return load_family(tiny_qwen3_asr.make_qwen3_asr(tmp_path / kind), language="en", device="cpu")
    return load_family(tiny_ctc.make_ctc(tmp_path / kind, kind), device="cpu")


@pytest.mark.parametrize("kind", ["whisper", "qwen3_asr", "wav2vec2-layer"])
def test_a_layer_adds_what_the_definition_says_and_merges_into_a_wider_one(
    kind: str, tiny_model: Path, tmp_path: Path
) -> None:
    """Each feed-forward layer by hand: own output + scale x up(act(down x)), gated where the layer is."""
    family = families(kind, tiny_model, tmp_path)
    blocks = blocks_of(family)
    sides = {block.side for block in blocks}
    assert sides == ({"encoder"} if kind.startswith("wav2vec2") else {"encoder", "decoder"})
    before = {block.out: [family.model.get_submodule(one) for one in (*block.into, block.out)] for block in blocks}
    adapted(family)
    disturb(family.model)
    heard = torch.randn(2, 7, 1)
    for block in blocks:
        *into, out = before[block.out]
        x = heard.expand(2, 7, into[0].in_features) * torch.linspace(-1, 1, into[0].in_features)
        new = [family.model.get_submodule(one) for one in (*block.into, block.out)]
        assert isinstance(new[-1], WiderOut)

        def act(hidden: list[torch.Tensor]) -> torch.Tensor:
            return functional.silu(hidden[0]) * hidden[1] if len(hidden) == 2 else functional.gelu(hidden[0])

        found = new[-1](act([layer(x) for layer in new[:-1]]))
        own = out(act([layer(x) for layer in into]))
        more = act([functional.linear(x, layer.adapter_weight, layer.adapter_bias) for layer in new[:-1]])
        wanted = own + 10.0 / 5 * more @ new[-1].adapter_weight.T
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)
        assert (found - own).abs().max() > 1e-3
    widths = {block.out: before[block.out][-1].in_features for block in blocks}
    unmerged = {block.out: family.model.get_submodule(block.out) for block in blocks}
    save_trained(family, family.model, tmp_path / "run")
    plain = load_family(tmp_path / "run" / "model", language=family.language, device="cpu")
    for block in blocks:
        merged: Any = plain.model.get_submodule(block.out)
        assert type(merged) is torch.nn.Linear and merged.in_features == widths[block.out] + 5
        torch.testing.assert_close(merged.weight[:, -5:], 2 * unmerged[block.out].adapter_weight.detach())


def test_a_new_one_changes_nothing_and_steps_move_it_alone(tiny_model: Path) -> None:
    family = tiny_family(tiny_model)
    base = logits(family)
    trained = adapted(family, targets={"encoder": [0.5, 1.0]}, also_train=["decoder.final_norm"])
    assert torch.equal(logits(family, trained), base)
    before = snapshot(trained)
    free = [parameter for parameter in trained.parameters() if parameter.requires_grad]
    steps(family, trained, torch.optim.AdamW(free, lr=1e-2))
    moved = {name for name, parameter in trained.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == {name for name in before if ".adapter_" in name} | {
        "model.decoder.layer_norm.weight",
        "model.decoder.layer_norm.bias",
    }
    assert all(".encoder.layers.1." in name for name in moved if ".adapter_" in name)


def test_saved_alone_or_merged_it_is_the_same_model_with_any_layers_left_out(tiny_model: Path, tmp_path: Path) -> None:
    family = tiny_family(tiny_model)
    base = logits(family)
    adapted(family, targets={"encoder": [0.5, 1.0]}, also_train=["decoder.final_norm"])
    disturb(family.model)
    wanted = logits(family)
    assert (wanted - base).abs().max() > 0.01
    save_trained(family, family.model, tmp_path / "run")
    for directory in ("model", "adapter"):
        loaded = load_family(tmp_path / "run" / directory, device="cpu")
        torch.testing.assert_close(logits(loaded), wanted, rtol=1e-4, atol=1e-4)
    found = merge_adapters(str(tiny_model), [tmp_path / "run" / "adapter"], tmp_path / "merged")
    assert found.changed_parameters > 0
    torch.testing.assert_close(logits(tiny_family(tmp_path / "merged")), wanted, rtol=1e-4, atol=1e-4)
    souped = merge_adapter(tmp_path / "run" / "adapter", tmp_path / "soup", str(tiny_model))
    torch.testing.assert_close(logits(tiny_family(souped)), wanted, rtol=1e-4, atol=1e-4)
    with pytest.raises(InputError, match="merge it alone, with weight 1"):
        merge_adapters(str(tiny_model), [tmp_path / "run" / "adapter"], tmp_path / "half", [0.5])


def test_what_cannot_have_one_is_one_sentence(tiny_model: Path) -> None:
    with pytest.raises(InputError, match="add mlp"):
        adapted(tiny_family(tiny_model), targets=["attention"])
    with pytest.raises(ValueError, match="not put on a quantised base"):
        AdapterConfig(kind="bottleneck", bits=4)


def test_a_run_stopped_in_the_middle_ends_with_the_same_bits(
    write_recipe: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers import Trainer

    path = write_recipe(
        adapter={"kind": "bottleneck", "rank": 4, "dropout": 0.1, "targets": ["mlp"]},
        training={"epochs": 2, "preflight": True, "checkpoint_every_steps": 2, "monitor": {"enabled": False}},
        evaluation={"contexts": ["fit"], "baseline_contexts": ["fit"], "scoring": {"resamples": 10}},
    )
    recipe = load_recipe(path)
    train(recipe, tmp_path / "whole")
    own, saves = Trainer._save_checkpoint, []

    def stop_after_two(self: Any, *given: Any, **options: Any) -> None:
        own(self, *given, **options)
        saves.append(1)

    monkeypatch.setattr(Trainer, "_save_checkpoint", stop_after_two)

    def step(self: Any, *given: Any, _own: Any = Trainer.training_step, **options: Any) -> Any:
        if len(saves) == 2:
            raise KeyboardInterrupt
        return _own(self, *given, **options)

    monkeypatch.setattr(Trainer, "training_step", step)
    with pytest.raises(KeyboardInterrupt):
        train(recipe, tmp_path / "cut")
    monkeypatch.undo()
    train(recipe, tmp_path / "cut", resume=True)
    for name in ("model/model.safetensors", "adapter/adapter_model.safetensors"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name
    plain = read_json(tmp_path / "whole" / "model" / "config.json")
    base = json.loads((Path(recipe.model.base) / "config.json").read_text())
    assert plain["encoder_ffn_dim"] == base["encoder_ffn_dim"] + 4
    batch = batch_of(tiny_family(tmp_path / "whole" / "model"))
    assert set(batch) >= {"labels"}
