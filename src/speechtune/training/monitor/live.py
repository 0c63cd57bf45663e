"""``--live``: the training in the terminal, with loss, dev WER, time left, findings and sample transcripts."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speechtune.core.interrupt import stop_if_asked
from speechtune.core.progress import is_quiet, note, set_quiet
from speechtune.training.monitor.detectors import Finding
from speechtune.training.processes import is_main_process

if TYPE_CHECKING:
    from speechtune.training.monitor.callback import Monitor

_BARS = "▁▂▃▄▅▆▇█"
_live = False


def set_live(live: bool) -> None:
    """Ask for the live view in this process (``--live``); it needs a terminal on stderr.

    Without one the usual lines are written, and a note says so.
    """
    global _live
    _live = live and sys.stderr.isatty() and is_main_process()
    if live and not _live and is_main_process():
        note("--live needs a terminal: writing lines instead")


def live_is_wanted() -> bool:
    """Whether `set_live` asked for the view and a terminal is there."""
    return _live


def spark(values: Sequence[float], width: int = 60) -> str:
    """Numbers as a line of bars, the latest at the right, from the lowest to the highest shown."""
    shown = [value for value in values[-width:] if value == value and abs(value) != float("inf")]
    if not shown:
        return ""
    low, span = min(shown), max(shown) - min(shown)
    return "".join(_BARS[round((value - low) / span * 7) if span else 0] for value in shown)


def clock(seconds: float) -> str:
    """Seconds as ``h:mm:ss``."""
    whole = max(0, round(seconds))
    return f"{whole // 3600}:{whole // 60 % 60:02d}:{whole % 60:02d}"


class LiveView(TrainerCallback):
    """Draws the view on stderr after every step, at most twice a second; other bars and notes are silent meanwhile."""

    def __init__(self, monitor: Monitor, console: Any = None) -> None:
        self.monitor = monitor
        self.console = console
        self.findings: list[Finding] = []
        self._live: Any = None
        self._was_quiet = False
        monitor.listeners.append(self.findings.append)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the terminal."""
        from rich.console import Console
        from rich.live import Live

        self._was_quiet = is_quiet()
        set_quiet(True)
        self._start_s, self._start_step = time.monotonic(), state.global_step
        self._live = Live(console=self.console or Console(stderr=True), refresh_per_second=2, transient=False)
        self._live.start()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Draw."""
        stop_if_asked()
        self._live.update(self.view(state))

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Draw the new samples."""
        self._live.update(self.view(state))

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Give the terminal back; the last picture stays."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        set_quiet(self._was_quiet)

    def view(self, state: TrainerState) -> Any:
        """The picture for a state of the training (a rich renderable)."""
        from rich.console import Group
        from rich.table import Table
        from rich.text import Text

        losses = [row["loss"] for row in state.log_history if "loss" in row]
        wers = [row["eval_wer"] for row in state.log_history if "eval_wer" in row]
        done = state.global_step - self._start_step
        elapsed_s = time.monotonic() - self._start_s
        left = clock(elapsed_s / done * (state.max_steps - state.global_step)) if done else "?"
        grid = Table.grid(padding=(0, 2))
        grid.add_row("step", f"{state.global_step}/{state.max_steps}, {clock(elapsed_s)} gone, {left} left")
        if losses:
            grid.add_row("loss", f"{losses[-1]:.3f}", spark(losses))
        if wers:
            grid.add_row("dev WER", f"{100 * wers[-1]:.1f} % (best {100 * min(wers):.1f} %)", spark(wers))
        rows = self.monitor.samples.rows
        latest = [row for row in rows if row["step"] == rows[-1]["step"]] if rows else []
        samples = Table("said", "heard", title="dev samples" if latest else None, show_header=bool(latest), box=None)
        for row in latest:
            samples.add_row(Text(row["reference"]), Text(row["text"]))
        told = [Text(f"{one.severity} at step {one.step}: {one.what}; {one.remedy}") for one in self.findings[-3:]]
        return Group(grid, samples, *told)
