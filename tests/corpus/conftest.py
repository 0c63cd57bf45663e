"""Small real audio files and a runner for the two verbs of this room."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
import typer
from typer.testing import CliRunner, Result

MakeAudio = Callable[..., Path]


@pytest.fixture
def make_audio() -> MakeAudio:
    """``make_audio(path, seconds=0.2, rate_hz=16000)`` writes a seeded noise clip and returns its path."""

    def make(path: Path, seconds: float = 0.2, rate_hz: int = 16_000) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        seed = sum(path.name.encode())
        samples = np.random.default_rng(seed).uniform(-0.3, 0.3, round(seconds * rate_hz))
        soundfile.write(path, samples, rate_hz, format="WAV" if path.suffix not in (".flac", ".mp3") else None)
        return path

    return make


@pytest.fixture
def run() -> Callable[..., Result]:
    """``run("import", ...)`` runs a verb as the command line would."""
    from speechtune.cli import import_corpus, split

    app = typer.Typer(pretty_exceptions_enable=False)
    app.command("import")(import_corpus.command)
    app.command("split")(split.command)
    return lambda *words: CliRunner().invoke(app, [str(word) for word in words])
