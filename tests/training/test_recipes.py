"""Every recipe of ``recipes/`` carried out for two steps, and every snippet of ``docs/coverage.md`` loaded."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import tiny_ctc
import yaml
from tiny_whisper import make_transformers
from tone_corpus import write_corpus

from speechtune.corpus.table import Corpus
from speechtune.training.recipe import load_recipe
from speechtune.training.run import train
from speechtune.training.stages import stages_of

ROOT = Path(__file__).resolve().parents[2]
RECIPES = ROOT / "recipes"
COVERAGE = ROOT / "docs" / "coverage.md"
NAMES = sorted(
    path.name
    for path in RECIPES.glob("*.yaml")
    if path.name != "prepare.yaml" and "base: hf:Qwen" not in path.read_text(encoding="utf-8")
)
"""Those of Whisper and CTC models; the recipes of Qwen3-ASR have tests beside that family's."""

QUICK = [
    "training.max_steps=2",
    "training.trackers=[]",
    "training.batch.utterances=4",
    "training.batch.seconds=60",
    "training.audio_context.jitter_s=0.1",
    "decoding.max_new_tokens=8",
    "evaluation.scoring.resamples=20",
]
FEWER = ["training.batch.effective=8"]
MORE: dict[str, list[str]] = {
    "children_lora.yaml": [*FEWER, "training.evaluations_per_epoch=1", "training.warmup_steps=1"],
    "children_winner_soup.yaml": [*FEWER, "training.evaluations_per_epoch=1"],
    "ctc.yaml": ["training.precision=fp32"],
    "hebrew_round2_whisper.yaml": [*FEWER, "model.language=de"],
    "hebrew_round3_whisper.yaml": [*FEWER, "model.language=de", "training.evaluations_per_epoch=1"],
    "multilingual_lora.yaml": [*FEWER, "training.warmup_steps=1", "training.checkpoint_every_steps=1"],
    "two_phase.yaml": FEWER,
}


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny corpus with the columns that recipes speak of."""
    root = write_corpus(tmp_path_factory.mktemp("recipes") / "corpus", count=12, dev=4)
    found = Corpus.load(root)
    for number, row in enumerate(found.utterances):
        row.age = str(5 + number % 3)
        row.gender = "fm"[number % 2]
        row.session_id = row.speaker_id
        row.language = ("en", "de")[number % 2]
        row.extra = {"label_wer": 0.1 * (number % 4), "label_tier": ("0.7", "0.9", "all")[number % 3]}
        if row.split == "dev" and number % 4 > 1:
            row.split = "test"
    found.save()
    return root


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A tiny random Whisper, English-only and multilingual, and an encoder without a head."""
    root = tmp_path_factory.mktemp("models")
    make_transformers(root / "english", multilingual=False, positions=150, text_positions=64)
    make_transformers(root / "multilingual", multilingual=True, positions=100, text_positions=64)
    return {
        "english": root / "english",
        "multilingual": root / "multilingual",
        "ctc": tiny_ctc.make_encoder(root / "ctc", "wavlm"),
    }


def shrunk(name: str, corpus: Path, models: dict[str, Path], folder: Path) -> tuple[Path, list[str]]:
    """A recipe with its corpora and model replaced by tiny ones, and the overrides that make it short."""
    text = re.sub(r"corpora/[\w-]+", str(corpus), (RECIPES / name).read_text(encoding="utf-8"))
    base = yaml.safe_load(text)["model"]["base"]
    kind = "ctc" if name == "ctc.yaml" else "multilingual" if base.startswith("hf:") else "english"
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path, [f"model.base={models[kind]}", *QUICK, *MORE.get(name, [])]


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_valid_as_it_stands(name: str) -> None:
    load_recipe(RECIPES / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_a_tiny_model(name: str, corpus: Path, models: dict[str, Path], tmp_path: Path) -> None:
    path, overrides = shrunk(name, corpus, models, tmp_path)
    recipe = load_recipe(path, overrides)
    run = train(recipe, tmp_path / "run")
    assert (run.directory / "run.json").is_file()
    for stage in stages_of(recipe, run.directory):
        assert stage.is_done or recipe.adapter.per


GRIDS = {
    "children_winner_soup.yaml": [
        ["data.where=[label_wer<=0.7]"],
        ["data.where=[]"],
        ['data.where=["label_tier=0.7,0.9"]'],
        ["adapter.kind=none", "training.learning_rate=2e-5", "training.warmup_share=0.01", "training.epochs=2"],
    ],
    "multilingual_lora.yaml": [
        ["data.mix=[{corpus: corpora/read, weight: 0.8}, {corpus: corpora/common_voice, weight: 0.2, split: train}]"],
        ["adapter.rank=64"],
    ],
    "children_lora.yaml": [["training.max_steps=null", "training.epochs=5"]],
    "personal_voice.yaml": [["data.hours=2"]],
}


@pytest.mark.parametrize("name", GRIDS)
def test_the_variants_that_a_recipe_names_are_valid(name: str) -> None:
    plain = load_recipe(RECIPES / name)
    for overrides in GRIDS[name]:
        assert load_recipe(RECIPES / name, overrides) != plain
        for override in overrides:
            key, value = override.split("=", 1)
            text = (RECIPES / name).read_text(encoding="utf-8")
            assert key in text or value in text


def merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    found = dict(base)
    for key, value in changes.items():
        old = found.get(key)
        found[key] = merged(old, value) if isinstance(value, dict) and isinstance(old, dict) else value
    return found


def snippets() -> list[str]:
    """The recipe lines of the coverage page: inline code in its tables that is YAML of a recipe."""
    text = COVERAGE.read_text(encoding="utf-8") if COVERAGE.is_file() else ""
    inline = re.findall(r"`((?:data|model|adapter|training|decoding|evaluation|upload|stages): [^`]+)`", text)
    return [one.replace("\\|", "|") for one in inline]


def test_every_recipe_line_of_the_coverage_page_loads(tmp_path: Path) -> None:
    found = snippets()
    assert len(found) > 40
    for number, snippet in enumerate(found):
        values = merged({"data": {"corpus": "corpora/x"}}, yaml.safe_load(snippet))
        path = tmp_path / f"{number}.yaml"
        path.write_text(yaml.safe_dump(values), encoding="utf-8")
        recipe = load_recipe(path)
        assert recipe.model_dump(exclude_unset=True), snippet


def test_every_file_and_test_that_the_coverage_page_names_exists() -> None:
    text = COVERAGE.read_text(encoding="utf-8")
    files = set(re.findall(r"`((?:tests|recipes|docs|benchmarks)/[\w/.-]+\.(?:py|yaml|md))", text))
    assert len(files) > 20
    assert not [name for name in files if not (ROOT / name).is_file()]
    for name, test in re.findall(r"`(tests/[\w/]+\.py)`::(\w+)", text):
        assert f"def {test}(" in (ROOT / name).read_text(encoding="utf-8"), f"{name}::{test}"


def test_numbers_of_the_new_recipes_name_their_source() -> None:
    """Every recipe names a document or paper in its head, and a remark stands beside at least half of its numbers."""
    for name in NAMES:
        if name == "children.yaml":
            continue
        lines = (RECIPES / name).read_text(encoding="utf-8").splitlines()
        head = " ".join(line for line in lines[:8] if line.startswith("#"))
        assert re.search(r"shared/|docs/|arXiv|futo-org", head), name
        numbers = [line for line in lines if re.search(r": [\d.]", line.split("#")[0])]
        assert sum("#" in line for line in numbers) >= len(numbers) / 2, name


def test_reading_a_recipe_does_not_load_torch() -> None:
    """Explaining and checking recipes stays quick: only training pays for torch."""
    code = "import sys, speechtune.training.recipe; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
