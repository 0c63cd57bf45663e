"""What goes wrong in a training, found in its recorded series. Every detector is a pure function.

The thresholds are the detectors' defaults; where no source is named they are choices, made so that the healthy curves
of ``tests/training/test_detectors.py`` raise nothing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from statistics import median
from typing import Any, Literal

Severity = Literal["info", "warning", "error"]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing found: when, what it is, how bad, and what to do about it.

    ``subject``: what it is about where one kind can be found of several (a group of layers). ``onset``: the last step
    at which all was well, for a rollback. ``action``: what ``auto`` did.
    """

    step: int
    kind: str
    severity: Severity
    what: str
    remedy: str
    subject: str = ""
    onset: int | None = None
    action: str | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields that are set."""
        return {name: value for name, value in asdict(self).items() if value not in (None, "")}


@dataclass(frozen=True, slots=True)
class TrainPoint:
    """One logged row of training: the mean loss since the row before, the norm of the gradient."""

    step: int
    loss: float
    grad_norm: float = 0.0


@dataclass(frozen=True, slots=True)
class DevPoint:
    """One evaluation: the generated WER (fraction), and the loss per token where it is measured."""

    step: int
    wer: float
    loss: float | None = None


def not_finite(step: int, losses: Sequence[float], grad_norm: float = 0.0) -> Finding | None:
    """A loss or gradient of one step that is not a finite number."""
    wrong = "the loss" if not all(map(math.isfinite, losses)) else "the gradient"
    if wrong == "the gradient" and math.isfinite(grad_norm):
        return None
    return Finding(
        step,
        "not_finite",
        "error",
        f"{wrong} of step {step} is not a finite number",
        "look at the utterances in bad_batch.json; lower training.learning_rate, or set training.precision=fp32",
        onset=step - 1,
    )


def divergence(train: Sequence[TrainPoint], window: int = 5, factor: float = 1.5, least: float = 0.5) -> Finding | None:
    """The loss has climbed and stays up: each of the last ``window`` rows is above where it was at its best.

    Its best is the lowest median of ``window`` rows before them, or the first row (the model as it came). Above means
    ``factor`` times that, and ``least`` nats more: neither a single spike nor the noise of a small loss counts.
    """
    if len(train) <= window:
        return None
    losses = [point.loss for point in train]
    levels = {0: losses[0]} | {
        end: median(losses[end - window : end]) for end in range(window, len(losses) - window + 1)
    }
    lowest = min(levels, key=lambda end: (levels[end], end))
    if not min(losses[-window:]) > max(factor * levels[lowest], levels[lowest] + least):
        return None
    onset = train[lowest - 1].step if lowest else 0
    return Finding(
        train[-1].step,
        "divergence",
        "error",
        f"the training loss diverges: {median(losses[-window:]):.2f} in the last {window} rows, {levels[lowest]:.2f} "
        f"at {f'step {onset}' if onset else 'the start'}",
        "lower training.learning_rate or raise training.warmup_share, and go back to a checkpoint before the climb",
        onset=onset,
    )


def exploding_gradient(train: Sequence[TrainPoint], window: int = 5, factor: float = 10.0) -> Finding | None:
    """The median gradient norm of the last rows is ``factor`` times the median of all rows before them."""
    if len(train) < 3 * window:
        return None
    norms = [point.grad_norm for point in train]
    before, now = median(norms[:-window]), median(norms[-window:])
    if before <= 0 or now < factor * before:
        return None
    return Finding(
        train[-1].step,
        "exploding_gradient",
        "warning",
        f"the gradient norm rose from {before:.3g} to {now:.3g}",
        "lower training.learning_rate or training.max_grad_norm, and look at the latest batches' labels",
    )


def overfitting(
    train: Sequence[TrainPoint], dev: Sequence[DevPoint], patience: int = 3, wer_rise: float = 0.03, fall: float = 0.05
) -> Finding | None:
    """The training loss has fallen since the best evaluation and dev has been worse for ``patience`` in a row.

    Error: the last ``patience`` dev WERs are each ``wer_rise`` (relative) above the best. Info: only the dev loss
    is, by as much, while the WER is not: models become too sure before they become wrong.
    """
    if len(dev) <= patience:
        return None
    step = dev[-1].step
    for name, severity in (("wer", "error"), ("loss", "info")):
        values = [getattr(point, name) for point in dev]
        if any(value is None for value in values):
            continue
        best = min(range(len(values)), key=lambda place: values[place])
        since = values[-patience:]
        if best >= len(values) - patience or min(since) <= (1 + wer_rise) * values[best]:
            continue
        if not _has_fallen(train, dev[best].step, fall):
            continue
        shown = [f"{100 * one:.1f} %" if name == "wer" else f"{one:.3f}" for one in (values[best], values[-1])]
        label = "dev WER" if name == "wer" else "dev loss"
        return Finding(
            step,
            "overfitting" if name == "wer" else "overconfidence",
            "error" if severity == "error" else "info",
            f"{label} has risen from {shown[0]} (step {dev[best].step}) to {shown[1]} while the training loss fell",
            "stop here (the best checkpoint is kept); next time fewer epochs, more data, speed perturbation, "
            "SpecAugment or an average of checkpoints"
            if name == "wer"
            else "nothing yet: the dev WER decides; if it follows, stop",
            onset=dev[best].step,
        )
    return None


def _has_fallen(train: Sequence[TrainPoint], since: int, share: float) -> bool:
    before = [point.loss for point in train if point.step <= since][-5:]
    after = [point.loss for point in train if point.step > since][-5:]
    return bool(before and after) and median(after) < (1 - share) * median(before)


def plateau(
    train: Sequence[TrainPoint], dev: Sequence[DevPoint], patience: int = 4, gain: float = 0.01
) -> Finding | None:
    """Neither the dev WER nor the training loss has improved by ``gain`` (relative) over ``patience`` evaluations."""
    if len(dev) <= patience:
        return None
    before, since = dev[:-patience], dev[-patience:]
    best = min(point.wer for point in before)
    if best <= 0 or min(point.wer for point in since) < (1 - gain) * best:
        return None
    if max(point.wer for point in since) > 1.03 * best or _has_fallen(train, before[-1].step, gain):
        return None
    return Finding(
        since[-1].step,
        "plateau",
        "info",
        f"nothing improves: dev WER {100 * since[-1].wer:.1f} % after {patience} more evaluations, training loss flat",
        "stop, or change something: a higher training.learning_rate, a longer schedule, more trainable weights",
    )


def silent_groups(step: int, norms: Sequence[Mapping[str, float]], rows: int = 3) -> list[Finding]:
    """Groups of trainable layers whose gradient has been exactly zero in each of the last ``rows`` rows."""
    if len(norms) < rows:
        return []
    silent = [name for name in norms[-1] if all(row.get(name) == 0 for row in norms[-rows:])]
    return [
        Finding(
            step,
            "no_gradient",
            "warning",
            f"{name} has had no gradient in the last {rows} rows: it is trainable and does not learn",
            "check what model.train, adapter.targets and the objectives reach",
            subject=name,
        )
        for name in silent
    ]


def far_drift(step: int, drift: Mapping[str, float], most: float = 0.5) -> Finding | None:
    """Groups whose weights have moved by more than ``most`` of their own length (relative L2) from the start."""
    far = {name: value for name, value in drift.items() if value > most}
    if not far:
        return None
    farthest = max(far, key=lambda name: far[name])
    return Finding(
        step,
        "drift",
        "warning",
        f"{len(far)} of {len(drift)} groups of layers have moved by more than {100 * most:.0f} % of their length from "
        f"the start, {farthest} the farthest ({100 * far[farthest]:.0f} %)",
        "what the base model knew is going: lower training.learning_rate, or hold the weights with L2-SP or KL",
    )


def growing_memory(step: int, gib: Sequence[float], factor: float = 1.25, least_gib: float = 1.0) -> Finding | None:
    """Memory grows without end: it is ``factor`` times, and ``least_gib`` above, what it was after a quarter.

    It must rise all the time: each of the last three quarters adds at least a tenth of the whole rise. A longer batch
    than any before raises it once, for good, and is none.
    """
    if len(gib) < 12:
        return None
    quarter = len(gib) // 4
    settled, late = max(gib[quarter : 2 * quarter]), min(gib[-quarter:])
    if late < factor * settled or late - settled < least_gib:
        return None
    ends = [max(gib[: len(gib) - back * quarter]) for back in (3, 2, 1, 0)]
    if any(after - before < 0.1 * (ends[-1] - ends[0]) for before, after in pairwise(ends)):
        return None
    return Finding(
        step,
        "memory",
        "warning",
        f"memory has grown from {settled:.1f} to {gib[-1]:.1f} GiB",
        "lower training.workers; if it goes on, --resume frees it",
    )


def slow(step: int, rates: Sequence[float], window: int = 5, factor: float = 0.4) -> Finding | None:
    """The median throughput of the last rows is under ``factor`` times the median of all rows before."""
    if len(rates) < 3 * window:
        return None
    before, now = median(rates[:-window]), median(rates[-window:])
    if now >= factor * before:
        return None
    return Finding(
        step,
        "slow",
        "info",
        f"throughput fell from {before:.1f} to {now:.1f} s of audio a second",
        "look for another process on this machine, a hot processor, or a slow disk",
    )


def bad_transcripts(step: int, flagged: Mapping[str, str], total: int, share: float = 0.02) -> Finding | None:
    """At least two dev transcripts, and ``share`` of them, are loops or say more than was spoken.

    Args:
        step: of the evaluation.
        flagged: utterance id to what is wrong with its transcript (see `monitor.transcripts`).
        total: how many transcripts there are.
        share: of all transcripts, from which on it is reported.
    """
    if len(flagged) < 2 or len(flagged) < share * total:
        return None
    name, why = next(iter(flagged.items()))
    return Finding(
        step,
        "hallucination",
        "warning",
        f"{len(flagged)} of {total} dev transcripts repeat themselves or say more than was spoken ({name}: {why})",
        "see samples.jsonl; look for labels that do not fit their audio, give a share of full context, lower the rate",
    )
