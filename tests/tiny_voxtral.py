"""A tiny random Voxtral with a ``tekken.json`` made by hand, saved with Transformers alone."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

_TOOLS = "AVAILABLE_TOOLS /AVAILABLE_TOOLS TOOL_RESULTS /TOOL_RESULTS TOOL_CALLS"
_FIRST = f"unk s /s INST /INST {_TOOLS} IMG pad IMG_BREAK IMG_END"
_MORE = "PREFIX MIDDLE SUFFIX SYSTEM_PROMPT /SYSTEM_PROMPT TOOL_CONTENT"
NAMES = {
    **{
        rank: f"<{name}>" if name in ("unk", "s", "/s", "pad") else f"[{name}]"
        for rank, name in enumerate(f"{_FIRST} {_MORE}".split())
    },
    24: "[AUDIO]",
    25: "[BEGIN_AUDIO]",
    34: "[TRANSCRIBE]",
}
"""The control tokens at the ids that Voxtral's tokenizer has; `VoxtralProcessor` takes 24 for granted."""

MERGES = (b"an", b"ri", b"lang", b"en")
SPECIAL = 35
PATTERN = r"[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"


def tekken(window_s: float, frame_rate_hz: float, bins: int) -> dict[str, Any]:
    """The content of a ``tekken.json``: 256 bytes, a few merges, the control tokens, and what is said of the audio."""
    pieces = [*(bytes([one]) for one in range(256)), *MERGES]
    size = len(pieces) + SPECIAL
    return {
        "config": {
            "pattern": PATTERN,
            "num_vocab_tokens": len(pieces),
            "default_vocab_size": size,
            "default_num_special_tokens": SPECIAL,
            "version": "v7",
        },
        "vocab": [
            {"rank": rank, "token_bytes": base64.b64encode(one).decode(), "token_str": one.decode("latin-1")}
            for rank, one in enumerate(pieces)
        ],
        "special_tokens": [
            {"rank": rank, "token_str": NAMES.get(rank, f"<SPECIAL_{rank}>"), "is_control": True}
            for rank in range(SPECIAL)
        ],
        "audio": {
            "sampling_rate": 16_000,
            "frame_rate": frame_rate_hz,
            "audio_encoding_config": {"num_mel_bins": bins, "hop_length": 160, "window_size": 400},
            "chunk_length_s": window_s,
        },
    }


def make_voxtral(
    directory: Path, seed: int = 0, spread: float = 0.02, window_s: float = 1.0, together: int = 2, bins: int = 40
) -> Path:
    """Save a random model with two layers a stack, its weights so widely spread.

    ``window_s``: of the encoder, 30 in released models. ``together``: positions of the encoder that make one of the
    language model.
    """
    import torch
    from transformers import VoxtralConfig, VoxtralForConditionalGeneration, WhisperFeatureExtractor

    stored = tekken(window_s, 50 / together, bins)
    language = {
        "model_type": "llama",
        "vocab_size": stored["config"]["default_vocab_size"],
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "head_dim": 12,
        "max_position_embeddings": 4096,
        "rope_theta": 10000.0,
        "initializer_range": spread,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 11,
        "tie_word_embeddings": False,
    }
    audio = {
        "vocab_size": 64,
        "hidden_size": 32,
        "intermediate_size": 32 * together,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_mel_bins": bins,
        "max_source_positions": round(window_s * 50),
        "initializer_range": spread,
    }
    config = VoxtralConfig(text_config=language, audio_config=audio, audio_token_id=24, initializer_range=spread)
    torch.manual_seed(seed)
    VoxtralForConditionalGeneration(config).save_pretrained(directory)
    WhisperFeatureExtractor(feature_size=bins, processor_class="VoxtralProcessor").save_pretrained(directory)
    (directory / "tekken.json").write_text(json.dumps(stored), encoding="utf-8")
    return directory
