"""Artefacts in the runtimes they are meant for."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechtune.export import to_ggml, to_onnx, to_openai, to_transformers
from speechtune.export.exporting import FORMATS
from speechtune.export.gate import judge, run_leg
from speechtune.export.limits import limits_of

REAL = Path(os.environ.get("SPEECHTUNE_HOME", "~/.cache/speechtune")).expanduser() / "models" / "whisper-tiny.en"


def test_transformers_says_the_same(source: Any, texts: Any, tmp_path: Path) -> None:
    to_transformers.write_transformers(source, tmp_path / "hf", "float32")
    legs = FORMATS["transformers"].legs(source, ["full"], "float32")
    found = judge(texts, tmp_path / "hf", legs, limits_of("float32"), threads=1)
    assert found["passed"], found["reasons"]
    assert found["legs"][0]["equal"] == 4


def test_whisper_cpp_runs_it(source: Any, texts: Any, tmp_path: Path) -> None:
    pytest.importorskip("pywhispercpp")
    to_ggml.write_ggml(source, tmp_path, "f16")
    found = judge(texts, tmp_path, to_ggml.legs(source, ["full"], "f16"), limits_of("f16"), threads=1)
    # It computes in float16, which random weights do not survive in every clip; the real model is tried below.
    assert found["legs"][0]["equal"] >= 1
    assert found["legs"][0]["run_on"] == []


@pytest.mark.parametrize("kind", ["q8_0", "q5_1", "q5_0", "q4_0"])
def test_block_types_load_in_whisper_cpp(source: Any, texts: Any, kind: str, tmp_path: Path) -> None:
    pytest.importorskip("pywhispercpp")
    pytest.importorskip("gguf")
    to_ggml.write_ggml(source, tmp_path, kind)
    leg = to_ggml.legs(source, ["full"], kind)[0]
    rows = run_leg(texts, tmp_path, leg, sys.executable, threads=1)["rows"]
    assert len(rows) == len(texts.clips.clips)
    assert all(row["text"] for row in rows)


def test_openai_whisper_computes_the_same(source: Any, tmp_path: Path) -> None:
    whisper = pytest.importorskip("whisper", reason="openai-whisper is not installed")
    to_openai.write_openai(source, tmp_path / "pt", "float32")
    theirs = whisper.load_model(str(tmp_path / "pt" / "model.pt"), device="cpu").eval()
    features = torch.randn(1, 80, 3000, generator=torch.Generator().manual_seed(2))
    tokens = torch.tensor([[*source.family.prompt, 300, 400]])
    with torch.no_grad():
        own = source.family.model(features, decoder_input_ids=tokens).logits
        assert torch.allclose(theirs(features, tokens), own, atol=2e-4)


@pytest.fixture(scope="module", params=["float32", "int8"])
def onnx_directory(
    request: pytest.FixtureRequest, source: Any, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, str]:
    """An ONNX export and its type."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    pytest.importorskip("onnxruntime")
    out = tmp_path_factory.mktemp("onnx") / request.param
    to_onnx.write_onnx(source, out, request.param)
    return out, request.param


def test_onnx_runtime_says_the_same(source: Any, texts: Any, onnx_directory: tuple[Path, str]) -> None:
    out, dtype = onnx_directory
    assert to_onnx.check_files(source, out) == []
    legs = to_onnx.legs(source, ["full"], dtype)
    found = judge(texts, out, legs, limits_of("float32" if dtype == "float32" else "q4_0"), threads=1)
    if dtype == "float32":
        assert found["passed"], found["reasons"]
        assert found["legs"][0]["equal"] == 4
    else:
        assert found["legs"][0]["rtfx"] > 0  # random weights do not survive rounding; that they run is what counts


@pytest.mark.parametrize("frames", [3000, 260])
def test_onnx_with_cache_equals_the_model_without(source: Any, onnx_directory: tuple[Path, str], frames: int) -> None:
    import onnxruntime as ort

    out, dtype = onnx_directory
    suffix = to_onnx.suffix_of(dtype)
    encoder, decoder = (ort.InferenceSession(str(out / "onnx" / f"{name}{suffix}.onnx")) for name in to_onnx.NAMES)
    features = torch.randn(1, 80, frames, generator=torch.Generator().manual_seed(4))
    tokens = torch.tensor([[*source.family.prompt, 300, 400, 500]])
    model = source.family.model
    with torch.no_grad():
        hidden = model.model.encoder(features).last_hidden_state
        wanted = model(encoder_outputs=(hidden,), decoder_input_ids=tokens).logits.numpy()
    found = encoder.run(None, {"input_features": features.numpy()})[0]
    # onnx-asr begins with caches of no clips at all: (0, heads, 0, width)
    caches = [one for one in decoder.get_inputs() if one.name.startswith("past_key_values.")]
    past = {one.name: np.zeros((0, one.shape[1], 0, one.shape[3]), np.float32) for one in caches}
    names = [one.name for one in decoder.get_outputs()]
    steps = [tokens[:, :2], tokens[:, 2:3], tokens[:, 3:4], tokens[:, 4:5]]
    logits = []
    for number, step in enumerate(steps):
        feeds = {"input_ids": step.numpy(), "encoder_hidden_states": found, "use_cache_branch": np.array([number > 0])}
        result = dict(zip(names, decoder.run(None, {**feeds, **past}), strict=True))
        logits.append(result["logits"])
        past = {name: result[name.replace("past_key_values", "present")] for name in past}
    tolerance = 1e-3 if dtype == "float32" else 0.25 * float(np.abs(wanted).max())
    assert np.abs(np.concatenate(logits, 1) - wanted).max() < tolerance


def test_transformers_js_says_the_same(texts: Any, onnx_directory: tuple[Path, str], tmp_path: Path) -> None:
    packages = os.environ.get("SPEECHTUNE_TRANSFORMERS_JS")
    if not packages or not shutil.which("node"):
        pytest.skip(
            "node is not installed, or SPEECHTUNE_TRANSFORMERS_JS names no folder with @huggingface/transformers"
        )
    out, dtype = onnx_directory
    paths = [tmp_path / f"{number}.f32" for number in range(len(texts.clips.clips))]
    for path, clip in zip(paths, texts.clips.clips, strict=True):
        clip.wave.astype("<f4").tofile(path)
    job = {"dtype": "fp32" if dtype == "float32" else dtype, "clips": [str(path) for path in paths], "options": {}}
    (tmp_path / "job.json").write_text(json.dumps(job), encoding="utf-8")
    script = Path(__file__).with_name("transformers_js.mjs")
    words = ["node", str(script), packages, str(out), str(tmp_path / "job.json")]
    done = subprocess.run(words, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])["texts"]
    if dtype == "float32":
        assert [one.strip() for one in said] == [one.text for one in texts.at("full")]
    else:
        assert len(said) == len(paths)  # random weights do not survive rounding; that they run is what counts


@pytest.fixture(scope="module")
def real_texts() -> Any:
    """whisper-tiny.en's texts and timestamps of a second of silence and of spoken sentences, decoded once."""
    pytest.importorskip("pywhispercpp")
    pytest.importorskip("espeakng_loader", reason="espeak-ng is not installed, so there is no speech to try")
    from speechtune.export.clips import Clips, gather_clips
    from speechtune.export.gate import SourceTexts
    from speechtune.export.source import open_source

    if not REAL.is_dir():
        pytest.skip(f"whisper-tiny.en is not on this machine ({REAL})")
    source = open_source(str(REAL))
    made = gather_clips(source, None, None, 4, 0)
    quiet, spoken = made.clips[0], sorted(made.clips[2:], key=lambda clip: clip.seconds)[:4]
    texts = SourceTexts(source, Clips([quiet, *spoken], made.kind, made.origin, made.languages))
    texts.at("full")
    return texts


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["f16", "q8_0"])
def test_a_real_model_hears_speech_in_whisper_cpp(kind: str, real_texts: Any, tmp_path: Path) -> None:
    to_ggml.write_ggml(real_texts.source, tmp_path, kind)
    found = judge(real_texts, tmp_path, to_ggml.legs(real_texts.source, ["full"], kind), limits_of(kind))
    assert found["passed"], found["reasons"]
    exact = found["legs"][0]
    assert exact["options"] == {"flash_attn": False}
    assert exact["equal"] >= exact["clips"] - 1, "one text may turn on a near tie of two tokens"


@pytest.mark.slow
def test_the_gate_sees_another_models_weights_in_whisper_cpp(real_texts: Any, tmp_path: Path) -> None:
    model: Any = real_texts.source.family.model
    lost = [layer.encoder_attn.out_proj.weight for layer in model.model.decoder.layers[::2]]
    kept = [weight.detach().clone() for weight in lost]
    with torch.no_grad():  # half of the decoder's cross-attention is lost on the way
        for weight in lost:
            weight.zero_()
        to_ggml.write_ggml(real_texts.source, tmp_path, "f16")
        for weight, before in zip(lost, kept, strict=True):
            weight.copy_(before)
    found = judge(real_texts, tmp_path, to_ggml.legs(real_texts.source, ["full"], "f16")[:1], limits_of("f16"))
    assert not found["passed"]
    assert any("differ from the source's" in reason for reason in found["reasons"])
