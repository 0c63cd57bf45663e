"""Out and back again: what an exact format holds is every bit of the source."""

from __future__ import annotations

import base64
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openai_layout import make_layout

from speechtune.core.errors import InputError
from speechtune.core.files import read_json
from speechtune.export import to_ctranslate2, to_ggml, to_openai, to_transformers
from speechtune.export.source import open_source
from speechtune.models.importers.ctranslate2_whisper import ctranslate2_to_transformers
from speechtune.models.importers.ggml import read_ggml
from speechtune.models.importers.openai_whisper import openai_to_transformers
from speechtune.models.importers.whisper_bytes import token_bytes
from speechtune.models.importers.whisper_names import openai_name, transformers_name
from speechtune.models.importers.whisper_shapes import openai_shapes
from speechtune.models.importers.whisper_tokens import read_tokens
from speechtune.models.obtaining import get_model


def same_weights(first: Any, directory: Path) -> None:
    """Every tensor of the model in ``directory`` equals that of ``first``, bit by bit."""
    from transformers import WhisperForConditionalGeneration

    back = WhisperForConditionalGeneration.from_pretrained(directory).state_dict()
    own = first.family.model.state_dict()
    assert back.keys() == own.keys()
    for name, tensor in own.items():
        assert torch.equal(back[name], tensor), name


def same_behaviour(first: Any, directory: Path) -> None:
    """Configuration, special ids and tokenizer are the source's."""
    again = open_source(str(directory))
    for name in ("suppress_tokens", "begin_suppress_tokens", "is_multilingual", "alignment_heads"):
        assert getattr(again.family.generation_config, name) == getattr(first.family.generation_config, name), name
    assert again.family.prompt == first.family.prompt
    assert again.family.tokens("a thing")[0] == first.family.tokens("a thing")[0]
    sizes = ("d_model", "num_mel_bins", "encoder_attention_heads", "decoder_layers", "max_target_positions")
    assert [getattr(again.family.config, n) for n in sizes] == [getattr(first.family.config, n) for n in sizes]


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_ctranslate2_and_back(source: Any, dtype: str, tmp_path: Path) -> None:
    pytest.importorskip("ctranslate2")
    to_ctranslate2.write_ctranslate2(source, tmp_path / "ct2", dtype)
    assert to_ctranslate2.check_files(source, tmp_path / "ct2") == []
    ctranslate2_to_transformers(tmp_path / "ct2", tmp_path / "hf")
    same_weights(source, tmp_path / "hf")
    same_behaviour(source, tmp_path / "hf")
    assert read_json(tmp_path / "ct2" / "config.json")["alignment_heads"] == [[0, 1]]


def test_ggml_f16_and_back(source: Any, tmp_path: Path) -> None:
    to_ggml.write_ggml(source, tmp_path / "ggml", "f16")
    assert to_ggml.check_files(source, tmp_path / "ggml") == []
    found = get_model(str(tmp_path / "ggml"), tmp_path / "hf")
    assert "every weight is the stored one" in found.verified
    same_weights(source, tmp_path / "hf")
    same_behaviour(source, tmp_path / "hf")


@pytest.mark.parametrize(("kind", "steps"), [("q8_0", 127), ("q5_0", 16), ("q4_0", 8)])
def test_block_types_round_to_half_a_step(source: Any, kind: str, steps: int, tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    to_ggml.write_ggml(source, tmp_path, kind)
    facts = openai_to_transformers(tmp_path / to_ggml.file_name(kind), tmp_path / "hf")
    assert not facts["exact"]
    name = "encoder.blocks.0.mlp.0.weight"
    original = source.tensors()[transformers_name(name)].reshape(-1, 32)
    stored = read_ggml(tmp_path / to_ggml.file_name(kind)).arrays[name].reshape(-1, 32)
    step = np.abs(original).max(axis=1, keepdims=True) / steps
    # Half a step; a whole one at the far end of the range that the last code does not reach, and float16 scales.
    assert (np.abs(stored - original) <= 1.02 * step).all()
    assert np.abs(stored - original).mean() < 0.3 * step.mean()
    assert np.abs(stored - original).max() > 0


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_openai_and_back(source: Any, dtype: str, tmp_path: Path) -> None:
    to_openai.write_openai(source, tmp_path / "pt", dtype)
    found = get_model(str(tmp_path / "pt" / "model.pt"), tmp_path / "hf")
    assert dtype in found.verified
    same_weights(source, tmp_path / "hf")
    same_behaviour(source, tmp_path / "hf")


def test_a_multilingual_model_goes_through_ggml(tmp_path: Path) -> None:
    make_layout(tmp_path / "tiny", multilingual=True)
    first = open_source(str(tmp_path / "tiny"), "de")
    to_ggml.write_ggml(first, tmp_path / "ggml", "f16")
    openai_to_transformers(tmp_path / "ggml" / to_ggml.file_name("f16"), tmp_path / "hf")
    again = open_source(str(tmp_path / "hf"), "de")
    same_weights(first, tmp_path / "hf")
    assert again.family.prompt == first.family.prompt
    assert len(again.family.prompt) == 4


def test_transformers_in_shards(source: Any, tmp_path: Path) -> None:
    to_transformers.write_transformers(source, tmp_path / "hf", "float32", shard="8MB")
    assert len(list((tmp_path / "hf").glob("model-*.safetensors"))) > 1
    assert to_transformers.check_files(source, tmp_path / "hf") == []
    same_weights(source, tmp_path / "hf")


def test_names_go_both_ways(source: Any) -> None:
    names = list(source.tensors())
    theirs = [openai_name(name) for name in names]
    assert [transformers_name(name) for name in theirs] == names
    assert sorted(theirs) == sorted(openai_shapes(to_ggml.openai_sizes(source)))


def test_names_and_shapes_are_openai_whispers(source: Any) -> None:
    whisper = pytest.importorskip("whisper", reason="openai-whisper is not installed")
    dims = to_ggml.openai_sizes(source)
    theirs = whisper.model.Whisper(whisper.model.ModelDimensions(**dims)).state_dict()
    assert {name: tuple(tensor.shape) for name, tensor in theirs.items()} == openai_shapes(dims)


@pytest.mark.parametrize(("name", "size", "asset"), [("tiny.en", 51864, "gpt2"), ("base", 51865, "multilingual")])
def test_the_vocabulary_written_is_openais(name: str, size: int, asset: str) -> None:
    whisper = pytest.importorskip("whisper", reason="openai-whisper is not installed")
    home = Path(os.environ.get("SPEECHTUNE_HOME", "~/.cache/speechtune")).expanduser() / "models" / f"whisper-{name}"
    if not home.is_dir():
        pytest.skip(f"whisper-{name} is not on this machine ({home})")
    lines = (Path(whisper.__file__).parent / "assets" / f"{asset}.tiktoken").read_text().splitlines()
    theirs = [base64.b64decode(line.split()[0]) if len(line.split()) == 2 else b"" for line in lines]
    assert token_bytes(read_tokens(home, size)) == theirs


def test_a_pt_without_a_tokenizer_says_how_to_get_one(source: Any, tmp_path: Path) -> None:
    to_openai.write_openai(source, tmp_path / "pt", "float16")
    (tmp_path / "pt" / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"put tokenizer\.json beside it"):
        openai_to_transformers(tmp_path / "pt" / "model.pt", tmp_path / "hf")


def test_a_foreign_tokenizer_is_refused(source: Any, tmp_path: Path) -> None:
    to_ggml.write_ggml(source, tmp_path, "f16")
    path = tmp_path / "tokenizer.json"
    path.write_text(path.read_text().replace('"!": 0, "\\"": 1', '"!": 1, "\\"": 0'))
    with pytest.raises(InputError, match="belong to different models"):
        openai_to_transformers(tmp_path / to_ggml.file_name("f16"), tmp_path / "hf")


@pytest.mark.parametrize("cut", [3, 40, 5_000, 4_000_000])
def test_a_cut_ggml_file_is_refused(source: Any, cut: int, tmp_path: Path) -> None:
    to_ggml.write_ggml(source, tmp_path, "f16")
    path = tmp_path / to_ggml.file_name("f16")
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InputError, match=r"intact|does not begin"):
        read_ggml(path)


def test_another_vocabulary_layout_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"not where whisper\.cpp"):
        to_ggml.write_ggml(open_source(str(tiny_model)), tmp_path / "out", "f16")
