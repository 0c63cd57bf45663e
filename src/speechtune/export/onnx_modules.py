"""Whisper in the three pieces that become ONNX graphs, from the weights of a Transformers model.

The attention is written out (matrix product, softmax), because that exports to plain operators of any length.
Shapes: B clips, T new tokens, P tokens before them, S encoder positions, H heads, K = width / H.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional


def attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | None = None
) -> torch.Tensor:
    """Scaled dot-product attention of (B, H, T, K) over (B, H, N, K); ``mask`` (T, N) is added to the scores."""
    scores = query @ key.transpose(2, 3) * query.shape[-1] ** -0.5
    scores = scores if mask is None else scores + mask
    mixed = scores.softmax(-1) @ value
    return mixed.transpose(1, 2).flatten(2)


def split(hidden: torch.Tensor, heads: int) -> torch.Tensor:
    """(B, T, width) to (B, H, T, K)."""
    return hidden.unflatten(2, (heads, hidden.shape[2] // heads)).transpose(1, 2)


def projected(attention: Any, given: torch.Tensor, heads: int) -> list[torch.Tensor]:
    """Query, key and value of a self-attention, each (B, H, T, K)."""
    return [split(project(given), heads) for project in (attention.q_proj, attention.k_proj, attention.v_proj)]


class Encoder(nn.Module):
    """``input_features`` (B, mels, frames) to ``last_hidden_state`` (B, frames / 2, width), at any even frames."""

    def __init__(self, encoder: Any) -> None:
        super().__init__()
        self.encoder = encoder
        self.heads = int(encoder.config.encoder_attention_heads)

    def forward(self, input_features: torch.Tensor) -> torch.Tensor:
        """The encoder's output."""
        own = self.encoder
        hidden = functional.gelu(own.conv1(input_features))
        hidden = functional.gelu(own.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + own.embed_positions.weight[: hidden.shape[1]]
        for layer in own.layers:
            given = layer.self_attn_layer_norm(hidden)
            attention = layer.self_attn
            query, key, value = projected(attention, given, self.heads)
            hidden = hidden + attention.out_proj(attend(query, key, value))
            hidden = hidden + layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(hidden))))
        return own.layer_norm(hidden)


class CrossKeys(nn.Module):
    """``encoder_hidden_states`` (B, S, width) to every decoder layer's cross-attention key and value (B, H, S, K)."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.layers = decoder.layers
        self.heads = int(decoder.config.decoder_attention_heads)

    def forward(self, encoder_hidden_states: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Key and value of the first layer, of the second, and so on."""
        found: list[torch.Tensor] = []
        for layer in self.layers:
            attention = layer.encoder_attn
            found += [split(p(encoder_hidden_states), self.heads) for p in (attention.k_proj, attention.v_proj)]
        return tuple(found)


class Step(nn.Module):
    """New tokens after P known ones: logits (B, T, vocabulary) and every layer's longer self-attention cache."""

    def __init__(self, decoder: Any, projection: torch.Tensor, tied: bool) -> None:
        super().__init__()
        self.decoder = decoder
        self.heads = int(decoder.config.decoder_attention_heads)
        self.tied = tied
        if not tied:
            self.projection = nn.Parameter(projection.detach().t().contiguous())

    def forward(
        self, input_ids: torch.Tensor, past: list[torch.Tensor], cross: list[torch.Tensor]
    ) -> tuple[torch.Tensor, ...]:
        """``past`` and ``cross``: key and value of the first layer, of the second, …; (B, H, P, K) and (B, H, S, K)."""
        own = self.decoder
        known, new = past[0].shape[2], input_ids.shape[1]
        positions = torch.arange(new) + known
        hidden = functional.embedding(input_ids, own.embed_tokens.weight)
        hidden = hidden + functional.embedding(positions, own.embed_positions.weight)
        allowed = torch.arange(known + new)[None, :] <= positions[:, None]
        mask = torch.where(allowed, 0.0, -1e9)
        caches: list[torch.Tensor] = []
        for number, layer in enumerate(own.layers):
            given = layer.self_attn_layer_norm(hidden)
            attention = layer.self_attn
            query, key, value = projected(attention, given, self.heads)
            key, value = (torch.cat([old, one], 2) for old, one in zip(past[2 * number :], (key, value), strict=False))
            caches += [key, value]
            hidden = hidden + attention.out_proj(attend(query, key, value, mask))
            attention = layer.encoder_attn
            query = split(attention.q_proj(layer.encoder_attn_layer_norm(hidden)), self.heads)
            hidden = hidden + attention.out_proj(attend(query, cross[2 * number], cross[2 * number + 1]))
            hidden = hidden + layer.fc2(functional.gelu(layer.fc1(layer.final_layer_norm(hidden))))
        hidden = own.layer_norm(hidden)
        logits = functional.linear(hidden, own.embed_tokens.weight) if self.tied else hidden @ self.projection
        return (logits, *caches)
