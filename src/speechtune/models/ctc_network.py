"""The networks of Transformers' CTC models, made exact under padding, with a loss that is right under accumulation.

Four things that Transformers 5.23 leaves to the user are repaired by changing the class of a loaded module (weights and
their names stay):

- wav2vec 2.0 base, HuBERT base and WavLM base normalise the first convolution over time (``feat_extract_norm:
  group``), padding included, so a clip's logits depend on the batch it is in. `ClipGroupNorm` takes the statistics of
  each clip alone, and the attention mask is always given: every clip gets the logits it has by itself.
- The batch normalisation of Conformer encoders (Parakeet) would learn from padding and from batch composition.
  `FixedBatchNorm` keeps the statistics of the checkpoint.
- WavLM's attention ignores adapters on its projections; see `_attend`.
- The loss is summed over the clips and divided by what the trainer gives (label tokens of the optimiser step).
  Transformers divides by the batch (``mean``) or not at all (``sum``) and ignores ``num_items_in_batch``.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch.nn import functional
from transformers.modeling_outputs import CausalLMOutput

IGNORED = -100
"""The label value of padding."""


def frames_needed(labels: list[int]) -> int:
    """Frames the shortest CTC path needs: one a token, and a blank between equal neighbours."""
    return len(labels) + sum(one == other for one, other in pairwise(labels))


def summed_ctc_loss(
    logits: torch.Tensor, frames: torch.Tensor, labels: torch.Tensor, blank: int, focal_gamma: float = 0.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The CTC losses of a batch, summed, in float32 also under autocast.

    Args:
        logits: shape (batch, frames, vocabulary).
        frames: how many frames of each row count, shape (batch,).
        labels: token ids, shape (batch, tokens), padded with -100.
        blank: the blank's id.
        focal_gamma: every clip's loss L is multiplied by (1 - exp(-L)) to this power, which takes weight from clips
            that the model writes right already (focal CTC: Feng et al. 2019, doi 10.1155/2019/9345861).

    Returns:
        The sum over the rows that can be aligned, and which cannot (bool, shape (batch,)): they have more tokens than
        frames, an infinite loss, and would turn every gradient into NaN.
    """
    counted = labels != IGNORED
    lengths = counted.sum(1)
    repeats = (counted[:, 1:] & (labels[:, 1:] == labels[:, :-1])).sum(1)
    impossible = frames < lengths + repeats
    keep = (~impossible).nonzero()[:, 0]
    if not len(keep):
        return logits.float().sum() * 0.0, impossible
    with torch.autocast(logits.device.type, enabled=False):
        log_probs = logits[keep].float().log_softmax(-1).transpose(0, 1)
        losses = functional.ctc_loss(
            log_probs,
            labels[keep].masked_fill(~counted[keep], blank),
            frames[keep].to(torch.long),
            lengths[keep],
            blank=blank,
            reduction="none",
            zero_infinity=False,
        )
        if focal_gamma > 0:  # the floor: the power has no finite gradient where its base is 0
            losses = losses * (-torch.expm1(-losses)).clamp(min=1e-6) ** focal_gamma
    return losses.sum(), impossible


class ClipGroupNorm(torch.nn.GroupNorm):
    """Group normalisation over the frames of each clip, without its padding.

    ``frames`` (batch,) is set before every forward; ``None``, or no padding: the plain normalisation.
    """

    frames: torch.Tensor | None = None

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        """Normalise (batch, channels, frames); what is behind a clip's end is set to zero."""
        frames = self.frames
        if frames is None or bool((frames == hidden.shape[-1]).all()):
            return super().forward(hidden)
        with torch.autocast(hidden.device.type, enabled=False):
            batch, channels, length = hidden.shape
            inside = torch.arange(length, device=hidden.device) < frames[:, None]
            grouped = hidden.float().reshape(batch, self.num_groups, -1, length)
            mask = inside[:, None, None].to(grouped.dtype)
            count = frames[:, None, None, None] * grouped.shape[2]
            mean = (grouped * mask).sum((2, 3), keepdim=True) / count
            variance = ((grouped - mean).square() * mask).sum((2, 3), keepdim=True) / count
            normed = ((grouped - mean) * (variance + self.eps).rsqrt() * mask).reshape(batch, channels, length)
            return (normed * self.weight[:, None] + self.bias[:, None]) * inside[:, None]


class FixedBatchNorm(torch.nn.BatchNorm1d):
    """Batch normalisation that keeps the checkpoint's statistics, in training too."""

    def train(self, mode: bool = True) -> FixedBatchNorm:
        """Stay in evaluation mode; weight and bias are trained all the same."""
        return super().train(False)


def _attend(self: Any, hidden: torch.Tensor, mask: torch.Tensor | None, bias: torch.Tensor) -> tuple[Any, None]:
    """WavLM's attention through its projection layers.

    Transformers computes it from their weights alone, so that an adapter on them would never be used.
    ``hidden``: (batch, frames, width); ``bias``: (batch x heads, frames, frames).
    """
    batch, frames, _ = hidden.shape

    def split(projection: torch.nn.Module) -> torch.Tensor:
        return projection(hidden).view(batch, frames, self.num_heads, -1).transpose(1, 2)

    bias = bias.view(batch, self.num_heads, frames, frames)
    if mask is not None:
        bias = bias.masked_fill(mask.ne(1)[:, None, None], torch.finfo(bias.dtype).min)
    query = split(self.q_proj)
    attended = functional.scaled_dot_product_attention(
        query,
        split(self.k_proj),
        split(self.v_proj),
        attn_mask=bias.to(query.dtype),
        dropout_p=self.dropout if self.training else 0.0,
    )
    return self.out_proj(attended.transpose(1, 2).reshape(batch, frames, -1)), None


class CtcNetwork:
    """Mixed into a loaded Transformers CTC model by `as_ctc_network`."""

    clip_norms: list[ClipGroupNorm]
    on_impossible: Callable[[int], None] | None
    focal_gamma: float
    divided: bool
    """Whether the summed loss is divided by the label tokens."""

    def frames_of(self, inputs: torch.Tensor) -> torch.Tensor:
        """Logit frames of clips that have so many valid input steps (samples or feature frames)."""
        model: Any = self
        name = "_get_feat_extract_output_lengths"
        if not hasattr(model, name):
            name = "_get_subsampling_output_length"
        return getattr(model, name)(inputs).to(torch.long)

    def forward(
        self,
        *args: Any,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> CausalLMOutput:
        """As the parent; with ``labels`` (batch, tokens; -100 is padding) the loss is the summed CTC loss.

        It is divided by ``num_items_in_batch``, or by the batch's own label tokens where that is not given; not at all
        in training if it is to stay a sum. The focal factor, too, is for training only.
        """
        model: Any = self
        mask = kwargs.get("attention_mask")
        valid = None if mask is None else mask.sum(-1)
        for norm in self.clip_norms:
            norm.frames = None if valid is None else (valid - model.first_kernel) // model.first_stride + 1
        with _short_enough(model, valid):
            if model.training and mask is not None and "input_features" in kwargs:
                kwargs["input_features"] = _mask_features(model, kwargs["input_features"], mask)
            output = super().forward(*args, **kwargs)  # type: ignore[misc]
        if labels is None:
            return output
        if valid is None:
            raise ValueError("the loss needs an attention_mask: without it padding would count as speech")
        gamma = self.focal_gamma if model.training else 0.0
        blank = model.config.pad_token_id
        total, impossible = summed_ctc_loss(output.logits, self.frames_of(valid), labels, blank, gamma)
        if self.on_impossible is not None and bool(impossible.any()):
            self.on_impossible(int(impossible.sum()))
        if model.training and not self.divided:
            return CausalLMOutput(loss=total, logits=output.logits)
        divisor = (labels != IGNORED).sum() if num_items_in_batch is None else num_items_in_batch
        divisor = divisor.clamp(min=1) if isinstance(divisor, torch.Tensor) else max(divisor, 1)
        return CausalLMOutput(loss=total / divisor, logits=output.logits)


def as_ctc_network(model: Any) -> Any:
    """Give a loaded Transformers CTC model the exactness of this module; its state dict stays the same."""
    name = type(model).__name__
    # Transformers writes the class name into config.json: the parent's name keeps the saved model plain.
    model.__class__ = type(name, (CtcNetwork, type(model)), {"__module__": type(model).__module__})
    model.on_impossible = None
    model.focal_gamma, model.divided = 0.0, True
    model.clip_norms = []
    for module in model.modules():
        if isinstance(module, torch.nn.GroupNorm) and not isinstance(module, ClipGroupNorm):
            module.__class__ = ClipGroupNorm
            model.clip_norms.append(module)
        elif isinstance(module, torch.nn.BatchNorm1d):
            module.__class__ = FixedBatchNorm
            module.eval()
        elif type(module).__name__ == "WavLMAttention":
            kind = type(module)
            module.__class__ = type(kind.__name__, (kind,), {"torch_multi_head_self_attention": _attend})
    kernels = getattr(model.config, "conv_kernel", None)
    model.first_kernel, model.first_stride = (kernels[0], model.config.conv_stride[0]) if kernels else (1, 1)
    return model


@contextmanager
def _short_enough(model: Any, valid: torch.Tensor | None) -> Any:
    """No SpecAugment for a batch that is shorter than one of its masks: Transformers raises there."""
    config = model.config
    masked = model.training and getattr(config, "apply_spec_augment", False) and valid is not None
    if not masked or int(model.frames_of(valid.max()[None])) > int(config.mask_time_length):  # type: ignore[union-attr]
        yield
        return
    config.apply_spec_augment = False
    try:
        yield
    finally:
        config.apply_spec_augment = True


def _mask_features(model: Any, features: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """SpecAugment by share on log-mel features, for networks without one of their own (Parakeet).

    The masked values become 0, the mean of normalised features. ``features``: (batch, frames, bins).
    """
    config = model.config
    own = hasattr(model, "_get_feat_extract_output_lengths")
    if own or not getattr(config, "apply_spec_augment", False):
        return features
    from transformers.models.wav2vec2.modeling_wav2vec2 import _compute_mask_indices

    batch, frames, bins = features.shape
    hidden = torch.zeros_like(features, dtype=torch.bool)
    if config.mask_time_prob > 0 and frames > config.mask_time_length:
        drawn = _compute_mask_indices(
            (batch, frames), config.mask_time_prob, config.mask_time_length, attention_mask=mask.long()
        )
        hidden |= torch.as_tensor(drawn, dtype=torch.bool, device=features.device)[:, :, None]
    if config.mask_feature_prob > 0 and bins > config.mask_feature_length:
        drawn = _compute_mask_indices((batch, bins), config.mask_feature_prob, config.mask_feature_length)
        hidden |= torch.as_tensor(drawn, dtype=torch.bool, device=features.device)[:, None]
    return features.masked_fill(hidden, 0.0)
