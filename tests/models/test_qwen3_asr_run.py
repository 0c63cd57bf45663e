"""Qwen3-ASR through the same commands as every other family, and the recipes of the repository on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny_ctc
import tiny_qwen3_asr

from speechtune.core.errors import InputError
from speechtune.models.family import load_family
from speechtune.models.qwen3_asr import Qwen3AsrFamily

RECIPES = Path(__file__).resolve().parents[2] / "recipes"


@pytest.fixture(scope="module")
def tiny_base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_qwen3_asr.make_qwen3_asr(tmp_path_factory.mktemp("qwen") / "model", spread=0.3)


@pytest.fixture(scope="module")
def tones(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_ctc.write_tones(tmp_path_factory.mktemp("tones") / "corpus", tiny_ctc.TEXTS[:6])


def made_tiny(name: str, base: Path, corpus: Path) -> dict[str, Any]:
    """A recipe of the repository on a tiny model and the tones, two steps a stage."""
    from omegaconf import OmegaConf

    recipe: Any = OmegaConf.to_container(OmegaConf.load(RECIPES / f"{name}.yaml"))

    def replace(node: Any) -> None:
        for one in node.values() if isinstance(node, dict) else node if isinstance(node, list) else []:
            replace(one)
        if isinstance(node, dict) and "corpus" in node:
            node["corpus"] = str(corpus)

    replace(recipe)
    recipe["model"]["base"] = str(base)
    recipe["training"] |= {"max_steps": 2, "trackers": [], "precision": "fp32", "evaluations_per_epoch": 1}
    for stage in recipe.get("stages", []):
        if "audio_tower.layers" in str(stage) or "language_model.layers" in str(stage):
            train = stage["model"]["train"]
            stage["model"]["train"] = {part: [0.5, 1.0] if part.endswith("layers") else True for part in train}
    recipe["decoding"] |= {"max_new_tokens": 6, "beams": recipe["decoding"].get("beams", 1)}
    recipe["evaluation"]["scoring"] = {"resamples": 20}
    return recipe


def trained_rates(stage: Path) -> dict[str, float]:
    table = json.loads((stage / "parameters.json").read_text())["table"]
    return {row["part"]: row["rates"][0] for row in table if row["trained"]}


@pytest.mark.parametrize(
    "name", ["hebrew_round2", "hebrew_round3", "children_winner1", "children_winner2", "children_winner4"]
)
def test_the_recipes_run(name: str, tiny_base: Path, tones: Path, tmp_path: Path) -> None:
    from transformers import AutoModelForMultimodalLM, AutoProcessor

    from speechtune.training.recipe import load_recipe
    from speechtune.training.run import train

    load_recipe(RECIPES / f"{name}.yaml")
    (tmp_path / "recipe.yaml").write_text(json.dumps(made_tiny(name, tiny_base, tones)))
    train(load_recipe(tmp_path / "recipe.yaml"), tmp_path / "run")
    stages = sorted((tmp_path / "run" / "stages").glob("*")) or [tmp_path / "run"]
    assert len(stages) == (2 if name.startswith("hebrew") else 1)
    for stage in stages:
        checks = json.loads((stage / "preflight.json").read_text())["checks"]
        assert "decode back" in checks["labels"] and "the same in 1 batch" in checks["loss"]
    record = json.loads((tmp_path / "run" / "model" / "speechtune.json").read_text())
    assert record["prompt"]["language"] == ("Hebrew" if name.startswith("hebrew") else "English")
    assert bool(record["prompt"]["context"]) == (name == "children_winner1")
    if name == "hebrew_round2":
        assert [trained_rates(stage) for stage in stages] == [
            {"projector": 2e-4, "decoder.layers": 5e-5, "decoder.embeddings": 1e-4},
            {"projector": 1e-4, "encoder.layers": 3e-5, "decoder.layers": 3e-5, "decoder.embeddings": 1e-4},
        ]
    AutoModelForMultimodalLM.from_pretrained(tmp_path / "run" / "model")
    AutoProcessor.from_pretrained(tmp_path / "run" / "model")


def test_train_evaluate_and_transcribe_from_the_command_line_with_one_prompt(
    tones: Path, tmp_path: Path, speechtune: Callable[..., Any]
) -> None:
    base = tiny_qwen3_asr.make_qwen3_asr(tmp_path / "base", spread=0.05)
    recipe = tiny_ctc.write_recipe(
        tmp_path / "recipe.yaml",
        base,
        tones,
        model={"base": str(base), "language": "en", "qwen3_asr": {"context": "Tones."}},
        adapter={"kind": "lora", "rank": 4, "targets": ["attention", "projector"]},
        training={"epochs": 2, "trackers": [], "spec_augment": {"time_prob": 0.05}},
        decoding={"max_new_tokens": 8},
    )
    done = speechtune("train", recipe, "--out", tmp_path / "run", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    record = json.loads((tmp_path / "run" / "model" / "speechtune.json").read_text())
    assert record["prompt"] == {"context": "Tones.", "language": "English", "language_tag": "answer"}
    assert record["attention"] == "sdpa" and record["audio_contexts"] == ["fit"]
    assert json.loads((tmp_path / "run" / "adapter" / "speechtune.json").read_text())["prompt"] == record["prompt"]
    for path in (tmp_path / "run" / "model", tmp_path / "run" / "adapter"):
        family = load_family(path, language="en", device="cpu")
        assert isinstance(family, Qwen3AsrFamily) and family.prompt.context == "Tones."
    done = speechtune("evaluate", tmp_path / "run", tones, "--split", "dev", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    done = speechtune("transcribe", tmp_path / "run", tones / "audio", "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["kept"] == 12


def test_soups_and_merges_keep_the_prompt_and_refuse_another_one(tiny_base: Path, tmp_path: Path) -> None:
    from speechtune.models.adapters import choose_trainable, save_adapter
    from speechtune.models.config import AdapterConfig, ModelConfig
    from speechtune.models.merging import merge_adapters
    from speechtune.training.making_soup import SoupOptions, make_soup

    def family_with(context: str) -> Qwen3AsrFamily:
        family = load_family(tiny_base, language="en", device="cpu")
        assert isinstance(family, Qwen3AsrFamily)
        family.configure(ModelConfig(qwen3_asr={"context": context}))
        return family

    for name, context in (("a", "One."), ("b", "One."), ("c", "Two.")):
        (tmp_path / name).mkdir()
        family_with(context).save(tmp_path / name)
    make_soup(SoupOptions(models=[str(tmp_path / "a"), str(tmp_path / "b")]), tmp_path / "soup")
    soup = load_family(tmp_path / "soup", language="en", device="cpu")
    assert isinstance(soup, Qwen3AsrFamily) and soup.prompt.context == "One."
    with pytest.raises(InputError, match="another prompt"):
        make_soup(SoupOptions(models=[str(tmp_path / "a"), str(tmp_path / "c")]), tmp_path / "mixed")

    family = family_with("One.")
    adapted = choose_trainable(family, ModelConfig(), AdapterConfig(kind="lora", rank=2, targets=["attention"]))
    (tmp_path / "adapter").mkdir()
    save_adapter(adapted, tmp_path / "adapter")
    (tmp_path / "adapter" / "speechtune.json").write_text(json.dumps({**family.recorded(), "base": str(tiny_base)}))
    merge_adapters(str(tiny_base), [tmp_path / "adapter"], tmp_path / "merged")
    merged = load_family(tmp_path / "merged", language="en", device="cpu")
    assert isinstance(merged, Qwen3AsrFamily) and merged.prompt == family.prompt
