"""Whisper's tensors under OpenAI's names (its ``.pt`` files, and whisper.cpp's GGML files) and under Transformers'."""

from __future__ import annotations

_PARTS = {
    "layers": "blocks",
    "self_attn_layer_norm": "attn_ln",
    "encoder_attn_layer_norm": "cross_attn_ln",
    "final_layer_norm": "mlp_ln",
    "self_attn": "attn",
    "encoder_attn": "cross_attn",
    "q_proj": "query",
    "k_proj": "key",
    "v_proj": "value",
    "out_proj": "out",
    "embed_tokens": "token_embedding",
    "fc1": "mlp.0",
    "fc2": "mlp.2",
}
_WHOLE = {
    "model.encoder.embed_positions.weight": "encoder.positional_embedding",
    "model.decoder.embed_positions.weight": "decoder.positional_embedding",
    "model.encoder.layer_norm.weight": "encoder.ln_post.weight",
    "model.encoder.layer_norm.bias": "encoder.ln_post.bias",
    "model.decoder.layer_norm.weight": "decoder.ln.weight",
    "model.decoder.layer_norm.bias": "decoder.ln.bias",
}


def openai_name(name: str) -> str:
    """OpenAI's name of a tensor: ``model.encoder.layers.0.fc1.bias`` is ``encoder.blocks.0.mlp.0.bias``."""
    if name in _WHOLE:
        return _WHOLE[name]
    return ".".join(_PARTS.get(part, part) for part in name.removeprefix("model.").split("."))


def transformers_name(name: str) -> str:
    """The inverse of `openai_name`."""
    whole = {theirs: ours for ours, theirs in _WHOLE.items()}
    if name in whole:
        return whole[name]
    parts = {theirs: ours for ours, theirs in _PARTS.items()}
    joined = name.replace("mlp.0", "fc1").replace("mlp.2", "fc2")
    return "model." + ".".join(parts.get(part, part) for part in joined.split("."))
