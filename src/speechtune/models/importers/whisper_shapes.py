"""The tensors a Whisper of given sizes has, under OpenAI's names."""

from __future__ import annotations

from collections.abc import Mapping

FEED_FORWARD = 4
"""Width of the feed-forward layers in units of the model's (Whisper paper, and every file of openai-whisper)."""


def openai_shapes(dims: Mapping[str, int]) -> dict[str, tuple[int, ...]]:
    """Name to shape for ``dims``: ``n_mels``, ``n_vocab``, ``n_audio_ctx``, ``n_audio_state``, ``n_audio_layer``, ….

    The key projection has no bias; the output projection is the token embedding.
    """
    audio, text = dims["n_audio_state"], dims["n_text_state"]
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.conv1.weight": (audio, dims["n_mels"], 3),
        "encoder.conv1.bias": (audio,),
        "encoder.conv2.weight": (audio, audio, 3),
        "encoder.conv2.bias": (audio,),
        "encoder.positional_embedding": (dims["n_audio_ctx"], audio),
        "decoder.positional_embedding": (dims["n_text_ctx"], text),
        "decoder.token_embedding.weight": (dims["n_vocab"], text),
    }
    for norm, width in (("encoder.ln_post", audio), ("decoder.ln", text)):
        shapes |= {f"{norm}.weight": (width,), f"{norm}.bias": (width,)}
    for side, layers, width in (("encoder", dims["n_audio_layer"], audio), ("decoder", dims["n_text_layer"], text)):
        for number in range(layers):
            shapes |= _block(f"{side}.blocks.{number}", width, cross=side == "decoder")
    return shapes


def _block(name: str, width: int, cross: bool) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {}
    for attention in ("attn", "cross_attn") if cross else ("attn",):
        for part in ("query", "key", "value", "out"):
            shapes[f"{name}.{attention}.{part}.weight"] = (width, width)
            if part != "key":
                shapes[f"{name}.{attention}.{part}.bias"] = (width,)
        shapes |= {f"{name}.{attention}_ln.weight": (width,), f"{name}.{attention}_ln.bias": (width,)}
    inner = FEED_FORWARD * width
    shapes |= {f"{name}.mlp.0.weight": (inner, width), f"{name}.mlp.0.bias": (inner,)}
    shapes |= {f"{name}.mlp.2.weight": (width, inner), f"{name}.mlp.2.bias": (width,)}
    return shapes | {f"{name}.mlp_ln.weight": (width,), f"{name}.mlp_ln.bias": (width,)}
