"""The peers' own loaders read every artefact in an environment that has no speechtune.

``SPEECHTUNE_FRESH_PYTHON`` names the interpreter of such an environment; with ``SPEECHTUNE_FRESH=make`` one is made
from the package index (slow, and not offline, so only where it is asked for, as ``.ci/run`` does):
``python -m venv FRESH && FRESH/bin/pip install torch faster-whisper pywhispercpp onnxruntime transformers``, and
``--no-deps openai-whisper`` with more-itertools, numba, tiktoken and tqdm (it depends on triton).
"""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest

from speechtune.export.exporting import FORMATS
from speechtune.export.gate import check_runtimes, run_leg

pytestmark = pytest.mark.slow

NEEDED = ("faster-whisper", "pywhispercpp", "onnxruntime", "tokenizers", "transformers", "peft")
WITHOUT_TRITON = ("more-itertools", "numba", "tiktoken", "tqdm")


@pytest.fixture(scope="module")
def fresh(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An interpreter whose environment has the runtimes and not speechtune."""
    given = os.environ.get("SPEECHTUNE_FRESH_PYTHON")
    if given:
        return given
    if os.environ.get("SPEECHTUNE_FRESH") != "make":
        pytest.skip("SPEECHTUNE_FRESH_PYTHON names no environment without speechtune, and SPEECHTUNE_FRESH is not make")
    folder = tmp_path_factory.mktemp("fresh") / "venv"
    python = str(folder / "bin" / "python")
    torch = "torch==" + metadata.version("torch").split("+")[0]
    steps = [
        [sys.executable, "-m", "venv", str(folder)],
        [python, "-m", "pip", "install", "-q", torch, *NEEDED, *WITHOUT_TRITON],
        [python, "-m", "pip", "install", "-q", "--no-deps", "openai-whisper"],
    ]
    for step in steps:
        try:
            done = subprocess.run(step, capture_output=True, text=True, timeout=1200)
        except (OSError, subprocess.TimeoutExpired) as error:
            pytest.skip(f"a fresh environment cannot be made here ({error})")
        if done.returncode:
            last = (done.stderr.strip().splitlines() or ["no message"])[-1]
            pytest.skip(f"a fresh environment cannot be made here ({last[:200]})")
    return python


def test_it_has_no_speechtune(fresh: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run([fresh, "-c", "import speechtune"], capture_output=True, text=True, env=environment)
    assert "No module named 'speechtune'" in done.stderr


@pytest.mark.parametrize(
    ("to", "dtype"),
    [
        ("transformers", "float32"),
        ("ctranslate2", "float32"),
        ("ctranslate2", "int8"),
        ("ggml", "f16"),
        ("ggml", "q5_0"),
        ("onnx", "float32"),
        ("openai", "float32"),
    ],
)
def test_every_artefact_is_read_there(
    to: str, dtype: str, fresh: str, source: Any, texts: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("PYTHONPATH", raising=False)
    form, out = FORMATS[to], tmp_path / "out"
    form.write(source, out, dtype)
    legs = form.legs(source, ["full"], dtype)
    check_runtimes(legs, fresh)
    for leg in legs:
        result = run_leg(texts, out, leg, fresh, threads=1)
        assert len(result["rows"]) == len(texts.clips.clips)
        if dtype == "float32" and not leg.habit and to != "openai":  # its texts: tests of real weights
            assert [row["text"] for row in result["rows"][2:]] == [one.text for one in texts.at("full")[2:]]
