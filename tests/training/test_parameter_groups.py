"""Every parameter is trained at the rate, decay and by the optimiser that the recipe says."""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

sys.path.append(str(Path(__file__).parents[1] / "models"))
from adapting import batch_of, snapshot, steps, tiny_family

from speechtune.core.errors import InputError
from speechtune.models.adapters import choose_trainable
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.trainable import Layout
from speechtune.training.optimiser_config import OptimiserConfig, RatesConfig
from speechtune.training.optimisers import build_optimiser, measured_state_bytes
from speechtune.training.parameter_groups import ParameterPlan, plan_parameters


def planned(
    directory: Path, train: Any = "all", adapter: dict[str, Any] | None = None, **settings: Any
) -> tuple[Any, torch.nn.Module, ParameterPlan]:
    family = tiny_family(directory)
    layout = Layout(family)
    module = choose_trainable(family, ModelConfig(train=train), AdapterConfig(**adapter or {}), 20, layout)
    rates, optimiser = RatesConfig(**settings.pop("rates", {})), OptimiserConfig(**settings)
    return family, module, plan_parameters(layout, module, 1e-3, 0.01, rates, optimiser)


def test_rates_after_warm_up_are_the_recipes(tiny_model: Path) -> None:
    """The expected rate of every parameter is written down here from its name alone."""
    from transformers import get_scheduler

    rules = [
        {"part": "encoder", "rate": 1e-4},
        {"part": "encoder", "range": [0.5, 1.0], "factor": 3.0},
        {"part": "decoder.biases", "rate": 5e-4},
    ]
    _, module, plan = planned(tiny_model, rates={"rules": rules, "decay": {"encoder": 0.5}})

    def expected(name: str) -> float:
        if ".decoder." in name:
            return 5e-4 if name.endswith("bias") else 1e-3
        if ".layers.1." in name or "encoder.layer_norm" in name:
            return 3e-4
        return 1e-4 * (0.5 if ".layers.0." in name else 0.25)

    optimiser = build_optimiser(module, plan)
    schedule = get_scheduler("constant_with_warmup", optimiser, num_warmup_steps=4)
    rate_of = {id(one): group for group in optimiser.param_groups for one in group["params"]}
    for step in range(6):
        for name, parameter in module.named_parameters():
            if name.endswith("encoder.embed_positions.weight"):
                assert id(parameter) not in rate_of  # sinusoids are constants
                continue
            assert rate_of[id(parameter)]["lr"] == pytest.approx(expected(name) * min(1.0, step / 4))
        optimiser.step()
        schedule.step()


def test_decay_by_depth_falls_from_the_top_and_rules_reach_an_adapters_factors(tiny_model: Path) -> None:
    _, _, plan = planned(
        tiny_model,
        adapter={"kind": "lora", "rank": 2, "targets": "encoder"},
        rates={"decay": 0.9, "rules": [{"part": "*lora_B*", "factor": 16}]},
    )
    for name, group in plan.group_of.items():
        layer = int(re.findall(r"layers\.(\d)", name)[0])
        assert group.rate == pytest.approx(1e-3 * 0.9 ** (1 - layer) * (16 if "lora_B" in name else 1))


def test_a_rate_for_the_output_layer_reaches_the_matrix_it_shares(tiny_model: Path) -> None:
    _, _, plan = planned(tiny_model, rates={"rules": [{"part": "head", "rate": 0.5}]})
    assert {name for name, group in plan.group_of.items() if group.rate == 0.5} == {"model.decoder.embed_tokens.weight"}


def test_what_weight_decay_leaves_alone_is_what_the_trainer_leaves_alone(tiny_model: Path) -> None:
    from transformers import Trainer

    _, module, plan = planned(tiny_model)
    decayed = set(Trainer.get_decay_parameter_names(None, module))  # type: ignore[arg-type]
    assert {name for name, group in plan.group_of.items() if group.weight_decay} == decayed & set(plan.group_of)
    assert plan.plain and not planned(tiny_model, no_weight_decay=[])[2].plain


@pytest.mark.parametrize(
    ("rates", "train", "words"),
    [
        ({"rules": [{"part": "projector", "rate": 1}]}, "all", "names nothing"),
        ({"rules": [{"part": "decoder", "rate": 1}]}, "encoder", "nothing of 'decoder' is trained"),
        ({"decay": {"tower": 0.9}}, "all", "is no side of this model"),
    ],
)
def test_a_rate_for_nothing_is_refused(tiny_model: Path, rates: dict[str, Any], train: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        planned(tiny_model, train, rates=rates)
    with pytest.raises(InputError, match="muon needs matrices"):
        planned(tiny_model, "biases", kind="muon")


KINDS = ("adamw", "adamw_8bit", "adafactor", "muon")


def need(kind: str) -> None:
    if kind == "adamw_8bit":
        pytest.importorskip("bitsandbytes", reason="bitsandbytes is not installed (extra: quantised)")


@pytest.mark.parametrize("kind", KINDS)
def test_a_step_changes_only_what_is_trained_and_state_takes_what_was_foretold(tiny_model: Path, kind: str) -> None:
    need(kind)
    family, module, plan = planned(tiny_model, {"encoder": [0.5, 1.0], "decoder": True}, kind=kind)
    before = snapshot(module)
    optimiser = build_optimiser(module, plan)
    steps(family, module, optimiser)
    moved = {name for name, parameter in module.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == set(plan.group_of) != set(before)
    assert measured_state_bytes(optimiser) == plan.state_bytes
    table = plan.to_json()
    assert table["trained"] == sum(before[name].numel() for name in plan.group_of)
    assert table["parameters"] == sum(value.numel() for value in before.values())
    assert sum(row["trained"] for row in table["table"]) == table["trained"]


def test_eight_bit_moments_are_used_for_large_matrices() -> None:
    need("adamw_8bit")
    module = torch.nn.Linear(128, 64)
    plan = ParameterPlan({}, [], 0, False, OptimiserConfig(kind="adamw_8bit"))
    from speechtune.training.parameter_groups import Group, state_bytes

    plan.group_of = {"weight": Group(1e-3, 0.0, False), "bias": Group(1e-3, 0.0, False)}
    optimiser = build_optimiser(module, plan)
    module(torch.ones(2, 128)).sum().backward()
    optimiser.step()
    foretold = sum(state_bytes("adamw_8bit", parameter, False, False) for parameter in module.parameters())
    assert measured_state_bytes(optimiser) == foretold < 0.3 * 8 * (128 * 64 + 64)
    assert optimiser.state[module.weight]["state1"].dtype == torch.uint8


def test_muon_moves_hidden_matrices_as_muon_alone_and_the_rest_as_adamw_alone(tiny_model: Path) -> None:
    family, module, plan = planned(tiny_model, kind="muon")
    twin: Any = copy.deepcopy(module)
    steps(family, module, build_optimiser(module, plan))

    def matrix(name: str, value: torch.Tensor) -> bool:
        return ".layers." in name and value.ndim == 2

    named = dict(twin.named_parameters())
    decayed = {name for name in named if not name.endswith("bias") and "layer_norm" not in name}
    muon = torch.optim.Muon(
        [value for name, value in named.items() if matrix(name, value)],
        lr=1e-3,
        weight_decay=0.01,
        momentum=0.95,
        adjust_lr_fn="match_rms_adamw",
    )
    rest = [(name, value) for name, value in named.items() if not matrix(name, value)]
    adamw = torch.optim.AdamW(
        [
            {"params": [value for name, value in rest if name in decayed], "weight_decay": 0.01},
            {"params": [value for name, value in rest if name not in decayed], "weight_decay": 0.0},
        ],
        lr=1e-3,
        fused=True,
    )
    twin.train()
    for _ in range(3):
        twin(**batch_of(family)).loss.backward()
        muon.step()
        adamw.step()
        twin.zero_grad()
    for name, value in module.named_parameters():
        torch.testing.assert_close(value, named[name], rtol=1e-5, atol=1e-6)
    assert {name for name, group in plan.group_of.items() if group.muon} == {
        n for n, v in named.items() if matrix(n, v)
    }


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_optimiser_goes_on_bit_for_bit(tiny_model: Path, kind: str) -> None:
    need(kind)
    family, module, plan = planned(tiny_model, kind=kind, rates={"decay": 0.5})
    optimiser = build_optimiser(module, plan)
    steps(family, module, optimiser, 2)
    other: Any = copy.deepcopy(module)
    restored = build_optimiser(other, plan)
    restored.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    steps(family, module, optimiser, 2)
    steps(family, other, restored, 2)
    assert all(torch.equal(a, b) for a, b in zip(module.parameters(), other.parameters(), strict=True))


def test_a_recipe_shows_what_it_trains_before_and_after(
    write_recipe: Callable[..., Path], tmp_path: Path, speechtune: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    recipe = write_recipe(
        model={"train": {"encoder": [0.5, 1.0]}},
        training={
            "epochs": 1,
            "rates": {"rules": [{"part": "encoder.final_norm", "rate": 0.01}]},
            "optimiser": {"kind": "muon"},
        },
        evaluation={"contexts": ["fit"]},
    )
    shown = speechtune("recipe", "check", recipe, "--parameters", "--json")
    assert shown.returncode == 0, shown.stderr
    done = speechtune("train", recipe, "--out", tmp_path / "run", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "parameters.json").read_text())
    assert record == json.loads(shown.stdout)
    rates = {(row["part"], str(row["layers"])): row["rates"] for row in record["table"]}
    assert rates[("encoder.final_norm", "None")] == [0.01] and rates[("encoder.layers", "[0, 0]")] == []
    assert "muon at" in json.loads((tmp_path / "run" / "preflight.json").read_text())["checks"]["parameters"]
