"""A CTranslate2 Whisper directory turned into a plain Transformers one, value for value.

The names and the fused projections follow ``WhisperLoader`` in ``ctranslate2/converters/transformers.py``:
self-attention keeps query, key and value in one matrix ``linear_0`` (3 d x d), cross-attention keeps the query in
``linear_0`` and key and value in ``linear_1`` (2 d x d); Whisper's key projection has no bias, so its third of the
fused bias is zero. The other numbers of the configuration are those OpenAI's checkpoints have on the Hugging Face hub.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, read_json, write_json
from speechtune.models.importers.ctranslate2 import Ctranslate2File, read_ctranslate2
from speechtune.models.importers.whisper_tokens import WhisperTokens, read_tokens, write_tokenizer_files

SPEC, REVISION = "WhisperSpec", 3
GELU = 3  # ctranslate2.specs.common_spec.Activation.GELU
HEAD_WIDTH = 64  # every Whisper of OpenAI: d_model / heads
SETTINGS = {
    "decoder/activation": GELU,
    "decoder/alibi": 0,
    "decoder/pre_norm": 1,
    "decoder/scale_embeddings": 0,
    "decoder/start_from_zero_embedding": 0,
}
UNUSED = {
    "decoder/alignment_heads",
    "decoder/alignment_layer",
    "decoder/alibi_use_positive_positions",
    "decoder/scale_alibi",
    "decoder/num_heads",
    "encoder/num_heads",
}
FRAMES_PER_POSITION = 2  # stride of the second convolution
FRAMES_PER_S = 100


def ctranslate2_to_transformers(directory: Path, out: Path, overwrite: bool = False) -> dict[str, Any]:
    """Write ``out``: a directory that ``WhisperForConditionalGeneration.from_pretrained`` loads without speechtune.

    The weights in ``model.safetensors`` are float32 and equal to the stored values (float16 and bfloat16 are widened).

    Args:
        directory: has ``model.bin``, ``tokenizer.json`` and (optional) ``config.json``, ``vocabulary.txt/.json``.
        out: the directory to make; it appears only when it is complete.
        overwrite: replace ``out`` if it exists.

    Returns:
        ``parameters`` (a count), ``stored_as`` (the dtype of the source), ``arrays`` (tensors written).

    Raises:
        InputError: no such model, a quantised one, another architecture, or files that contradict one another.
    """
    source = read_ctranslate2(directory / "model.bin")
    tensors, stored_as = whisper_tensors(source, directory / "model.bin")
    tokens = read_tokens(directory, vocabulary_size=tensors["model.decoder.embed_tokens.weight"].shape[0])
    hints = read_json(directory / "config.json") if (directory / "config.json").is_file() else {}
    config = whisper_config(source, tensors, tokens, hints)
    with new_directory(out, overwrite) as draft:
        _write_safetensors(draft / "model.safetensors", tensors)
        write_json(draft / "config.json", config)
        write_json(draft / "generation_config.json", generation_config(config, tokens, hints))
        write_json(draft / "preprocessor_config.json", preprocessor_config(config))
        write_tokenizer_files(draft, tokens)
    parameters = sum(tensor.size for tensor in tensors.values())
    return {"parameters": parameters, "stored_as": stored_as, "arrays": len(tensors)}


def whisper_tensors(source: Ctranslate2File, path: Path) -> tuple[dict[str, np.ndarray], str]:
    """The float tensors under their Transformers names (still in their stored dtype), and that dtype.

    The tied output projection is left out, as Transformers does; an untied one is ``proj_out.weight``.

    Raises:
        InputError: another architecture, a quantised model, a variable that is missing, unknown or of a wrong shape.
    """
    if source.spec != SPEC or source.revision != REVISION:
        raise InputError(
            f"{path} holds a {source.spec} of revision {source.revision}: give a {SPEC} of revision {REVISION}"
        )
    _refuse_quantised(source, path)
    for name, wanted in SETTINGS.items():
        if source.scalar(name, wanted) != wanted:
            raise InputError(f"{path} has {name} = {source.scalar(name, wanted)}, which no Whisper model has: check it")
    rest = {name: array for name, array in source.arrays.items() if array.ndim and name not in UNUSED}
    heads = set(SETTINGS) | UNUSED
    unknown = [name for name, array in source.arrays.items() if not array.ndim and name not in heads]
    tensors = _Renamer(rest, path).run()
    if unknown or rest:
        raise InputError(
            f"{path} has the unknown variable {sorted([*unknown, *rest])[0]}: this Whisper is not supported"
        )
    kinds = sorted({dtype for name, dtype in source.dtypes.items() if source.arrays[name].ndim})
    return tensors, "+".join(kinds)


def _refuse_quantised(source: Ctranslate2File, path: Path) -> None:
    integers = {d for name, d in source.dtypes.items() if source.arrays[name].ndim and d.startswith("int")}
    if integers or any(name.endswith("_scale") for name in source.arrays):
        raise InputError(
            f"{path} is quantised ({', '.join(sorted(integers)) or 'scaled'}): its rounded weights cannot be turned "
            "back into the original ones, so obtain the float16 or float32 conversion of this model"
        )


class _Renamer:
    """Moves arrays from their CTranslate2 names to their Transformers names, checking shapes on the way."""

    def __init__(self, rest: dict[str, np.ndarray], path: Path) -> None:
        self.rest, self.path = rest, path
        self.tensors: dict[str, np.ndarray] = {}

    def run(self) -> dict[str, np.ndarray]:
        self.plain("decoder/embeddings/weight", "model.decoder.embed_tokens.weight")
        self.width = self.tensors["model.decoder.embed_tokens.weight"].shape[-1]
        for conv in ("conv1", "conv2"):
            for part in ("weight", "bias"):
                self.plain(f"encoder/{conv}/{part}", f"model.encoder.{conv}.{part}")
        for side in ("encoder", "decoder"):
            self.plain(f"{side}/position_encodings/encodings", f"model.{side}.embed_positions.weight")
            self.norm(f"{side}/layer_norm", f"model.{side}.layer_norm")
            for layer in range(self.layers(side)):
                self.layer(side, f"{side}/layer_{layer}", f"model.{side}.layers.{layer}")
        projection = self.rest.pop("decoder/projection/weight", None)
        embeddings = self.tensors["model.decoder.embed_tokens.weight"]
        if projection is not None and not np.array_equal(projection, embeddings):
            self.tensors["proj_out.weight"] = projection
        return self.tensors

    def layers(self, side: str) -> int:
        numbers = {name.split("/")[1] for name in self.rest if name.startswith(f"{side}/layer_")} - {"layer_norm"}
        return len(numbers)

    def layer(self, side: str, old: str, new: str) -> None:
        self.norm(f"{old}/self_attention/layer_norm", f"{new}.self_attn_layer_norm")
        self.fused(f"{old}/self_attention/linear_0", f"{new}.self_attn", ("q_proj", "k_proj", "v_proj"))
        self.linear(f"{old}/self_attention/linear_1", f"{new}.self_attn.out_proj")
        if side == "decoder":
            self.norm(f"{old}/attention/layer_norm", f"{new}.encoder_attn_layer_norm")
            self.fused(f"{old}/attention/linear_0", f"{new}.encoder_attn", ("q_proj",))
            self.fused(f"{old}/attention/linear_1", f"{new}.encoder_attn", ("k_proj", "v_proj"))
            self.linear(f"{old}/attention/linear_2", f"{new}.encoder_attn.out_proj")
        self.norm(f"{old}/ffn/layer_norm", f"{new}.final_layer_norm")
        self.linear(f"{old}/ffn/linear_0", f"{new}.fc1")
        self.linear(f"{old}/ffn/linear_1", f"{new}.fc2")

    def take(self, name: str) -> np.ndarray:
        if name not in self.rest:
            raise InputError(f"{self.path} has no variable {name}, which every Whisper model has: obtain it again")
        return self.rest.pop(name)

    def plain(self, old: str, new: str) -> None:
        self.tensors[new] = self.take(old)

    def norm(self, old: str, new: str) -> None:
        self.plain(f"{old}/gamma", f"{new}.weight")
        self.plain(f"{old}/beta", f"{new}.bias")

    def linear(self, old: str, new: str) -> None:
        self.plain(f"{old}/weight", f"{new}.weight")
        self.plain(f"{old}/bias", f"{new}.bias")

    def fused(self, old: str, new: str, parts: tuple[str, ...]) -> None:
        weight, bias = self.take(f"{old}/weight"), self.take(f"{old}/bias")
        expected = (len(parts) * self.width, self.width)
        if weight.shape != expected or bias.shape != expected[:1]:
            raise InputError(
                f"{self.path} has {old} of shape {weight.shape} where {expected} is needed: obtain it again"
            )
        for index, part in enumerate(parts):
            rows = slice(index * self.width, (index + 1) * self.width)
            self.tensors[f"{new}.{part}.weight"] = weight[rows]
            if part != "k_proj":
                self.tensors[f"{new}.{part}.bias"] = bias[rows]
            elif np.any(bias[rows]):
                raise InputError(f"{self.path} has a key bias in {old}, which no Whisper model has: check the source")


def whisper_config(
    source: Ctranslate2File, tensors: dict[str, np.ndarray], tokens: WhisperTokens, hints: dict[str, Any]
) -> dict[str, Any]:
    """``config.json``: every size comes from an array's shape, the head counts from the file's own settings."""
    vocabulary_size, width = tensors["model.decoder.embed_tokens.weight"].shape
    heads = {side: source.scalar(f"{side}/num_heads", width // HEAD_WIDTH) for side in ("encoder", "decoder")}
    layers = {
        side: len([n for n in tensors if n.startswith(f"model.{side}.layers.") and n.endswith("fc1.bias")])
        for side in ("encoder", "decoder")
    }
    return {
        "architectures": ["WhisperForConditionalGeneration"],
        "model_type": "whisper",
        "is_encoder_decoder": True,
        "dtype": "float32",
        "vocab_size": vocabulary_size,
        "d_model": width,
        "num_mel_bins": tensors["model.encoder.conv1.weight"].shape[1],
        "max_source_positions": tensors["model.encoder.embed_positions.weight"].shape[0],
        "max_target_positions": tensors["model.decoder.embed_positions.weight"].shape[0],
        **{f"{side}_layers": layers[side] for side in layers},
        **{f"{side}_attention_heads": heads[side] for side in heads},
        **{f"{side}_ffn_dim": tensors[f"model.{side}.layers.0.fc1.bias"].shape[0] for side in layers},
        "num_hidden_layers": layers["encoder"],
        "activation_function": "gelu",
        "dropout": 0.0,
        "attention_dropout": 0.0,
        "activation_dropout": 0.0,
        "encoder_layerdrop": 0.0,
        "decoder_layerdrop": 0.0,
        "init_std": 0.02,
        "scale_embedding": False,
        "use_cache": True,
        "tie_word_embeddings": "proj_out.weight" not in tensors,
        "bos_token_id": tokens.end_of_text,
        "eos_token_id": tokens.end_of_text,
        "pad_token_id": tokens.end_of_text,
        "decoder_start_token_id": tokens.start_of_transcript,
        "suppress_tokens": hints.get("suppress_ids") or [],
        "begin_suppress_tokens": hints.get("suppress_ids_begin") or [],
    }


def generation_config(config: dict[str, Any], tokens: WhisperTokens, hints: dict[str, Any]) -> dict[str, Any]:
    """``generation_config.json`` as OpenAI's checkpoints have it, without the outdated ``forced_decoder_ids``."""
    shared = (
        "bos_token_id",
        "eos_token_id",
        "pad_token_id",
        "decoder_start_token_id",
        "suppress_tokens",
        "begin_suppress_tokens",
    )
    result: dict[str, Any] = {
        **{name: config[name] for name in shared},
        "prev_sot_token_id": tokens.start_of_previous,
        "no_timestamps_token_id": tokens.no_timestamps,
        "max_initial_timestamp_index": 50,
        "max_length": config["max_target_positions"],
        "return_timestamps": False,
        "is_multilingual": tokens.multilingual,
    }
    if hints.get("alignment_heads"):
        result["alignment_heads"] = hints["alignment_heads"]
    if tokens.multilingual:
        result["lang_to_id"] = tokens.languages
        result["task_to_id"] = tokens.tasks
    return result


def preprocessor_config(config: dict[str, Any]) -> dict[str, Any]:
    """``preprocessor_config.json``: log-mel features of 25 ms windows every 10 ms at 16 kHz (Whisper paper, 2.2)."""
    frames = config["max_source_positions"] * FRAMES_PER_POSITION
    window_s = frames // FRAMES_PER_S
    return {
        "feature_extractor_type": "WhisperFeatureExtractor",
        "processor_class": "WhisperProcessor",
        "feature_size": config["num_mel_bins"],
        "sampling_rate": 16000,
        "hop_length": 160,
        "n_fft": 400,
        "chunk_length": window_s,
        "n_samples": window_s * 16000,
        "nb_max_frames": frames,
        "padding_side": "right",
        "padding_value": 0.0,
        "dither": 0.0,
        "return_attention_mask": False,
    }


def _write_safetensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    from safetensors.numpy import save_file

    wide = {name: np.ascontiguousarray(tensor, dtype=np.float32) for name, tensor in tensors.items()}
    save_file(wide, path, metadata={"format": "pt"})
    path.chmod(0o644)
