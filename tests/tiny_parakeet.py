"""Tiny random Parakeet transducers with a tokenizer of their kind, saved with Transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

DURATIONS = (0, 1, 2)


def tokenizer() -> Any:
    """Letters as SentencePiece writes them, padding (id 2) and the blank (the last id)."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import ParakeetTokenizer

    pieces = ["<unk>", "<s>", "<pad>", "▁", *"abcd'", "ab", "<blank>"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(BPE(vocab=vocabulary, merges=[("a", "b")], unk_token="<unk>"))
    made.pre_tokenizer = pre_tokenizers.Metaspace()
    made.decoder = decoders.Metaspace()
    return ParakeetTokenizer(tokenizer_object=made, unk_token="<unk>", pad_token="<pad>")


def make_parakeet(
    directory: Path, kind: str = "tdt", seed: int = 0, spread: float = 0.02, subsampling: int = 8
) -> Path:
    """Save a random model (``tdt`` or ``rnnt``), its weights so widely spread, with so many frames of 10 ms in one."""
    import torch
    from transformers import (
        ParakeetEncoderConfig,
        ParakeetFeatureExtractor,
        ParakeetForRNNT,
        ParakeetForTDT,
        ParakeetProcessor,
        ParakeetRNNTConfig,
        ParakeetTDTConfig,
    )

    tokens = tokenizer()
    encoder = ParakeetEncoderConfig(
        hidden_size=48,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=96,
        conv_kernel_size=5,
        subsampling_conv_channels=16,
        subsampling_factor=subsampling,
        initializer_range=spread,
    )
    options: dict[str, Any] = {
        "vocab_size": len(tokens),
        "decoder_hidden_size": 40,
        "num_decoder_layers": 1,
        "encoder_config": encoder,
        "pad_token_id": 2,
        "blank_token_id": len(tokens) - 1,
    }
    torch.manual_seed(seed)
    if kind == "tdt":
        model: Any = ParakeetForTDT(ParakeetTDTConfig(**options, durations=DURATIONS))
    else:
        model = ParakeetForRNNT(ParakeetRNNTConfig(**options))
    model.save_pretrained(directory)
    extractor = ParakeetFeatureExtractor()
    ParakeetProcessor(extractor, tokens, decoder_type=kind).save_pretrained(directory)
    extractor.save_pretrained(directory)
    return directory
