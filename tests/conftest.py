"""A tiny Whisper, a tiny corpus of tones, and the shared speech where it is present."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from tone_corpus import write_corpus

from speechtune.core import interrupt
from speechtune.core.progress import set_quiet

SHARED = Path(__file__).resolve().parents[2] / "shared" / "data"
LONGEST_FIRST = ("training", "export", "models", "decoding")
"""Rooms whose test files take longest: begun first, so that no worker is left alone with one at the end (the Makefile
tells xdist to keep this order)."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Order by room; files and tests within them keep their order."""

    def place(item: pytest.Item) -> int:
        room = item.path.parent.name
        return LONGEST_FIRST.index(room) if room in LONGEST_FIRST else len(LONGEST_FIRST)

    items.sort(key=place)


@pytest.fixture(autouse=True)
def _as_a_new_process() -> Iterator[None]:
    """Neither ``--quiet``, a remembered interrupt nor a signal handler goes from one test to the next."""
    handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    set_quiet(False)
    interrupt._asked = False
    yield
    interrupt._asked = False
    for number, handler in handlers.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def shared_speech() -> Path:
    """``shared/data`` beside the checkout; tests that need it are skipped where it is absent."""
    if not SHARED.is_dir():
        pytest.skip(f"real speech is not here ({SHARED})")
    return SHARED


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random English-only Whisper with 3-second windows and 64 text positions."""
    from tiny_whisper import make_transformers

    directory = tmp_path_factory.mktemp("tiny-model")
    make_transformers(directory, multilingual=False, positions=150, text_positions=64)
    return directory


@pytest.fixture(scope="session")
def tiny_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The corpus of `write_corpus`."""
    return write_corpus(tmp_path_factory.mktemp("tiny") / "corpus")


@pytest.fixture
def write_recipe(tmp_path: Path, tiny_model: Path, tiny_corpus: Path) -> Callable[..., Path]:
    """``write_recipe(**sections)`` writes a recipe for the tiny model and corpus, sections merged in."""

    def write(**sections: dict[str, Any]) -> Path:
        recipe: dict[str, Any] = {
            "data": {"corpus": str(tiny_corpus)},
            "model": {"base": str(tiny_model)},
            "training": {
                "epochs": 2,
                "learning_rate": 1e-3,
                "batch": {"utterances": 4},
                "audio_context": {"jitter_s": 0.2, "full_share": 0.2},
                "trackers": [],
            },
            "decoding": {"max_new_tokens": 12},
            "evaluation": {"scoring": {"resamples": 50}},
        }
        for name, values in sections.items():
            recipe[name] = {**recipe.get(name, {}), **values}
        path = tmp_path / "recipe.yaml"
        path.write_text(json.dumps(recipe), encoding="utf-8")
        return path

    return write


Command = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def speechtune() -> Command:
    """``speechtune("train", …)`` runs the real command in a process of its own."""

    def run(*words: Any, **options: Any) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "speechtune.cli", *map(str, words)], capture_output=True, text=True, **options
        )

    return run
