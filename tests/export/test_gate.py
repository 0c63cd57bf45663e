"""The gate passes a true copy and sees every planted fault."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from openai_layout import make_layout

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.core.files import read_json, write_json
from speechtune.export import to_ctranslate2, to_ggml
from speechtune.export.exporting import FORMATS, ExportOptions, check, limits_of, make_one
from speechtune.export.gate import Leg, SourceTexts, _context_reasons, _too_high, compare_leg, judge, run_leg
from speechtune.export.source import open_source

pytest.importorskip("ctranslate2")


@pytest.fixture(scope="module")
def good(source: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A float16 CTranslate2 directory of the source."""
    out = tmp_path_factory.mktemp("good") / "ct2"
    to_ctranslate2.write_ctranslate2(source, out, "float16")
    return out


def verdict(
    texts: Any, artefact: Path, dtype: str = "float16", contexts: tuple[Any, ...] = ("full",)
) -> dict[str, Any]:
    """The gate's, with CTranslate2 alone as the runtime."""
    form = FORMATS["ctranslate2"]
    wrong = form.check(texts.source, artefact)
    if wrong:
        return {"passed": False, "reasons": wrong}
    return judge(texts, artefact, [Leg("ctranslate2", one) for one in contexts], limits_of(dtype), threads=1)


def altered(texts: Any, change: Callable[[Any], None], tmp_path: Path, dtype: str = "float32") -> dict[str, Any]:
    """The verdict on a CTranslate2 model of the source's weights after ``change``, judged against the source."""
    from ctranslate2.converters import TransformersConverter
    from transformers import WhisperForConditionalGeneration

    folder = tmp_path / "altered"
    shutil.copytree(texts.source.path, folder)
    model = WhisperForConditionalGeneration.from_pretrained(folder)
    with torch.no_grad():
        change(model.model)
    model.save_pretrained(folder)
    out = tmp_path / "ct2"
    TransformersConverter(str(folder)).convert(str(out), quantization=dtype)
    shutil.copy(folder / "tokenizer.json", out)
    write_json(out / "preprocessor_config.json", {"feature_size": 80})
    return verdict(texts, out)


def test_a_true_copy_passes(texts: Any, good: Path) -> None:
    found = verdict(texts, good)
    assert found["passed"], found["reasons"]
    leg = found["legs"][0]
    assert leg["equal"] == leg["clips"] == 4
    assert leg["distance"] == 0


def test_faster_whisper_loads_it(texts: Any, good: Path) -> None:
    pytest.importorskip("faster_whisper")
    leg = Leg("faster-whisper", own_front_end=True)
    result = run_leg(texts, good, leg, threads=1, python=__import__("sys").executable)
    assert len(result["rows"]) == len(texts.clips.clips)
    assert all(row["text"] for row in result["rows"][2:])


def test_wrong_mel_count(texts: Any, good: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(good, tmp_path / "bad"))
    settings = read_json(bad / "preprocessor_config.json")
    write_json(bad / "preprocessor_config.json", {**settings, "feature_size": 128})
    assert verdict(texts, bad)["reasons"] == ["preprocessor_config.json says 128 mel bins where the model has 80"]


def test_missing_tokenizer(texts: Any, good: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(good, tmp_path / "bad"))
    (bad / "tokenizer.json").unlink()
    assert verdict(texts, bad)["reasons"] == ["tokenizer.json is missing"]


def test_swapped_projections(texts: Any, tmp_path: Path) -> None:
    def swap(model: Any) -> None:
        layer = model.decoder.layers[0]
        for attention in (layer.self_attn, layer.encoder_attn):
            key = attention.k_proj.weight.clone()
            attention.k_proj.weight.copy_(attention.v_proj.weight)
            attention.v_proj.weight.copy_(key)

    found = altered(texts, swap, tmp_path)
    assert not found["passed"]
    assert any("of the words differ from the source's" in reason for reason in found["reasons"])


def test_broken_end_of_text(texts: Any, good: Path, tmp_path: Path) -> None:
    bad = Path(shutil.copytree(good, tmp_path / "bad"))
    settings = read_json(bad / "config.json")
    settings["suppress_ids"].append(texts.source.family.eot)
    write_json(bad / "config.json", settings)
    found = verdict(texts, bad)
    assert not found["passed"]
    assert "runs on" in found["reasons"][0]


def test_float16_overflow(texts: Any, tmp_path: Path) -> None:
    def enlarge(model: Any) -> None:
        layer = model.encoder.layers[0]  # the same function: one factor undoes the other
        layer.fc1.weight.mul_(1.0)
        layer.self_attn.v_proj.weight.mul_(1e6)
        layer.self_attn.v_proj.bias.mul_(1e6)
        layer.self_attn.out_proj.weight.mul_(1e-6)

    assert altered(texts, enlarge, tmp_path / "wide", "float32")["passed"]
    assert not altered(texts, enlarge, tmp_path / "narrow", "float16")["passed"]


def test_float16_overflow_is_refused_before_writing(tmp_path: Path) -> None:
    model = make_layout(tmp_path / "tiny")
    with torch.no_grad():
        model.model.encoder.conv2.weight[3, 2, 1] = 70_000.0
    model.save_pretrained(tmp_path / "tiny")
    with pytest.raises(InputError, match=r"conv2.weight, beyond float16"):
        to_ctranslate2.write_ctranslate2(open_source(str(tmp_path / "tiny")), tmp_path / "out", "int8_float16")


def test_audio_context_not_trained_for(texts: Any, good: Path) -> None:
    found = verdict(texts, good, contexts=("fit",))
    assert not found["passed"]
    assert any("was not trained for fitted audio context" in reason for reason in found["reasons"])
    assert found["legs"][0]["distance"] == 0  # the copy is true; it is the model that cannot do it


def test_full_context_not_trained_for(texts: Any) -> None:
    only_fit = SourceTexts(replace(texts.source, contexts=["fit"]), texts.clips)
    only_fit._found = {context: texts.at(context) for context in ("full", "fit")}
    reasons = _context_reasons(only_fit, Leg("openai-whisper", "full"))
    assert len(reasons) == 1
    assert "was not trained for full audio context" in reasons[0]
    assert _context_reasons(only_fit, Leg("whisper.cpp", "fit")) == []
    assert _context_reasons(texts, Leg("whisper.cpp", "full")) == []


def test_a_lost_language_token_is_seen(texts: Any, good: Path) -> None:
    leg = Leg("ctranslate2", options={"multilingual": True})
    with pytest.raises(SpeechtuneError, match="multilingual is False"):
        run_leg(texts, good, leg, threads=1, python=__import__("sys").executable)


def test_a_runtime_that_kills_its_process(texts: Any, source: Any, tmp_path: Path) -> None:
    pytest.importorskip("pywhispercpp")
    (tmp_path / to_ggml.file_name("f16")).write_bytes(b"lmgg" + b"\x01" * 400)
    leg = Leg("whisper.cpp", path=to_ggml.file_name("f16"), own_front_end=True)
    found = judge(texts, tmp_path, [leg], limits_of("f16"), threads=1)
    assert not found["passed"]
    assert found["reasons"][0].startswith("whisper.cpp cannot run it")


def test_words_in_silence_and_run_on_are_counted(texts: Any) -> None:
    rows = [{"text": one.text, "ended": True, "took_s": 0.1} for one in texts.at("full")]
    leg = Leg("ctranslate2")
    result = {"rows": rows, "versions": {}}
    assert compare_leg(texts, leg, result, limits_of("float32"))["reasons"] == []
    rows[3] = {**rows[3], "text": "word " * 60}
    found = compare_leg(texts, leg, result, limits_of("float32"))
    assert found["run_on"] == [texts.clips.clips[3].name]
    assert any("runs on" in reason for reason in found["reasons"])


def test_a_rise_of_wer_counts_unless_it_may_be_chance() -> None:
    limits = limits_of("float32")  # 1 point
    sure, unsure = {"low": 0.001, "high": 0.04}, {"low": -0.01, "high": 0.06}
    assert _too_high(0.02, sure, limits)
    assert not _too_high(0.02, unsure, limits)
    assert _too_high(0.031, unsure, limits)
    assert _too_high(0.02, None, limits)
    assert not _too_high(0.009, sure, limits)


def test_a_refused_artefact_is_not_put_at_out(texts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(to_ctranslate2, "preprocessor_settings", lambda source: {"feature_size": 128})
    found = make_one(texts, tmp_path / "out", ExportOptions(to="ctranslate2", threads=1), "float32")
    assert found["exit_code"] == 1
    assert not (tmp_path / "out").exists()
    manifest = read_json(tmp_path / "out.rejected" / "manifest.json")
    assert manifest["gate"]["reasons"] == ["preprocessor_config.json says 128 mel bins where the model has 80"]
    assert check(texts, tmp_path / "out.rejected", FORMATS["ctranslate2"], ["full"], "float32", ExportOptions("x"))[
        "reasons"
    ]
