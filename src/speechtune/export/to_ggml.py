"""GGML for whisper.cpp and the FUTO keyboard: one ``.bin`` file, f16 or in blocks of 4, 5 or 8 bits.

The block types are computed by the ``gguf`` package (of llama.cpp); which tensors get them is whisper.cpp's own
``quantize``: matrices, but not the convolutions and position embeddings.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import IO, Any

import numpy as np

from speechtune.core.errors import InputError, missing_extra
from speechtune.core.files import write_json
from speechtune.export.gate import Leg
from speechtune.export.source import Source
from speechtune.models.config import Context
from speechtune.models.importers.ggml import BLOCK, FFT_BINS, MAGIC, SIZES, TYPES
from speechtune.models.importers.whisper_bytes import token_bytes
from speechtune.models.importers.whisper_names import openai_name
from speechtune.models.importers.whisper_shapes import openai_shapes
from speechtune.models.importers.whisper_tokens import WhisperTokens, write_tokenizer_files

DTYPES = ("f16", "q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
FILE_TYPES = {"f16": 1, "q4_0": 2, "q4_1": 3, "q8_0": 7, "q5_0": 8, "q5_1": 9}
"""``ggml_ftype``; whisper.cpp's quantiser adds 1000 times its version to those in blocks."""
QUANTISER_VERSION = 2  # GGML_QNT_VERSION
FLOAT32 = frozenset({"encoder.positional_embedding", "decoder.positional_embedding"})


def write_ggml(source: Source, out: Path, dtype: str) -> None:
    """Write ``ggml-model-<dtype>.bin`` and the tokenizer files that make it importable again.

    Raises:
        InputError: the model has something that GGML's Whisper cannot hold (another vocabulary layout, an output
            projection of its own, rows that do not divide into blocks), or ``gguf`` is not installed.
    """
    from transformers import WhisperFeatureExtractor

    source.check_float16(dtype)
    tokens = source.tokens()
    dims = openai_sizes(source)
    check_layout(source, tokens)
    tensors = {openai_name(name): values for name, values in source.tensors().items()}
    check_shapes(source, tensors, dims)
    out.mkdir(parents=True, exist_ok=True)
    with (out / file_name(dtype)).open("wb") as stream:
        version = QUANTISER_VERSION * 1000 if dtype.startswith("q") else 0
        sizes = [*(dims[name] for name in SIZES[:-1]), version + FILE_TYPES[dtype]]
        stream.write(struct.pack("<I11i", MAGIC, *sizes))
        filters = WhisperFeatureExtractor(feature_size=dims["n_mels"]).mel_filters.T
        stream.write(struct.pack("<2i", dims["n_mels"], FFT_BINS) + np.ascontiguousarray(filters, "<f4").tobytes())
        words = token_bytes(tokens)
        stream.write(struct.pack("<i", len(words)))
        for word in words:
            stream.write(struct.pack("<I", len(word)) + word)
        for name, values in tensors.items():
            _write_tensor(stream, name, values, dtype)
    write_companions(source, tokens, out)


def file_name(dtype: str) -> str:
    """The name of the model file."""
    return f"ggml-model-{dtype}.bin"


def write_companions(source: Source, tokens: WhisperTokens, out: Path) -> None:
    """What the format itself has no place for: tokenizer and generation settings."""
    write_tokenizer_files(out, tokens)
    write_json(out / "generation_config.json", source.family.generation_config.to_dict())


def openai_sizes(source: Source) -> dict[str, int]:
    """The ten sizes of OpenAI's ``ModelDimensions``."""
    config = source.family.config
    return {
        "n_vocab": int(config.vocab_size),
        "n_audio_ctx": int(config.max_source_positions),
        "n_audio_state": int(config.d_model),
        "n_audio_head": int(config.encoder_attention_heads),
        "n_audio_layer": int(config.encoder_layers),
        "n_text_ctx": int(config.max_target_positions),
        "n_text_state": int(config.d_model),
        "n_text_head": int(config.decoder_attention_heads),
        "n_text_layer": int(config.decoder_layers),
        "n_mels": int(config.num_mel_bins),
    }


def check_shapes(source: Source, tensors: dict[str, np.ndarray], dims: dict[str, int]) -> None:
    """Refuse what OpenAI's layout cannot say.

    Raises:
        InputError: an output projection of its own, or a tensor of another shape.
    """
    if "proj_out.weight" in tensors:
        raise InputError(f"{source.path} has an output projection of its own, which OpenAI's layout has no place for")
    expected = openai_shapes(dims)
    for name, values in tensors.items():
        if values.shape != expected.get(name):
            raise InputError(
                f"{source.path} has {name} of shape {values.shape} where OpenAI's layout has {expected.get(name)}: "
                "export to transformers, ctranslate2 or onnx"
            )


def check_layout(source: Source, tokens: WhisperTokens) -> None:
    """Refuse a vocabulary whose special tokens are not where OpenAI's programs assume them.

    whisper.cpp and openai-whisper compute the ids from the size of the vocabulary alone: 51864 without languages,
    51765 plus one more than the number of languages with them.

    Raises:
        InputError: the ids differ.
    """
    size = int(source.family.config.vocab_size)
    languages = len(tokens.languages)
    start = 50258 if tokens.multilingual else 50257
    extra = languages - 99 if tokens.multilingual else 0
    wanted = (start - 1, start, 51864 + 1 + extra if tokens.multilingual else 51864, 50362 + (start - 50257) + extra)
    found = (tokens.end_of_text, tokens.start_of_transcript, size, tokens.no_timestamps)
    if wanted != found:
        raise InputError(
            f"{source.path} has a vocabulary of {size} whose special tokens are not where whisper.cpp and "
            f"openai-whisper assume them (end of text {found[0]}, not {wanted[0]}): export ctranslate2 or onnx"
        )


def _write_tensor(stream: IO[bytes], name: str, values: np.ndarray, dtype: str) -> None:
    kind = "f32" if values.ndim < 2 or name in FLOAT32 else dtype if values.ndim == 2 else "f16"
    if name in ("encoder.conv1.bias", "encoder.conv2.bias"):
        values = values.reshape(-1, 1)
    number = next(number for number, known in TYPES.items() if known == kind)
    encoded = name.encode()
    stream.write(struct.pack("<3i", values.ndim, len(encoded), number))
    stream.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)) + encoded)
    stream.write(encode(values, kind, name))


def encode(values: np.ndarray, kind: str, name: str) -> bytes:
    """The bytes of a tensor in a type.

    Raises:
        InputError: its rows do not divide into blocks of 32, or ``gguf`` is not installed.
    """
    if kind == "f32":
        return np.ascontiguousarray(values, "<f4").tobytes()
    if kind == "f16":
        return np.ascontiguousarray(values, "<f2").tobytes()
    if values.shape[-1] % BLOCK:
        raise InputError(f"{name} has rows of {values.shape[-1]} weights, not a multiple of {BLOCK}: export f16")
    try:
        from gguf import GGMLQuantizationType, quants
    except ImportError as error:
        raise missing_extra("gguf", "export") from error
    wide: Any = np.ascontiguousarray(values, np.float32)
    return quants.quantize(wide, GGMLQuantizationType[kind.upper()]).tobytes()


def check_files(source: Source, out: Path) -> list[str]:
    """What contradicts the source in the file's own header."""
    from speechtune.models.importers.ggml import read_ggml

    files = sorted(out.glob("ggml-model-*.bin"))
    if len(files) != 1:
        return [f"{len(files)} files named ggml-model-*.bin, not one"]
    file = read_ggml(files[0])
    wanted = openai_sizes(source)
    wrong = [name for name in SIZES[:-1] if file.sizes[name] != wanted[name]]
    if wrong:
        return [f"{files[0].name} says {wrong[0]} = {file.sizes[wrong[0]]} where the model has {wanted[wrong[0]]}"]
    if file.filters.shape[0] != source.family.mel_bins:
        return [f"{files[0].name} has {file.filters.shape[0]} mel filters where the model has {source.family.mel_bins}"]
    return []


def legs(source: Source, contexts: list[Context], dtype: str) -> list[Leg]:
    """whisper.cpp without flash attention at every context, and with it, its default, where the model is at home.

    Flash attention in whisper.cpp 1.8 attends to keys that pad the context to a multiple of 256: little of 1500
    positions, much of the hundred of a short clip (docs/export.md).
    """
    file = file_name(dtype)
    plain: dict[str, Any] = {"flash_attn": False}
    found = [Leg("whisper.cpp", context, file, own_front_end=True, options=plain) for context in contexts]
    return [*found, Leg("whisper.cpp", contexts[-1], file, own_front_end=True, habit=True)]
