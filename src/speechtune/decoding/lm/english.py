"""The general English trigram model of CMU Sphinx, out of the PyPI package pocketsphinx (BSD)."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import tempfile
import zipfile
from importlib import metadata
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.decoding.lm.arpa import write_npz
from speechtune.decoding.lm.loading import lm_home
from speechtune.decoding.lm.sphinx import read_sphinx
from speechtune.models.packaged import WHEELS_VARIABLE

REQUIREMENT = "pocketsphinx==5.1.1"
MEMBER = "pocketsphinx/model/en-us/en-us.lm.bin"
SHA256 = "db21d0642286677699e6dbc859d2e5395570222361999387ce60f6e1d01995d6"
LICENCE = "BSD-2-Clause (CMU Sphinx)"


def get_english(overwrite: bool = False) -> dict[str, Any]:
    """Obtain the model, check it, and keep it as ``$SPEECHTUNE_HOME/lm/english.npz``.

    It is taken from the installed package, from a wheel in the folder that ``SPEECHTUNE_WHEELS`` names, or
    downloaded by pip (26 MB). 72 547 words, 2.05 million bigrams, 1.67 million trigrams.

    Raises:
        InputError: it cannot be had, or its checksum is wrong.
    """
    target = lm_home() / "english.npz"
    facts = {"name": "english", "path": str(target), "source": f"pypi:{REQUIREMENT}", "licence": LICENCE}
    if target.is_file() and not overwrite:
        return {**facts, "already_there": True}
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "en-us.lm.bin"
        path.write_bytes(_model_bytes(Path(folder)))
        if hashlib.sha256(path.read_bytes()).hexdigest() != SHA256:
            raise InputError(
                f"{MEMBER} of {REQUIREMENT} has a wrong checksum: it was altered or damaged, so remove that package "
                "or wheel and try again"
            )
        model = read_sphinx(path)
        write_npz(model, target)
    return {**facts, "already_there": False, "ngrams": [len(table) for table in model.tables]}


def _model_bytes(folder: Path) -> bytes:
    name, version = REQUIREMENT.split("==")
    try:
        held = metadata.distribution(name)
        if held.version == version:
            return Path(str(held.locate_file(MEMBER))).read_bytes()
    except (metadata.PackageNotFoundError, FileNotFoundError):
        pass
    wheel = _local_wheel() or _download(folder)
    with zipfile.ZipFile(wheel) as archive:
        return archive.read(MEMBER)


def _local_wheel() -> Path | None:
    import os

    folder = os.environ.get(WHEELS_VARIABLE)
    found = sorted(Path(folder).glob("pocketsphinx-5.1.1-*.whl")) if folder else []
    return found[0] if found else None


def _download(folder: Path) -> Path:
    note(f"downloading {REQUIREMENT} with pip")
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), REQUIREMENT]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    found = sorted(folder.glob("pocketsphinx-*.whl"))
    if done.returncode == 0 and found:
        return found[0]
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason was given"]
    reason = next((line for line in lines if line.startswith("ERROR")), lines[-1]).removeprefix("ERROR: ")[:200]
    raise InputError(
        f"pip could not download {REQUIREMENT} ({reason}): check the network, or put its wheel into a folder and set "
        f"{WHEELS_VARIABLE} to it"
    )
