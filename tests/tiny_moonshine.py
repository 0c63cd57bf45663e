"""A tiny random Moonshine with a byte tokenizer of its kind, saved with Transformers alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def tokenizer(letters: str = "abcd,' ") -> Any:
    """Letters as SentencePiece writes them, bytes for the rest, and a begin token (no end) put before a text."""
    from tokenizers import Tokenizer, decoders, normalizers
    from tokenizers.models import BPE
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    pieces += [letter.replace(" ", "▁") for letter in letters]
    pieces += ["ab", "▁a"]
    vocabulary = {piece: number for number, piece in enumerate(pieces)}
    made = Tokenizer(
        BPE(vocab=vocabulary, merges=[("a", "b"), ("▁", "a")], unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    made.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=made, bos_token="<s>", eos_token="</s>", unk_token="<unk>", pad_token="</s>"
    )


def make_moonshine(directory: Path, seed: int = 0, spread: float = 0.02, tied: bool = True) -> Path:
    """Save a random model with two layers a stack, its weights so widely spread.

    A wide spread makes a model that writes different texts for different clips.
    """
    import torch
    from transformers import (
        MoonshineConfig,
        MoonshineForConditionalGeneration,
        Wav2Vec2FeatureExtractor,
        Wav2Vec2Processor,
    )

    tokens = tokenizer()
    config = MoonshineConfig(
        vocab_size=len(tokens) + 3,
        hidden_size=48,
        intermediate_size=96,
        encoder_num_hidden_layers=2,
        decoder_num_hidden_layers=2,
        encoder_num_attention_heads=4,
        decoder_num_attention_heads=4,
        max_position_embeddings=64,
        initializer_range=spread,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    MoonshineForConditionalGeneration(config).save_pretrained(directory)
    extractor = Wav2Vec2FeatureExtractor(do_normalize=False, return_attention_mask=True)
    Wav2Vec2Processor(extractor, tokens).save_pretrained(directory)
    extractor.save_pretrained(directory)
    return directory
