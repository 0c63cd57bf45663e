"""A run remembers the language it was trained in."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tiny_whisper import make_transformers

from speechtune.decoding.sources import open_model

Command = Callable[..., subprocess.CompletedProcess[str]]


def test_a_multilingual_run_is_transcribed_in_its_own_language(
    write_recipe: Callable[..., Path], speechtune: Command, tiny_corpus: Path, tmp_path: Path
) -> None:
    """``speechtune.json`` beside the weights carries the language, so that transcribing does not ask for it."""
    make_transformers(tmp_path / "multilingual", multilingual=True, positions=150, text_positions=64)
    recipe = write_recipe(model={"base": str(tmp_path / "multilingual"), "language": "de"}, training={"epochs": 1})
    run = tmp_path / "run"
    done = speechtune("train", recipe, "--out", run, "--quiet")
    assert done.returncode == 0, done.stderr
    opened = open_model(str(run))
    assert opened.family.language == "de"
    prompt = opened.family.tokens("a")[0][: opened.family.tokens("a")[1]]
    assert opened.family.tokenizer.convert_ids_to_tokens(prompt)[1] == "<|de|>"  # type: ignore[attr-defined]
    said = speechtune("transcribe", run, tiny_corpus, "--split", "dev", "--json", "--quiet")
    assert said.returncode == 0, said.stderr
    assert json.loads(said.stdout)["kept"] == 4
