"""Checkpoints in the layout of Qwen's ``qwen-asr`` package, and Transformers' own: reading one, writing the other.

The two differ in names only: ``thinker.`` before everything, the projector inside the audio tower, and a configuration
with everything under ``thinker_config``. vLLM's class and the package ``qwen-asr`` read the first, Transformers >= 5
the second.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, read_json, write_json

TO_NATIVE = {
    r"^thinker\.model\.": "model.language_model.",
    r"^thinker\.lm_head\.": "lm_head.",
    r"^thinker\.audio_tower\.proj1\.": "model.multi_modal_projector.linear_1.",
    r"^thinker\.audio_tower\.proj2\.": "model.multi_modal_projector.linear_2.",
    r"^thinker\.audio_tower\.(?!proj[12]\.)": "model.audio_tower.",
}
TO_ORIGINAL = {
    r"^model\.language_model\.": "thinker.model.",
    r"^lm_head\.": "thinker.lm_head.",
    r"^model\.multi_modal_projector\.linear_1\.": "thinker.audio_tower.proj1.",
    r"^model\.multi_modal_projector\.linear_2\.": "thinker.audio_tower.proj2.",
    r"^model\.audio_tower\.": "thinker.audio_tower.",
}
_WINDOW_POSITIONS = 13
"""Positions of a block of 100 frames after the convolutions; all that the encoder's position table needs."""


def renamed(name: str, rules: Mapping[str, str]) -> str:
    """A tensor's name in the other layout; a name that no rule fits is kept."""
    for pattern, replacement in rules.items():
        changed, count = re.subn(pattern, replacement, name)
        if count:
            return changed
    return name


def is_original(config: Mapping[str, Any]) -> bool:
    """Whether a ``config.json`` is of the ``qwen-asr`` layout."""
    return "thinker_config" in config


def native_config(config: Mapping[str, Any]) -> Any:
    """Transformers' configuration for one of the ``qwen-asr`` layout.

    Three-part rotary positions become plain ones: all parts are equal where there are no images.

    Raises:
        InputError: it is that of the forced aligner, or a part is missing.
    """
    from dataclasses import fields

    from transformers import Qwen3ASRConfig, Qwen3Config
    from transformers.models.qwen3_asr.configuration_qwen3_asr import Qwen3ASREncoderConfig

    thinker = config["thinker_config"]
    if "classify_num" in thinker:
        raise InputError("this is a Qwen3 forced aligner, which writes no text: take a Qwen3-ASR checkpoint")
    if not {"audio_config", "text_config"} <= set(thinker):
        raise InputError("thinker_config of config.json lacks audio_config or text_config: obtain the model again")

    def known(values: Mapping[str, Any], kind: Any) -> dict[str, Any]:
        names = {one.name for one in fields(kind)} - {"model_type", "dtype", "architectures", "transformers_version"}
        return {name: value for name, value in values.items() if name in names and value is not None}

    audio = known(thinker["audio_config"], Qwen3ASREncoderConfig)
    audio["max_position_embeddings"] = _WINDOW_POSITIONS
    text = known(thinker["text_config"], Qwen3Config)
    for name in ("rope_scaling", "rope_parameters"):
        text.pop(name, None)
    text["rope_parameters"] = {"rope_type": "default", "rope_theta": thinker["text_config"].get("rope_theta", 5e6)}
    tied = bool(thinker["text_config"].get("tie_word_embeddings", False))
    text["tie_word_embeddings"] = tied
    return Qwen3ASRConfig(
        audio_config=audio,
        text_config={"model_type": "qwen3", **text},
        audio_token_id=int(thinker["audio_token_id"]),
        tie_word_embeddings=tied,
    )


def write_original(model: Path, out: Path, overwrite: bool = False) -> Path:
    """Write a model directory of Transformers' layout in that of ``qwen-asr``, which vLLM reads; weights bit for bit.

    Args:
        model: what a run keeps in ``RUN/model``.
        out: the directory to make; tokenizer files and ``speechtune.json`` are copied.
        overwrite: replace what is there.

    Raises:
        InputError: no Qwen3-ASR directory in Transformers' layout.
    """
    import shutil

    from safetensors.torch import load_file, save_file

    config = read_json(model / "config.json") if (model / "config.json").is_file() else {}
    if config.get("model_type") != "qwen3_asr" or is_original(config):
        raise InputError(f"{model} is no Qwen3-ASR model of Transformers' layout: give a run's model directory")
    tied = bool(config.get("tie_word_embeddings", True))
    tensors = {}
    for file in sorted(model.glob("*.safetensors")):
        tensors.update({renamed(name, TO_ORIGINAL): tensor for name, tensor in load_file(file).items()})
    if tied and "thinker.lm_head.weight" not in tensors:  # the package's class loads it by name
        tensors["thinker.lm_head.weight"] = tensors["thinker.model.embed_tokens.weight"].clone()
    audio, text = dict(config["audio_config"]), dict(config["text_config"])
    audio.update(model_type="qwen3_asr_audio_encoder", max_source_positions=1500)
    audio.pop("max_position_embeddings", None)
    rope = text.pop("rope_parameters", None) or {}
    text.update(
        model_type="qwen3_asr_text",
        rope_theta=rope.get("rope_theta", 5e6),
        rope_scaling=_three_part_positions(int(text["head_dim"])),
        tie_word_embeddings=tied,
    )
    thinker = {
        "model_type": "qwen3_asr_thinker",
        "architectures": ["Qwen3ASRThinkerForConditionalGeneration"],
        "audio_config": audio,
        "text_config": text,
        "audio_token_id": config["audio_token_id"],
        "initializer_range": config.get("initializer_range", 0.02),
    }
    extractor = {**_EXTRACTOR, "feature_size": audio["num_mel_bins"]}
    with new_directory(out, overwrite=overwrite) as draft:
        for file in model.iterdir():
            if file.is_file() and file.name not in _NOT_COPIED and "safetensors" not in file.name:
                shutil.copy(file, draft / file.name)
        _name_special_tokens(draft / "tokenizer_config.json")
        architecture = ["Qwen3ASRForConditionalGeneration"]
        write_json(
            draft / "config.json", {"model_type": "qwen3_asr", "architectures": architecture, "thinker_config": thinker}
        )
        write_json(draft / "preprocessor_config.json", extractor)
        save_file(tensors, draft / "model.safetensors", {"format": "pt"})
    return out


def _name_special_tokens(file: Path) -> None:
    """Transformers 5 lists extra special tokens where Transformers 4, which the package needs, wants them named."""
    if not file.is_file():
        return
    config = read_json(file)
    if isinstance(config.get("extra_special_tokens"), list):
        config["additional_special_tokens"] = config["extra_special_tokens"]
        config["extra_special_tokens"] = {
            "audio_token": "<|audio_pad|>",
            "audio_bos_token": "<|audio_start|>",
            "audio_eos_token": "<|audio_end|>",
        }
    write_json(file, config)


def _three_part_positions(head: int) -> dict[str, Any]:
    """The shares of the released models (24, 20, 20 of 128 / 2); the three are equal for audio and text."""
    third = head // 2 * 20 // 64
    sections = [head // 2 - 2 * third, third, third]
    return {"rope_type": "default", "mrope_interleaved": True, "interleaved": True, "mrope_section": sections}


_NOT_COPIED = {"config.json", "processor_config.json", "preprocessor_config.json", "training_args.bin"}
_EXTRACTOR = {
    "feature_extractor_type": "WhisperFeatureExtractor",
    "processor_class": "Qwen3ASRProcessor",
    "sampling_rate": 16000,
    "hop_length": 160,
    "n_fft": 400,
    "chunk_length": 30,
    "dither": 0.0,
    "padding_side": "right",
    "padding_value": 0.0,
    "return_attention_mask": True,
}
