"""A tiny Whisper with a real byte-level tokenizer, and its CTranslate2 form made by CTranslate2 itself."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

LANGUAGES = ("en", "zh", "de")
WORDS = ("th", "the", "ing")
TIMESTAMPS = 101
POSITIONS = 100


def tokenizer_document(multilingual: bool) -> dict[str, Any]:
    """``tokenizer.json`` in the layout of Whisper's: bytes, merges, (the empty token), special tokens."""
    from tokenizers.pre_tokenizers import ByteLevel

    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    for word in ("th", "the", "in", "ing"):
        vocabulary[word] = len(vocabulary)
    if multilingual:
        vocabulary[""] = len(vocabulary)
    names = ["endoftext", "startoftranscript", *LANGUAGES, "translate", "transcribe", "startoflm", "startofprev"]
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    added = [
        {"id": len(vocabulary) + number, "content": f"<|{name}|>", **flags}
        for number, name in enumerate([*names, "nocaptions", "notimestamps"])
    ]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    model = {
        "type": "BPE",
        "dropout": None,
        "unk_token": None,
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "",
        "fuse_unk": False,
        "vocab": vocabulary,
        "merges": ["t h", "th e", "i n", "in g"],
    }
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": level,
        "post_processor": None,
        "decoder": level,
        "model": model,
    }


def make_transformers(
    directory: Path,
    multilingual: bool = True,
    tied: bool = True,
    positions: int = POSITIONS,
    text_positions: int = 24,
    noise: bool = True,
) -> Any:
    """Save a random Whisper and its tokenizer below ``directory`` with Transformers alone; return the model.

    ``noise``: every weight is replaced by noise, norms too, so that all of them show in what it computes; without, the
    model begins as Transformers begins, and learns.
    """
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    document = tokenizer_document(multilingual)
    ids = {token["content"]: token["id"] for token in document["added_tokens"]}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    roles = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    config = WhisperConfig(
        vocab_size=ids["<|notimestamps|>"] + 1 + TIMESTAMPS,
        num_mel_bins=80,
        d_model=32,
        encoder_layers=2,
        decoder_layers=1,
        encoder_attention_heads=4,
        decoder_attention_heads=2,
        encoder_ffn_dim=48,
        decoder_ffn_dim=40,
        max_source_positions=positions,
        max_target_positions=text_positions,
        suppress_tokens=[1, 2],
        begin_suppress_tokens=[3, end],
        tie_word_embeddings=tied,
        **roles,
    )
    torch.manual_seed(5)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters() if noise else ():
            parameter.normal_(0.0, 0.3)
    facts: dict[str, Any] = {"is_multilingual": multilingual, "no_timestamps_token_id": ids["<|notimestamps|>"]}
    if multilingual:
        facts["lang_to_id"] = {f"<|{name}|>": ids[f"<|{name}|>"] for name in LANGUAGES}
        facts["task_to_id"] = {name: ids[f"<|{name}|>"] for name in ("translate", "transcribe")}
    model.generation_config = GenerationConfig(
        suppress_tokens=[1, 2],
        begin_suppress_tokens=[3, end],
        alignment_heads=[[0, 1]],
        max_length=text_positions,
        **roles,
        **facts,
    )
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text(json.dumps(document))
    settings = {"tokenizer_class": "WhisperTokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps({**settings, "unk_token": "<|endoftext|>"}))
    return model.eval()


def make_ctranslate2(source: Path, directory: Path, quantization: str | None) -> Path:
    """Convert with CTranslate2's own converter, with ``tokenizer.json`` beside ``model.bin``."""
    from ctranslate2.converters import TransformersConverter

    TransformersConverter(str(source)).convert(str(directory), quantization=quantization, force=True)
    shutil.copy(source / "tokenizer.json", directory / "tokenizer.json")
    return directory
