"""EWC: the distance to the starting weights, each weighted by its Fisher information on a proxy corpus."""

from __future__ import annotations

from speechtune.training.objectives.base import Objective, Setup
from speechtune.training.objectives.fisher import estimate_fisher
from speechtune.training.objectives.l2sp import WeightPenalty, starting_weights


def build(setup: Setup) -> list[Objective]:
    """The term; the Fisher information is estimated now, or read from the run where it stands already.

    Raises:
        InputError: an adapter is trained, or the proxy corpus cannot be used.
    """
    weights = setup.weights_by_name([], "ewc")
    fisher = estimate_fisher(setup.family, weights, setup.config.ewc, setup.run, setup.seed, writes=setup.writes)
    return [WeightPenalty("ewc", setup.config.ewc, weights, starting_weights(setup, weights), fisher)]
