"""Transformers' Qwen3-ASR with a loss that stays right under gradient accumulation and costs only what it needs."""

from __future__ import annotations

from typing import Any

import torch
from transformers import Qwen3ASRForConditionalGeneration
from transformers.models.qwen3_asr.modeling_qwen3_asr import Qwen3ASRCausalLMOutputWithPast

from speechtune.models.speech_llm_search import answer_loss


class Qwen3AsrNetwork(Qwen3ASRForConditionalGeneration):
    """The native class; weights, names and outputs are its own.

    With ``labels`` the loss is the summed cross-entropy over those that count, divided by ``num_items_in_batch`` when
    it is given and by their number when it is not. Here ``labels`` stand at the position that predicts them (not one
    to the right), and logits are computed at those positions only: 152,000 of them for each of the audio's positions
    would be most of the memory.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.label_smoothing = 0.0

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        input_features: torch.Tensor | None = None,
        input_features_mask: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the parent (whose names these are); features are cast to the dtype of the weights."""
        if input_features is not None:
            input_features = self.as_weights(input_features)
        inputs = {
            "input_ids": input_ids,
            "input_features": input_features,
            "input_features_mask": input_features_mask,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
        }
        if labels is None:
            return super().forward(
                **inputs, past_key_values=past_key_values, use_cache=use_cache, logits_to_keep=logits_to_keep, **kwargs
            )
        kwargs.pop("return_dict", None)
        hidden = self.model(**inputs, use_cache=False, **kwargs).last_hidden_state
        smoothing = self.label_smoothing if self.training else 0.0
        return Qwen3ASRCausalLMOutputWithPast(
            loss=answer_loss(hidden, labels, self.lm_head, smoothing, num_items_in_batch)
        )

    def as_weights(self, features: torch.Tensor) -> torch.Tensor:
        """Features in the dtype of the first convolution: a bfloat16 model refuses float32 ones."""
        return features.to(self.model.audio_tower.conv2d1.weight.dtype)

    def embed(self, input_ids: torch.Tensor, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """The language model's input for prompts with audio, (batch, positions, width); the audio is encoded once."""
        embeddings = self.get_input_embeddings()(input_ids)
        audio = self.model.get_audio_features(self.as_weights(features), mask, return_dict=True).pooler_output
        places = self.model.get_placeholder_mask(input_ids, inputs_embeds=embeddings, audio_features=audio)
        return embeddings.masked_scatter(places, audio.to(embeddings.dtype))


def add_dropout(model: Any, share: float) -> None:
    """Dropout on what every attention and feed-forward block of both stacks adds; the architecture itself has none.

    It survives adapters, which are put on later; an adapter's part of the audio tower's last linear layer escapes it.
    """

    def drop(module: Any, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (module.residual_dropout(output[0]), *output[1:])
        return module.residual_dropout(output)

    branches = [branch for layer in model.model.audio_tower.layers for branch in (layer.self_attn, layer.fc2)]
    branches += [branch for layer in model.model.language_model.layers for branch in (layer.self_attn, layer.mlp)]
    for branch in branches:
        if not hasattr(branch, "residual_dropout"):
            branch.residual_dropout = torch.nn.Dropout(0.0)
            branch.register_forward_hook(drop)
        branch.residual_dropout.p = share
