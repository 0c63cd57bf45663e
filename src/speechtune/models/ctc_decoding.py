"""Greedy CTC decoding: the best token of every frame, repetitions joined, blanks removed (Graves et al. 2006)."""

from __future__ import annotations

from dataclasses import dataclass

import torch


@dataclass(frozen=True, slots=True)
class GreedyPath:
    """What the best path says.

    ``tokens`` without blanks and repetitions; ``log_probs``: natural-log probability of each, the mean over its frames;
    ``starts``: first frame of each; ``blank_log_prob``: mean over the blank frames (0.0 without one).
    """

    tokens: list[int]
    log_probs: list[float]
    starts: list[int]
    blank_log_prob: float

    @property
    def log_prob(self) -> float:
        """Mean over the tokens; of an empty text, how sure the blanks are."""
        return sum(self.log_probs) / len(self.log_probs) if self.tokens else self.blank_log_prob


def greedy(log_probs: torch.Tensor, frames: torch.Tensor, blank: int) -> list[GreedyPath]:
    """Decode a batch.

    Args:
        log_probs: natural-log probabilities, shape (batch, frames, vocabulary).
        frames: how many frames of each row count, shape (batch,); what is behind them is padding.
        blank: the blank's id.
    """
    values, best = log_probs.max(-1)
    return [
        _collapse(row[:count].tolist(), own[:count].tolist(), blank)
        for row, own, count in zip(best.cpu(), values.float().cpu(), frames.tolist(), strict=True)
    ]


def _collapse(best: list[int], values: list[float], blank: int) -> GreedyPath:
    tokens: list[int] = []
    runs: list[list[float]] = []
    starts: list[int] = []
    silent: list[float] = []
    previous = blank
    for frame, (token, value) in enumerate(zip(best, values, strict=True)):
        if token == blank:
            silent.append(value)
        elif token == previous:
            runs[-1].append(value)
        else:
            tokens.append(token)
            runs.append([value])
            starts.append(frame)
        previous = token
    means = [sum(run) / len(run) for run in runs]
    return GreedyPath(tokens, means, starts, sum(silent) / len(silent) if silent else 0.0)
