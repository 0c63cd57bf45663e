"""A run: baseline, preflight, training, best model, proof. Each part is skipped where its result stands."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from speechtune.core.errors import InputError, explain_write_errors
from speechtune.core.files import read_json, write_json, write_jsonl, write_text
from speechtune.core.progress import Bar, note, set_quiet
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus
from speechtune.models.adapters import choose_trainable, save_trained
from speechtune.models.family import Family, load_family
from speechtune.models.obtaining import resolve_model
from speechtune.training.averaging import average_weights, evaluated_steps, set_weights
from speechtune.training.data import TrainingSet, augment_for, masks_for, sampler_for
from speechtune.training.evaluation import Measurement, compare_all, dev_metrics, measure, sets_of
from speechtune.training.pool import Pool, training_pool
from speechtune.training.preflight import preflight
from speechtune.training.recipe import Recipe, load_recipe
from speechtune.training.trainer import (
    Schedule,
    SpeechTrainer,
    best_step,
    newest_complete,
    training_arguments,
)

FINISHED = "run.json"
"""The finish mark, written last."""

RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
SCORES = "scores.json"
AVERAGE = "average.json"
"""Which checkpoints were averaged, and whether their average became the model."""


@dataclass(slots=True)
class Run:
    """A finished run: its directory and what ``run.json`` says of it."""

    directory: Path
    summary: dict[str, Any]


def train(recipe: Recipe, directory: Path, *, resume: bool = False) -> Run:
    """Carry out a recipe in ``directory``.

    Args:
        recipe: what to do.
        directory: the run's directory; must not hold anything yet, unless ``resume``.
        resume: continue from the newest complete checkpoint. The weights end up bit-identical to
            those of an uninterrupted run on the same machine.

    Raises:
        InputError: unusable input, no memory or disk, a directory that is taken, or another recipe.
        PreflightError: the training would be wrong.
    """
    if resume and (directory / FINISHED).is_file():
        note(f"{directory} is already finished")
        return Run(directory, read_json(directory / FINISHED))
    set_quiet_beside_main()
    corpus = Corpus.load(recipe.data.corpus)
    dev_split = corpus.split(recipe.data.dev_split)
    measured = sets_of(recipe, corpus)
    base = resolve_model(recipe.model.base)
    family = load_family(base, family=recipe.model.family, language=recipe.model.language)
    pool = training_pool(corpus, family, recipe.data)
    learnt = Corpus(pool.corpus.root, pool.utterances)
    data = TrainingSet(
        pool.corpus,
        pool.utterances,
        family,
        recipe.data,
        draw=pool.draw,
        augment=augment_for(recipe.training, learnt, family.limits.max_audio_s),
        masks=masks_for(recipe.training),
    )
    if not is_main_process():
        _fit(recipe, directory, data, dev_split)
        return Run(directory, {})
    _open_directory(recipe, directory, resume)
    fingerprint = corpus.fingerprint()
    if not (directory / "provenance.json").is_file():
        facts: dict[str, Any] = {
            "data": {
                "corpus": str(corpus.root),
                "fingerprint": fingerprint,
                **pool.to_json(),
            },
            "base": {"name": recipe.model.base, "path": str(base)},
        }
        write_json(directory / "provenance.json", provenance(recipe.training.seed, **facts))
    _same_data(directory, fingerprint, pool)

    with explain_write_errors(directory):
        note(f"training on {len(pool.utterances)} utterances, {pool.seconds_of_audio / 60:.1f} min")
        before = measure(family, measured, recipe, directory, "before")
        if not (directory / "model" / "config.json").is_file():
            _fit(recipe, directory, data, dev_split)
        tuned = load_family(directory / "model", language=recipe.model.language)
        after = measure(tuned, measured, recipe, directory, "after")
        return _finish(recipe, directory, before, after)


def is_main_process() -> bool:
    """Whether this process measures, writes and speaks: the only one, or rank 0 under torchrun."""
    return int(os.environ.get("RANK", 0)) == 0


def set_quiet_beside_main() -> None:
    """Only the main process shows progress."""
    if not is_main_process():
        set_quiet(True)


def _open_directory(recipe: Recipe, directory: Path, resume: bool) -> None:
    from omegaconf import OmegaConf

    text = OmegaConf.to_yaml(OmegaConf.create(recipe.model_dump()))
    stored = directory / RECIPE
    if stored.is_file():
        if not resume:
            raise InputError(f"{directory} holds a run already: add --resume to continue it or choose another --out")
        _same_recipe(load_recipe(stored), recipe, stored)
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} exists and holds no run: choose another --out")
    write_text(stored, text)


def _same_recipe(old: Recipe, new: Recipe, stored: Path) -> None:
    from speechtune.core.config import fields_of

    dumps = [old.model_dump(), new.model_dump()]
    for key, _ in fields_of(Recipe):
        values = [_value_at(dump, key) for dump in dumps]
        if values[0] != values[1]:
            raise InputError(
                f"{stored} says {key}={values[0]} and now {key}={values[1]} is asked for: resume with the same recipe "
                "or choose another --out"
            )


def _value_at(values: dict[str, Any], key: str) -> Any:
    value: Any = values
    for part in key.split("."):
        value = value[part]
    return value


def _same_data(directory: Path, fingerprint: str, pool: Pool) -> None:
    stored = read_json(directory / "provenance.json")["data"]
    pairs = [("the corpus", stored["fingerprint"], fingerprint)]
    for old, part in zip(stored.get("mix", []), pool.parts, strict=True):
        pairs.append((str(part.corpus.root), old["fingerprint"], part.fingerprint))
    for name, then, now in pairs:
        if then != now:
            raise InputError(
                f"{name} has changed since {directory} was started (fingerprint {then[:12]} then, {now[:12]} now): "
                "restore it, or start a new run with another --out"
            )


def _fit(recipe: Recipe, directory: Path, data: TrainingSet, dev: Corpus) -> None:
    """Train, and write the best checkpoint's weights to ``directory/model``."""
    config, family = recipe.training, data.family
    sampler = sampler_for(config, data)
    steps = -(-len(sampler) // config.batch.accumulate)
    os.environ["TENSORBOARD_LOGGING_DIR"] = str(directory / "tensorboard")
    device = next(family.model.parameters()).device.type
    arguments = training_arguments(config, directory, device, steps)
    set_seed(config.seed)
    _spec_augment(recipe, family)
    family.regularise(config.dropout, config.label_smoothing)
    model = choose_trainable(family, recipe.model, recipe.adapter)
    schedule = Schedule(config, sampler)
    callbacks = [schedule, _Record(directory, sampler.epoch_ends(), config.batch.accumulate)]
    trainer = SpeechTrainer(
        model,
        arguments,
        data,
        sampler,
        evaluate=lambda: dev_metrics(family, dev, recipe),
        callbacks=callbacks,
        keep_newest=config.keep_checkpoints,
        keep_evaluated=config.average_last,
    )
    trainer.remove_callback(PrinterCallback)
    _start_or_continue(trainer, schedule, directory, config.preflight)
    if is_main_process():
        _keep_the_best(trainer, model, directory, config.average_last)
        save_trained(family, model, directory)


def _start_or_continue(trainer: SpeechTrainer, schedule: Schedule, directory: Path, check: bool) -> None:
    checkpoint = newest_complete(directory / "checkpoints")
    if checkpoint is None:
        if check:
            checked = preflight(trainer, directory)
            if is_main_process():
                write_json(directory / "preflight.json", checked.to_json())
            note(f"preflight passed in {checked.seconds} s: " + "; ".join(checked.checks.values()))
        set_seed(trainer.args.seed)
        trainer.train()
        return
    trainer.state = TrainerState.load_from_json(str(checkpoint / "trainer_state.json"))
    note(f"continuing from step {trainer.state.global_step} of {trainer.args.max_steps}")
    if trainer.state.global_step < trainer.args.max_steps and not schedule.is_over(trainer.state):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def _keep_the_best(trainer: SpeechTrainer, model: torch.nn.Module, directory: Path, average_last: int) -> None:
    """Put the weights to keep into the model: the average of the last ones if it is no worse, else the best step's."""
    history = trainer.state.log_history
    best = best_step(history)
    steps = evaluated_steps(history, average_last)

    def load(step: int | None) -> None:
        trainer._load_from_checkpoint(str(directory / "checkpoints" / f"checkpoint-{step}"), model)

    if len(steps) > 1:
        average = average_weights(model, steps, load)
        set_weights(model, average)
        metrics = trainer.evaluate_weights()
        lowest = min(row["eval_wer"] for row in history if "eval_wer" in row)
        chosen = metrics["wer"] <= lowest
        write_json(directory / AVERAGE, {"steps": steps, "best_single_wer": lowest, "chosen": chosen, **metrics})
        note(
            f"average of the {len(steps)} last checkpoints: dev WER {100 * metrics['wer']:.1f} %, "
            f"best single one {100 * lowest:.1f} %: keeping the {'average' if chosen else 'single one'}"
        )
        if chosen:
            return
    load(best)


def _spec_augment(recipe: Recipe, family: Family) -> None:
    wanted = recipe.training.spec_augment
    config: Any = family.model.config
    config.apply_spec_augment = wanted.time_prob > 0 or wanted.feature_prob > 0
    config.mask_time_prob, config.mask_time_length = wanted.time_prob, wanted.time_length
    config.mask_feature_prob, config.mask_feature_length = wanted.feature_prob, wanted.feature_length


def _finish(recipe: Recipe, directory: Path, before: list[Measurement], after: list[Measurement]) -> Run:
    comparisons = compare_all(before, after, recipe)
    scores = {
        "measurements": [measurement.to_json() for measurement in [*before, *after]],
        "comparisons": comparisons,
    }
    write_json(directory / SCORES, scores)
    state = newest_complete(directory / "checkpoints")
    log = read_json(state / "trainer_state.json")["log_history"] if state else []
    summary = {
        "run": str(directory),
        "model": str(directory / "model"),
        "best_step": best_step(log),
        "averaged_steps": _averaged_steps(directory),
        "comparisons": comparisons,
        "trained_for": {
            "audio_context": recipe.training.audio_context.mode,
            "full_share": recipe.training.audio_context.full_share,
        },
    }
    trained_for = {"audio_contexts": _contexts_trained(recipe), "language": recipe.model.language}
    write_json(directory / "model" / "speechtune.json", trained_for)
    write_json(directory / FINISHED, summary)
    return Run(directory, summary)


def _averaged_steps(directory: Path) -> list[int] | None:
    average = read_json(directory / AVERAGE) if (directory / AVERAGE).is_file() else {}
    return average["steps"] if average.get("chosen") else None


def _contexts_trained(recipe: Recipe) -> list[str]:
    context = recipe.training.audio_context
    return ["full"] if context.mode == "full" else ["fit", "full"] if context.full_share > 0 else ["fit"]


class _Record(TrainerCallback):
    """Draws the progress bar and keeps ``metrics.jsonl``, a copy of the log with real epochs."""

    def __init__(self, directory: Path, epoch_ends: list[int], accumulate: int) -> None:
        self.path = directory / METRICS
        self.ends = [0, *(end / accumulate for end in epoch_ends)]
        self.bar: Bar | None = None
        self.detail = ""

    def epoch_at(self, step: int) -> float:
        """Epochs completed after ``step`` optimiser steps."""
        for epoch, (start, end) in enumerate(zip(self.ends, self.ends[1:], strict=False)):
            if step <= end:
                return round(epoch + (step - start) / (end - start), 3)
        return float(len(self.ends) - 1)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Start the bar at the step the run continues from."""
        self.bar = Bar("train", state.max_steps, state.global_step).__enter__()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Move the bar."""
        if self.bar:
            self.bar.advance(state.global_step, self.detail)

    def on_log(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        """Rewrite ``metrics.jsonl`` from the log, which a checkpoint restores."""
        if not state.is_world_process_zero:
            return
        rows = []
        for row in state.log_history:
            kind = "dev" if "eval_wer" in row else "train" if "loss" in row else "summary"
            values = {name.removeprefix("eval_"): value for name, value in row.items() if name not in ("step", "epoch")}
            rows.append({"step": row["step"], "epoch": self.epoch_at(row["step"]), "kind": kind, **values})
            if kind == "dev":
                self.detail = f"dev WER {100 * values['wer']:.1f} %"
            elif kind == "train":
                self.detail = f"loss {values['loss']:.3f}"
        write_jsonl(self.path, rows)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        """Close the bar."""
        if self.bar:
            self.bar.__exit__(None, None, None)
