"""The ``training.averages`` part of a recipe."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field


class AveragesConfig(BaseModel):
    """Averages of a run's weights that compete with its best single checkpoint; the lowest dev WER becomes the model.

    ``training.average_last`` adds the average of the latest checkpoints to the same comparison.
    """

    model_config = ConfigDict(extra="forbid")

    best: int = Field(
        1,
        ge=1,
        description="The weights of this many checkpoints with the lowest dev WER are averaged; 1: no such average.",
    )
    weigh_by: Literal["none", "wer", "loss"] = Field(
        "none",
        description="wer or loss: the best checkpoints are also averaged with weights proportional to one over their "
        "dev WER or dev loss (loss needs training.monitor.dev_loss).",
    )
    ema_decay: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="An exponential moving average of the weights is kept, with this decay a step (Polyak & Juditsky "
        "1992; 0.999 in the phonetic track of the children's challenge); none: no average.",
    )
    ema_warmup: bool = Field(
        True,
        description="The decay of update n is at most (1 + n) / (10 + n), so that the start is forgotten in short "
        "runs (as TensorFlow's ExponentialMovingAverage with num_updates).",
    )
    swa_from: float | None = Field(
        None,
        ge=0,
        lt=1,
        description="The weights after every step from this share of the run on are averaged uniformly (stochastic "
        "weight averaging, Izmailov et al. 2018, arXiv 1803.05407); none: no average.",
    )
    swa_rate: float | None = Field(
        None,
        gt=0,
        description="From swa_from on the learning rate is this constant (other parameter groups in proportion); none: "
        "the schedule goes on.",
    )
