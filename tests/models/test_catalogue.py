"""The catalogue: it holds together, says who says so, and its estimates meet published figures."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from speechtune.core.errors import InputError
from speechtune.corpus.language_codes import short_code
from speechtune.models.catalogue.entries import FILE, Catalogue, catalogue, hub_names
from speechtune.models.catalogue.memory import (
    BYTES,
    GIB,
    Batch,
    Shape,
    Stack,
    activations_gib,
    inference_gib,
    states_gib,
    training_needs,
)

RAW = yaml.safe_load(FILE.read_text(encoding="utf-8"))


def blocks(value: Any) -> list[dict[str, Any]]:
    """Every mapping of a nested value."""
    if isinstance(value, dict):
        return [value, *(inner for one in value.values() for inner in blocks(one))]
    return [inner for one in value for inner in blocks(one)] if isinstance(value, list) else []


def test_every_number_stands_beside_a_source() -> None:
    numbers = 0
    for block in blocks({key: value for key, value in RAW.items() if key not in ("sources", "language_sets")}):
        found = [key for key, one in block.items() if isinstance(one, int | float) and not isinstance(one, bool)]
        if found:
            numbers += len(found)
            assert block.get("source") in RAW["sources"], f"{block} has numbers without a source"
    assert numbers > 150


def test_every_source_is_used_and_says_where() -> None:
    used = {block["source"] for block in blocks(RAW) if isinstance(block.get("source"), str)}
    assert used == set(RAW["sources"])
    assert all(one["what"] and one["where"] for one in RAW["sources"].values())


def test_languages_are_iso_codes() -> None:
    codes = {code for codes in RAW["language_sets"].values() for code in codes}
    codes |= {code for model in RAW["models"] for code in model["languages"].get("codes", [])}
    assert all(isinstance(code, str) and re.fullmatch(r"[a-z]{2,3}", code) for code in codes)
    for name, own in RAW["language_sets"].items():
        assert len(set(own)) == len(own) == int(name.split("-")[1])


def test_whispers_languages_are_those_of_its_tokenizer() -> None:
    whisper = pytest.importorskip("transformers.models.whisper.tokenization_whisper")
    tokens = {{"jw": "jv"}.get(code, code) for code in whisper.LANGUAGES}
    assert set(RAW["language_sets"]["whisper-100"]) == tokens
    assert set(RAW["language_sets"]["whisper-99"]) == tokens - {"yue"}


def test_qwens_languages_are_those_of_the_chat_template() -> None:
    from speechtune.corpus.languages import QWEN3_ASR_LANGUAGES

    assert set(RAW["language_sets"]["qwen-30"]) == set(QWEN3_ASR_LANGUAGES)


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (lambda raw: raw["models"][0]["parameters_m"].update(source="hearsay"), "no source is called 'hearsay'"),
        (lambda raw: raw["models"][0]["parameters_m"].pop("source"), "source"),
        (lambda raw: raw["models"].append(raw["models"][0]), "one name"),
        (lambda raw: raw["models"][0].update(family="wisper"), "no family is called 'wisper'"),
        (lambda raw: raw["models"][0].update(languages={"set": "all", "source": "whisper-readme"}), "no set of"),
        (lambda raw: raw["models"][0].update(languages={"source": "whisper-readme"}), "exactly one"),
        (lambda raw: raw["purposes"]["phone"]["prefer"][0]["models"].append("x"), "prefers 'x'"),
        (lambda raw: raw["models"][0].update(colour="red"), "colour"),
    ],
)
def test_a_catalogue_that_does_not_hold_together_is_refused(change: Any, sentence: str) -> None:
    raw = json.loads(json.dumps(RAW))
    change(raw)
    with pytest.raises(ValidationError, match=sentence):
        Catalogue.model_validate(raw)


def test_names_that_can_be_fetched_follow_the_rules_of_models_get() -> None:
    from speechtune.models.hub import HubModel
    from speechtune.models.packages import HUB_ALIASES, PACKAGED

    assert set(hub_names()) <= set(PACKAGED) | set(HUB_ALIASES)
    for name, hub in hub_names().items():
        assert HubModel.parse(f"hf:{hub}").owner_name == hub
        assert not Path(name).exists()
    for name, model in PACKAGED.items():
        assert catalogue().get(name).hub == model.hub


def test_errata_of_the_notebook_stay_corrected() -> None:
    known = catalogue()
    assert known.get("whisper-small").licence.value == "MIT"
    assert known.languages_of(known.get("distil-large-v3")) == ("en",)
    assert known.languages_of(known.get("canary-1b")) == ("en", "de", "es", "fr")
    assert not known.get("canary-1b").commercial and not known.get("mms-1b-all").commercial
    assert known.get("distil-large-v3").parameters_m.value < 0.55 * known.get("whisper-large-v3").parameters_m.value


def test_what_a_model_knows() -> None:
    known = catalogue()
    assert known.knows(known.get("whisper-base"), "Norwegian") == "yes"
    assert known.knows(known.get("whisper-base.en"), "de") == "no"
    assert known.knows(known.get("qwen3-asr-1.7b"), "he") == "no"
    assert known.knows(known.get("qwen3-asr-1.7b"), "tl") == "yes"  # Filipino is Tagalog to ISO 639-1
    assert known.knows(known.get("mms-1b-all"), "xyz") == "maybe"
    assert known.knows(known.get("xls-r-300m"), "xyz") == "new head"
    assert short_code("jv") == "jv"


def test_an_unknown_name_offers_the_nearest() -> None:
    with pytest.raises(InputError, match=r"whisper-large-v3"):
        catalogue().get("wisper-large-v3")


def test_inference_meets_the_figures_that_omnilingual_publishes() -> None:
    seen = 0
    for model in catalogue().models:
        for one in model.memory:
            if one.source == "omni-card":
                published, estimate = one.mb * 1e6 / GIB, inference_gib(model.parameters_m.value * 1e6, "bfloat16")
                assert abs(estimate - published) < max(0.15 * published, 0.6), (model.name, estimate, published)
                seen += 1
    assert seen == 8


def test_memory_grows_with_parameters_and_bytes() -> None:
    sizes = [1e6, 4e7, 8e8, 2e9]
    for precision in BYTES:
        found = [inference_gib(size, precision) for size in sizes]
        assert found == sorted(found)
    assert inference_gib(1e9, "4bit") < inference_gib(1e9, "int8") < inference_gib(1e9, "float16")
    assert inference_gib(1e9, "float16") == inference_gib(1e9, "bfloat16") < inference_gib(1e9, "float32")
    for way in {one.way for one in training_needs(1e9)}:
        found = [next(one.gib for one in training_needs(size) if one.way == way) for size in sizes]
        assert found == sorted(found)


def test_states_are_those_of_adamw() -> None:
    torch = pytest.importorskip("torch")
    model = torch.nn.Linear(1000, 100, bias=False)
    optimiser = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 1000)).sum().backward()
    optimiser.step()
    tensors = [model.weight, model.weight.grad, *optimiser.state[model.weight].values()]
    held = sum(one.numel() * one.element_size() for one in tensors if one.numel() > 1)
    assert held == round(states_gib(100_000, 100_000) * GIB)


def test_activations_are_no_less_than_what_autograd_keeps_and_of_its_order() -> None:
    """A Transformer layer in float32: what its graph holds, counted by torch, against 68 bytes a position and width."""
    torch = pytest.importorskip("torch")
    layer = torch.nn.TransformerEncoderLayer(64, 4, 256, dropout=0.0, batch_first=True, activation="gelu")
    held: dict[int, int] = {}

    def keep(tensor: Any) -> Any:
        held[tensor.data_ptr()] = tensor.numel() * tensor.element_size()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(torch.randn(2, 50, 64, requires_grad=True))
    weights = {one.data_ptr() for one in layer.parameters()}
    kept = sum(size for place, size in held.items() if place not in weights)
    shape = Shape((Stack("encoder", 1, 64, per_second=50),))
    estimate = activations_gib(shape, Batch(2, 1.0, 0), "float32") * GIB
    assert 0.5 * estimate < kept < 1.5 * estimate


def test_checkpointing_saves_and_the_cheapest_way_comes_last() -> None:
    shape = Shape((Stack("encoder", 24, 1024, per_second=50), Stack("decoder", 24, 1024, per_token=1)), 51_865)
    needs = training_needs(7.6e8, None, shape, Batch())
    by_way = {one.way: one.gib for one in needs}
    assert by_way["full, bf16, checkpointing"] < by_way["full, bf16 arithmetic"] < by_way["full, float32"]
    assert by_way["LoRA, base at 4 bits"] < by_way["LoRA, base at 8 bits"] < by_way["LoRA, bf16"]
    assert [one.gib for one in needs] == sorted(by_way.values(), reverse=True)
