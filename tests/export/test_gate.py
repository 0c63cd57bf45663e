"""The gate passes a true copy and sees every planted fault."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from openai_layout import make_layout

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.core.files import read_json, write_json
from speechtune.export import runtime_worker, to_ctranslate2, to_ggml
from speechtune.export.exporting import FORMATS, ExportOptions, check, make_one
from speechtune.export.gate import Leg, SourceTexts, _context_reasons, compare_leg, judge, run_leg
from speechtune.export.limits import LIMITS, divergence, is_proven, limits_of, wer_too_high
from speechtune.export.source import open_source
from speechtune.export.times import compare_ends, ends_of

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
    result = run_leg(texts, good, leg, threads=1, python=sys.executable)
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
        run_leg(texts, good, leg, threads=1, python=sys.executable)


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
    sure, unsure = {"low": 0.001, "high": 0.04}, {"low": -0.01, "high": 0.06}
    assert wer_too_high(0.02, sure, 0.01)
    assert not wer_too_high(0.02, unsure, 0.01)
    assert wer_too_high(0.02, None, 0.01)
    assert not wer_too_high(0.009, sure, 0.01)


def test_what_may_be_chance_is_not_proven() -> None:
    limits = limits_of("float32")
    good = divergence([[1, 2, 3]] * 500, [[1, 2, 3]] * 500)
    for high, proven in ((0.0049, True), (0.0051, False)):
        leg = {"wer_difference": {"interval": {"low": -0.01, "high": high}}, "divergence": good}
        assert is_proven(leg, limits, habit=False) is proven
    few = divergence([[1, 2, 3]] * 8, [[1, 2, 3]] * 8)
    same = {"wer_difference": {"interval": {"low": 0.0, "high": 0.0}}, "divergence": few}
    assert not is_proven(same, limits, habit=False)
    assert not is_proven({"wer_difference": None, "divergence": good}, limits, habit=False)


def test_only_the_first_different_token_counts() -> None:
    found = divergence([[1, 2, 3], [1, 2], [4]], [[1, 9, 9, 9], [1, 2], [4, 5]])
    assert (found["diverged"], found["tokens"]) == (2, 2 + 3 + 2)
    assert found["low"] < found["rate"] < found["high"]


@pytest.mark.parametrize("limit", [one.divergence for one in LIMITS.values()])
@pytest.mark.parametrize("clips", [8, 24, 240])
def test_a_plain_artefact_is_seldom_refused_by_its_tokens(limit: float, clips: int) -> None:
    """An artefact that diverges at half of what is allowed, on few clips or many: one of a hundred at most."""
    rng = np.random.default_rng(0)
    source = [[1] * 7] * clips
    refused = 0
    for _ in range(400):
        flips = rng.random((clips, 7)) < limit / 2
        refused += divergence(source, (1 + flips).tolist())["low"] > limit
    assert refused <= 4


@pytest.mark.parametrize(("limit", "clips"), [(0.005, 24), (0.03, 24), (0.05, 48), (0.08, 48)])
def test_an_artefact_far_beyond_its_limit_is_refused(limit: float, clips: int) -> None:
    rng = np.random.default_rng(0)
    source = [[1] * 7] * clips
    seen = 0
    for _ in range(200):
        flips = rng.random((clips, 7)) < limit * 3 + 0.05
        seen += divergence(source, (1 + flips).tolist())["low"] > limit
    assert seen >= 190


def test_timestamps_are_decoded_in_the_runtime_and_may_not_move(source: Any, texts: Any, good: Path) -> None:
    clips = [replace(clip, text="a word" if clip.text is None else clip.text) for clip in texts.clips.clips]
    timed = SourceTexts(source, replace(texts.clips, clips=clips))
    timed._found = texts._found
    assert timed.timed == [2, 3, 4, 5]
    leg = Leg("ctranslate2")
    result = run_leg(timed, good, leg, sys.executable, threads=1)
    assert [row["text"] for row in result["rows"]] == [one.text for one in texts.at("full")]
    assert len(result["ends"]) == 4
    timed._ends["full"] = [(0.0, 1.0)] * 4  # random weights give no two timestamps
    for late, seen in ((0.1, False), (0.5, True)):
        ends = {"ends": [(0.0, 1.0 + late)] * 4}
        reasons = compare_leg(timed, leg, {**result, **ends}, limits_of("float32"))["reasons"]
        assert any("timestamps of 4 of 4 clips move" in reason for reason in reasons) is seen


def test_ends_that_move_are_counted() -> None:
    ours: list[Any] = [(0.0, 2.0), (0.4, 1.5), None, (0.0, 3.0)]
    theirs: list[Any] = [(0.1, 2.1), (0.4, 1.8), (0.0, 1.0), None]
    found = compare_ends(ours, theirs, ["a", "b", "c", "d"])
    assert (found["clips"], found["moved"]) == (3, 2)
    assert [one["clip"] for one in found["examples"]] == ["b", "d"]
    assert ends_of([5, 100, 6, 7, 150], 100) == (0.0, 1.0)
    assert ends_of([5, 100, 6], 100) is None


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


def test_a_runtime_ends_when_the_export_that_started_it_is_killed() -> None:
    """A worker that goes on alone takes its cores from whatever is started next."""
    psutil = pytest.importorskip("psutil")
    worker = f"import os; from {runtime_worker.__name__} import end_with; end_with(os.getppid()); import time; "
    worker += "print(os.getpid(), flush=True); time.sleep(60)"
    starter = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {worker!r}])"
    with subprocess.Popen([sys.executable, "-c", starter], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        child = psutil.Process(int(process.stdout.readline()))
        assert child.is_running()
        process.kill()
        _, alive = psutil.wait_procs([child], timeout=20)
    assert not alive
