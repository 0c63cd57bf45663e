"""GGML files of whisper.cpp and ``.pt`` files of openai-whisper turned into plain Transformers directories.

Both keep OpenAI's tensor names and sizes. A ``.pt`` holds no vocabulary, and neither holds suppressed tokens: they come
from files beside it (`speechtune export` writes them), else from a Whisper of the same vocabulary on this machine, else
they are OpenAI's own (`NON_SPEECH_TOKENS` of Transformers).
"""

from __future__ import annotations

import shutil
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, read_json, write_json
from speechtune.models.importers.ctranslate2 import BINARY_VERSION, Ctranslate2File
from speechtune.models.importers.ctranslate2_whisper import (
    REVISION,
    SPEC,
    generation_config,
    preprocessor_config,
    whisper_config,
)
from speechtune.models.importers.ggml import is_ggml, read_ggml
from speechtune.models.importers.whisper_bytes import token_bytes
from speechtune.models.importers.whisper_names import transformers_name
from speechtune.models.importers.whisper_tokens import WhisperTokens, read_tokens, write_tokenizer_files

COMPANIONS = ("generation_config.json", "speechtune.json")
"""Kept as they are where they lie beside the model."""
SUFFIXES = (".bin", ".pt")


def find_model_file(path: Path) -> Path | None:
    """The GGML or ``.pt`` file that ``path`` is or holds; ``None`` if there is not exactly one."""
    candidates = [path] if path.is_file() else sorted(one for one in path.iterdir() if one.suffix in SUFFIXES)
    found = [one for one in candidates if is_ggml(one) or is_openai(one)]
    return found[0] if len(found) == 1 else None


def is_openai(path: Path) -> bool:
    """Whether a file is a ``torch.save`` archive that could be openai-whisper's."""
    return path.suffix == ".pt" and path.is_file() and zipfile.is_zipfile(path)


def openai_to_transformers(
    path: Path, out: Path, overwrite: bool = False, donors: Sequence[Path] = ()
) -> dict[str, Any]:
    """Write ``out``: a directory that ``WhisperForConditionalGeneration.from_pretrained`` loads without speechtune.

    Weights are float32 and equal to the stored ones; those of block types (q4_0, …) are the rounded ones.

    Args:
        path: a GGML file or an openai-whisper ``.pt``.
        out: the directory to make; it appears only when it is complete.
        overwrite: replace ``out`` if it exists.
        donors: Whisper directories; the tokenizer of the first that has the same vocabulary is taken if none lies
            beside ``path``.

    Returns:
        ``parameters``, ``stored_as`` (the types in the file), ``exact`` (false for rounded types), ``arrays``.

    Raises:
        InputError: not such a file, another architecture, or no tokenizer to be found.
    """
    arrays, dims, stored_as, words = read_openai_layout(path)
    tensors = {transformers_name(name): array for name, array in arrays.items()}
    shape = tensors["model.decoder.embed_tokens.weight"].shape
    tokens = _tokens(path, shape[0], donors)
    _compare_words(path, words, tokens)
    heads = {f"{ours}/num_heads": np.array(dims[theirs]) for ours, theirs in _HEADS.items()}
    sizes = Ctranslate2File(BINARY_VERSION, SPEC, REVISION, heads, {}, {})
    hints = _hints(path.parent, tokens)
    config = whisper_config(sizes, tensors, tokens, hints)
    with new_directory(out, overwrite) as draft:
        from safetensors.numpy import save_file

        wide = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
        save_file(wide, draft / "model.safetensors", metadata={"format": "pt"})
        (draft / "model.safetensors").chmod(0o644)
        write_json(draft / "config.json", config)
        write_json(draft / "generation_config.json", generation_config(config, tokens, hints))
        write_json(draft / "preprocessor_config.json", preprocessor_config(config))
        write_tokenizer_files(draft, tokens)
        for name in COMPANIONS:
            if (path.parent / name).is_file():
                shutil.copyfile(path.parent / name, draft / name)
    exact = set(stored_as) <= {"f32", "f16", "float32", "float16"}
    parameters = sum(tensor.size for tensor in tensors.values())
    return {"parameters": parameters, "stored_as": "+".join(stored_as), "exact": exact, "arrays": len(tensors)}


_HEADS = {"encoder": "n_audio_head", "decoder": "n_text_head"}


def read_openai_layout(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, int], list[str], list[bytes]]:
    """Tensors under OpenAI's names in their true shapes, the sizes, the types they are stored in, and the vocabulary.

    The vocabulary is the bytes of each token; a ``.pt`` has none.

    Raises:
        InputError: the file is neither format, or its tensors are not those of a Whisper of its sizes.
    """
    if is_ggml(path):
        file = read_ggml(path)
        arrays, dims = dict(file.arrays), dict(file.sizes)
        for name in ("encoder.conv1.bias", "encoder.conv2.bias"):
            if name in arrays:
                arrays[name] = arrays[name].reshape(-1)  # stored as (width, 1)
        kinds, words = sorted(set(file.kinds.values())), file.vocabulary
    else:
        arrays, sizes, kinds = _read_pt(path)
        dims, words = dict(sizes), []
    _check(path, arrays, dims)
    return arrays, dims, kinds, words


def _read_pt(path: Path) -> tuple[dict[str, np.ndarray], Mapping[str, int], list[str]]:
    import torch

    if not is_openai(path):
        raise InputError(f"{path} is neither a whisper.cpp model nor a .pt of openai-whisper: check the path")
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        dims, state = found["dims"], found["model_state_dict"]
    except Exception as error:
        reason = str(error).splitlines()[0][:160]
        raise InputError(f"{path} is not a checkpoint of openai-whisper ({reason}): check the path") from error
    kinds = sorted({str(tensor.dtype).removeprefix("torch.") for tensor in state.values()})
    arrays = {
        name: (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy()
        for name, tensor in state.items()
        if name not in ("alignment_heads", "decoder.mask")
    }
    return arrays, dims, kinds


def _check(path: Path, arrays: Mapping[str, np.ndarray], dims: Mapping[str, int]) -> None:
    from speechtune.models.importers.whisper_shapes import openai_shapes

    expected = openai_shapes(dims)
    for name in sorted(expected.keys() | arrays.keys()):
        if name not in arrays or name not in expected:
            what = "lacks the" if name in expected else "has the unknown"
            raise InputError(f"{path} {what} tensor {name}: check the file")
        if arrays[name].shape != expected[name]:
            raise InputError(f"{path} has {name} of shape {arrays[name].shape} where {expected[name]} is needed")


def _tokens(path: Path, vocabulary_size: int, donors: Sequence[Path]) -> WhisperTokens:
    if (path.parent / "tokenizer.json").is_file():
        return read_tokens(path.parent, vocabulary_size)
    for folder in donors:
        if (folder / "config.json").is_file() and read_json(folder / "config.json").get(
            "vocab_size"
        ) == vocabulary_size:
            return read_tokens(folder, vocabulary_size)
    raise InputError(
        f"{path} needs the tokenizer of its vocabulary of {vocabulary_size}: put tokenizer.json beside it, or run "
        f"speechtune models get {'whisper-tiny.en' if vocabulary_size == 51864 else 'whisper-base'} and try again"
    )


def _compare_words(path: Path, words: list[bytes], tokens: WhisperTokens) -> None:
    own = token_bytes(tokens)
    for number, word in enumerate(words[: len(own)]):
        if word != own[number]:
            raise InputError(
                f"{path} calls token {number} {word!r} where its tokenizer.json says {own[number]!r}: they belong to "
                "different models"
            )


def _hints(folder: Path, tokens: WhisperTokens) -> dict[str, Any]:
    if (folder / "generation_config.json").is_file():
        given = read_json(folder / "generation_config.json")
        names = {"suppress_ids": "suppress_tokens", "suppress_ids_begin": "begin_suppress_tokens"}
        return {ours: given.get(theirs) or [] for ours, theirs in names.items()} | {
            "alignment_heads": given.get("alignment_heads")
        }
    if tokens.end_of_text not in (50256, 50257):
        return {}
    from transformers.models.whisper.configuration_whisper import NON_SPEECH_TOKENS, NON_SPEECH_TOKENS_MULTI

    own = NON_SPEECH_TOKENS_MULTI if tokens.multilingual else NON_SPEECH_TOKENS
    task = {tokens.tasks["transcribe"], tokens.tasks["translate"]}
    return {"suppress_ids": sorted({*own, *task}), "suppress_ids_begin": [220, tokens.end_of_text]}
