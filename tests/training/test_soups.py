"""Laws of soups: identical models, order, weights, merged adapters, groups, greedy and learned choice."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from speechtune.core.errors import InputError
from speechtune.training.making_soup import SoupOptions, make_soup
from speechtune.training.soup_choice import SoupLearner, greedy, mean_of
from speechtune.training.soups import mixed, open_members


def variant(source: Path, target: Path, seed: int, scale: float = 0.05) -> Path:
    """A copy of a model with noise on its weights."""
    shutil.copytree(source, target)
    torch.manual_seed(seed)
    weights = load_file(target / "model.safetensors")
    noisy = {name: value + scale * torch.randn_like(value) for name, value in weights.items()}
    save_file(noisy, target / "model.safetensors", {"format": "pt"})
    return target


@pytest.fixture
def three(tiny_model: Path, tmp_path: Path) -> list[Path]:
    return [variant(tiny_model, tmp_path / f"m{seed}", seed) for seed in range(3)]


def soup(out: Path, *models: Path, **options: Any) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    found = make_soup(SoupOptions(models=[str(one) for one in models], **options), out)
    return load_file(out / "model.safetensors"), found


@pytest.mark.parametrize("count", [2, 3, 7])
def test_a_soup_of_identical_models_is_the_model_bit_for_bit(tiny_model: Path, tmp_path: Path, count: int) -> None:
    copies = [Path(shutil.copytree(tiny_model, tmp_path / f"c{number}")) for number in range(count)]
    found, _ = soup(tmp_path / "soup", *copies)
    own = load_file(tiny_model / "model.safetensors")
    assert set(found) == set(own)
    assert all(torch.equal(found[name], own[name]) for name in own)


def test_the_order_does_not_matter_and_the_mean_is_that_of_float64(three: list[Path], tmp_path: Path) -> None:
    soups = [soup(tmp_path / f"s{number}", *order)[0] for number, order in enumerate(permutations(three))]
    stored = [load_file(path / "model.safetensors") for path in three]
    for name, value in soups[0].items():
        assert all(torch.equal(value, other[name]) for other in soups[1:])
        expected = torch.stack([one[name].double() for one in stored]).mean(0)
        assert torch.allclose(value.double(), expected, atol=1e-7, rtol=1e-6)


def test_the_soup_loads_without_speechtune(three: list[Path], tmp_path: Path) -> None:
    from transformers import WhisperForConditionalGeneration

    soup(tmp_path / "soup", *three)
    model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "soup")
    assert sum(one.numel() for one in model.parameters()) > 0
    written = json.loads((tmp_path / "soup" / "soup.json").read_text())
    assert sum(row["weight"] for row in written["members"]) == pytest.approx(1)


def test_a_soup_of_soups_is_the_flat_soup_with_the_products_of_the_weights(three: list[Path], tmp_path: Path) -> None:
    soup(tmp_path / "inner", *three[:2])
    two_steps, _ = soup(tmp_path / "outer", tmp_path / "inner", three[2])
    groups = [[str(one) for one in three[:2]], [str(three[2])]]
    options = SoupOptions(groups=groups)
    found = make_soup(options, tmp_path / "grouped")
    assert [row["weight"] for row in found["members"]] == [0.25, 0.25, 0.5]
    at_once = load_file(tmp_path / "grouped" / "model.safetensors")
    assert all(torch.allclose(at_once[name], two_steps[name], atol=1e-6) for name in at_once)


def adapters(base: Path, tmp_path: Path) -> list[Path]:
    from peft import LoraConfig, get_peft_model

    from speechtune.models.family import load_family

    found = []
    for seed, rank in ((0, 4), (1, 2)):
        family = load_family(base, device="cpu")
        config = LoraConfig(r=rank, lora_alpha=8, target_modules=["q_proj", "v_proj", "fc1"])
        model = get_peft_model(family.model, config)
        torch.manual_seed(seed)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if "lora_" in name:
                    parameter.normal_(0, 0.3)
        folder = tmp_path / f"adapter{seed}"
        model.save_pretrained(folder)
        found.append(folder)
    return found


def merged_by_hand(base: Path, adapter: Path) -> dict[str, torch.Tensor]:
    weights = load_file(base / "model.safetensors")
    config = json.loads((adapter / "adapter_config.json").read_text())
    factors = load_file(adapter / "adapter_model.safetensors")
    for key, a in factors.items():
        if "lora_A" in key:
            name = key.removeprefix("base_model.model.").replace("lora_A.weight", "weight")
            b = factors[key.replace("lora_A", "lora_B")]
            weights[name] = weights[name] + config["lora_alpha"] / config["r"] * (b @ a)
    return weights


def test_adapters_of_any_rank_are_merged_before_they_are_averaged(tiny_model: Path, tmp_path: Path) -> None:
    folders = adapters(tiny_model, tmp_path)
    found, facts = soup(tmp_path / "soup", *folders, base=str(tiny_model), adapter_rank=6)
    by_hand = [merged_by_hand(tiny_model, one) for one in folders]
    moved = 0.0
    for name, value in found.items():
        expected = (by_hand[0][name].double() + by_hand[1][name].double()) / 2
        assert torch.allclose(value.double(), expected, atol=1e-5), name
        moved += float((value - load_file(tiny_model / "model.safetensors")[name]).abs().sum())
    assert moved > 1
    # ranks 4 and 2 sum to 6, so rank 6 holds the whole soup, and rank 1 does not
    assert facts["adapter"]["relative_error"] < 1e-4
    assert facts["adapter"]["not_covered"] == []
    again = merged_by_hand(tiny_model, tmp_path / "soup" / "adapter")
    assert all(torch.allclose(again[name], value, atol=1e-4) for name, value in found.items())
    from peft import PeftModel

    from speechtune.models.family import load_family

    loaded = PeftModel.from_pretrained(load_family(tiny_model, device="cpu").model, str(tmp_path / "soup" / "adapter"))
    plain = dict(loaded.merge_and_unload().named_parameters())
    assert all(torch.allclose(plain[name], value, atol=1e-4) for name, value in found.items() if name in plain)
    _, small = soup(tmp_path / "small", *folders, base=str(tiny_model), adapter_rank=1)
    assert 0.1 < small["adapter"]["relative_error"] < 1


def test_members_that_do_not_fit_are_refused_in_one_sentence(
    tiny_model: Path, three: list[Path], tmp_path: Path
) -> None:
    from tiny_whisper import make_transformers

    other = tmp_path / "other"
    make_transformers(other, multilingual=False, positions=100, text_positions=64)
    with pytest.raises(InputError, match=r"differ in architecture \(model\."):
        soup(tmp_path / "s", three[0], other)
    document = json.loads((three[1] / "tokenizer.json").read_text())
    vocabulary = document["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (three[1] / "tokenizer.json").write_text(json.dumps(document))
    with pytest.raises(InputError, match="different tokenizers"):
        soup(tmp_path / "s", *three[:2])
    with pytest.raises(InputError, match="at least two"):
        soup(tmp_path / "s", three[0])
    with pytest.raises(InputError, match="--corpus"):
        soup(tmp_path / "s", *three[:2], method="greedy")
    assert not (tmp_path / "s").exists()
    with pytest.raises(InputError, match="sum to 1"):
        next(mixed(open_members([str(three[0]), str(three[2])], tmp_path / "x"), {"": [0.5, 0.6]}))


def test_the_contexts_of_a_soup_are_those_of_every_member(three: list[Path], tmp_path: Path) -> None:
    for path, contexts in zip(three, (["fit", "full"], ["fit"], ["fit", "full"]), strict=True):
        (path / "speechtune.json").write_text(json.dumps({"audio_contexts": contexts, "language": None}))
    soup(tmp_path / "soup", *three)
    assert json.loads((tmp_path / "soup" / "speechtune.json").read_text())["audio_contexts"] == ["fit"]


def test_greedy_keeps_what_does_no_harm_in_the_order_of_merit() -> None:
    # The score is how far the mean of planted values is from 10: 9 is best alone, 11 helps, 30 harms.
    values = [30.0, 11.0, 9.0, 10.0]
    vectors = [tuple(float(place == one) for one in range(4)) for place in range(4)]

    def score(vector: tuple[float, ...]) -> float:
        return abs(sum(w * v for w, v in zip(vector, values, strict=True)) - 10)

    kept = greedy(vectors[:3], [score(one) for one in vectors[:3]], score)
    assert sorted(kept) == [1, 2]
    assert greedy(vectors, [score(one) for one in vectors], score) == [3]
    assert mean_of([vectors[0], vectors[1]]) == (0.5, 0.5, 0.0, 0.0)


@pytest.mark.parametrize("per_layer", [False, True])
def test_the_gradient_of_learned_weights_is_that_of_finite_differences(
    three: list[Path], tiny_corpus: Path, tmp_path: Path, per_layer: bool
) -> None:
    from speechtune.corpus.table import Corpus
    from speechtune.decoding.config import DecodingConfig
    from speechtune.models.family import load_family
    from speechtune.training.dev_loss import label_batches

    members = open_members([str(one) for one in three], tmp_path / "x")
    family = load_family(three[0], device="cpu")
    family.model.double()
    family.model.eval()
    identity = [tuple(float(row == column) for column in range(3)) for row in range(3)]
    learner = SoupLearner(family, members, identity, per_layer)
    learner.values = {name: value.double() for name, value in learner.values.items()}
    corpus = Corpus.load(tiny_corpus).split("dev")
    batch, labels = next(iter(label_batches(family, corpus, DecodingConfig(max_new_tokens=12))))
    batch = {name: value.double() if value.is_floating_point() else value for name, value in batch.items()}
    found = learner.gradient(batch, labels)
    for group in sorted(found)[:2]:
        for place in range(3):
            losses = []
            for change in (0.02, -0.02):
                learner.theta[group][place] += change
                learner.put()
                with torch.no_grad():
                    losses.append(float(family.model(**batch, num_items_in_batch=labels).loss))
                learner.theta[group][place] -= change
            slope = (losses[0] - losses[1]) / 0.04
            assert float(found[group][place]) == pytest.approx(slope, rel=0.02, abs=2e-5)  # logits are float32


def test_learned_weights_leave_a_spoilt_member_out(tiny_model: Path, tiny_corpus: Path, tmp_path: Path) -> None:
    models = [Path(shutil.copytree(tiny_model, tmp_path / "good")), variant(tiny_model, tmp_path / "bad", 1, 3.0)]
    options = {"corpus": tiny_corpus, "method": "learned", "passes": 12, "rate": 0.5}
    _, found = soup(tmp_path / "soup", *models, **options)
    weights = [row["weight"] for row in found["members"]]
    assert sum(weights) == pytest.approx(1)
    assert found["dev_loss"]["learned"] <= found["dev_loss"]["uniform"]
    assert weights[0] > 0.6


def test_greedy_from_the_command_line(
    three: list[Path], tiny_corpus: Path, tmp_path: Path, speechtune: Callable[..., Any]
) -> None:
    out = tmp_path / "soup"
    done = speechtune("soup", *three, "--out", out, "--method", "greedy", "--corpus", tiny_corpus, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {row["weight"] for row in found["members"]} <= {0.0, 1.0, 0.5, 1 / 3}
    best = min(one["wer"] for one in found["ingredients"])
    assert found["soup"]["wer"] <= best
    assert "difference" in found["soup"]
    wrong = speechtune("soup", three[0], tmp_path / "nothing", "--out", tmp_path / "x")
    assert wrong.returncode == 2
    assert len(wrong.stderr.strip().splitlines()) == 1
