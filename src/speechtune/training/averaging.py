"""One model from several checkpoints of a run: the mean of their weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch


def evaluated_steps(log_history: Sequence[dict[str, float]], last: int) -> list[int]:
    """The steps of the ``last`` latest evaluations, in order."""
    steps = [int(row["step"]) for row in log_history if "eval_wer" in row]
    return steps[-last:]


def average_weights(
    model: torch.nn.Module, steps: Sequence[int], load: Callable[[int], None]
) -> dict[str, torch.Tensor]:
    """The mean of the trainable weights over checkpoints; what is frozen is the same in all of them.

    Uniform averaging of one run's late weights, as in "Attention is all you need" (Vaswani et al. 2017, section 6.1)
    and in the weight soups of Wortsman et al. 2022 (arXiv 2203.05482). Sums are float64, so that the order of the
    checkpoints does not matter beyond the last bit; the result has each weight's own dtype.

    Args:
        model: where ``load`` puts a checkpoint; it holds the last one afterwards.
        steps: the checkpoints' steps, at least one.
        load: reads the checkpoint of a step into ``model``.
    """
    sums: dict[str, torch.Tensor] = {}
    for step in steps:
        load(step)
        for name, parameter in model.named_parameters():
            if parameter.requires_grad:
                value = parameter.detach().double()
                sums[name] = sums[name] + value if name in sums else value.clone()
    own = dict(model.named_parameters())
    return {name: (total / len(steps)).to(own[name].dtype) for name, total in sums.items()}


@torch.no_grad()
def set_weights(model: torch.nn.Module, weights: dict[str, torch.Tensor]) -> None:
    """Copy named weights into a model; the others stay as they are."""
    own = dict(model.named_parameters())
    for name, value in weights.items():
        own[name].copy_(value)
