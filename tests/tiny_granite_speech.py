"""A tiny random Granite-Speech with a byte tokenizer and a chat template of its kind, saved with Transformers alone."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

TEMPLATE = (
    "{{- '<|start_of_role|>system<|end_of_role|>You are Granite.<|end_of_text|>\n' -}}"
    "{%- for m in messages -%}"
    "{{- '<|start_of_role|>' + m.role + '<|end_of_role|>' + m.content + '<|end_of_text|>\n' -}}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{- '<|start_of_role|>assistant<|end_of_role|>' -}}{%- endif -%}"
)
SPECIAL = ("<|start_of_role|>", "<|end_of_role|>", "<|audio|>")


def tokenizer() -> Any:
    """Bytes, two merges and the special tokens of the chat; the audio's is the last."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    letters = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: number for number, letter in enumerate([*letters, "an", "ri"])}
    made = Tokenizer(BPE(vocab=vocabulary, merges=[("a", "n"), ("r", "i")]))
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    found = PreTrainedTokenizerFast(
        tokenizer_object=made,
        eos_token="<|end_of_text|>",
        pad_token="<|end_of_text|>",
        additional_special_tokens=list(SPECIAL),
    )
    found.chat_template = TEMPLATE
    return found


def make_granite_speech(
    directory: Path,
    seed: int = 0,
    spread: float = 0.02,
    tied: bool = True,
    context: int = 20,
    window: int = 15,
    logits_scaling: float = 1.0,
) -> Path:
    """Save a random model with two layers a stack, its weights so widely spread, attention in blocks of ``context``."""
    import torch
    from transformers import GraniteSpeechConfig, GraniteSpeechForConditionalGeneration

    tokens = tokenizer()
    language = {
        "model_type": "granite",
        "vocab_size": len(tokens),
        "hidden_size": 48,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 2048,
        "embedding_multiplier": 3.0,
        "logits_scaling": logits_scaling,
        "attention_multiplier": 0.25,
        "residual_multiplier": 0.9,
        "initializer_range": spread,
        "tie_word_embeddings": tied,
        "eos_token_id": tokens.eos_token_id,
        "pad_token_id": tokens.pad_token_id,
    }
    encoder = {
        "input_dim": 160,
        "num_layers": 2,
        "hidden_dim": 32,
        "feedforward_mult": 2,
        "num_heads": 4,
        "output_dim": 12,
        "context_size": context,
        "max_pos_emb": 32,
        "conv_kernel_size": 5,
        "dropout": 0.0,
        "initializer_range": spread,
    }
    projector = {
        "model_type": "blip_2_qformer",
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "intermediate_size": 64,
        "encoder_hidden_size": 32,
        "cross_attention_frequency": 1,
        "hidden_dropout_prob": 0.0,
        "attention_probs_dropout_prob": 0.0,
        "initializer_range": spread,
    }
    config = GraniteSpeechConfig(
        text_config=language,
        encoder_config=encoder,
        projector_config=projector,
        audio_token_index=tokens.convert_tokens_to_ids("<|audio|>"),
        has_lora_adapter=False,
        window_size=window,
        downsample_rate=window // 3,
        initializer_range=spread,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    GraniteSpeechForConditionalGeneration(config).save_pretrained(directory)
    tokens.save_pretrained(directory)
    stored = {
        "feature_extractor_type": "GraniteSpeechFeatureExtractor",
        "processor_class": "GraniteSpeechProcessor",
        "projector_window_size": window,
        "projector_downsample_rate": window // 3,
        "melspec_kwargs": {"sample_rate": 16000, "n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80},
    }
    (directory / "preprocessor_config.json").write_text(json.dumps(stored), encoding="utf-8")
    return directory
