"""An adapter by itself, and artefacts on a hub that is not there."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.core.files import read_json, write_json
from speechtune.export import exporting, to_adapter
from speechtune.export.exporting import ExportOptions, check, export_model
from speechtune.export.gate import SourceTexts
from speechtune.export.source import Source, open_source
from speechtune.export.upload import upload_artefact
from speechtune.models.bottleneck import KIND


class Hub:
    """Stands in for ``huggingface_hub.HfApi``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.made: list[tuple[str, dict[str, Any]]] = []
        self.files: dict[str, str] = {}

    def create_repo(self, name: str, **options: Any) -> None:
        self.made.append((name, options))
        if self.error:
            raise self.error

    def upload_folder(self, *, repo_id: str, folder_path: str, **options: Any) -> None:
        assert repo_id == self.made[-1][0]
        self.files = {one.name: one.read_text(errors="replace") for one in Path(folder_path).iterdir()}


@pytest.fixture(scope="module")
def adapted(layout_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Source:
    """The layout model with a random adapter on it that changes what it says."""
    peft = pytest.importorskip("peft")
    from transformers import WhisperForConditionalGeneration

    folder = tmp_path_factory.mktemp("adapted") / "adapter"
    base: Any = WhisperForConditionalGeneration.from_pretrained(layout_model)
    trained = peft.get_peft_model(base, peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"]))
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for name, values in trained.named_parameters():
            if "lora_B" in name:
                values.copy_(0.1 * torch.randn(values.shape, generator=generator))
    trained.save_pretrained(folder)
    settings = read_json(folder / "adapter_config.json")
    write_json(folder / "adapter_config.json", {**settings, "base_model_name_or_path": str(layout_model)})
    return open_source(str(folder))


def test_an_adapter_alone_says_what_the_whole_model_says(adapted: Source, texts: Any, tmp_path: Path) -> None:
    own = SourceTexts(adapted, texts.clips)
    assert [one.text for one in own.at("full")] != [one.text for one in texts.at("full")]
    out = tmp_path / "adapter"
    to_adapter.write_adapter(adapted, out, "float32")
    assert sum(one.stat().st_size for one in out.glob("*.safetensors")) < 200_000
    form = exporting.FORMATS["adapter"]
    found = check(own, out, form, ["full"], "float32", ExportOptions("adapter", threads=1))
    assert found["passed"], found["reasons"]
    assert found["legs"][0]["equal"] == 4
    (out / "adapter_config.json").unlink()
    assert to_adapter.check_files(adapted, out) == ["adapter_config.json is missing"]


def test_an_adapter_is_stored_in_the_type_that_is_asked_for(adapted: Source, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    to_adapter.write_adapter(adapted, tmp_path, "float16")
    kept, own = load_file(tmp_path / to_adapter.WEIGHTS), load_file(adapted.path / to_adapter.WEIGHTS)
    assert kept.keys() == own.keys()
    for name, values in kept.items():
        assert values.dtype == torch.float16
        assert torch.equal(values, own[name].half()), name


def test_the_base_is_named_as_the_hub_names_it(adapted: Source, layout_model: Path, tmp_path: Path) -> None:
    assert to_adapter.base_name(adapted.path) == str(layout_model.resolve())
    mark = layout_model / "speechtune_model.json"
    write_json(mark, {"same_weights_as": "hf:openai/whisper-tiny.en"})
    try:
        assert to_adapter.base_name(adapted.path) == "openai/whisper-tiny.en"
    finally:
        mark.unlink()


def test_a_model_without_an_adapter_is_refused(source: Source, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="has no adapter"):
        to_adapter.write_adapter(source, tmp_path, "float32")


def test_an_adapter_that_peft_does_not_read_is_refused(source: Source, tmp_path: Path) -> None:
    kept = tmp_path / "run" / "adapter"
    kept.mkdir(parents=True)
    write_json(kept / "adapter_config.json", {"peft_type": KIND, "base_model_name_or_path": str(source.path)})
    with pytest.raises(InputError, match="PEFT does not read: use --to transformers"):
        to_adapter.write_adapter(replace(source, run=tmp_path / "run"), tmp_path / "out", "float32")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("passed", [True, False])
def test_only_what_passed_is_uploaded(
    passed: bool, layout_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("huggingface_hub")
    hub, out = Hub(), tmp_path / "out"
    verdict = {"passed": passed, "reasons": [] if passed else ["bad"], "legs": [], "judged_on": {"kind": "tones"}}
    monkeypatch.setattr(exporting, "check", lambda *given: verdict)
    monkeypatch.setattr(exporting, "clips_for", lambda source, options: SimpleNamespace(clips=[], languages=()))
    options = ExportOptions("transformers", upload="me/mine", private=False, data_licence="CC BY 4.0 (someone)")
    found = export_model(str(layout_model), out, options, hub)
    assert ("upload" in found) is passed
    assert bool(hub.files) is passed
    if passed:
        assert hub.made == [("me/mine", {"repo_type": "model", "private": False, "exist_ok": True})]
        assert {"README.md", "manifest.json", "model.safetensors", "speechtune.json"} <= hub.files.keys()
        assert "Licence of the training data: CC BY 4.0 (someone)." in hub.files["README.md"]


def test_a_failed_upload_keeps_the_artefact_and_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "model.bin").write_bytes(b"x")
    with pytest.raises(SpeechtuneError, match=r"401.*hf upload me/mine"):
        upload_artefact(tmp_path, "me/mine", True, Hub(OSError("401 Unauthorized\nmore")))
    assert (tmp_path / "model.bin").is_file()


def test_a_repository_without_an_owner_is_refused_before_any_work(speechtune: Any, tmp_path: Path) -> None:
    done = speechtune("export", "no-such-model", "--to", "ggml", "--out", tmp_path / "out", "--upload", "mine")
    assert done.returncode == 2
    assert "--upload mine is not owner/name" in done.stderr
