"""An upload that fails loses nothing: one sentence with the command to try again, and the run stays finished."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.training.recipe import load_recipe
from speechtune.training.upload import UploadConfig, upload_run, upload_when_asked


class Hub:
    """Stands in for ``huggingface_hub.HfApi``."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.files: set[str] = set()

    def create_repo(self, name: str, **options: Any) -> None:
        self.calls.append((name, options))
        if self.error:
            raise self.error

    def upload_folder(self, *, repo_id: str, folder_path: str, **options: Any) -> None:
        self.calls.append((repo_id, options))
        self.files = {path.name for path in Path(folder_path).iterdir()}


@pytest.fixture
def run(tmp_path: Path) -> Path:
    folder = tmp_path / "children"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "config.json").write_text("{}")
    (folder / "model" / "speechtune.json").write_text('{"audio_contexts": ["fit", "full"]}')
    (folder / "recipe.yaml").write_text("data: {corpus: x}\nupload: {repo: me/children, private: true}\n")
    (folder / "provenance.json").write_text('{"base": {"name": "whisper-tiny.en"}}')
    rows = [{"set": "dev", "context_after": "fit", "wer_before": 0.46, "wer_after": 0.21}]
    (folder / "run.json").write_text(json.dumps({"comparisons": rows}))
    return folder


def test_the_model_goes_up_with_a_card_of_what_was_measured(run: Path) -> None:
    hub = Hub()
    found = upload_run(run, api=hub)
    assert found["url"] == "https://huggingface.co/me/children"
    assert hub.calls[0][1]["private"] is True
    assert "README.md" in hub.files
    card = (run / "model" / "README.md").read_text()
    assert "| dev | fit | 46.0 % | 21.0 % |" in card
    assert "whisper-tiny.en" in card
    assert json.loads((run / "upload.json").read_text())["uploaded"] is True
    upload_run(run, repo="you/other", private=False, api=hub)
    assert hub.calls[2] == ("you/other", {"repo_type": "model", "private": False, "exist_ok": True})


def test_a_failure_after_training_is_a_note_with_the_command(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    hub = Hub(ConnectionError("no route to host"))
    found = upload_when_asked(load_recipe(run / "recipe.yaml"), run, hub)
    assert found is not None
    assert found["uploaded"] is False
    said = capsys.readouterr().err
    assert "no route to host" in said
    assert f"speechtune upload {run} --repo me/children" in said
    assert (run / "run.json").is_file()
    with pytest.raises(SpeechtuneError, match="speechtune upload") as caught:
        upload_run(run, api=hub)
    assert caught.value.exit_code == 1


def test_without_a_repository_nothing_happens(run: Path) -> None:
    nothing: Any = SimpleNamespace(upload=UploadConfig())
    assert upload_when_asked(nothing, run, Hub()) is None
    (run / "recipe.yaml").write_text("data: {corpus: x}\n")
    with pytest.raises(InputError, match="--repo owner/name"):
        upload_run(run, api=Hub())
    with pytest.raises(InputError, match="not owner/name"):
        upload_run(run, repo="noslash", api=Hub())
    (run / "run.json").unlink()
    with pytest.raises(InputError, match="not a finished run"):
        upload_run(run, repo="me/x", api=Hub())


def test_the_verb_says_what_is_wrong(run: Path, speechtune: Any) -> None:
    (run / "run.json").unlink()
    done = speechtune("upload", run)
    assert done.returncode == 2
    assert "not a finished run" in done.stderr
