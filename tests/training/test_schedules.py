"""The learning rate of every step equals an independent formula."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import get_scheduler

from speechtune.training.momentum import schedule_of
from speechtune.training.schedules import ScheduleShape, rates

STEPS = 57


@pytest.mark.parametrize("resumed_at", [None, 20])
def test_momentum_moves_against_the_rate_as_in_one_cycle(resumed_at: int | None) -> None:
    """PyTorch's own law: momentum and rate are the same share of their way, in opposite directions."""
    law = rates("linear", ScheduleShape(momentum=(0.85, 0.95)), STEPS, 0.0, 12)

    def made() -> tuple[torch.optim.Optimizer, torch.optim.lr_scheduler.LambdaLR]:
        optimiser = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0, betas=(0.9, 0.98))
        return optimiser, schedule_of(optimiser, law)

    optimiser, schedule = made()
    theirs = torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))], lr=1.0, betas=(0.9, 0.98))
    cycle = torch.optim.lr_scheduler.OneCycleLR(
        theirs,
        1.0,
        total_steps=STEPS + 1,
        pct_start=13 / (STEPS + 1),
        anneal_strategy="linear",
        div_factor=1e9,
        final_div_factor=1e-9,
        base_momentum=0.85,
        max_momentum=0.95,
    )
    for step in range(1, STEPS):
        if step == resumed_at:
            kept = schedule.state_dict(), optimiser.state_dict()
            optimiser, schedule = made()
            optimiser.load_state_dict(kept[1])
            schedule.load_state_dict(kept[0])
        optimiser.step()
        schedule.step()
        theirs.step()
        cycle.step()
        beta, other = optimiser.param_groups[0]["betas"]
        assert other == 0.98
        assert beta == pytest.approx(0.95 - 0.1 * law(step), abs=1e-9)
        if step <= 12:
            assert beta == pytest.approx(theirs.param_groups[0]["betas"][0], abs=1e-6)
    plain = schedule_of(optimiser, rates("linear", ScheduleShape(), STEPS, 0.0, 12))
    assert type(plain) is torch.optim.lr_scheduler.LambdaLR
    with pytest.raises(ValueError, match="a lower and a higher number"):
        ScheduleShape(momentum=(0.95, 0.85))


def factors(name: Any, warmup: int, **shape: Any) -> list[float]:
    law = rates(name, ScheduleShape(**shape), STEPS, 0.0, warmup)
    return [law(step) for step in range(STEPS)]


@pytest.mark.parametrize("warmup", [0, 1, 9])
@pytest.mark.parametrize(
    ("name", "theirs", "shape", "options"),
    [
        ("linear", "linear", {}, {}),
        ("cosine", "cosine", {}, {}),
        ("cosine", "cosine_with_min_lr", {"floor_share": 0.1}, {"min_lr_rate": 0.1}),
        ("constant", "constant_with_warmup", {}, {}),
        ("inverse_sqrt", "inverse_sqrt", {}, {}),
        ("wsd", "warmup_stable_decay", {"decay_share": 0.2}, {"num_decay_steps": 11, "decay_type": "linear"}),
    ],
)
def test_it_is_the_schedule_of_transformers(
    name: str, theirs: str, shape: dict[str, Any], options: dict[str, Any], warmup: int
) -> None:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    if theirs == "warmup_stable_decay":
        options = {**options, "num_stable_steps": STEPS - warmup - 11}
    scheduler = get_scheduler(theirs, optimiser, warmup, STEPS, scheduler_specific_kwargs=options)
    expected = []
    for _ in range(STEPS):
        expected.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    assert factors(name, warmup, **shape) == pytest.approx(expected, abs=1e-12)
    if theirs in ("linear", "cosine", "constant_with_warmup"):
        assert factors(name, warmup, **shape) == expected  # bit by bit: older runs continue as they were


def test_tri_stage_is_fairseqs() -> None:
    """fairseq's TriStageLRSchedule with phase_ratio [0.1, 0.4, 0.5], init_lr_scale 0.01, final_lr_scale 0.05."""
    steps = 100
    law = rates("tri_stage", ScheduleShape(start_share=0.01, hold_share=0.4), steps, 0.1, None)
    decay = -math.log(0.05) / 50
    for step in range(steps):
        if step < 10:
            expected = 0.01 + step * (1 - 0.01) / 10
        elif step < 50:
            expected = 1.0
        else:
            expected = math.exp(-decay * (step - 50))
        assert law(step) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("floor", [0.0, 0.25])
def test_linear_goes_from_peak_to_floor_in_equal_steps(floor: float) -> None:
    falling = factors("linear", 7, floor_share=floor)[7:]
    differences = {round(before - after, 9) for before, after in itertools.pairwise(falling)}
    assert falling[0] == 1
    assert len(differences) == 1
    assert falling[-1] - differences.pop() == pytest.approx(floor)


def test_warm_up_steps_take_the_place_of_the_share() -> None:
    by_steps: Callable[[int], float] = rates("constant", ScheduleShape(), 40, 0.5, 4)
    by_share = rates("constant", ScheduleShape(), 40, 0.1, None)
    assert [by_steps(step) for step in range(40)] == [by_share(step) for step in range(40)]
    assert [by_steps(step) for step in range(5)] == [0, 0.25, 0.5, 0.75, 1]
