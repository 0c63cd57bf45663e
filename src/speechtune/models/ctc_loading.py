"""What a CTC checkpoint's directory holds: whether its weights are complete, its tokenizer, its language adapters."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.models.trainable import Part

HEADS = ("lm_head", "ctc_head")
"""The names of the output layer in Transformers' CTC models."""

SECOND_HEAD = "second_head"
"""The name of the output layer over a second vocabulary, which only a training has."""


def has_module(model: Any, name: str) -> bool:
    """Whether there is a module of that name."""
    try:
        model.get_submodule(name)
    except AttributeError:
        return False
    return True


def is_below(parameter: str, part: Part) -> bool:
    """Whether a parameter belongs to a module of the part, or is one of them."""
    return any(parameter == module or parameter.startswith(module + ".") for module in part.modules)


def is_complete(path: Path, model: Any, missing: Sequence[str]) -> bool:
    """Whether the head was in the checkpoint.

    Raises:
        InputError: other weights were not.
    """
    absent = [name for name in missing if name.split(".")[0] not in HEADS]
    if any(name.endswith("masked_spec_embed") for name in absent):
        model.get_parameter(f"{model.base_model_prefix}.masked_spec_embed").data.zero_()
    absent = [name for name in absent if not name.endswith("masked_spec_embed")]
    if absent:
        raise InputError(f"{path} lacks {len(absent)} tensors of a CTC model ({absent[0]}, …): obtain it again")
    return len(absent) == len([name for name in missing if not name.endswith("masked_spec_embed")])


def tokenizer_of(path: Path) -> Any | None:
    """The checkpoint's tokenizer, or ``None`` where there is none to read."""
    from transformers import AutoTokenizer

    if not any((path / name).is_file() for name in ("vocab.json", "tokenizer.json")):
        return None
    try:
        found = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, ImportError) as error:
        raise InputError(f"the tokenizer in {path} does not load ({str(error).strip().splitlines()[0]})") from error
    if "phonemizer_lang" in found.init_kwargs or type(found).__name__ == "Wav2Vec2PhonemeCTCTokenizer":
        note(
            f"{path} writes phonemes, not text: its vocabulary is not used; set model.ctc.head=new to train it on text"
        )
        return None
    return found


def use_adapter(path: Path, model: Any, tokenizer: Any, language: str) -> str:
    """Load the language adapter of an MMS model; returns the code that it is stored under.

    Raises:
        InputError: there is none for the language.
    """
    from speechtune.corpus.language_codes import short_code

    here = sorted({file.name.split(".")[1] for file in path.glob("adapter.*.*")})
    fitting = [code for code in here if code == language] or [c for c in here if short_code(c) == short_code(language)]
    if not fitting:
        if not here or getattr(tokenizer, "target_lang", None) == language:
            return language
        raise InputError(
            f"{path} has no adapter for {language!r}: it has {', '.join(here[:20])}; for a new language set "
            "model.ctc.head=new and leave out model.language, or copy an adapter file"
        )
    if isinstance(next(iter(tokenizer.vocab.values()), None), dict):
        tokenizer.set_target_lang(fitting[0])
    model.load_adapter(fitting[0], local_files_only=True)
    return fitting[0]
