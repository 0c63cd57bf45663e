"""A student's layers are its teacher's, bit for bit."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import WhisperConfig, WhisperForConditionalGeneration

from speechtune.core.errors import InputError
from speechtune.models.family import load_family
from speechtune.models.observe import spaced
from speechtune.models.shrinking import RECORD, shrink


@pytest.fixture(scope="module")
def teacher(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny model with six encoder and five decoder layers, random ones."""
    directory = tmp_path_factory.mktemp("teacher")
    family: Any = load_family(tiny_model, device="cpu")
    old = family.model.config
    torch.manual_seed(1)
    model = WhisperForConditionalGeneration(
        WhisperConfig(**{**old.to_dict(), "encoder_layers": 6, "decoder_layers": 5})
    )
    generation = family.model.generation_config
    generation.alignment_heads = [[0, 1], [2, 0], [4, 1]]
    model.generation_config = generation
    model.save_pretrained(directory)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        (directory / name).write_text((tiny_model / name).read_text())
    return directory


@pytest.mark.parametrize(
    ("count", "chosen", "places"),
    [(4, 2, [0, 3]), (32, 2, [0, 31]), (5, 3, [0, 2, 4]), (12, 4, [0, 3, 7, 11]), (4, 4, [0, 1, 2, 3]), (4, 1, [3])],
)
def test_layers_are_as_far_apart_as_can_be(count: int, chosen: int, places: list[int]) -> None:
    assert spaced(count, chosen) == places


def test_every_weight_of_the_student_is_one_of_the_teachers(teacher: Path, tmp_path: Path) -> None:
    made = shrink(str(teacher), tmp_path / "student", encoder_keep=[1, 2, 5], decoder_layers=2)
    assert (made.encoder_layers, made.decoder_layers) == ([1, 2, 5], [0, 4])
    source = WhisperForConditionalGeneration.from_pretrained(teacher).state_dict()
    student = WhisperForConditionalGeneration.from_pretrained(made.model)
    assert (student.config.encoder_layers, student.config.decoder_layers) == (3, 2)
    places = {"encoder": made.encoder_layers, "decoder": made.decoder_layers}
    for name, value in student.state_dict().items():
        words = name.split(".")
        if "layers" in words:
            at = words.index("layers") + 1
            words[at] = str(places[words[1]][int(words[at])])
        assert torch.equal(value, source[".".join(words)]), name
    assert [layer.self_attn.layer_idx for layer in student.model.decoder.layers] == [0, 1]
    assert student.generation_config.alignment_heads == [[0, 1], [1, 1]]
    assert json.loads((made.model / RECORD).read_text())["source"] == str(teacher)


def test_a_student_with_all_layers_is_the_teacher(teacher: Path, tmp_path: Path) -> None:
    shrink(str(teacher), tmp_path / "same")
    features, tokens = torch.randn(1, 80, 300), torch.tensor([[1, 2, 3]])
    with torch.no_grad():
        both = [
            WhisperForConditionalGeneration.from_pretrained(path).eval()(features, decoder_input_ids=tokens).logits
            for path in (teacher, tmp_path / "same")
        ]
    assert torch.equal(*both)


def test_a_student_decodes_with_a_cache_like_without(teacher: Path, tmp_path: Path) -> None:
    shrink(str(teacher), tmp_path / "student", encoder_layers=2, decoder_layers=2)
    model = WhisperForConditionalGeneration.from_pretrained(tmp_path / "student").eval()
    features, tokens = torch.randn(1, 80, 300), torch.tensor([[5, 6, 7, 8]])
    with torch.no_grad():
        whole = model(features, decoder_input_ids=tokens).logits
        first = model(features, decoder_input_ids=tokens[:, :3], use_cache=True)
        last = model(features, decoder_input_ids=tokens[:, 3:], past_key_values=first.past_key_values).logits
    torch.testing.assert_close(last[:, 0], whole[:, 3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"encoder_layers": 7}, "1 to 6"),
        ({"decoder_keep": [2, 1]}, "rising numbers"),
        ({"decoder_keep": [0, 5]}, "0 to 4"),
        ({"decoder_keep": [0], "decoder_layers": 1}, "one of them"),
    ],
)
def test_layers_that_are_not_there_are_refused(
    teacher: Path, tmp_path: Path, options: dict[str, int | list[int]], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        shrink(str(teacher), tmp_path / "student", **options)  # type: ignore[arg-type]
    assert not (tmp_path / "student").exists()


def test_the_verb(teacher: Path, tmp_path: Path, speechtune: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    out = tmp_path / "student"
    done = speechtune(
        "models", "shrink", teacher, "--encoder-keep", "0,5", "--decoder-layers", "1", "--out", out, "--json"
    )
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    assert (said["encoder_layers"], said["decoder_layers"]) == ([0, 5], [4])
    assert said["parameters"] < said["source_parameters"]
    wrong = speechtune("models", "shrink", teacher, "--encoder-keep", "a", "--out", out, "--overwrite")
    assert wrong.returncode == 2
    assert "0,3" in wrong.stderr
