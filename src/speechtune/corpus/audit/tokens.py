"""Label lengths: the tokenizer of a model by its ``tokenizer.json``, without the model."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, missing_extra

FILE = "tokenizer.json"


def find_tokenizer(name: str, resolve: Callable[[str], Path]) -> tuple[str, Path]:
    """The name and ``tokenizer.json`` of a model.

    Args:
        name: a directory that holds the file, or whatever ``resolve`` understands.
        resolve: gives the directory of a model by its name.

    Raises:
        InputError: the model has no such file; or as ``resolve`` does.
    """
    directory = Path(name) if (Path(name) / FILE).is_file() else resolve(name)
    if not (directory / FILE).is_file():
        raise InputError(f"{directory} has no {FILE}: name a model directory that holds one with --tokens-of")
    return directory.resolve().name, directory / FILE


@functools.cache
def load_tokenizer(path: Path) -> Any:
    """The tokenizer of a ``tokenizer.json``.

    Raises:
        InputError: the tokenizers package is not installed, or the file is not one of its tokenizers.
    """
    try:
        from tokenizers import Tokenizer
    except ImportError as error:
        raise missing_extra("tokenizers", "train") from error
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:
        raise InputError(
            f"{path} is not a usable tokenizer ({error}): name a model directory that holds one"
        ) from error
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer
