"""Confidences mended by one or two numbers fitted on a split that is not the one they are judged on."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from speechtune.core.errors import InputError

EDGE = 1e-6
"""Confidences are kept this far from 0 and 1, so that one sure mistake costs 13.8 nats and not everything."""

_STEPS = 100


@dataclass(frozen=True, slots=True)
class Scaling:
    """``sigmoid(logit(confidence) / temperature + shift)``: a temperature above 1 makes sure confidences less sure.

    ``pairs`` is how many confidences it was fitted on.
    """

    temperature: float
    shift: float
    pairs: int

    def apply(self, confidence: np.ndarray) -> np.ndarray:
        """The mended confidences, same shape; their order stays."""
        return 1 / (1 + np.exp(-(_logit(confidence) / self.temperature + self.shift)))

    def to_json(self) -> dict[str, Any]:
        """The fields, JSON-ready."""
        return {"temperature": self.temperature, "shift": self.shift, "pairs": self.pairs}

    def to_text(self) -> str:
        """Both numbers for a person."""
        shift = f" and shift {self.shift:.2f}" if self.shift else ""
        return f"temperature {self.temperature:.2f}{shift} fitted on {self.pairs} confidences"


def fit_scaling(
    confidence: np.ndarray, correct: np.ndarray, method: Literal["temperature", "platt"] = "platt"
) -> Scaling:
    """The scaling with the least NLL.

    ``temperature`` (Guo et al. 2017, arXiv 1706.04599) fits the temperature alone. A confidence that is too high
    everywhere, as the mean token probability is for a whole utterance, cannot be mended by that; ``platt`` (Platt 1999)
    fits the shift too, with his targets of (hits + 1) / (hits + 2) and 1 / (misses + 2), which keep it finite where
    everything is right. Newton's method; the NLL is convex.

    Args:
        confidence: between 0 and 1, shape [pairs].
        correct: whether each was right, same shape.
        method: what is fitted.

    Raises:
        InputError: there is nothing to fit on.
    """
    if not len(confidence):
        raise InputError("there are no confidences to fit a scaling on: name a split whose transcripts have them")
    hits = int(np.sum(correct))
    high, low = (hits + 1) / (hits + 2), 1 / (len(confidence) - hits + 2)
    target = np.where(correct, high, low)
    logits = _logit(np.asarray(confidence, dtype=np.float64))
    features = logits[:, None] if method == "temperature" else np.stack([logits, np.ones_like(logits)], axis=1)
    weights = np.zeros(features.shape[1])
    weights[0] = 1.0
    loss = _loss(features @ weights, target)
    for _ in range(_STEPS):
        chance = 1 / (1 + np.exp(-(features @ weights)))
        gradient = features.T @ (chance - target)
        curvature = (features * (chance * (1 - chance))[:, None]).T @ features + 1e-9 * np.eye(len(weights))
        step = np.linalg.solve(curvature, gradient)
        size = 1.0
        while size > 1e-8 and _loss(features @ (weights - size * step), target) > loss:
            size /= 2
        weights = weights - size * step
        before, loss = loss, _loss(features @ weights, target)
        if before - loss < 1e-12 * max(1.0, abs(before)):
            break
    # A slope of zero or less would turn the order round: the confidences say nothing, so all become the hit rate.
    slope = max(float(weights[0]), 1e-3)
    return Scaling(1 / slope, float(weights[1]) if len(weights) > 1 else 0.0, len(confidence))


def _loss(activation: np.ndarray, target: np.ndarray) -> float:
    return float((np.logaddexp(0, activation) - target * activation).sum())


def _logit(confidence: np.ndarray) -> np.ndarray:
    clipped = np.clip(confidence, EDGE, 1 - EDGE)
    return np.log(clipped) - np.log1p(-clipped)
