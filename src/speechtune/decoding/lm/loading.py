"""Language models by name: files, the general English one, and mixtures written as ``a:0.7+b:0.3``."""

from __future__ import annotations

import os
import re
from collections.abc import Hashable, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, missing_extra
from speechtune.decoding.lm.arpa import read_arpa, read_npz
from speechtune.decoding.lm.mixture import Mixture
from speechtune.decoding.lm.model import LN10, LanguageModel, NgramModel

_WEIGHTED = re.compile(r"(?P<name>.+):(?P<weight>\d*\.?\d+(?:[eE]-?\d+)?)")
_KENLM_SUFFIXES = (".bin", ".binary", ".klm")


def lm_home() -> Path:
    """Where obtained language models are kept: ``$SPEECHTUNE_HOME/lm``."""
    home = os.environ.get("SPEECHTUNE_HOME") or "~/.cache/speechtune"
    return Path(home).expanduser() / "lm"


def load_lm(spec: str) -> LanguageModel:
    """A language model, or the weighted mean of several.

    Args:
        spec: a file (``.arpa``, ``.arpa.gz``, ``.npz``, a KenLM binary ``.bin`` or ``.klm``), ``english`` (see
            `speechtune lm get`), or several with weights: ``child.arpa:0.6+english:0.4``.

    Raises:
        InputError: a file is missing or of another kind, or a weight is missing.
    """
    parts = spec.split("+")
    if len(parts) == 1 and _WEIGHTED.fullmatch(spec) is None:
        return _load_one(spec)
    models, weights = [], []
    for part in parts:
        found = _WEIGHTED.fullmatch(part.strip())
        if found is None:
            raise InputError(
                f"{part.strip()!r} in the language model {spec!r} has no weight: write NAME:WEIGHT+NAME:WEIGHT"
            )
        models.append(_load_one(found["name"]))
        weights.append(float(found["weight"]))
    return Mixture(models, weights)


def load_ngram(spec: str) -> NgramModel:
    """A model whose n-grams can be read one by one, for merging.

    Raises:
        InputError: as `load_lm`, or it is a mixture or a KenLM binary.
    """
    model = load_lm(spec)
    if not isinstance(model, NgramModel):
        raise InputError(f"{spec} does not let its n-grams be listed: give an .arpa, .arpa.gz or .npz file")
    return model


def _load_one(name: str) -> LanguageModel:
    if name == "english":
        path = lm_home() / "english.npz"
        if not path.is_file():
            raise InputError("the general English language model is not on this machine: run speechtune lm get english")
        return read_npz(path)
    path = Path(name)
    if path.suffix == ".npz":
        return read_npz(path)
    if path.suffix in _KENLM_SUFFIXES:
        return KenlmModel(path)
    if path.is_dir():
        raise InputError(f"{path} is a directory, not a language model file: give an .arpa or .npz file")
    return read_arpa(path)


class KenlmModel:
    """A model that KenLM reads (ARPA or its own binaries): fast to load and to ask, n-grams not listed.

    Raises:
        InputError: package kenlm is missing, or it cannot read the file.
    """

    def __init__(self, path: Path) -> None:
        try:
            kenlm: Any = import_module("kenlm")
        except ImportError as error:
            raise missing_extra("kenlm", "lm") from error
        try:
            self._model: Any = kenlm.Model(str(path))
        except OSError as error:
            raise InputError(f"{path} is not a model that KenLM reads ({str(error).splitlines()[0]})") from error
        self._state: Any = kenlm.State
        self.order = int(self._model.order)

    def begin(self) -> Hashable:
        """The state at the start of a sentence."""
        state = self._state()
        self._model.BeginSentenceWrite(state)
        return state

    def knows(self, word: str) -> bool:
        """Whether the word is in the vocabulary."""
        return word in self._model

    def score(self, state: Hashable, word: str) -> tuple[float, Hashable]:
        """The natural log-probability of ``word`` after ``state``, and the next state."""
        after = self._state()
        return float(self._model.BaseScore(state, word, after)) * LN10, after


def spec_of(names: Sequence[str], weights: Sequence[float]) -> str:
    """The spec that `load_lm` reads as this mixture."""
    return "+".join(f"{name}:{weight:.4g}" for name, weight in zip(names, weights, strict=True))
