"""The Hugging Face Trainer with our batches, our evaluation and checkpoints that survive a kill."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speechtune.core.files import read_json, write_json
from speechtune.training.averaging import evaluated_steps
from speechtune.training.config import TrainingConfig
from speechtune.training.data import BucketSampler, Collator, TrainingSet, evaluation_steps

MANIFEST = "complete.json"
"""Written last into a checkpoint; lists its files with their sizes."""


class SpeechTrainer(Trainer):
    """Trains on the batches of a `BucketSampler`, evaluates by generating, checkpoints atomically.

    The Trainer sees the whole run as one epoch, because the number of batches differs between
    epochs. The model's own loss divides by ``num_items_in_batch``, the labels of the whole optimiser
    step over all processes.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        arguments: TrainingArguments,
        data: TrainingSet,
        sampler: BucketSampler,
        evaluate: Callable[[], dict[str, float]],
        callbacks: list[TrainerCallback],
        keep_newest: int = 1,
        keep_evaluated: int = 1,
    ) -> None:
        self.data = data
        self.sampler = sampler
        self.keep_newest = keep_newest
        self.keep_evaluated = keep_evaluated
        self._evaluate_now = evaluate
        self.control: TrainerControl
        super().__init__(model=model, args=arguments, train_dataset=data, callbacks=callbacks)
        self.model_accepts_loss_kwargs = True

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches as the sampler plans them; each process already has its own share."""
        workers = self.args.dataloader_num_workers
        return DataLoader(
            self.data,
            batch_sampler=self.sampler,
            collate_fn=Collator(self.data.family),
            num_workers=workers,
            pin_memory=self.args.device.type == "cuda",
            persistent_workers=workers > 0,
        )

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Generate the dev set and log what comes out under ``eval_…``."""
        metrics = {f"eval_{name}": value for name, value in self._evaluate_now().items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluate_weights(self) -> dict[str, float]:
        """Generate the dev set with the model's present weights, without logging it as a step of the run."""
        return self._evaluate_now()

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            mark_complete(folder)
            history = self.state.log_history
            wanted = {best_step(history), *evaluated_steps(history, self.keep_evaluated)}
            prune(folder.parent, wanted, self.keep_newest)


def mark_complete(folder: Path) -> None:
    """Flush a checkpoint to the disk and write its manifest: from now on it counts."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    for path in files:
        handle = os.open(path, os.O_RDONLY)
        os.fsync(handle)
        os.close(handle)
    write_json(folder / MANIFEST, {str(path.relative_to(folder)): path.stat().st_size for path in files})


def is_complete(folder: Path) -> bool:
    """Whether a checkpoint has its manifest and every file at its size."""
    if not (folder / MANIFEST).is_file():
        return False
    sizes = read_json(folder / MANIFEST)
    return all((folder / name).is_file() and (folder / name).stat().st_size == size for name, size in sizes.items())


def checkpoints(directory: Path) -> list[tuple[int, Path]]:
    """Checkpoints in a directory by step, complete or not."""
    found = [path for path in directory.glob("checkpoint-*") if path.is_dir() and path.name[11:].isdigit()]
    return sorted((int(path.name[11:]), path) for path in found)


def newest_complete(directory: Path) -> Path | None:
    """The checkpoint to continue from; half-written ones are removed."""
    newest = None
    for _, path in checkpoints(directory):
        if is_complete(path):
            newest = path
        else:
            shutil.rmtree(path, ignore_errors=True)
    return newest


def prune(directory: Path, keep_steps: set[int | None], newest: int) -> None:
    """Remove complete checkpoints except the newest and those of ``keep_steps``; called after a save."""
    found = checkpoints(directory)
    for step, path in found[: max(0, len(found) - newest)]:
        if step not in keep_steps:
            # Without its manifest a half-removed checkpoint is not mistaken for a whole one.
            (path / MANIFEST).unlink(missing_ok=True)
            shutil.rmtree(path)


def best_step(log_history: list[dict[str, Any]]) -> int | None:
    """The step of the lowest dev WER so far (the earliest of equals)."""
    evaluations = [(row["eval_wer"], row["step"]) for row in log_history if "eval_wer" in row]
    return min(evaluations)[1] if evaluations else None


def evaluations_since_best(log_history: list[dict[str, Any]]) -> int:
    """How many evaluations came after the best one."""
    steps = [row["step"] for row in log_history if "eval_wer" in row]
    return len(steps) - 1 - steps.index(best_step(log_history)) if steps else 0


class Schedule(TrainerCallback):
    """Says when to evaluate, when to save, and when patience is over."""

    def __init__(self, config: TrainingConfig, sampler: BucketSampler) -> None:
        self.config = config
        self.evaluations = evaluation_steps(sampler.epoch_ends(), config.batch.accumulate, config.evaluations_per_epoch)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Ask for an evaluation with a checkpoint at the planned steps, and for extra checkpoints."""
        every = self.config.checkpoint_every_steps
        control.should_evaluate = state.global_step in self.evaluations
        control.should_save = control.should_evaluate or bool(every and state.global_step % every == 0)
        return control

    def on_evaluate(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> TrainerControl:
        """Stop when the last ``patience`` evaluations were no better."""
        if self.is_over(state):
            control.should_training_stop = True
        return control

    def is_over(self, state: TrainerState) -> bool:
        """Whether patience has run out."""
        patience = self.config.patience
        return patience is not None and evaluations_since_best(state.log_history) >= patience


def training_arguments(config: TrainingConfig, run: Path, device: str, steps: int) -> TrainingArguments:
    """The Trainer's arguments for a run of ``steps`` optimiser steps on ``cuda`` or ``cpu``."""
    precision = config.precision
    if precision == "auto":
        precision = ("bf16" if torch.cuda.is_bf16_supported() else "fp16") if device == "cuda" else "fp32"
    arguments = TrainingArguments(
        ddp_backend="gloo" if device == "cpu" and int(os.environ.get("WORLD_SIZE", 1)) > 1 else None,
        output_dir=str(run / "checkpoints"),
        max_steps=steps,
        gradient_accumulation_steps=config.batch.accumulate,
        learning_rate=config.learning_rate,
        lr_scheduler_type=config.schedule if config.schedule != "constant" else "constant_with_warmup",
        warmup_steps=round(config.warmup_share * steps),
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        activation_checkpointing=config.gradient_checkpointing,
        torch_compile=config.compile,
        seed=config.seed,
        eval_strategy="no",
        save_strategy="no",
        logging_steps=max(1, min(10, steps // 20)),
        logging_nan_inf_filter=False,
        report_to=list(config.trackers),
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=config.workers,
        label_names=["labels"],
        average_tokens_across_devices=True,
    )
    if arguments.n_gpu > 1:  # one process, one GPU: DataParallel would split our batches by rows
        arguments._n_gpu = 1
    return arguments
