"""The Hugging Face Trainer with our batches, our evaluation and checkpoints that survive a kill."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from speechtune.core.files import read_json, write_json
from speechtune.training.averaging import best_steps, evaluated_steps
from speechtune.training.batch_finder import BatchFinder
from speechtune.training.config import TrainingConfig
from speechtune.training.data import BucketSampler, Collator, TrainingSet, evaluation_steps, total_steps
from speechtune.training.momentum import schedule_of
from speechtune.training.objectives.combine import Call, Objectives
from speechtune.training.optimisers import build_optimiser
from speechtune.training.parameter_groups import ParameterPlan
from speechtune.training.precision import precision_of, prepare_compilation
from speechtune.training.processes import main_computes, wait_for_all, world_size
from speechtune.training.sharding import sharding_options, switch_on_without_gpu
from speechtune.training.steps import StepCollator, StepSampler, StepSet

if TYPE_CHECKING:
    from speechtune.training.monitor.callback import Monitor

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
        keep_best: int = 1,
        objectives: Objectives | None = None,
        plan: ParameterPlan | None = None,
        finder: BatchFinder | None = None,
        rate: Callable[[int], float] | None = None,
    ) -> None:
        self.data = data
        self.sampler = sampler
        self.keep_newest = keep_newest
        self.keep_evaluated = keep_evaluated
        self.keep_best = keep_best
        self.watch: Monitor | None = None
        self._evaluate_now = evaluate
        self.objectives = objectives
        self.plan = plan
        self.finder = finder or BatchFinder()
        self.rate = rate
        self.control: TrainerControl
        self.optimizer: torch.optim.Optimizer | None
        self.lr_scheduler: torch.optim.lr_scheduler.LRScheduler | None
        self.gather: Callable[[SpeechTrainer], None] | None = None
        self.is_undivided = False
        super().__init__(model=model, args=arguments, train_dataset=data, callbacks=callbacks)
        self.model_accepts_loss_kwargs = True

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches as the sampler plans them; each process already has its own share."""
        workers = self.args.dataloader_num_workers
        in_steps = isinstance(self.sampler, StepSampler)
        collate = Collator(self.data.family, asides=self.data.asides is not None)
        return DataLoader(
            StepSet(self.data) if in_steps else self.data,
            batch_sampler=self.sampler,
            collate_fn=StepCollator(collate) if in_steps else collate,
            num_workers=workers,
            pin_memory=self.args.device.type == "cuda",
            persistent_workers=workers > 0,
        )

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The recipe's schedule."""
        if self.rate is None or self.lr_scheduler is not None:
            return super().create_scheduler(num_training_steps, optimizer)
        stepped = optimizer or self.optimizer
        assert stepped is not None
        schedule = schedule_of(stepped, self.rate)
        self.lr_scheduler = schedule
        self._created_lr_scheduler = True
        return schedule

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: torch.device) -> Any:
        """The micro-batches of the next optimiser step and the number of labels in it."""
        samples, items = super().get_batch_samples(epoch_iterator, num_batches, device)
        self.finder.begin(self.state.global_step, _flat(samples))
        return samples, items

    def _get_num_items_in_batch(self, batch_samples: list[Any], device: torch.device) -> Any:
        return super()._get_num_items_in_batch(_flat(batch_samples), device)

    def floating_point_ops(self, inputs: Any) -> float:
        """The operations of a micro-batch, or of all of a step."""
        return sum(float(super(SpeechTrainer, self).floating_point_ops(batch)) for batch in _flat([inputs]))

    def training_step(
        self, model: torch.nn.Module, inputs: Any, num_items_in_batch: torch.Tensor | int | None = None
    ) -> torch.Tensor:
        """One micro-batch, or with an effective batch all of a step, forward and backward; cut where memory ends."""
        own = super().training_step
        if self.watch is not None and self.watch.passes_over(model):
            return torch.zeros((), device=self.args.device)

        def backward(part: dict[str, Any], last: bool) -> torch.Tensor:
            with nullcontext() if last else self.accelerator.no_sync(model=model):
                return own(model, part, num_items_in_batch)

        loss = self.finder.run(inputs, backward, model.zero_grad)
        if self.watch is not None:
            self.watch.see_loss(loss)
        return loss

    def compute_loss(
        self,
        model: torch.nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """The model's own loss, or with objectives theirs, scaled for the whole optimiser step in either case."""
        if self.objectives is None:
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        own = super().compute_loss

        def forward(batch: dict[str, Any], items: Any) -> torch.Tensor:
            loss = own(model, batch, num_items_in_batch=items)
            assert isinstance(loss, torch.Tensor)
            return loss

        call = Call(
            inputs=inputs,
            items=num_items_in_batch,
            forward=forward,
            autocast=self.accelerator.autocast,
            progress=self.state.global_step / max(1, self.args.max_steps),
            processes=self.accelerator.num_processes,
            training=self.is_in_train,
            step=self.state.global_step,
        )
        return self.objectives.loss(call)

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Log, with the means of the objectives' terms beside the loss."""
        if self.objectives is not None and "loss" in logs:
            logs = {**logs, **self.objectives.columns(self.accelerator.gather)}
        if self.watch is not None:
            logs = {**logs, **self.watch.columns(logs)}
        super().log(logs, *args, **kwargs)

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        """Generate the dev set and log what comes out under ``eval_…``."""
        if self.gather is not None:
            self.gather(self)
        metrics = {f"eval_{name}": value for name, value in main_computes(self._evaluate_now).items()}
        self.log(metrics)
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluate_weights(self) -> dict[str, float]:
        """Generate the dev set with the model's present weights, without logging it as a step of the run."""
        return self._evaluate_now()

    def _clip_grad_norm(self, model: torch.nn.Module) -> Any:
        norm = super()._clip_grad_norm(model)
        if self.watch is not None:
            self.watch.see_gradient_norm(norm)
        return norm

    def create_optimizer(self, model: torch.nn.Module | None = None) -> torch.optim.Optimizer:
        """The optimiser and groups of the plan; the parent's own where the plan asks for nothing else."""
        if self.optimizer is None and self.plan is not None and not self.plan.plain:
            whole = self.model if model is None else model
            assert isinstance(whole, torch.nn.Module)
            self.optimizer = build_optimiser(whole, self.plan)
        return super().create_optimizer(model)

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: torch.nn.Module | None = None) -> None:
        """As the parent; after a divided training, the checkpoint's whole weights into a whole model."""
        if not self.is_undivided or model is None:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
            return
        from safetensors.torch import load_file

        model.load_state_dict(load_file(Path(resume_from_checkpoint) / "model.safetensors"))

    def _save_checkpoint(self, model: torch.nn.Module, trial: Any) -> None:
        super()._save_checkpoint(model, trial)
        wait_for_all()  # each process writes its own random state into the checkpoint
        if self.args.should_save:
            folder = Path(self.args.output_dir) / f"checkpoint-{self.state.global_step}"
            for callback in self.callback_handler.callbacks:
                if hasattr(callback, "keep"):
                    callback.keep(folder)
            mark_complete(folder)
            history = self.state.log_history
            wanted = {best_step(history), *evaluated_steps(history, self.keep_evaluated)}
            wanted |= set(best_steps(history, self.keep_best))
            wanted |= self.watch.wanted_checkpoints() if self.watch is not None else set()
            prune(folder.parent, wanted, self.keep_newest)


def _flat(samples: list[Any]) -> list[dict[str, Any]]:
    """Micro-batches, also where they come as the lists of whole steps."""
    return [batch for sample in samples for batch in (sample if isinstance(sample, list) else [sample])]


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
        planned = evaluation_steps(sampler.epoch_ends(), config.batch.accumulate, config.evaluations_per_epoch)
        last = total_steps(config, sampler)
        self.evaluations = {step for step in planned if step < last} | {last}

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
    precision = precision_of(config, device)
    if config.compile:
        prepare_compilation(device)
    sharded = config.sharding == "fsdp" and world_size() > 1
    options: dict[str, Any] = {"activation_checkpointing": config.gradient_checkpointing}
    if sharded:
        options = sharding_options(config.gradient_checkpointing)
    arguments = TrainingArguments(
        **options,
        ddp_backend="gloo" if device == "cpu" and int(os.environ.get("WORLD_SIZE", 1)) > 1 else None,
        output_dir=str(run / "checkpoints"),
        max_steps=steps,
        gradient_accumulation_steps=config.batch.accumulate,
        learning_rate=config.learning_rate,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        optim="adamw_torch_fused",
        bf16=precision == "bf16",
        fp16=precision == "fp16",
        use_cpu=device == "cpu",
        torch_compile=config.compile,
        seed=config.seed,
        eval_strategy="no",
        save_strategy="no",
        logging_steps=max(1, min(10, steps // 20)),
        logging_nan_inf_filter=False,
        report_to=list(config.trackers),
        project="speechtune",
        run_name=run.name,
        trackio_static_space_id=False,
        disable_tqdm=True,
        remove_unused_columns=False,
        dataloader_num_workers=config.workers,
        label_names=["labels"],
        average_tokens_across_devices=True,
    )
    if sharded and device == "cpu":
        switch_on_without_gpu()
    if arguments.n_gpu > 1:  # one process, one GPU: DataParallel would split our batches by rows
        arguments._n_gpu = 1
    return arguments
