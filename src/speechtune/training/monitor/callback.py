"""The monitor inside the training loop: it records, asks the detectors, tells, and with ``auto`` acts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speechtune.core.files import write_json
from speechtune.core.progress import note
from speechtune.corpus.table import Corpus
from speechtune.decoding.transcript import Transcript
from speechtune.models.family import Family
from speechtune.training.dev_loss import dev_loss
from speechtune.training.monitor import detectors, measures
from speechtune.training.monitor.batches import BatchBook
from speechtune.training.monitor.detectors import DevPoint, Finding, TrainPoint
from speechtune.training.monitor.record import (
    FINDINGS,
    LAYERS,
    SAMPLES,
    Action,
    Actions,
    Series,
    good_checkpoint,
    is_news,
)
from speechtune.training.monitor.transcripts import flag, sample_ids, sample_rows
from speechtune.training.processes import is_main_process, main_says, world_size

if TYPE_CHECKING:
    from speechtune.training.recipe import Recipe
    from speechtune.training.trainer import SpeechTrainer

BAD_BATCH = "bad_batch.json"
CHECK_EVERY = 16
"""On an accelerator losses are looked at only so often, and before every log and checkpoint: looking waits for it."""


class Monitor(TrainerCallback):
    """Watches one training. It reads what the training does anyway and draws nothing, so weights stay the same."""

    def __init__(self, recipe: Recipe, directory: Path, book: BatchBook, model: torch.nn.Module) -> None:
        self.recipe = recipe
        self.config = recipe.training.monitor
        self.directory = directory
        self.checkpoints = directory / "checkpoints"
        self.book = book
        main = is_main_process()
        self.findings = Series(directory / FINDINGS, main)
        self.samples = Series(directory / SAMPLES, main)
        self.layers = Series(directory / LAYERS, main)
        self.actions = Actions(directory, self.checkpoints, main)
        self.start = measures.start_weights(model) if self.config.enabled and self.config.drift else {}
        self.listeners: list[Callable[[Finding], None]] = []
        self.trainer: SpeechTrainer | None = None
        self.active = False
        self._forget()

    def _forget(self) -> None:
        self.back_to: int | None = None
        self._pending: list[tuple[int, int, torch.Tensor]] = []
        self._norms: dict[int, Any] = {}
        self._group_norms: dict[str, float] = {}
        self._flagged: tuple[dict[str, str], int] = ({}, 0)
        self._amounts = [0, 0.0, 0.0]
        self._last_step_s: float | None = None
        self._micro_batch = 0

    # What the trainer tells

    def attach(self, trainer: SpeechTrainer) -> None:
        """Let the trainer report losses and gradient norms here."""
        self.trainer = trainer
        trainer.watch = self

    def wanted_checkpoints(self) -> set[int]:
        """Steps whose checkpoints must stay: with ``auto`` the start, which every rollback can reach."""
        return {0} if self.config.enabled and self.config.auto else set()

    def passes_over(self, model: torch.nn.Module) -> bool:
        """Whether the coming step is one that gave no finite number twice; its gradients stay away."""
        if not self.active or self._step + 1 not in self.actions.skipped():
            return False
        assert self.trainer is not None
        if self.trainer.args.fp16:  # the gradient scaler wants something to look at
            for parameter in model.parameters():
                if parameter.requires_grad and parameter.grad is None:
                    parameter.grad = torch.zeros_like(parameter)
        return True

    def see_loss(self, loss: torch.Tensor) -> None:
        """The loss of a micro-batch of the coming step."""
        if self.active:
            self._pending.append((self._step + 1, self._micro_batch, loss.detach()))
            self._micro_batch += 1

    def see_gradient_norm(self, norm: Any) -> None:
        """The norm of the coming step's whole gradient, before clipping."""
        if self.active:
            self._norms[self._step + 1] = norm

    def see_dev(self, family: Family, dev: Corpus, transcripts: Sequence[Transcript]) -> dict[str, float]:
        """The transcripts of an evaluation; returns further dev metrics. Outside training nothing is recorded."""
        if not self.active:
            return {}
        ids = sample_ids(dev.utterances, self.config.samples)
        self.samples.add(sample_rows(self._step, ids, dev.utterances, transcripts))
        if not self.config.enabled:
            return {}
        self._flagged = (flag(dev.utterances, transcripts), len(transcripts))
        extra = {"flagged": float(len(self._flagged[0]))}
        if self.config.dev_loss:
            loss = dev_loss(family, dev, self.recipe.decoding, self.recipe.data.case == "lower")
            extra |= {} if loss is None else {"loss": loss}
        return extra

    def columns(self, logs: dict[str, float]) -> dict[str, float]:
        """Memory and throughput for a row of the log; the groups' gradient norms go to ``layers.jsonl``."""
        if not (self.active and self.config.enabled and "loss" in logs):
            return {}
        extra = measures.memory_gib()
        utterances, audio_s, wall_s = self._amounts
        if wall_s > 0:
            extra |= {
                "utterances_per_s": round(utterances / wall_s, 3),
                "audio_s_per_s": round(audio_s / wall_s, 2),
            }
        self._amounts = [0, 0.0, 0.0]
        if self._group_norms:
            clipped = math.sqrt(sum(norm**2 for norm in self._group_norms.values()))
            scale = logs.get("grad_norm", clipped) / clipped if clipped > 0 else 1.0
            norms = {name: _rounded(norm * scale) for name, norm in self._group_norms.items()}
            self.layers.add([{"step": self._step, "grad_norm": norms}])
            self._group_norms = {}
        return extra

    @property
    def _step(self) -> int:
        assert self.trainer is not None
        return int(self.trainer.state.global_step)

    # What the training loop tells

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Cut the records back to the step the training continues from."""
        self._forget()
        self.active = True
        self._micro_batch = state.global_step * args.gradient_accumulation_steps
        for series in (self.findings, self.samples, self.layers):
            series.back_to(state.global_step)

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """With ``auto``, keep the weights as they came: there must be something to go back to."""
        if self._last_step_s is None:
            self._last_step_s = time.monotonic()
        if self.wanted_checkpoints() and state.global_step == 0 and not (self.checkpoints / "checkpoint-0").is_dir():
            assert self.trainer is not None
            self.trainer._save_checkpoint(kwargs["model"], None)

    def on_pre_optimizer_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Take the norms of the groups' gradients where the step will be logged."""
        if self.config.enabled and (state.global_step + 1) % int(args.logging_steps) == 0:
            self._group_norms = measures.gradient_norms(kwargs["model"])

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Count, and look whether everything is still a finite number."""
        if not self.config.enabled:
            self._pending, self._norms = [], {}
            return
        now_s = time.monotonic()
        if self._last_step_s is not None:
            self._count(args, now_s - self._last_step_s)
        self._last_step_s = now_s
        soon = control.should_log or control.should_save or control.should_evaluate
        if args.device.type == "cpu" or soon or state.global_step % CHECK_EVERY == 0:
            self._check_finite(args, control)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the training series."""
        if not (self.active and self.config.enabled and state.log_history and "loss" in state.log_history[-1]):
            return
        train, step = train_points(state), state.global_step
        found = detectors.divergence(train)
        if found:
            self._tell(found, state, control)
            if self.config.auto:
                self._roll_back(found, control)
        history = state.log_history
        self._tell(detectors.exploding_gradient(train), state, control)
        self._tell(detectors.slow(step, [r["audio_s_per_s"] for r in history if "audio_s_per_s" in r]), state, control)
        memory = [row["memory_gib"] for row in history if "memory_gib" in row]
        self._tell(detectors.growing_memory(step, memory), state, control)
        norms = [row["grad_norm"] for row in self.layers.rows if "grad_norm" in row]
        for one in detectors.silent_groups(step, norms):
            self._tell(one, state, control)

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Look at the dev series, the transcripts and how far the weights have moved."""
        self._last_step_s = None
        if not (self.active and self.config.enabled):
            return
        train, dev = train_points(state), dev_points(state)
        found = detectors.overfitting(train, dev, self.config.patience)
        self._tell(found, state, control)
        if found and found.kind == "overfitting" and self.config.auto:
            self._stop(found, control)
        self._tell(detectors.plateau(train, dev, self.config.patience + 1), state, control)
        self._tell(detectors.bad_transcripts(state.global_step, *self._flagged), state, control)
        if self.config.drift:
            moved = measures.drift(kwargs["model"], self.start)
            if moved:
                drifts = {name: _rounded(value) for name, value in moved.items()}
                self.layers.add([{"step": state.global_step, "drift": drifts}])
            self._tell(detectors.far_drift(state.global_step, moved), state, control)

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Time spent on a checkpoint is not the training's."""
        self._last_step_s = None

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """What comes after is not watched."""
        self.active = False

    # What comes of it

    def is_over(self, state: TrainerState) -> bool:
        """Whether the training was stopped at or before the state's step."""
        stopped = self.actions.stopped_at()
        return stopped is not None and stopped <= state.global_step

    def go_on(self, trainer: SpeechTrainer) -> None:
        """Train on from the checkpoint of a rollback, as often as one was decided."""
        while self.back_to is not None:
            checkpoint, self.back_to = self.checkpoints / f"checkpoint-{self.back_to}", None
            trainer.train(resume_from_checkpoint=str(checkpoint))

    def _count(self, args: TrainingArguments, seconds: float) -> None:
        ended = self._micro_batch
        for micro_batch in range(ended - min(ended, args.gradient_accumulation_steps), ended):
            utterances, audio_s = self.book.amounts(micro_batch)
            self._amounts[0] += utterances * world_size()
            self._amounts[1] += audio_s * world_size()
        self._amounts[2] += seconds

    def _check_finite(self, args: TrainingArguments, control: TrainerControl) -> None:
        pending, norms = self._pending, self._norms
        self._pending, self._norms = [], {}
        if not pending:
            return
        losses = torch.stack([loss.float() for _, _, loss in pending]).tolist()
        found: Finding | None = None
        batches: list[int] = []
        for step in sorted({step for step, *_ in pending}):
            own = [(batch, loss) for (at, batch, _), loss in zip(pending, losses, strict=True) if at == step]
            # Under fp16 the gradient scaler tries scales that overflow, and passes such steps over.
            norm = 0.0 if args.fp16 else float(norms.get(step, 0.0))
            found = detectors.not_finite(step, [loss for _, loss in own], norm)
            if found:
                batches = [batch for batch, loss in own if not math.isfinite(loss)] or [batch for batch, _ in own]
                break
        first = _first_anywhere(found.step if found else None)
        if first is None:
            return
        if found and found.step == first:
            self._write_bad_batch(found, batches)
        else:
            found = detectors.not_finite(first, [math.nan])
        assert found is not None and self.trainer is not None
        self._tell(found, self.trainer.state, control)
        if self.config.auto:
            control.should_evaluate = control.should_save = False
            self._roll_back(found, control)

    def _write_bad_batch(self, found: Finding, batches: list[int]) -> None:
        rank = self.book.sampler.rank
        utterances = [row for batch in batches for row in self.book.describe(batch)]
        facts = {"step": found.step, "what": found.what, "micro_batches": batches, "utterances": utterances}
        write_json(self.directory / (BAD_BATCH if not rank else f"bad_batch.rank{rank}.json"), facts)

    def _tell(self, finding: Finding | None, state: TrainerState, control: TrainerControl) -> None:
        if finding is None or not is_news(finding, self.findings.rows, [one.step for one in dev_points(state)]):
            return
        self.findings.add([finding.to_json()])
        note(f"{finding.severity} at step {finding.step}: {finding.what}; {finding.remedy}")
        for listener in self.listeners:
            listener(finding)

    def _roll_back(self, found: Finding, control: TrainerControl) -> None:
        control.should_training_stop = True
        earlier = self.actions.rollbacks()
        target = main_says(good_checkpoint(self.checkpoints, found.onset or 0))
        if len(earlier) >= self.config.max_rollbacks or target is None:
            self._stop(found, control)
            return
        again = found.kind == "not_finite" and any(
            (one.reason, one.step) == (found.kind, found.step) for one in earlier
        )
        factor = 1.0 if again else self.config.rate_factor
        self.actions.add(Action("rollback", found.kind, found.step, target, factor, done=False))
        what = f"went back to step {target}"
        what += ", passing this step over" if again else f", learning rate times {self.actions.rate():g}"
        self.findings.add([{**found.to_json(), "action": what}])
        note(f"auto: {what}")
        self.back_to = target

    def _stop(self, found: Finding, control: TrainerControl) -> None:
        control.should_training_stop = True
        if not any(one.kind == "stop" and one.step == found.step for one in self.actions.all):
            self.actions.add(Action("stop", found.kind, found.step))
            self.findings.add([{**found.to_json(), "action": "stopped the training"}])
            note("auto: stopped the training; the best checkpoint is kept")


def train_points(state: TrainerState) -> list[TrainPoint]:
    """The training rows of the Trainer's log."""
    rows = [row for row in state.log_history if "loss" in row]
    return [TrainPoint(int(row["step"]), row["loss"], row.get("grad_norm", 0.0)) for row in rows]


def dev_points(state: TrainerState) -> list[DevPoint]:
    """The evaluations of the Trainer's log."""
    rows = [row for row in state.log_history if "eval_wer" in row]
    return [DevPoint(int(row["step"]), row["eval_wer"], row.get("eval_loss")) for row in rows]


def _rounded(value: float) -> float:
    return float(f"{value:.5g}")


def _first_anywhere(step: int | None) -> int | None:
    """The earliest step over all processes, so that all of them act on the same one."""
    if world_size() == 1:
        return step
    never = 2**62
    first = torch.tensor(never if step is None else step)
    torch.distributed.all_reduce(first, op=torch.distributed.ReduceOp.MIN)
    return None if int(first) == never else int(first)
