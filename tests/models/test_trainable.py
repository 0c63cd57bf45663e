"""Words of a recipe name exactly the weights they should."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch
from adapting import snapshot, steps, tiny_family

from speechtune.core.errors import InputError
from speechtune.models.adapters import choose_trainable
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.trainable import Layout, bare_name


@pytest.fixture
def family(tiny_model: Path) -> Any:
    return tiny_family(tiny_model)


def test_every_parameter_has_one_place_and_encoder_means_the_whole_encoder(family: Any) -> None:
    layout = Layout(family)
    sides = {name: layout.place(name).part.split(".")[0] for name in layout.parameters}
    for side in ("encoder", "decoder"):
        own = {id(parameter) for parameter in family.part(side).parameters()}
        chosen = layout.select(side, "model.train")
        assert {id(layout.parameters[name]) for name in chosen} == own
        assert chosen == [name for name, where in sides.items() if where == side]


@pytest.mark.parametrize(
    ("selection", "pattern"),
    [
        ({"encoder": [0.5, 1.0]}, r"encoder\.(layers\.1\.|layer_norm)"),
        ({"encoder": [0.0, 0.5]}, r"encoder\.(conv|layers\.0\.)"),
        ({"encoder.layers": [0.5, 1.0], "decoder.final_norm": True}, r"encoder\.layers\.1\.|decoder\.layer_norm"),
        ("norms", r"layer_norm"),
        ("biases", r"bias$"),
        ("decoder.biases", r"decoder.*bias$"),
        ("cross_attention", r"encoder_attn\.\w+_proj"),
        (["front_end", "encoder_mlp"], r"encoder\.(conv|layers\.\d\.fc)"),
        ("*.fc1.weight", r"fc1\.weight$"),
        ("head", r"embed_tokens"),
    ],
)
def test_a_selection_trains_what_a_regular_expression_over_names_finds_and_nothing_else_moves(
    family: Any, selection: Any, pattern: str
) -> None:
    expected = {name for name, _ in family.model.named_parameters() if re.search(pattern, name)}
    model = choose_trainable(family, ModelConfig(train=selection), AdapterConfig())
    assert {name for name, parameter in model.named_parameters() if parameter.requires_grad} == expected
    before = snapshot(model)
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    steps(family, model, torch.optim.AdamW(trained, lr=1e-2, weight_decay=0.1))
    moved = {name for name, parameter in model.named_parameters() if not torch.equal(parameter, before[name])}
    assert moved == expected


def test_the_shared_output_matrix_is_explained(family: Any, capsys: pytest.CaptureFixture[str]) -> None:
    from speechtune.core.progress import set_quiet

    set_quiet(False)
    choose_trainable(family, ModelConfig(train="head"), AdapterConfig())
    assert "shares its matrix with decoder.embeddings" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("selection", "words"),
    [("encodr", "did you mean encoder"), ({"encoder": [0.5, 0.6]}, "no layer of 'encoder' lies in")],
)
def test_a_word_that_names_nothing_is_refused_with_what_there_is(family: Any, selection: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        choose_trainable(family, ModelConfig(train=selection), AdapterConfig())


@pytest.mark.parametrize("wrong", [{"encoder": [0.5]}, {"encoder": [0.9, 0.1]}, {"encoder": [0, 2]}, [], 3])
def test_a_selection_that_is_none_is_refused_by_the_recipe(wrong: Any) -> None:
    with pytest.raises(ValueError, match=r"range of depth|give a word"):
        ModelConfig(train=wrong)


@pytest.mark.parametrize(
    ("wrapped", "bare"),
    [
        ("base_model.model.model.encoder.layers.0.fc1.lora_A.default.weight", "model.encoder.layers.0.fc1.weight"),
        ("module._orig_mod.model.encoder.layers.0.fc1.weight", "model.encoder.layers.0.fc1.weight"),
        ("base_model.model.model.encoder.layers.0.fc1.base_layer.bias", "model.encoder.layers.0.fc1.bias"),
        ("base_model.model.a.layer_norm.modules_to_save.default.bias", "a.layer_norm.bias"),
        ("base_model.model.a.fc1.lora_E.default", "a.fc1.weight"),
    ],
)
def test_a_wrapped_name_is_traced_back_to_the_weight_it_changes(wrapped: str, bare: str) -> None:
    assert bare_name(wrapped) == bare
