"""Transformers' Parakeet transducers with a loss that is right under accumulation and bounded in memory."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers.modeling_outputs import CausalLMOutput

from speechtune.models.ctc_network import FixedBatchNorm

IGNORED = -100
"""The label value of padding."""

_LATTICE = 64_000_000
"""Values of the joint network's output made at once: 256 MiB in float32. Our choice."""


class TransducerNetwork:
    """Mixed into a loaded Transformers transducer by `as_transducer_network`."""

    def forward(
        self,
        *args: Any,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        encoder_outputs: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As the parent; with ``labels`` (batch, tokens; -100 is padding) the clips' losses, summed.

        They are divided by ``num_items_in_batch``, or by the batch's own tokens where that is not given. Without
        labels and ``decoder_input_ids``, the prediction network begins: it is given the blank.
        """
        model: Any = self
        if labels is None:
            features = kwargs.get("input_features")
            if features is not None and kwargs.get("decoder_input_ids") is None:
                kwargs["decoder_input_ids"] = torch.full((len(features), 1), model.config.blank_token_id).to(
                    features.device
                )
            return super().forward(*args, encoder_outputs=encoder_outputs, **kwargs)  # type: ignore[misc]
        kwargs.pop("return_dict", None)
        encoded = model.get_audio_features(*args, **kwargs)
        counted = labels != IGNORED
        blank = int(model.config.blank_token_id)
        given = torch.nn.functional.pad(labels.masked_fill(~counted, blank), (1, 0), value=blank)
        written = model.decoder(given)
        frames, lengths = encoded.attention_mask.sum(-1), counted.sum(-1)
        total = written.float().sum() * 0.0
        chunks = lattice_chunks(frames.tolist(), lengths.tolist(), model.joint.head.out_features)
        for rows in chunks:
            longest, most = int(frames[rows].max()), int(lengths[rows].max())
            inputs = (
                encoded.pooler_output[rows, :longest],
                written[rows, : most + 1],
                given[rows, 1 : most + 1],
                frames[rows],
                lengths[rows],
            )
            if len(chunks) == 1:
                total = total + model.lattice_loss(*inputs)
            else:
                total = total + checkpoint(model.lattice_loss, *inputs, use_reentrant=False)
        divisor = counted.sum() if num_items_in_batch is None else num_items_in_batch
        return CausalLMOutput(loss=total / divisor)

    def lattice_loss(
        self,
        heard: torch.Tensor,
        written: torch.Tensor,
        targets: torch.Tensor,
        frames: torch.Tensor,
        lengths: torch.Tensor,
    ) -> torch.Tensor:
        """Minus the log-probability of the targets over all paths, summed over clips; in float32.

        Args:
            heard: projected encoder frames, (clips, frames, width).
            written: the prediction network's states, (clips, tokens + 1, width).
            targets: token ids, (clips, tokens), any value behind a clip's own.
            frames: how many frames of each clip count.
            lengths: how many tokens of each clip count.
        """
        from transformers.loss.loss_tdt import tdt_loss

        model: Any = self
        logits = model.joint(decoder_hidden_states=written[:, None], encoder_hidden_states=heard[:, :, None])
        size = int(model.config.vocab_size)
        with torch.autocast(logits.device.type, enabled=False):
            return tdt_loss(
                logits[..., :size].float(),
                logits[..., size:].float(),
                targets,
                frames,
                lengths,
                blank_token_id=int(model.config.blank_token_id),
                durations=list(model.config.durations),
                reduction="sum",
            )


def lattice_chunks(frames: Sequence[int], lengths: Sequence[int], width: int) -> list[list[int]]:
    """Rows that are computed together: neighbours whose joint output stays below `_LATTICE`, one row at least."""
    chunks: list[list[int]] = []
    for row in range(len(frames)):
        rows = [*chunks[-1], row] if chunks else [row]
        size = len(rows) * max(frames[one] for one in rows) * (max(lengths[one] for one in rows) + 1) * width
        if chunks and size <= _LATTICE:
            chunks[-1].append(row)
        else:
            chunks.append([row])
    return chunks


def as_transducer_network(model: Any) -> Any:
    """Give a loaded model the loss of `TransducerNetwork`; its state dict and its name stay the same."""
    name = type(model).__name__
    model.__class__ = type(name, (TransducerNetwork, type(model)), {"__module__": type(model).__module__})
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            module.__class__ = FixedBatchNorm
            module.eval()
    return model
