"""The verb from outside, the manifest, the card, and the choice of a rung."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from speechtune.core.errors import InputError
from speechtune.core.files import sha256
from speechtune.export.card import model_card
from speechtune.export.clips import Clip, gather_clips
from speechtune.export.exporting import ELSEWHERE, FORMATS, choose_format
from speechtune.export.ladder import ladder_text, recommend, row_of
from speechtune.export.limits import limits_of
from speechtune.models.whisper import WhisperFamily

pytest.importorskip("ctranslate2")
pytest.importorskip("faster_whisper")


def test_an_export_has_all_its_files(speechtune: Any, layout_model: Path, tmp_path: Path) -> None:
    out = tmp_path / "ct2"
    done = speechtune("export", layout_model, "--to", "ctranslate2", "--out", out, "--threads", 1, "--json", "--quiet")
    found = json.loads(done.stdout)
    legs = {leg["runtime"]: leg for leg in found["gate"]["legs"]}
    assert legs["ctranslate2"]["reasons"] == []
    assert set(legs) == {"ctranslate2", "faster-whisper"}
    folder = Path(found["path"])
    names = {"model.bin", "config.json", "tokenizer.json", "preprocessor_config.json", "README.md", "manifest.json"}
    assert names <= {path.name for path in folder.iterdir()}
    manifest = json.loads((folder / "manifest.json").read_text())
    for name, facts in manifest["files"].items():
        assert facts["sha256"] == sha256(folder / name), name
    assert manifest["files"].keys() == {p.name for p in folder.iterdir()} - {"manifest.json"}
    assert done.returncode == (0 if found["gate"]["passed"] else 1)
    assert out.exists() == found["gate"]["passed"]


def test_a_refused_export_leaves_with_code_1(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from typer.testing import CliRunner

    from speechtune.cli.app import build
    from speechtune.export import exporting

    refused = {**manifest_of("f16", 1, 0.2, False), "exit_code": 1}
    monkeypatch.setattr(exporting, "export_model", lambda model, out, options: refused)
    done = CliRunner().invoke(build(), ["export", "x", "--to", "ggml", "--out", str(tmp_path / "out")])
    assert done.exit_code == 1
    assert "refused: too bad" in done.output


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--to", "gguf"), "use --to ggml"),
        (("--to", "core-ml"), "whisperkittools"),
        (("--to", "tensorrt"), "use one of transformers, adapter, ctranslate2, ggml, onnx, openai"),
        (("--to", "ggml", "--dtype", "f32"), "use one of f16, q8_0"),
    ],
)
def test_what_is_not_written_is_said_in_a_sentence(
    speechtune: Any, words: tuple[str, ...], says: str, tmp_path: Path
) -> None:
    done = speechtune("export", "whisper-tiny.en", *words, "--out", tmp_path / "out")
    assert done.returncode == 2
    assert says in done.stderr
    assert "Traceback" not in done.stderr


def test_an_existing_directory_is_refused_before_any_work(speechtune: Any, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine").write_text("keep")
    done = speechtune("export", "no-such-model", "--to", "ggml", "--out", tmp_path / "out")
    assert done.returncode == 2
    assert "add --overwrite" in done.stderr


def test_every_default_and_rung_is_a_type_of_its_format() -> None:
    for name, form in FORMATS.items():
        assert choose_format(name, None)[1] == form.default
        assert set(form.ladder) <= set(form.dtypes)
    for name in ELSEWHERE:
        with pytest.raises(InputError, match="speechtune does not write"):
            choose_format(name, None)


def test_coarser_types_are_allowed_more() -> None:
    rises = [limits_of(kind).wer_rise for kind in ("float32", "int8_float16", "q5_1", "q4_0")]
    assert rises == sorted(rises)
    assert rises[0] < rises[1] < rises[2] < rises[3]
    assert limits_of("q4_0", 0.001).wer_rise == 0.001
    assert limits_of("float16") == limits_of("f16") == limits_of("bfloat16")


def test_clips_span_the_durations_of_the_corpus(source: Any, tiny_corpus: Path) -> None:
    found = gather_clips(source, tiny_corpus, None, 5, seed=1)
    again = gather_clips(source, tiny_corpus, None, 5, seed=1)
    speech = [clip for clip in found.clips if clip.text]
    assert [clip.name for clip in found.clips] == [clip.name for clip in again.clips]
    assert [clip.text for clip in found.clips[:2]] == ["", ""]
    assert len(speech) == 5
    lengths = [clip.seconds for clip in speech]
    assert lengths == sorted(lengths)
    everything = gather_clips(source, tiny_corpus, None, 500, seed=1)
    third = sorted(clip.seconds for clip in everything.clips if clip.text)
    assert lengths[0] < third[len(third) // 3] and lengths[-1] > third[2 * len(third) // 3]


def manifest_of(dtype: str, size: int, rise: float | None, passed: bool) -> dict[str, Any]:
    """A manifest with one judged leg."""
    difference = None if rise is None else {"difference": rise, "interval": None, "p_value": None}
    wer = None if rise is None else 0.2 + rise
    leg = {
        "runtime": "whisper.cpp",
        "context": "full",
        "distance": 0.1,
        "divergence": {"rate": 0.02, "low": 0.01, "high": 0.03},
        "habit": False,
        "rtfx": 5.0,
        "wer_source": 0.2,
        "wer_target": wer,
        "wer_difference": difference,
        "equal": 9,
        "clips": 10,
        "versions": {"pywhispercpp": "1.5.1"},
    }
    gate = {"passed": passed, "reasons": [] if passed else ["too bad"], "legs": [leg], "judged_on": {"kind": "corpus"}}
    facts = {"format": "ggml", "dtype": dtype, "bytes": size, "audio_contexts": ["fit", "full"], "path": "x"}
    return {**facts, "gate": gate}


def test_the_table_of_a_ladder() -> None:
    rows = [row_of(manifest_of("f16", 80_000_000, 0.0, True)), row_of(manifest_of("q4_0", 25_000_000, 0.2, False))]
    text = ladder_text({"ladder": rows, "recommended": "f16"})
    assert "+20.0" in text and "refused: too bad" in text and "recommended: f16" in text


def test_the_smallest_rung_that_is_shown_not_to_be_worse_is_recommended() -> None:
    def rung(dtype: str, size: int, passed: bool, high: float) -> dict[str, Any]:
        change = {"difference": high / 2, "interval": {"low": -0.01, "high": high}}
        return {"dtype": dtype, "bytes": size, "passed": passed, "wer_difference": change}

    big, middle, small = rung("f16", 9, True, 0.0), rung("q8_0", 5, True, 0.015), rung("q5_0", 3, True, 0.06)
    smaller, broken = rung("q4_1", 2, True, 0.08), rung("q4_0", 1, False, 0.0)
    assert recommend([big, middle, small, broken]) is middle  # few clips do not show that q5_0 is as good
    assert recommend([smaller, small, broken]) is small
    assert recommend([{**small, "wer_difference": None}, middle]) is not middle
    assert recommend([broken]) is None


def test_a_card_says_what_is_known_and_what_is_not(source: Any, tmp_path: Path) -> None:
    card = model_card(source, manifest_of("q5_0", 1, 0.01, True))
    assert "its error rate is unknown" in card
    assert "Licence of the base model: unknown" in card
    assert "fitted audio context" in card and "`audio_ctx`" in card
    assert "9 of 10 texts equal; WER 20.0 % source, 21.0 % here" in card
    interval = {"low": 0.19, "high": 0.25}
    words = {"reference_length": 500, "insertions": 90}
    slices = {"age": {"8": {"wer": 0.3, "words": {"reference_length": 200}}, "9": {"wer": 0.1, "reference_words": 20}}}
    score = {"wer": 0.22, "interval": interval, "cer": 0.1, "words": words, "normaliser": "whisper-english"}
    row = {"set": "kids", "role": "target", "context": "fit", "system": "after", "score": {**score, "slices": slices}}
    worse = {"difference": 0.1, "interval": {"low": 0.05, "high": 0.2}}
    guard = {"set": "adults", "role": "guard", "context_after": "fit", "wer_before": 0.1, "wer_after": 0.2}
    (tmp_path / "scores.json").write_text(
        json.dumps({"measurements": [row], "comparisons": [{**guard, "difference": worse}]})
    )
    data = {"corpus": "a/kids", "kept": 9, "seconds_of_audio": 3600, "fingerprint": "f" * 64}
    facts = {
        "base": {"name": "whisper-tiny.en", "path": str(tmp_path / "base")},
        "data": {**data, "dropped_by_reason": {"silent": 2}},
    }
    (tmp_path / "provenance.json").write_text(json.dumps(facts))
    (tmp_path / "base").mkdir()
    (tmp_path / "base" / "speechtune_model.json").write_text(json.dumps({"licence": "MIT (weights: someone)"}))
    source_of_run = type(source)(source.name, source.path, source.family, tmp_path, ["full"])
    card = model_card(source_of_run, manifest_of("q5_0", 1, 0.01, True))
    for part in (
        "22.0 % (19.0 % to 25.0 %)",
        "license: mit\n",
        "Licence of the base model: MIT (weights: someone).",
        "9 utterances, 1.00 h",
        "2 (silent)",
        "20.0 % after (worse)",
        "| kids | age | 8 | 30.0 % | 200 |",
        "It invents words on kids at fit context (90 inserted)",
    ):
        assert part in card, part
    assert "| kids | age | 9 |" not in card


def test_a_clip_knows_its_length() -> None:
    import numpy as np

    assert Clip("x", np.zeros(8_000, np.float32), None).seconds == 0.5


def test_the_families_table_names_every_format() -> None:
    assert set(WhisperFamily.capabilities.exports) == set(FORMATS)
