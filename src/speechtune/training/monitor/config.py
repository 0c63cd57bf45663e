"""The ``training.monitor`` part of a recipe."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, Field


class MonitorConfig(BaseModel):
    """What is watched during training; findings stand in ``monitor.jsonl`` and are said once each."""

    model_config = ConfigDict(extra="forbid")

    enabled: bool = Field(True, description="Watch losses, gradients, weights, memory and dev transcripts.")
    auto: bool = Field(
        False,
        description="Act on findings: not-a-number and divergence roll back to the last good checkpoint and multiply "
        "the rate by rate_factor; over-fitting stops the training.",
    )
    rate_factor: float = Field(
        0.5, gt=0, lt=1, description="auto: the learning rate is multiplied by this at a rollback."
    )
    max_rollbacks: int = Field(3, ge=1, description="auto: after this many rollbacks the training stops instead.")
    dev_loss: bool = Field(
        True,
        description="Measure the loss on the dev split at every evaluation, one forward pass (loss in metrics.jsonl).",
    )
    drift: bool = Field(
        True,
        description="Measure how far each group of layers has moved from the start; keeps a copy of the trainable "
        "weights in main memory (not for LoRA, where the adapter itself says it).",
    )
    samples: int = Field(
        5, ge=0, description="Dev utterances whose transcripts go to samples.jsonl at every evaluation."
    )
    patience: int = Field(3, ge=2, description="Evaluations in a row that make an over-fit; a plateau takes one more.")
