"""What the stages of a run leave behind, joined to what a run without stages leaves behind."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speechtune.core.files import new_directory, read_json, read_jsonl, write_json, write_jsonl
from speechtune.training.monitor.record import FINDINGS, SAMPLES
from speechtune.training.stages import Stage

PREFLIGHT, METRICS = "preflight.json", "metrics.jsonl"


def join_metrics(run: Path, stages: list[Stage]) -> None:
    """Write ``RUN/metrics.jsonl``: the stages' rows one after another, steps and epochs counted on."""
    rows: list[dict[str, Any]] = []
    step, epoch = 0, 0.0
    for stage in stages:
        path = stage.directory / METRICS
        own = read_jsonl(path) if path.is_file() else []
        rows += [
            {**row, "step": step + row["step"], "epoch": round(epoch + row["epoch"], 3), "stage": stage.name}
            for row in own
        ]
        if own:
            step, epoch = step + own[-1]["step"], epoch + own[-1]["epoch"]
    write_jsonl(run / METRICS, rows)


def join_preflight(run: Path, stages: list[Stage]) -> None:
    """Write ``RUN/preflight.json``: what was proven before each stage."""
    checks: dict[str, str] = {}
    seconds = 0.0
    for stage in stages:
        path = stage.directory / PREFLIGHT
        if path.is_file():
            proven = read_json(path)
            checks.update({f"{stage.name}: {name}": value for name, value in proven["checks"].items()})
            seconds += proven["seconds"]
    if checks:
        write_json(run / PREFLIGHT, {"checks": checks, "seconds": round(seconds, 2)})


def join_records(run: Path, stages: list[Stage]) -> None:
    """Write the run's ``monitor.jsonl`` and ``samples.jsonl``: the stages' rows, each with its stage and own step."""
    for name in (FINDINGS, SAMPLES):
        rows: list[dict[str, Any]] = []
        for stage in stages:
            path = stage.directory / name
            rows += [{**row, "stage": stage.name} for row in read_jsonl(path)] if path.is_file() else []
        if rows:
            write_jsonl(run / name, rows)


def join_stages(run: Path, stages: list[Stage]) -> None:
    """Make the last stage's weights the run's model; the run's curves and proofs are those of all stages."""
    join_metrics(run, stages)
    join_preflight(run, stages)
    join_records(run, stages)
    if not (run / "model" / "config.json").is_file():
        with new_directory(run / "model", overwrite=True) as draft:
            shutil.copytree(stages[-1].model, draft, dirs_exist_ok=True)


def summaries(stages: list[Stage]) -> list[dict[str, Any]]:
    """What ``run.json`` says of each stage: name, directory, steps, seed, the dev WER of its best step."""
    found = []
    for stage in stages:
        rows = read_jsonl(stage.directory / METRICS)
        dev = min((row for row in rows if row["kind"] == "dev"), key=lambda row: (row["wer"], row["step"]))
        found.append(
            {
                "name": stage.name,
                "directory": str(stage.directory),
                "seed": stage.recipe.training.seed,
                "steps": max(row["step"] for row in rows),
                "best_step": dev["step"],
                "best_dev_wer": dev["wer"],
            }
        )
    return found


class JoinMetrics(TrainerCallback):
    """Keeps the run's own ``metrics.jsonl`` up to date while a stage writes its own; registered after its writer."""

    def __init__(self, run: Path, stages: list[Stage]) -> None:
        self.run = run
        self.stages = stages

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Join what the stages have written so far."""
        if state.is_world_process_zero and self.stages[0].name:
            join_metrics(self.run, self.stages)
