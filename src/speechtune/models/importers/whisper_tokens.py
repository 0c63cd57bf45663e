"""Whisper's tokenizer files: from one ``tokenizer.json`` to everything Transformers and other runtimes look for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json, write_text

TIMESTAMP_STEP_S = 0.02
LANGUAGE = re.compile(r"<\|[a-z]{2,3}\|>")
TOKENIZER_MAX_LENGTH = 1024  # what OpenAI's tokenizer_config.json files say
WORD_START = "Ġ"  # how byte-level BPE writes a leading space


@dataclass(frozen=True, slots=True)
class WhisperTokens:
    """The tokenizer and the ids of Whisper's special tokens.

    ``document`` is ``tokenizer.json`` with every timestamp token added; ``languages`` maps ``<|en|>`` to its id and
    ``tasks`` maps ``transcribe``/``translate`` to theirs. ``multilingual`` is false for OpenAI's ``.en`` models.
    """

    document: dict[str, Any]
    end_of_text: int
    start_of_transcript: int
    start_of_previous: int
    no_timestamps: int
    languages: dict[str, int]
    tasks: dict[str, int]
    multilingual: bool


def read_tokens(directory: Path, vocabulary_size: int) -> WhisperTokens:
    """Read ``tokenizer.json`` and complete it with timestamp tokens up to ``vocabulary_size`` (0.02 s apart).

    A model is multilingual if its vocabulary has the empty-string token, which is CTranslate2's own rule and separates
    OpenAI's two vocabularies (GPT-2's for ``.en``, the retrained one for the others).

    Raises:
        InputError: the file is missing, is not a Whisper tokenizer, or contradicts ``vocabulary.txt``/``.json`` or
            ``vocabulary_size``.
    """
    path = directory / "tokenizer.json"
    if not path.is_file():
        raise InputError(f"{directory} has no tokenizer.json: copy it there from the original model")
    document = read_json(path)
    try:
        ids = {**document["model"]["vocab"], **{token["content"]: token["id"] for token in document["added_tokens"]}}
        names = ("endoftext", "startoftranscript", "startofprev", "notimestamps", "translate", "transcribe")
        end, start, previous, no_timestamps, translate, transcribe = (ids[f"<|{name}|>"] for name in names)
    except (KeyError, TypeError) as error:
        raise InputError(f"{path} is not the tokenizer of a Whisper model (it has no {error}): replace it") from error
    _add_timestamps(document, ids, no_timestamps + 1, vocabulary_size, path)
    _compare_vocabulary(directory, ids, vocabulary_size, path)
    return WhisperTokens(
        document=document,
        end_of_text=end,
        start_of_transcript=start,
        start_of_previous=previous,
        no_timestamps=no_timestamps,
        languages={
            name: ids[name]
            for name in sorted(ids, key=ids.__getitem__)
            if start < ids[name] < translate and LANGUAGE.fullmatch(name)
        },
        tasks={"transcribe": transcribe, "translate": translate},
        multilingual="" in ids,
    )


def _add_timestamps(document: dict[str, Any], ids: dict[str, int], first: int, size: int, path: Path) -> None:
    """Add ``<|0.00|>``, ``<|0.02|>``, … as ordinary (not special) added tokens, as the hub's tokenizers have them."""
    for number in range(first, size):
        name = f"<|{(number - first) * TIMESTAMP_STEP_S:.2f}|>"
        if ids.setdefault(name, number) != number:
            raise InputError(f"{path} gives {name} the id {ids[name]} where the model has {number}: replace it")
    present = {token["content"] for token in document["added_tokens"]}
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": False}
    for number in range(first, size):
        name = f"<|{(number - first) * TIMESTAMP_STEP_S:.2f}|>"
        if name not in present:
            document["added_tokens"].append({"id": number, "content": name, **flags})
    document["added_tokens"].sort(key=lambda token: token["id"])


def _compare_vocabulary(directory: Path, ids: dict[str, int], size: int, path: Path) -> None:
    by_id = {number: name for name, number in ids.items()}
    if sorted(by_id) != list(range(size)) or len(ids) != size:
        raise InputError(f"{path} has {len(ids)} tokens where the model has {size}: it belongs to another model")
    stored: list[str] | None = None
    if (directory / "vocabulary.json").is_file():
        stored = read_json(directory / "vocabulary.json")
    elif (directory / "vocabulary.txt").is_file():
        stored = (directory / "vocabulary.txt").read_text(encoding="utf-8").removesuffix("\n").split("\n")
    if stored is None:
        return
    for number, name in enumerate(stored):
        if by_id.get(number) != name:
            raise InputError(
                f"{path} calls token {number} {by_id.get(number)!r} where the vocabulary file of {directory} says "
                f"{name!r}: they belong to different models"
            )


def write_tokenizer_files(directory: Path, tokens: WhisperTokens) -> None:
    """Write ``tokenizer.json``, ``tokenizer_config.json`` and the older files other runtimes read.

    ``vocab.json``, ``merges.txt``, ``added_tokens.json`` and ``special_tokens_map.json`` are what whisper.cpp's
    converter, onnx-asr and Transformers before version 5 want.
    """
    document = tokens.document
    write_text(directory / "tokenizer.json", json.dumps(document, ensure_ascii=False) + "\n")
    special = [token["content"] for token in document["added_tokens"] if token["special"]]
    end = "<|endoftext|>"
    roles = {"bos_token": end, "eos_token": end, "unk_token": end, "pad_token": end}
    vocabulary = document["model"]["vocab"]
    write_json(
        directory / "tokenizer_config.json",
        {
            "tokenizer_class": "WhisperTokenizer",
            "processor_class": "WhisperProcessor",
            "model_max_length": TOKENIZER_MAX_LENGTH,
            "add_prefix_space": False,
            "add_bos_token": False,
            "errors": "replace",
            "return_attention_mask": False,
            "clean_up_tokenization_spaces": False,
            **roles,
            "additional_special_tokens": special,
            "added_tokens_decoder": {
                str(token["id"]): {name: value for name, value in token.items() if name != "id"}
                for token in document["added_tokens"]
            },
        },
    )
    write_json(directory / "special_tokens_map.json", {**roles, "additional_special_tokens": special})
    write_json(
        directory / "added_tokens.json",
        {token["content"]: token["id"] for token in document["added_tokens"] if token["content"] not in vocabulary},
    )
    write_text(directory / "vocab.json", json.dumps(vocabulary, ensure_ascii=False) + "\n")
    pairs = (pair if isinstance(pair, str) else " ".join(pair) for pair in document["model"]["merges"])
    write_text(directory / "merges.txt", "#version: 0.2\n" + "".join(f"{pair}\n" for pair in pairs))
