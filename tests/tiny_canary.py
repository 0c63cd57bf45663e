"""A tiny random Canary with a tokenizer and a chat template of its kind, saved with Transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

TEMPLATE = (
    "{%- set wanted = messages[0]['content'] | selectattr('type', 'equalto', 'text') | first -%}"
    "<|startofcontext|><|startoftranscript|><|{{ wanted.source_language }}|><|{{ wanted.target_language }}|>"
    "{{- '<|pnc|>' if wanted.punctuation else '<|nopnc|>' -}}"
)
"""The beginning of NVIDIA's prompt format, without its tokens for emotion, times and speakers."""

SPECIAL = ("<|startofcontext|>", "<|startoftranscript|>", "<|en|>", "<|de|>", "<|pnc|>", "<|nopnc|>")


def tokenizer() -> Any:
    """Letters as SentencePiece writes them and the special tokens of the prompt."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<|nospeech|>", "<pad>", "<|endoftext|>", *SPECIAL, "▁", *"abcd'", "ab"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(BPE(vocab=vocabulary, merges=[("a", "b")], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return PreTrainedTokenizerFast(
        tokenizer_object=made,
        unk_token="<unk>",
        pad_token="<pad>",
        eos_token="<|endoftext|>",
        additional_special_tokens=list(SPECIAL),
    )


def make_canary(directory: Path, seed: int = 0, spread: float = 0.02, subsampling: int = 8) -> Path:
    """Save a random model with two layers a stack, its weights so widely spread, so many frames of 10 ms in one."""
    import torch
    from transformers import CanaryConfig, CanaryForConditionalGeneration, CanaryProcessor, ParakeetFeatureExtractor

    tokens = tokenizer()
    sizes = {"hidden_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 96}
    encoder = {
        **sizes,
        "model_type": "parakeet_encoder",
        "conv_kernel_size": 5,
        "subsampling_conv_channels": 16,
        "subsampling_factor": subsampling,
        **dict.fromkeys(("dropout", "dropout_positions", "attention_dropout", "activation_dropout", "layerdrop"), 0.0),
        "scale_input": False,
        "initializer_range": spread,
    }
    decoder = {
        **sizes,
        "vocab_size": len(tokens),
        "num_key_value_heads": 4,
        "head_dim": 12,
        "max_position_embeddings": 64,
        "initializer_range": spread,
    }
    config = CanaryConfig(
        encoder_config=encoder,
        decoder_config=decoder,
        vocab_size=len(tokens),
        decoder_start_token_id=tokens.convert_tokens_to_ids(SPECIAL[0]),
        initializer_range=spread,
    )
    torch.manual_seed(seed)
    CanaryForConditionalGeneration(config).save_pretrained(directory)
    CanaryProcessor(ParakeetFeatureExtractor(), tokens, chat_template=TEMPLATE).save_pretrained(directory)
    return directory
