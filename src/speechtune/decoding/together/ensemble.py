"""Several Whisper models that decode as one: at every step their next-token probabilities are averaged.

The members share a tokenizer. Everything behind `WhisperFamily` works on the ensemble as on one model: greedy and beam
search, N-best lists, prompts, guides, teacher-forced scores. It is built of what those already pass around: encodings
of all members stand side by side in one tensor, and each member's key-value cache hangs on the first member's.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import torch
from transformers import EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput

from speechtune.core.errors import InputError
from speechtune.models.trainable import Part
from speechtune.models.whisper import FitContextWhisper, WhisperFamily

Average = Literal["probabilities", "log-probabilities"]


class EnsembleModel(FitContextWhisper):
    """The first member, whose forward asks the others too. Made by `Ensemble`; it only decodes."""

    members: tuple[FitContextWhisper, ...]
    log_weights: torch.Tensor
    widths: list[int]
    average: Average

    def forward(  # type: ignore[override]
        self,
        *,
        encoder_outputs: Any = None,
        decoder_input_ids: torch.Tensor | None = None,
        past_key_values: Any = None,
        use_cache: bool | None = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """Averaged next-token log-probabilities as ``logits``.

        ``encoder_outputs``: (batch, positions, sum of the members' widths), from the ensemble's encoder.
        """
        states = encoder_outputs[0].split(self.widths, dim=-1)
        caches = _caches_of(past_key_values, len(self.members)) if use_cache else [None] * len(self.members)
        found = []
        for number, (member, hidden, cache) in enumerate(zip(self.members, states, caches, strict=True)):
            arguments = {
                "encoder_outputs": BaseModelOutput(last_hidden_state=hidden),
                "decoder_input_ids": decoder_input_ids,
                "past_key_values": cache,
                "use_cache": bool(use_cache),
                **kwargs,
            }
            run = super().forward if number == 0 else member.forward
            found.append(run(**arguments).logits.float().log_softmax(-1))
        weights = self.log_weights.to(found[0].device)[:, None, None, None]
        stacked = torch.stack(found)
        if self.average == "probabilities":
            logits = (stacked + weights).logsumexp(0)
        else:
            logits = (stacked * weights.exp()).sum(0)
        return Seq2SeqLMOutput(logits=logits, past_key_values=past_key_values)


class _JointCache(EncoderDecoderCache):
    """The first member's cache with the others' beside it; beams are reordered in all of them."""

    others: list[EncoderDecoderCache]

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Put the rows of every member's cache into the order of the beams that go on."""
        super().reorder_cache(beam_idx)
        for other in self.others:
            other.reorder_cache(beam_idx)


def _caches_of(cache: Any, members: int) -> list[Any]:
    from transformers import DynamicCache

    if not isinstance(cache, _JointCache):
        if not isinstance(cache, EncoderDecoderCache):
            raise InputError(f"an ensemble cannot decode with a cache of type {type(cache).__name__}")
        cache.__class__ = _JointCache
        cache.others = [EncoderDecoderCache(DynamicCache(), DynamicCache()) for _ in range(members - 1)]
    return [cache, *cache.others]


class _JointEncoder(torch.nn.Module):
    """Every member's encoding of its own features, side by side in the last dimension."""

    def __init__(self, encoders: Sequence[torch.nn.Module], bins: Sequence[int]) -> None:
        super().__init__()
        self.encoders = torch.nn.ModuleList(encoders)
        self.bins = list(bins)
        self.kinds = sorted(set(bins))

    def forward(self, features: torch.Tensor) -> BaseModelOutput:
        """Encode features (batch, mel bins of every kind, frames) to (batch, positions, sum of widths)."""
        parts = dict(zip(self.kinds, features.split(self.kinds, dim=1), strict=True))
        states = [
            encoder(parts[bins]).last_hidden_state for encoder, bins in zip(self.encoders, self.bins, strict=True)
        ]
        return BaseModelOutput(last_hidden_state=torch.cat(states, dim=-1))


class _JointFrontEnd:
    """Log-mel features of every number of bins that a member wants, one under the other."""

    def __init__(self, families: Sequence[WhisperFamily]) -> None:
        by_bins = {family.mel_bins: family.front_end for family in families}
        self.front_ends = [by_bins[bins] for bins in sorted(by_bins)]

    def __call__(self, waveforms: Sequence[np.ndarray], n_frames: int, **options: Any) -> torch.Tensor:
        return torch.cat([one(waveforms, n_frames, **options) for one in self.front_ends], dim=1)


class Ensemble(WhisperFamily):
    """Whisper models of one tokenizer as one family.

    Probabilities are averaged (a mixture: what any member finds likely stays possible) or log-probabilities (a product:
    what one member rules out is out), with weights that are made to sum to 1. Suppressed tokens, prompt and limits are
    the first member's. Time and memory are the sum of the members'.

    Raises:
        InputError: fewer than two members, another family, tokenizers, prompts or windows that differ, or weights that
            do not fit.
    """

    def __init__(
        self,
        families: Sequence[Any],
        weights: Sequence[float] | None = None,
        average: Average = "probabilities",
    ) -> None:
        _check(families, weights)
        first = families[0]
        super().__init__(first.model, first.tokenizer, first.language)
        self.language = first.language
        shares = torch.tensor(weights or [1.0] * len(families), dtype=torch.float64)
        encoders = [family.part("encoder") for family in families]
        self.families = tuple(families)
        self._encoder = _JointEncoder(encoders, [family.mel_bins for family in families])
        joint: Any = first.model
        joint.__class__ = EnsembleModel
        # Plain attributes: as submodules, the others' weights would be saved and moved with the first member's.
        object.__setattr__(joint, "members", tuple(family.model for family in families))
        object.__setattr__(joint, "log_weights", (shares / shares.sum()).log().float())
        object.__setattr__(joint, "widths", [int(family.config.d_model) for family in families])
        object.__setattr__(joint, "average", average)
        for family in families:
            family.model.eval()
        self.front_end: Any = _JointFrontEnd(families)

    def part(self, name: str) -> torch.nn.Module:
        """``encoder``: all members' side by side; ``decoder``: the first member's."""
        return self._encoder if name == "encoder" else super().part(name)

    def parts(self) -> list[Part]:
        """Those of the first member."""
        return self.families[0].parts()


def _check(families: Sequence[Any], weights: Sequence[float] | None) -> None:
    if len(families) < 2:
        raise InputError("an ensemble needs two models or more: name them as A+B")
    others = [family.name for family in families if not isinstance(family, WhisperFamily)]
    if others:
        raise InputError(f"an ensemble is of Whisper models and one here is of family {others[0]}: combine transcripts")
    first = families[0]
    vocabulary = first.tokenizer.get_vocab()
    for number, family in enumerate(families[1:], start=2):
        same = family.tokenizer.get_vocab() == vocabulary and family.config.vocab_size == first.config.vocab_size
        if not same or family.prompt != first.prompt or family.eot != first.eot:
            raise InputError(
                f"model {number} of the ensemble has another tokenizer or language than model 1: combine their "
                "transcripts with speechtune combine instead"
            )
        if family.window_frames != first.window_frames:
            raise InputError(f"model {number} of the ensemble has another audio window than model 1: leave it out")
    if weights is not None and (len(weights) != len(families) or any(one <= 0 for one in weights)):
        raise InputError("an ensemble needs one weight above 0 for each model, as in A:0.6+B:0.4")
