"""ONNX: ``onnx/encoder_model.onnx`` and ``onnx/decoder_model_merged.onnx`` with a cache, as Optimum names them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, missing_extra
from speechtune.core.files import write_json
from speechtune.export.gate import Leg
from speechtune.export.source import Source, preprocessor_settings
from speechtune.models.config import Context
from speechtune.models.importers.whisper_tokens import write_tokenizer_files

DTYPES = ("float32", "int8")
NAMES = ("encoder_model", "decoder_model_merged")
LARGEST_BYTES = 1_900_000_000
"""A file of protocol buffers cannot exceed 2 GiB."""


def write_onnx(source: Source, out: Path, dtype: str) -> None:
    """Write both graphs, the tokenizer in every form, both configurations, and the settings of the features.

    Raises:
        InputError: onnx or onnxscript is not installed, or the model is too large for one file.
    """
    try:
        import onnx
        import onnxscript  # noqa: F401
    except ImportError as error:
        raise missing_extra("onnx with onnxscript", "export") from error
    from speechtune.export import onnx_graphs as graphs

    tokens = source.tokens()
    model: Any = source.family.model
    if 4 * sum(parameter.numel() for parameter in model.parameters()) > LARGEST_BYTES:
        raise InputError(f"{source.path} is too large for ONNX files of 2 GiB: export ctranslate2 or ggml")
    model = model.cpu().eval()
    config = source.family.config
    layers, heads = int(config.decoder_layers), int(config.decoder_attention_heads)
    float32 = dtype == "float32"
    encoder = graphs.export_encoder(model, source.family.mel_bins, source.family.window_frames)
    cross = graphs.export_cross(model)
    step = graphs.export_step(model, tied=float32 and bool(config.tie_word_embeddings))
    if not float32:
        encoder, cross, step = (graphs.quantise(one, out.parent / "scratch") for one in (encoder, cross, step))
    decoder = graphs.merge_decoder(step, cross, heads, int(config.d_model) // heads, layers)
    (out / "onnx").mkdir(parents=True)
    for name, graph in zip(NAMES, (encoder, decoder), strict=True):
        onnx.save_model(graph, out / "onnx" / f"{name}{suffix_of(dtype)}.onnx")
    settings = model.config.to_dict() | {"architectures": ["WhisperForConditionalGeneration"]}
    write_json(out / "config.json", settings)
    write_json(out / "generation_config.json", source.family.generation_config.to_dict())
    write_json(out / "preprocessor_config.json", preprocessor_settings(source))
    write_tokenizer_files(out, tokens)


def suffix_of(dtype: str) -> str:
    """What Optimum and transformers.js put before ``.onnx``."""
    return "" if dtype == "float32" else "_int8"


def check_files(source: Source, out: Path) -> list[str]:
    """What is missing, or what ``config.json`` contradicts."""
    names = ("config.json", "vocab.json", "added_tokens.json", "tokenizer.json", "preprocessor_config.json")
    missing = [f"{name} is missing" for name in names if not (out / name).is_file()]
    for name in NAMES:
        if not list((out / "onnx").glob(f"{name}*.onnx")):
            missing.append(f"onnx/{name}.onnx is missing")
    return missing


def legs(source: Source, contexts: list[Context], dtype: str) -> list[Leg]:
    """ONNX Runtime at every context, and onnx-asr where its prompt fits the model (it always names a language)."""
    found = [Leg("onnxruntime", context, options={"suffix": suffix_of(dtype)}) for context in contexts]
    if source.multilingual and source.family.window_frames == 3000:
        options = {"quantisation": "int8"} if dtype == "int8" else {}
        found.append(Leg("onnx-asr", "full", own_front_end=True, options=options))
    return found
