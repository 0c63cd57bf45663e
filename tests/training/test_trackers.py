"""Trackers write into the run and nowhere else, and the live view shows what is there."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

from speechtune.core.errors import InputError
from speechtune.training import trackers
from speechtune.training.monitor.detectors import Finding
from speechtune.training.monitor.live import LiveView, clock, spark


@pytest.fixture(autouse=True)
def clean(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_MODE", "WANDB_DIR", "WANDB_RUN_ID", "TRACKIO_DIR", "TENSORBOARD_LOGGING_DIR"):
        monkeypatch.setenv(name, "x")
        monkeypatch.delenv(name)
    monkeypatch.setattr(trackers, "_set_here", set())
    monkeypatch.setattr(trackers, "find_spec", lambda name: object())


def test_everything_stays_in_the_run_and_a_next_stage_has_its_own_place(tmp_path: Path) -> None:
    first = trackers.prepare_trackers(["tensorboard", "wandb", "trackio"], tmp_path / "a")
    assert first["WANDB_MODE"] == "offline"
    assert {Path(first[name]).parent for name in ("TRACKIO_DIR", "TENSORBOARD_LOGGING_DIR")} == {tmp_path / "a"}
    assert Path(first["WANDB_DIR"]).is_dir()
    second = trackers.prepare_trackers(["wandb"], tmp_path / "b")
    assert second["WANDB_DIR"] == str(tmp_path / "b")
    assert second["WANDB_RUN_ID"] != first["WANDB_RUN_ID"]
    again = trackers.prepare_trackers(["wandb"], tmp_path / "a")
    assert again["WANDB_RUN_ID"] == first["WANDB_RUN_ID"], "a resumed run continues its curve"


def test_what_the_user_has_set_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    assert trackers.prepare_trackers(["wandb"], tmp_path)["WANDB_MODE"] == "online"


def test_a_missing_tracker_names_its_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trackers, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"speechtune\[trackio\]"):
        trackers.check_trackers(["trackio"])


def test_sparks_and_clocks() -> None:
    assert spark([1.0, 2.0, 8.0]) == "▁▂█"
    assert spark([3.0, 3.0]) == "▁▁"
    assert spark([float("nan")]) == ""
    assert len(spark(list(map(float, range(500))))) == 60
    assert clock(3725) == "1:02:05"


def test_the_live_view_shows_loss_dev_wer_time_left_findings_and_samples() -> None:
    rows = [{"step": 10, "utterance_id": "u1", "reference": "the cat [sat]", "text": "a cat sat"}]
    monitor: Any = SimpleNamespace(samples=SimpleNamespace(rows=rows), listeners=[])
    console = Console(width=120, record=True, force_terminal=True)
    view = LiveView(monitor, console)
    state: Any = SimpleNamespace(
        global_step=0, max_steps=40, log_history=[{"loss": 2.0}, {"loss": 0.5}, {"eval_wer": 0.31}, {"eval_wer": 0.214}]
    )
    control: Any = None
    view.on_train_begin(control, state, control)
    state.global_step = 10
    monitor.listeners[0](Finding(9, "plateau", "info", "nothing improves", "stop"))
    view.on_step_end(control, state, control)
    view.on_train_end(control, state, control)
    shown = console.export_text()
    for part in ("10/40", "left", "0.500", "21.4 %", "the cat [sat]", "a cat sat", "nothing improves"):
        assert part in shown, part
