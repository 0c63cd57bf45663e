"""Tiny random CTC models of every kind, saved with Transformers alone, and a corpus of letters that are tones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

LETTERS = "abcd"
VOCABULARY = {"<pad>": 0, "<unk>": 1, "|": 2, **{letter: number + 3 for number, letter in enumerate(LETTERS)}}
KINDS = ("wav2vec2-group", "wav2vec2-layer", "hubert", "wavlm", "wav2vec2-bert", "parakeet")
WAVE: dict[str, Any] = {
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 96,
    "conv_dim": (32, 32, 32),
    "conv_kernel": (10, 8, 4),
    "conv_stride": (8, 8, 5),
    "num_feat_extract_layers": 3,
    "num_conv_pos_embeddings": 16,
    "num_conv_pos_embedding_groups": 4,
    "layerdrop": 0.1,
    "pad_token_id": 0,
}


def configuration(kind: str, vocabulary: int) -> Any:
    """The configuration of a tiny model of one of `KINDS` (or of another model type over waveforms)."""
    from transformers import AutoConfig, ParakeetCTCConfig, ParakeetEncoderConfig, Wav2Vec2BertConfig

    if kind == "wav2vec2-bert":
        return Wav2Vec2BertConfig(
            vocab_size=vocabulary,
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            feature_projection_input_dim=160,
            conv_depthwise_kernel_size=7,
            pad_token_id=0,
        )
    if kind == "parakeet":
        encoder = ParakeetEncoderConfig(
            hidden_size=48,
            num_hidden_layers=2,
            num_attention_heads=4,
            intermediate_size=96,
            conv_kernel_size=5,
            subsampling_conv_channels=16,
            subsampling_factor=4,
        )
        return ParakeetCTCConfig(vocab_size=vocabulary, encoder_config=encoder, pad_token_id=0)
    name, _, norm = (
        kind.partition("-") if kind.startswith("wav2vec2-") and kind != "wav2vec2-conformer" else (kind, "", "")
    )
    extra = {"feat_extract_norm": norm or "group"} | ({"do_stable_layer_norm": True} if norm == "layer" else {})
    return AutoConfig.for_model(name, **{**WAVE, "vocab_size": vocabulary, **extra})


def extractor_for(kind: str) -> Any:
    """The feature extractor that a checkpoint of this kind brings."""
    from transformers import ParakeetFeatureExtractor, SeamlessM4TFeatureExtractor, Wav2Vec2FeatureExtractor

    if kind == "wav2vec2-bert":
        return SeamlessM4TFeatureExtractor()
    if kind == "parakeet":
        return ParakeetFeatureExtractor()
    return Wav2Vec2FeatureExtractor(return_attention_mask=kind == "wav2vec2-layer", do_normalize=kind != "wavlm")


def make_ctc(directory: Path, kind: str, vocabulary: dict[str, int] | None = None, seed: int = 0) -> Path:
    """Save a random model with a character vocabulary."""
    import torch
    from transformers import AutoModelForCTC

    from speechtune.models.ctc_vocabulary import character_tokenizer

    units = vocabulary or VOCABULARY
    torch.manual_seed(seed)
    model = AutoModelForCTC.from_config(configuration(kind, len(units)))
    model.save_pretrained(directory)
    extractor_for(kind).save_pretrained(directory)
    character_tokenizer(units).save_pretrained(directory)
    return directory


def make_encoder(directory: Path, kind: str) -> Path:
    """Save what a pre-trained encoder is: no head, no tokenizer."""
    import torch
    from transformers import AutoModel

    torch.manual_seed(0)
    AutoModel.from_config(configuration(kind, 32)).save_pretrained(directory)
    extractor_for(kind).save_pretrained(directory)
    return directory


def spoken(text: str, rng: np.random.Generator) -> np.ndarray:
    """A letter is 0.12 s of a tone of its own, a space 0.1 s of silence; 16 kHz."""
    parts = [np.zeros(800)]
    for letter in text:
        if letter == " ":
            parts.append(np.zeros(1600))
            continue
        time_s = np.arange(1920) / 16_000
        pitch_hz = 300.0 * 1.7 ** LETTERS.index(letter.lower())
        parts += [0.4 * np.sin(2 * np.pi * pitch_hz * time_s) * np.hanning(1920), np.zeros(480)]
    clean = np.concatenate([*parts, np.zeros(800)])
    return (clean + 0.002 * rng.standard_normal(len(clean))).astype(np.float32)


TEXTS = ("ab", "cad dab", "b", "dac", "ba ca", "add", "c da", "bad cab", "abba", "d", "cc a", "bcd")


def write_tones(root: Path, texts: tuple[str, ...] = TEXTS) -> Path:
    """A corpus of `spoken` texts; the dev split says the same in another take."""
    from speechtune.audio.io import write_audio
    from speechtune.corpus.table import Corpus, Utterance

    rng = np.random.default_rng(0)
    utterances = []
    (root / "audio").mkdir(parents=True)
    for split in ("train", "dev"):
        for number, text in enumerate(texts):
            name = f"audio/{split}{number:02d}.wav"
            waveform = spoken(text, rng)
            write_audio(root / name, waveform)
            row = Utterance(
                utterance_id=f"{split}{number:02d}",
                file_name=name,
                text=text,
                duration_s=len(waveform) / 16_000,
                speaker_id=f"{split}{number % 3}",
                language="en",
                split=split,
            )
            utterances.append(row)
    Corpus(root, utterances, {"kept": len(utterances)}).save()
    return root


def write_recipe(path: Path, base: Path, corpus: Path, **sections: dict[str, Any]) -> Path:
    """A recipe for a tiny model and the tones; sections are merged in."""
    recipe: dict[str, Any] = {
        "data": {"corpus": str(corpus)},
        "model": {"base": str(base)},
        "training": {
            "epochs": 2,
            "learning_rate": 3e-3,
            "batch": {"utterances": 6},
            "trackers": [],
        },
        "evaluation": {"scoring": {"resamples": 50}},
    }
    for name, values in sections.items():
        recipe[name] = {**recipe.get(name, {}), **values}
    path.write_text(json.dumps(recipe), encoding="utf-8")
    return path
