"""What the monitor writes: findings and samples, cut back when a run is resumed, and actions, which are not."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechtune.core.files import read_json, read_jsonl, write_json, write_jsonl
from speechtune.training.monitor.detectors import Finding

FINDINGS, SAMPLES, LAYERS, ACTIONS = "monitor.jsonl", "samples.jsonl", "layers.jsonl", "monitor_actions.json"


class Series:
    """Rows with a ``step`` in a JSONL file that follows the checkpoints: resuming at a step drops what came after."""

    def __init__(self, path: Path, write: bool) -> None:
        self.path = path
        self.write = write
        self.rows: list[dict[str, Any]] = read_jsonl(path) if path.is_file() else []

    def back_to(self, step: int) -> None:
        """Drop rows after ``step``, except those that tell of an action."""
        self.rows = [row for row in self.rows if row["step"] <= step or "action" in row]
        if self.path.is_file():
            self._save()

    def add(self, rows: Sequence[dict[str, Any]]) -> None:
        """Append rows."""
        self.rows += rows
        if rows:
            self._save()

    def _save(self) -> None:
        if self.write:
            write_jsonl(self.path, self.rows)


@dataclass(frozen=True, slots=True)
class Action:
    """What ``auto`` did at a step: ``rollback`` to a checkpoint, or ``stop``.

    ``reason``: the kind of finding. ``factor``: of the learning rate from ``to_step`` on. ``done``: whether the newer
    checkpoints are gone.
    """

    kind: str
    reason: str
    step: int
    to_step: int | None = None
    factor: float = 1.0
    done: bool = True


class Actions:
    """The actions of a training, in ``monitor_actions.json``; they hold for every later start of it."""

    def __init__(self, directory: Path, checkpoints: Path, write: bool) -> None:
        self.path = directory / ACTIONS
        self.checkpoints = checkpoints
        self.write = write
        self.all = [Action(**row) for row in read_json(self.path)] if self.path.is_file() else []
        self._carry_out()

    def add(self, action: Action) -> None:
        """Write an action down, then carry it out: killed in between, the next start does it."""
        self.all.append(action)
        self._save()
        self._carry_out()

    def rollbacks(self) -> list[Action]:
        """Those that went back."""
        return [action for action in self.all if action.kind == "rollback"]

    def rate(self) -> float:
        """The product of the rollbacks' factors."""
        product = 1.0
        for action in self.rollbacks():
            product *= action.factor
        return product

    def skipped(self) -> set[int]:
        """Steps to pass over: they gave no finite number twice, whatever the learning rate."""
        seen = [action.step for action in self.rollbacks() if action.reason == "not_finite"]
        return {step for step in seen if seen.count(step) > 1}

    def stopped_at(self) -> int | None:
        """The step at which the training was stopped."""
        return next((action.step for action in self.all if action.kind == "stop"), None)

    def _carry_out(self) -> None:
        if not self.write:
            return
        for place, action in enumerate(self.all):
            if action.kind == "rollback" and not action.done:
                assert action.to_step is not None
                remove_after(self.checkpoints, action.to_step)
                self.all[place] = replace(action, done=True)
                self._save()

    def _save(self) -> None:
        if self.write:
            write_json(
                self.path, [{name: getattr(one, name) for name in Action.__dataclass_fields__} for one in self.all]
            )


def remove_after(checkpoints: Path, step: int) -> None:
    """Remove the checkpoints of later steps; each loses its manifest first, so a half-removed one does not count."""
    from speechtune.training.trainer import MANIFEST
    from speechtune.training.trainer import checkpoints as listed

    for later, folder in listed(checkpoints):
        if later > step:
            (folder / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(folder, ignore_errors=True)


def good_checkpoint(checkpoints: Path, onset: int) -> int | None:
    """The newest whole checkpoint of at most step ``onset`` whose weights are finite."""
    from speechtune.training.trainer import checkpoints as listed
    from speechtune.training.trainer import is_complete

    early = [(step, folder) for step, folder in listed(checkpoints) if step <= onset and is_complete(folder)]
    return next((step for step, folder in reversed(early) if has_finite_weights(folder)), None)


def has_finite_weights(folder: Path) -> bool:
    """Whether every floating-point tensor of a checkpoint's weights is finite."""
    from safetensors import safe_open

    for file in folder.glob("*.safetensors"):
        with safe_open(file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118
                tensor = stored.get_tensor(name)
                if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
                    return False
    return True


def is_news(finding: Finding, told: Sequence[dict[str, Any]], evaluations: Sequence[int], quiet: int = 4) -> bool:
    """Whether a finding should be told: the same kind and subject was not within the last ``quiet`` evaluations."""
    same = [row["step"] for row in told if (row["kind"], row.get("subject", "")) == (finding.kind, finding.subject)]
    return not same or sum(max(same) < step <= finding.step for step in evaluations) >= quiet
