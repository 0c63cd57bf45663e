"""``speechtune models list | describe | recommend`` as a user meets them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")

from typer.testing import CliRunner

from speechtune.cli.app import build


@pytest.fixture(autouse=True)
def _empty_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPEECHTUNE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))


def run(*words: str) -> dict:
    """The JSON object of a verb that succeeds."""
    result = CliRunner().invoke(build(), ["models", *words, "--json"])
    assert result.exit_code == 0, result.output
    return json.loads(result.stdout)


def test_list_has_every_field_for_every_model() -> None:
    rows = {row["name"]: row for row in run("list")["models"]}
    assert rows["whisper-tiny.en"]["source"].startswith("pypi:")
    assert rows["qwen3-asr-1.7b"] == {
        "name": "qwen3-asr-1.7b",
        "family": "qwen3-asr",
        "source": "hf:Qwen/Qwen3-ASR-1.7B-hf",
        "languages": "30 languages",
        "licence": "Apache-2.0",
        "download_mb": None,
        "path": None,
        "parameters_m": 2038,
        "loadable": True,
    }
    assert "omnilingual-ctc-1b" not in rows
    everything = {row["name"]: row for row in run("list", "--all")["models"]}
    assert set(rows) < set(everything) and everything["omnilingual-ctc-1b"]["loadable"] is False
    text = CliRunner().invoke(build(), ["models", "list"]).stdout
    assert all(name in text for name in rows)


def test_describe_reads_the_catalogue() -> None:
    found = run("describe", "distil-large-v3")
    assert found["facts"]["languages"] == "English" and found["facts"]["licence"] == "MIT"
    assert found["errata"] and found["path"] is None and found["parts"] == {}
    assert found["published"][0]["source"].startswith("distil-whisper README")
    assert "erratum:" in CliRunner().invoke(build(), ["models", "describe", "distil-large-v3"]).stdout


def test_describe_counts_a_directory(tiny_model: Path) -> None:
    from safetensors import safe_open

    with safe_open(tiny_model / "model.safetensors", "np") as file:
        stored = {key: file.get_tensor(key).size for key in file.keys()}  # noqa: SIM118 (not a dict)
    found = run("describe", str(tiny_model), "--clips", "2", "--seconds", "1", "--tokens", "5")
    assert found["stored_as"] == {"F32": sum(stored.values())}
    assert sum(found["parts"].values()) == found["parameters"] == sum(stored.values())
    assert found["parts"]["decoder.embeddings"] >= stored["model.decoder.embed_tokens.weight"]
    assert found["limits"]["max_audio_s"] == 3.0 and found["limits"]["audio_contexts"] == ["fit", "full"]
    assert found["can"]["grpo"] is True
    larger = run("describe", str(tiny_model), "--clips", "64", "--seconds", "3")
    assert [one["gib"] for one in larger["training"]] > [one["gib"] for one in found["training"]]


def test_recommend_reads_a_corpus_and_ends_with_the_baseline(tiny_corpus: Path) -> None:
    found = run("recommend", "--corpus", str(tiny_corpus), "--language", "en", "--gpu-gb", "24")
    assert found["commands"][-1].startswith(f"speechtune baseline {tiny_corpus} --models ")
    text = (
        CliRunner()
        .invoke(build(), ["models", "recommend", "--corpus", str(tiny_corpus), "--language", "en", "--gpu-gb", "24"])
        .stdout
    )
    assert text.strip().splitlines()[-1].strip() == found["commands"][-1]
    assert "measure on your own data:" in text and "sure: medium" in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("describe", "wisper-tiny"), "no model of the catalogue is called 'wisper-tiny': did you mean whisper-tiny"),
        (("recommend", "--purpose", "fun"), "there is no purpose 'fun'"),
        (("recommend", "--gpu-gb", "0.2"), "no model of the catalogue fits"),
        (("recommend", "--corpus", "nowhere"), "nowhere"),
    ],
)
def test_wrong_input_is_one_sentence(words: tuple[str, ...], sentence: str) -> None:
    result = CliRunner().invoke(build(), ["models", *words])
    assert result.exit_code == 2
    assert sentence in result.stderr and result.stderr.count("\n") == 1
