"""How much more data would help: a power law through one's own measurements, with its uncertainty."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from speechtune.core.errors import InputError
from speechtune.corpus.planning.coverage import read_lines

FEWEST_POINTS = 3
_FLOOR_POINTS = 5
_FAR = 4.0
_STUDENT = (12.71, 4.30, 3.18, 2.78, 2.57, 2.45, 2.36, 2.31, 2.26, 2.23)
_NORMAL = 1.96
"""0.975 quantiles of Student's t with 1 to 10 degrees of freedom, and of the normal distribution."""


@dataclass(frozen=True, slots=True)
class LearningCurve:
    """The law WER = ``scale`` * hours^-``exponent`` + ``floor`` and what it says about ``target_hours``.

    ``interval`` is the 95 % bootstrap interval of a new measurement there. WER is in the unit of the points.
    ``relative_cut`` is the predicted cut against the point with the most hours.
    """

    points: int
    scale: float
    exponent: float
    floor: float
    target_hours: float
    predicted_wer: float
    interval: tuple[float, float]
    relative_cut: float
    notes: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """All fields, JSON-ready."""
        return asdict(self)


def read_points(path: Path) -> list[tuple[float, float]]:
    """Read measurements from a CSV file with the columns ``hours`` and ``wer`` (one unit for all, percent or share).

    Raises:
        InputError: a column is missing or a value is not a positive number; the sentence names the line.
    """
    rows = csv.DictReader(read_lines(path))
    names = {(name or "").strip().lower(): name for name in rows.fieldnames or ()}
    if not {"hours", "wer"} <= set(names):
        raise InputError(
            f"{path} needs a first line with the columns hours and wer: it has {', '.join(names) or 'none'}"
        )
    points = []
    for row in _checked(rows, path):
        try:
            hours, wer = (float(row[names[name]]) for name in ("hours", "wer"))
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} line {rows.line_num}: hours and wer must be numbers: repair that line") from error
        if not (0 < hours < math.inf and 0 < wer < math.inf):
            raise InputError(f"{path} line {rows.line_num}: hours and wer must be positive: repair that line")
        points.append((hours, wer))
    return points


def _checked(rows: csv.DictReader[str], path: Path) -> Iterator[dict[str, str]]:
    try:
        yield from rows
    except csv.Error as error:
        raise InputError(f"{path} line {rows.line_num} is not CSV ({error}): repair that line") from error


def fit_learning_curve(
    points: Sequence[tuple[float, float]], target_hours: float | None = None, seed: int = 0, resamples: int = 2000
) -> LearningCurve:
    """Fit a power law to (hours, WER) and predict the WER at more hours.

    Error falls as a power of the amount of data over wide ranges, in speech recognition too (Hestness et al. 2017,
    arXiv 1712.00409). Under five points the law has no floor (a straight line in logarithms); from five, a floor is
    fitted, since an error that no data removes cannot be seen in fewer. The interval comes from resampled residuals,
    enlarged for the parameters spent and, by Student's t, for how few points tell the noise; it includes the noise of a
    new measurement.

    Args:
        points: at least three, at three different numbers of hours.
        target_hours: where to predict; ``None``: at twice the most hours.
        seed: of the resampling.
        resamples: how many.

    Raises:
        InputError: fewer than three different numbers of hours, or a target that is not positive.
    """
    hours = np.array([point[0] for point in points], dtype=float)
    wers = np.array([point[1] for point in points], dtype=float)
    if len(np.unique(hours)) < FEWEST_POINTS:
        raise InputError(
            f"a learning curve needs measurements at {FEWEST_POINTS} different numbers of hours, not "
            f"{len(np.unique(hours))}: train on subsets, for example a quarter and a half of the data"
        )
    if not (np.all(hours > 0) and np.all(wers > 0)):
        raise InputError("hours and WER of a learning curve must be positive")
    target = float(2 * hours.max() if target_hours is None else target_hours)
    if not 0 < target < math.inf:
        raise InputError(f"--target-hours must be a positive number of hours, not {target}")
    with_floor = len(np.unique(hours)) >= _FLOOR_POINTS
    scale, exponent, floor = _fit(hours, wers, with_floor)
    fitted = _law(hours, scale, exponent, floor)
    spent = 3 if with_floor else 2
    free = len(wers) - spent
    wider = _STUDENT[free - 1] / _NORMAL if free <= len(_STUDENT) else 1.0
    residuals = np.log(wers / fitted) * math.sqrt(len(wers) / free) * wider
    residuals -= residuals.mean()
    rng = np.random.default_rng(seed)
    draws = np.empty(resamples)
    for number in range(resamples):
        again = _fit(
            hours, fitted * np.exp(rng.choice(residuals, len(wers))), with_floor, start=(scale, exponent, floor)
        )
        draws[number] = _law(np.array([target]), *again)[0] * math.exp(rng.choice(residuals))
    predicted = float(_law(np.array([target]), scale, exponent, floor)[0])
    low, high = np.quantile(draws, [0.025, 0.975])
    newest = float(fitted[np.argmax(hours)])
    return LearningCurve(
        points=len(points),
        scale=scale,
        exponent=exponent,
        floor=floor,
        target_hours=target,
        predicted_wer=predicted,
        interval=(float(min(low, predicted)), float(max(high, predicted))),
        relative_cut=1 - predicted / newest,
        notes=_notes(len(points), exponent, target / hours.max()),
    )


def _notes(points: int, exponent: float, reach: float) -> tuple[str, ...]:
    notes = []
    if points < _FLOOR_POINTS:
        notes.append(
            f"{points} points hardly tell the noise between runs, and no floor is assumed: measure more volumes"
        )
    if reach > _FAR:
        notes.append(f"the target is {reach:.1f} times the most hours measured: treat the figure as a hope")
    if exponent <= 0:
        notes.append("the WER does not fall with more hours here: look for label errors before recording more")
    return tuple(notes)


def _law(hours: npt.NDArray[np.float64], scale: float, exponent: float, floor: float) -> npt.NDArray[np.float64]:
    return scale * hours**-exponent + floor


def _fit(
    hours: npt.NDArray[np.float64],
    wers: npt.NDArray[np.float64],
    with_floor: bool,
    start: tuple[float, float, float] | None = None,
) -> tuple[float, float, float]:
    """Least squares in log WER: (scale, exponent, floor)."""
    slope, intercept = np.polyfit(np.log(hours), np.log(wers), 1)
    line = (float(np.exp(intercept)), float(-slope), 0.0)
    if not with_floor or line[1] <= 0:
        return line
    low, high = (0.02, 3.0) if start is None else (max(0.02, start[1] / 3), min(3.0, start[1] * 3 + 0.1))
    for _ in range(3):
        grid = np.geomspace(low, high, 24)
        costs, scales, floors = _misfits(grid, hours, wers)
        best = int(np.argmin(costs))
        low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, len(grid) - 1)])
    if not math.isfinite(costs[best]):
        return line
    return float(scales[best]), float(grid[best]), float(floors[best])


Floats = npt.NDArray[np.float64]


def _misfits(exponents: Floats, hours: Floats, wers: Floats) -> tuple[Floats, Floats, Floats]:
    """For each exponent the squared error in log WER, and the scale and floor of relative linear least squares."""
    powers = hours ** -exponents[:, None] / wers
    ones = 1 / wers
    pp, po, oo = (powers**2).sum(1), powers @ ones, (ones**2).sum()
    p, o = powers.sum(1), ones.sum()
    # Near an exponent of 0 the two columns are almost the same: the determinant is kept away from 0.
    determinant = np.maximum(pp * oo - po**2, 1e-12 * pp * oo)
    scales, floors = (p * oo - o * po) / determinant, (o * pp - p * po) / determinant
    scales, floors = np.where(floors < 0, p / pp, scales), np.maximum(floors, 0.0)
    with np.errstate(invalid="ignore", divide="ignore"):
        errors = np.log(scales[:, None] * powers + floors[:, None] * ones)
    costs = np.where(scales > 0, (errors**2).sum(1), np.inf)
    return np.nan_to_num(costs, nan=np.inf), scales, floors
