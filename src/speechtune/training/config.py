"""The ``training`` part of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from speechtune.audio.augment import AugmentConfig
from speechtune.models.config import Context
from speechtune.training.augment_by import AugmentByConfig
from speechtune.training.averaging_config import AveragesConfig
from speechtune.training.format_config import FormatConfig
from speechtune.training.monitor.config import MonitorConfig
from speechtune.training.objectives.config import ObjectivesConfig
from speechtune.training.optimiser_config import OptimiserConfig, RatesConfig
from speechtune.training.schedules import ScheduleName, ScheduleShape


class AudioContextConfig(BaseModel):
    """How many frames the model sees of each training clip."""

    model_config = ConfigDict(extra="forbid")

    mode: Context = Field(
        "fit", description="fit: as long as the batch's longest clip; full: always the padded window (30 s)."
    )
    jitter_s: float = Field(
        1.0, ge=0, description="At fit: up to this many seconds of silence added behind each clip, drawn uniformly."
    )
    full_share: float = Field(
        0.06,
        ge=0,
        le=1,
        description="At fit: share of the utterances shown at the full window, so that the model stays good there.",
    )


class BatchConfig(BaseModel):
    """What goes into one micro-batch and one optimiser step."""

    model_config = ConfigDict(extra="forbid")

    utterances: int = Field(16, ge=1, description="Upper bound of utterances in a micro-batch.")
    seconds: float = Field(
        480.0, gt=0, description="Upper bound of utterances x audio context in a micro-batch, in seconds."
    )
    accumulate: int = Field(1, ge=1, description="Micro-batches of one optimiser step.")
    effective: int | None = Field(
        None,
        ge=1,
        description="Utterances of one optimiser step over all processes; held whatever utterances, seconds and the "
        "number of processes are, so accumulate is not given. An epoch is shared evenly among its steps.",
    )
    effective_seconds: float | None = Field(
        None, gt=0, description="The same in seconds of audio (without silence behind clips) instead of utterances."
    )

    @property
    def has_target(self) -> bool:
        """Whether the size of an optimiser step is given and the accumulation follows from it."""
        return self.effective is not None or self.effective_seconds is not None

    @model_validator(mode="after")
    def _one_size(self) -> BatchConfig:
        if self.effective is not None and self.effective_seconds is not None:
            raise ValueError("effective and effective_seconds are both given: keep one of them")
        if self.has_target and self.accumulate != 1:
            raise ValueError("accumulate follows from the effective batch: leave one of the two out")
        return self


class SpecAugmentConfig(BaseModel):
    """SpecAugment on the log-mel features (Park et al. 2019, arXiv 1904.08779); 0 switches a part off.

    By share (``time_prob``, ``feature_prob``: Transformers' way) or by count (``time_masks``, ``feature_masks``: the
    paper's).
    """

    model_config = ConfigDict(extra="forbid")

    time_prob: float = Field(0.0, ge=0, lt=1, description="Share of the frames covered by time masks.")
    time_length: int = Field(10, ge=1, description="Length of a time mask in mel frames (10 ms each).")
    feature_prob: float = Field(0.0, ge=0, lt=1, description="Share of the mel bins covered by frequency masks.")
    feature_length: int = Field(10, ge=1, description="Width of a frequency mask in mel bins.")
    time_masks: int = Field(0, ge=0, description="By count: time masks of each clip.")
    time_width: int = Field(80, ge=1, description="By count: greatest width of a time mask in mel frames.")
    feature_masks: int = Field(0, ge=0, description="By count: frequency masks of each clip.")
    feature_width: int = Field(27, ge=1, description="By count: greatest width of a frequency mask in mel bins.")

    @property
    def by_count(self) -> bool:
        """Whether the paper's parameters are given."""
        return self.time_masks > 0 or self.feature_masks > 0

    @model_validator(mode="after")
    def _one_way(self) -> SpecAugmentConfig:
        if self.by_count and (self.time_prob > 0 or self.feature_prob > 0):
            raise ValueError("masks are given by share and by count: keep one of the two ways")
        return self


class SpeedConfig(BaseModel):
    """Speed perturbation (Ko et al. 2015): a share of the utterances is played a little faster or slower."""

    model_config = ConfigDict(extra="forbid")

    share: float = Field(0.0, ge=0, le=1, description="Share of the utterances played at a drawn speed.")
    range: float = Field(
        0.1, gt=0, le=0.3, description="The speed is drawn uniformly within this much of 1 (0.1: from 0.9 to 1.1)."
    )


class TrainingConfig(BaseModel):
    """How the weights are changed."""

    model_config = ConfigDict(extra="forbid")

    epochs: int = Field(3, ge=1, description="Passes over the training split.")
    learning_rate: float = Field(3e-5, gt=0, description="Peak learning rate.")
    max_steps: int | None = Field(
        None, ge=1, description="Optimiser steps of the training, over as many epochs as they take, instead of epochs."
    )
    schedule: ScheduleName = Field(
        "linear",
        description="After the warm-up: linear or cosine decay, constant, inverse_sqrt, tri_stage (hold, then "
        "exponential decay; for CTC) or wsd (constant with a decay at the end).",
    )
    schedule_shape: ScheduleShape = Field(default_factory=ScheduleShape)
    warmup_share: float = Field(0.1, ge=0, lt=1, description="Share of the steps with a rising learning rate.")
    warmup_steps: int | None = Field(None, ge=0, description="The warm-up in steps, instead of warmup_share.")
    weight_decay: float = Field(0.01, ge=0, description="Decoupled weight decay, except of norms and biases.")
    max_grad_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this norm.")
    optimiser: OptimiserConfig = Field(default_factory=OptimiserConfig)
    rates: RatesConfig = Field(default_factory=RatesConfig, description="Learning rates of parts and layers.")
    batch: BatchConfig = Field(default_factory=BatchConfig)
    audio_context: AudioContextConfig = Field(default_factory=AudioContextConfig)
    spec_augment: SpecAugmentConfig = Field(default_factory=SpecAugmentConfig)
    speed: SpeedConfig = Field(default_factory=SpeedConfig)
    augment: AugmentConfig = Field(
        default_factory=AugmentConfig,
        description="Changes of the training waveforms (noise, reverb, codecs, ...); off unless a preset, a mixture or "
        "effects are given.",
    )
    augment_by: AugmentByConfig = Field(
        default_factory=AugmentByConfig, description="Other changes of the waveforms for some sources."
    )
    dropout: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="Dropout on the outputs of the attention and feed-forward blocks and on the embeddings; none: what "
        "the model brings (Whisper: 0). It is used in training only and is not written into the model.",
    )
    attention_dropout: float | None = Field(
        None, ge=0, lt=1, description="Dropout on the attention weights alone, in training only; none: as loaded."
    )
    label_smoothing: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="Share of every label spread evenly over the vocabulary (Szegedy et al. 2016, arXiv 1512.00567).",
    )
    objectives: ObjectivesConfig = Field(
        default_factory=ObjectivesConfig,
        description="Terms beside the labels' loss (KL, L2-SP, EWC, ACFT, distillation, consistency) and noise inside "
        "the model.",
    )
    format: FormatConfig = Field(
        default_factory=FormatConfig,
        description="What an example looks like to the decoder: times, previous text, packs, silence, language.",
    )
    precision: Literal["auto", "fp32", "bf16", "fp16", "bf16_or_fp32"] = Field(
        "auto",
        description="Arithmetic under autocast; the weights stay fp32. auto: bf16 on GPUs that have it, fp16 on "
        "older ones, fp32 on a CPU. bf16_or_fp32: bf16 also on a CPU that computes it in hardware (AVX512-BF16, AMX), "
        "fp32 elsewhere.",
    )
    gradient_checkpointing: bool = Field(False, description="Recompute activations to save memory.")
    compile: bool = Field(
        False, description="Run the model through torch.compile with dynamic shapes (needs a C++ compiler)."
    )
    liger: bool = Field(
        False, description="Liger's fused Triton kernels (needs an NVIDIA GPU and an architecture that Liger covers)."
    )
    sharding: Literal["none", "fsdp"] = Field(
        "none",
        description="With several processes: none, every one holds the whole model (DDP); fsdp, weights, gradients and "
        "optimiser state are divided among them (FSDP2).",
    )
    seed: int = Field(0, description="Seed of every draw of the run.")
    evaluations_per_epoch: int = Field(
        1, ge=1, description="Dev WER is generated, and a checkpoint written, this often."
    )
    checkpoint_every_steps: int | None = Field(
        None, ge=1, description="Extra checkpoints every so many optimiser steps, without an evaluation."
    )
    average_last: int = Field(
        1,
        ge=1,
        description="The weights of this many latest evaluated checkpoints are averaged at the end; the average "
        "becomes the model if its dev WER is no higher than the best single one's.",
    )
    averages: AveragesConfig = Field(
        default_factory=AveragesConfig, description="Averages of weights that compete with the best checkpoint."
    )
    keep_checkpoints: int = Field(1, ge=1, description="Newest checkpoints kept beside the best one.")
    patience: int | None = Field(
        None, ge=1, description="Stop after this many evaluations without a better dev WER; none: never."
    )
    workers: int = Field(0, ge=0, description="Processes that prepare batches beside the training process.")
    trackers: list[Literal["tensorboard", "wandb", "trackio"]] = Field(
        ["tensorboard"],
        description="Where curves are also sent; metrics.jsonl is always kept. wandb and trackio write into the run, "
        "offline, unless WANDB_MODE or TRACKIO_DIR says otherwise.",
    )
    monitor: MonitorConfig = Field(default_factory=MonitorConfig, description="What is watched during training.")
    preflight: bool = Field(True, description="Prove labels, masks, gradients and loss before the first step.")
