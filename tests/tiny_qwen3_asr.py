"""A tiny random Qwen3-ASR with a byte tokenizer, saved with Transformers alone, and the same in Qwen's own layout."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any


def tokenizer() -> Any:
    """Bytes, a few merges, and the special tokens of Qwen3-ASR's chat."""
    from tokenizers import AddedToken
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers import Qwen2Tokenizer

    letters = sorted(ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, "an", "lan"])}
    made = Qwen2Tokenizer(
        vocab=vocabulary,
        merges=[("a", "n"), ("l", "an")],
        unk_token=None,
        eos_token="<|im_end|>",
        pad_token="<|endoftext|>",
        extra_special_tokens={
            "audio_token": "<|audio_pad|>",
            "audio_bos_token": "<|audio_start|>",
            "audio_eos_token": "<|audio_end|>",
        },
    )
    made.add_tokens([AddedToken("<|im_start|>", special=True, normalized=False)])
    made.add_tokens([AddedToken("<asr_text>", special=False, normalized=False)])
    return made


def make_qwen3_asr(directory: Path, tied: bool = True, seed: int = 0, spread: float = 0.02) -> Path:
    """Save a random model with two layers a stack, its weights so widely spread; its encoder attends within 2 s.

    A wide spread makes a model that writes different texts for different clips.
    """
    import torch
    from transformers import (
        Qwen3ASRConfig,
        Qwen3ASRFeatureExtractor,
        Qwen3ASRForConditionalGeneration,
        Qwen3ASRProcessor,
    )

    from speechtune.models.qwen3_asr_format import CHAT_TEMPLATE

    tokens = tokenizer()
    audio = {
        "num_mel_bins": 16,
        "encoder_layers": 2,
        "encoder_attention_heads": 2,
        "encoder_ffn_dim": 64,
        "d_model": 32,
        "output_dim": 48,
        "downsample_hidden_size": 8,
        "n_window": 50,
        "n_window_infer": 200,
        "initializer_range": spread,
    }
    language = {
        "model_type": "qwen3",
        "vocab_size": len(tokens) + 5,
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 16,
        "max_position_embeddings": 2048,
        "tie_word_embeddings": tied,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e6},
        "initializer_range": spread,
    }
    end, pad = tokens.eos_token_id, tokens.pad_token_id
    config = Qwen3ASRConfig(
        audio_config=audio,
        text_config=language,
        audio_token_id=tokens.convert_tokens_to_ids("<|audio_pad|>"),
        eos_token_id=(pad, end),
        pad_token_id=end,
        tie_word_embeddings=tied,
        initializer_range=spread,
    )
    torch.manual_seed(seed)
    Qwen3ASRForConditionalGeneration(config).save_pretrained(directory)
    extractor = Qwen3ASRFeatureExtractor(feature_size=16)
    Qwen3ASRProcessor(extractor, tokens, chat_template=CHAT_TEMPLATE).save_pretrained(directory)
    return directory


def make_original(directory: Path, native: Path, shards: int = 2) -> Path:
    """The weights of a directory as the ``qwen-asr`` package lays them out, in several shards; written by hand."""
    import torch
    from safetensors.torch import load_file, save_file

    config = json.loads((native / "config.json").read_text())
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in load_file(native / "model.safetensors").items():
        new = name.replace("model.multi_modal_projector.linear_", "model.audio_tower.proj")
        new = re.sub(r"^model\.language_model\.", "thinker.model.", re.sub(r"^model\.audio", "thinker.audio", new))
        tensors[re.sub(r"^lm_head", "thinker.lm_head", new)] = tensor
    if config["tie_word_embeddings"]:
        tensors["thinker.lm_head.weight"] = tensors["thinker.model.embed_tokens.weight"].clone()
    directory.mkdir(parents=True)
    names = sorted(tensors)
    index: dict[str, str] = {}
    for shard in range(shards):
        file = f"model-{shard + 1:05d}-of-{shards:05d}.safetensors"
        own = names[shard::shards]
        save_file({name: tensors[name] for name in own}, directory / file, {"format": "pt"})
        index |= dict.fromkeys(own, file)
    (directory / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))
    audio = {**config["audio_config"], "model_type": "qwen3_asr_audio_encoder", "max_source_positions": 1500}
    del audio["max_position_embeddings"]
    text = {**config["text_config"], "model_type": "qwen3_asr_text", "rope_theta": 1e6}
    del text["rope_parameters"]
    text["rope_scaling"] = {"rope_type": "default", "mrope_section": [4, 2, 2], "mrope_interleaved": True}
    thinker = {"audio_config": audio, "text_config": text, "audio_token_id": config["audio_token_id"]}
    written = {"model_type": "qwen3_asr", "support_languages": ["English"], "thinker_config": thinker}
    (directory / "config.json").write_text(json.dumps(written))
    tokenizer().save_pretrained(directory)
    extractor = {"feature_extractor_type": "WhisperFeatureExtractor", "feature_size": 16}
    (directory / "preprocessor_config.json").write_text(json.dumps(extractor))
    return directory
