"""The ``training.objectives`` part of a recipe: what is minimised beside, or instead of, the labels' cross-entropy."""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from speechtune.models.config import Context
from speechtune.models.ctc_config import UnitKind
from speechtune.training.objectives.grpo_config import GrpoConfig

Part = Literal["encoder", "decoder"]


class Weighted(BaseModel):
    """A term with a weight that may change over the run; 0 from beginning to end switches it off."""

    model_config = ConfigDict(extra="forbid")

    weight: float = Field(0.0, ge=0, allow_inf_nan=False, description="Weight of the term at the start; 0: off.")
    anneal: Literal["constant", "linear", "cosine"] = Field(
        "constant",
        description="How the weight goes to end_weight over the run's optimiser steps: w + (e - w) t, or "
        "e + (w - e) (1 + cos(pi t)) / 2 with t from 0 to 1; constant: it stays.",
    )
    end_weight: float = Field(
        0.0, ge=0, allow_inf_nan=False, description="With linear and cosine: the weight at the end."
    )

    def weight_at(self, progress: float) -> float:
        """The weight after a share ``progress`` (0 to 1) of the run."""
        if self.anneal == "linear":
            return self.weight + (self.end_weight - self.weight) * progress
        if self.anneal == "cosine":
            return self.end_weight + (self.weight - self.end_weight) * (1 + math.cos(math.pi * progress)) / 2
        return self.weight

    @property
    def enabled(self) -> bool:
        """Whether the term has any weight at any time."""
        return self.weight > 0 or (self.anneal != "constant" and self.end_weight > 0)


class KlConfig(Weighted):
    """KL divergence between the model and its own frozen start, at the label positions."""

    direction: Literal["forward", "reverse"] = Field(
        "forward",
        description="forward: KL(start || model), the model must cover what the start held likely; reverse: "
        "KL(model || start), it must not make likely what the start did not.",
    )
    temperature: float = Field(
        1.0, gt=0, description="Both logits are divided by it, the term multiplied by its square (Hinton et al. 2015)."
    )


class L2SpConfig(Weighted):
    """Squared distance to the starting weights: weight / 2 x sum (w - w0)^2 (L2-SP, Li et al. 2018, arXiv 1802.01483).

    The paper tries 0.001 to 1, and finds 0.1 or 0.01 best on most sets. Not to be confused with weight_decay, which
    pulls towards zero.
    """

    parts: list[Part] = Field(default_factory=list, description="Only these parts; none: all that is trained.")


class EwcConfig(Weighted):
    """Squared distance to the starting weights, each weighted by its Fisher information on a proxy corpus.

    weight / 2 x sum F (w - w0)^2: elastic weight consolidation, Kirkpatrick et al. 2017, arXiv 1612.00796.
    """

    corpus: str | None = Field(
        None, description="Directory of the proxy corpus: speech like that which must not be forgotten."
    )
    split: str | None = Field(None, description="Split of it; none: every utterance.")
    utterances: int = Field(200, ge=1, description="How many of its utterances are used (a seeded draw).")
    labels: Literal["sampled", "given"] = Field(
        "sampled",
        description="sampled: labels drawn from the model's own distribution behind each true prefix, which gives the "
        "Fisher information; given: the transcripts, which gives the empirical Fisher.",
    )
    context: Context = Field(
        "full", description="Audio context the proxy clips are shown at; full suits a stock model."
    )


class AcftConfig(Weighted):
    """Hidden states at the fitted audio context match those of the frozen start at the full one.

    The method of FUTO's whisper-acft; its README reports tiny.en on LibriSpeech at 226 % WER in a fitted context
    before and 5.5 % after (4.7 % at the full context).
    """

    parts: list[Part] = Field(
        ["decoder"], min_length=1, description="Whose hidden states; FUTO matches those of the decoder."
    )


class DistilConfig(BaseModel):
    """A teacher's distribution and hidden states beside the labels."""

    model_config = ConfigDict(extra="forbid")

    teacher: str | None = Field(None, description="A catalogue name, hf:owner/name, a run or a model directory.")
    kl: KlConfig = Field(
        default_factory=KlConfig,
        description="KL between teacher and student at the label positions; Distil-Whisper: weight 0.8 beside a label "
        "weight of 1 (Gandhi et al. 2023, arXiv 2311.00430).",
    )
    hidden: Weighted = Field(
        default_factory=Weighted, description="Mean squared difference of hidden states; needs layers of equal width."
    )
    hidden_parts: list[Part] = Field(["encoder", "decoder"], min_length=1, description="Whose hidden states.")
    context: Context = Field(
        "full", description="Audio context of the teacher; full unless it was trained for fitted ones."
    )

    @property
    def enabled(self) -> bool:
        """Whether a term of it has any weight."""
        return self.kl.enabled or self.hidden.enabled

    @model_validator(mode="after")
    def _has_teacher(self) -> DistilConfig:
        if self.enabled and not self.teacher:
            raise ValueError("distil has a weight and no teacher: set distil.teacher")
        return self


class ConsistencyConfig(Weighted):
    """Two passes over the batch with draws of their own (dropout, masks) must agree: symmetric KL.

    R-Drop (Liang et al. 2021, arXiv 2106.14448, weight 1 to 5); CR-CTC (Yao et al. 2024, arXiv 2410.05101, weight 0.2)
    does it with differently masked views. The label loss is the mean over both.
    """

    detach: bool = Field(
        False,
        description="Each view is drawn to the other as it stands, without a gradient to it (CR-CTC); false: a "
        "gradient to both sides (R-Drop).",
    )
    waveforms: bool = Field(
        False,
        description="The views are also two waveforms of every clip, each changed by training.augment with draws of "
        "its own (two waveforms x two masks: the challenge's second phonetic place).",
    )


class InterCtcConfig(Weighted):
    """The CTC loss of intermediate layers through the same output layer (Lee & Watanabe 2021, arXiv 2102.03216).

    The paper weighs the last layer 0.7 (``label_weight``) and the one in the middle 0.3.
    """

    layers: list[float] = Field(
        [0.5], min_length=1, description="Depths as shares of the encoder's blocks: 0.5 is behind the first half."
    )

    @field_validator("layers")
    @classmethod
    def _inside(cls, layers: list[float]) -> list[float]:
        if any(not 0 < depth < 1 for depth in layers):
            raise ValueError("layers are shares of the encoder's depth, above 0 and below 1")
        return layers


class SecondCtcConfig(Weighted):
    """The CTC loss of the same texts in a second vocabulary, through an output layer that only the training has.

    The challenge's first phonetic place put one of word pieces, weight 0.3, beside its main head.
    """

    units: UnitKind = Field("bpe", description="Of the second vocabulary, made from the training transcripts.")
    column: str | None = Field(
        None,
        description="Column whose texts it learns instead, such as words beside phones; none: the transcripts. "
        "Utterances without a text there do not count in the term.",
    )
    bpe_size: int = Field(256, ge=16, description="Byte-pair pieces of the second vocabulary.")
    depth: float = Field(1.0, gt=0, le=1, description="Behind which share of the encoder's blocks it listens.")


class LayerDropConfig(BaseModel):
    """Share of the training passes in which a part's last block is skipped; earlier ones linearly less often."""

    model_config = ConfigDict(extra="forbid")

    encoder: float = Field(0.0, ge=0, lt=1, description="For the encoder's last block.")
    decoder: float = Field(0.0, ge=0, lt=1, description="For the decoder's last block.")


class EncoderMasksConfig(BaseModel):
    """SpecAugment inside the encoder, behind the front end; encoder frames are 20 ms in Whisper."""

    model_config = ConfigDict(extra="forbid")

    time_masks: int = Field(0, ge=0, description="Time masks of each clip.")
    time_width: int = Field(10, ge=1, description="Greatest width of a time mask in encoder frames.")
    channel_masks: int = Field(0, ge=0, description="Channel masks of each clip.")
    channel_width: int = Field(32, ge=1, description="Greatest width of a channel mask in channels.")

    @property
    def enabled(self) -> bool:
        """Whether there is a mask at all."""
        return self.time_masks > 0 or self.channel_masks > 0

    def as_counts(self) -> dict[str, int]:
        """The keywords of `speechtune.audio.augment.draw_masks_by_count`."""
        return {
            "time_masks": self.time_masks,
            "time_width": self.time_width,
            "bin_masks": self.channel_masks,
            "bin_width": self.channel_width,
        }


class ObjectivesConfig(BaseModel):
    """What is minimised: label_weight x cross-entropy + the terms below. Each term has its column in metrics.jsonl."""

    model_config = ConfigDict(extra="forbid")

    label_weight: float = Field(1.0, ge=0, description="Weight of the labels' loss; 0: the terms alone.")
    kl: KlConfig = Field(default_factory=KlConfig)
    l2sp: L2SpConfig = Field(default_factory=L2SpConfig)
    ewc: EwcConfig = Field(default_factory=EwcConfig)
    acft: AcftConfig = Field(default_factory=AcftConfig)
    distil: DistilConfig = Field(default_factory=DistilConfig)
    consistency: ConsistencyConfig = Field(default_factory=ConsistencyConfig)
    inter_ctc: InterCtcConfig = Field(default_factory=InterCtcConfig)
    second_ctc: SecondCtcConfig = Field(default_factory=SecondCtcConfig)
    grpo: GrpoConfig = Field(default_factory=GrpoConfig)
    layer_drop: LayerDropConfig = Field(default_factory=LayerDropConfig)
    encoder_masks: EncoderMasksConfig = Field(default_factory=EncoderMasksConfig)

    @model_validator(mode="after")
    def _agrees(self) -> ObjectivesConfig:
        if self.ewc.enabled and not self.ewc.corpus:
            raise ValueError("ewc has a weight and no corpus to estimate the Fisher information on: set ewc.corpus")
        on_labels = (self.kl, self.acft, self.distil, self.consistency, self.inter_ctc, self.second_ctc, self.grpo)
        terms = (*on_labels, self.l2sp, self.ewc)
        frozen = self.kl.enabled or self.acft.enabled or self.distil.enabled
        if self.consistency.enabled and self.consistency.waveforms and (frozen or self.grpo.enabled):
            raise ValueError("consistency.waveforms cannot stand beside kl, acft, distil or grpo, which see one view")
        if self.label_weight == 0 and not any(term.enabled for term in terms):
            raise ValueError("label_weight is 0 and no other term has a weight: nothing would be learnt")
        return self
