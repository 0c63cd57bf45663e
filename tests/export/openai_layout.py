"""A tiny random Whisper whose vocabulary is laid out as OpenAI's: what whisper.cpp and openai-whisper insist on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tiny_whisper import tokenizer_document


def layout_document(multilingual: bool = False) -> dict[str, Any]:
    """``tokenizer.json`` with 50256 (English) or 50257 words, 99 languages, and special tokens at OpenAI's ids."""
    from tokenizers.pre_tokenizers import ByteLevel
    from transformers.models.whisper.tokenization_whisper import LANGUAGES

    document = tokenizer_document(multilingual)
    vocabulary = {letter: number for number, letter in enumerate(sorted(ByteLevel.alphabet()))}
    small = "abcdefghijklmnopqrstuvwxyz"
    pairs = [(first, second) for first in small for second in small]
    joined = [first + second for first, second in pairs]
    starts = [("Ġ", pair) for pair in joined]
    words = [("Ġ" + first, second) for second in joined for first in joined]
    merges = []
    for first, second in [*pairs, *starts, *words]:
        if len(vocabulary) < 50256:
            vocabulary[first + second] = len(vocabulary)
            merges.append(f"{first} {second}")
    if multilingual:
        vocabulary[""] = len(vocabulary)
    languages = list(LANGUAGES)[:99]
    names = ["endoftext", "startoftranscript", *languages, "translate", "transcribe", "startoflm", "startofprev"]
    flags = {key: value for key, value in document["added_tokens"][0].items() if key not in ("id", "content")}
    document["added_tokens"] = [
        {"id": len(vocabulary) + number, "content": f"<|{name}|>", **flags}
        for number, name in enumerate([*names, "nocaptions", "notimestamps"])
    ]
    document["model"] |= {"vocab": vocabulary, "merges": merges}
    return document


def make_layout(directory: Path, multilingual: bool = False, seed: int = 5, mels: int = 80) -> Any:
    """Save a random Whisper of 30 s windows, width 64 and one head width of 32; float16 holds its weights exactly."""
    import torch
    from transformers import GenerationConfig, WhisperConfig, WhisperForConditionalGeneration

    document = layout_document(multilingual)
    ids = {token["content"]: token["id"] for token in document["added_tokens"]}
    end, start = ids["<|endoftext|>"], ids["<|startoftranscript|>"]
    roles = {"pad_token_id": end, "bos_token_id": end, "eos_token_id": end, "decoder_start_token_id": start}
    sizes = {f"{side}_{what}": value for side in ("encoder", "decoder") for what, value in _SIZES.items()}
    config = WhisperConfig(
        vocab_size=ids["<|notimestamps|>"] + 1502,
        num_mel_bins=mels,
        d_model=64,
        max_source_positions=1500,
        max_target_positions=32,
        suppress_tokens=[1, 2],
        begin_suppress_tokens=[220, end],
        **sizes,
        **roles,
    )
    torch.manual_seed(seed)
    model = WhisperForConditionalGeneration(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.2)
        model.model.encoder.conv1.weight.mul_(4.0)  # what is heard counts
        for layer in model.model.decoder.layers:
            layer.encoder_attn.q_proj.weight.mul_(8.0)
            layer.encoder_attn.out_proj.weight.mul_(8.0)
        model.model.encoder.embed_positions.weight.mul_(0.125)
        model.model.decoder.embed_positions.weight.mul_(4.0)  # no word for ever
        towards_end = model.model.decoder.embed_tokens.weight[end]
        model.model.decoder.layer_norm.bias.copy_(0.4 * towards_end)  # texts end soon
        for parameter in model.parameters():
            parameter.copy_(parameter.half().float())
    facts: dict[str, Any] = {"is_multilingual": multilingual, "no_timestamps_token_id": ids["<|notimestamps|>"]}
    if multilingual:
        facts["lang_to_id"] = {name: number for name, number in ids.items() if end + 1 < number <= end + 100}
        facts["task_to_id"] = {name: ids[f"<|{name}|>"] for name in ("translate", "transcribe")}
    model.generation_config = GenerationConfig(
        suppress_tokens=[1, 2],
        begin_suppress_tokens=[220, end],
        alignment_heads=[[0, 1]],
        max_length=32,
        **roles,
        **facts,
    )
    model.save_pretrained(directory)
    (directory / "tokenizer.json").write_text(json.dumps(document), encoding="utf-8")
    settings = {"tokenizer_class": "WhisperTokenizer", "bos_token": "<|endoftext|>", "eos_token": "<|endoftext|>"}
    (directory / "tokenizer_config.json").write_text(json.dumps({**settings, "unk_token": "<|endoftext|>"}))
    return model.eval()


_SIZES = {"layers": 1, "attention_heads": 2, "ffn_dim": 256}
