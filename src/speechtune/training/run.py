"""A run: baseline, preflight, training, best model, proof. Each part is skipped where its result stands."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback, TrainerControl, TrainerState, TrainingArguments, set_seed

from speechtune.core.errors import InputError, explain_write_errors
from speechtune.core.files import read_json, write_json, write_jsonl, write_text
from speechtune.core.progress import Bar, note, set_quiet
from speechtune.core.provenance import provenance
from speechtune.corpus.reading import load_corpus
from speechtune.corpus.table import Corpus
from speechtune.models.adapters import describe_adapter, save_trained
from speechtune.models.attention_dropout import set_attention_dropout
from speechtune.models.config import Context
from speechtune.models.family import Family, load_family
from speechtune.models.obtaining import resolve_model
from speechtune.models.trainable import check_selection
from speechtune.training.adapter_set import train_adapters
from speechtune.training.asides import asides_for
from speechtune.training.augment_by import augment_of
from speechtune.training.averaging import AVERAGE, keep_the_best
from speechtune.training.batch_finder import BatchFinder, record_name
from speechtune.training.data import TrainingSet, masks_for, sampler_for, total_steps
from speechtune.training.elsewhere import is_elsewhere, train_elsewhere
from speechtune.training.evaluation import Measurement, compare_all, dev_metrics, measure, sets_of
from speechtune.training.forgetting import GuardWatch, forgetting
from speechtune.training.formatting import format_for
from speechtune.training.label_texts import prepare_family, prepare_next_stage
from speechtune.training.monitor.wiring import watched
from speechtune.training.objectives.combine import objectives_for
from speechtune.training.pool import Pool, training_pool
from speechtune.training.precision import apply_liger, attention_of
from speechtune.training.preflight import preflight
from speechtune.training.processes import is_main_process, join_processes, main_says
from speechtune.training.recipe import Recipe, load_recipe
from speechtune.training.schedules import rates
from speechtune.training.sharding import shards
from speechtune.training.stage_results import JoinMetrics, join_stages, summaries
from speechtune.training.stages import Stage, stages_of
from speechtune.training.trackers import check_trackers, prepare_trackers
from speechtune.training.trainer import (
    Schedule,
    SpeechTrainer,
    best_step,
    newest_complete,
    training_arguments,
)
from speechtune.training.upload import check_upload, upload_when_asked
from speechtune.training.what_is_trained import record, what_is_trained

FINISHED = "run.json"
"""The finish mark, written last."""

RECIPE = "recipe.yaml"
METRICS = "metrics.jsonl"
SCORES = "scores.json"


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
    if is_elsewhere(recipe):
        opened = partial(_open_directory, recipe, directory, resume)
        return Run(directory, train_elsewhere(recipe, directory, opened, partial(_same_data, directory)))
    set_quiet_beside_main()
    check_upload(recipe.upload)
    for stage in stages_of(recipe, directory):
        check_trackers(stage.recipe.training.trackers)
    if recipe.adapter.per:
        return Run(*train_adapters(recipe, directory, resume, train))
    stages = stages_of(recipe, directory)
    corpora = [load_corpus(stage.recipe.data) for stage in stages]
    dev_splits = [corpus.split(stage.recipe.data.dev_split) for stage, corpus in zip(stages, corpora, strict=True)]
    measured = sets_of(recipe, load_corpus(recipe.data))
    guards = GuardWatch(recipe, measured, directory)
    base = resolve_model(recipe.model.base)
    family = load_family(base, family=recipe.model.family, language=recipe.model.language)
    prepare_family(family, [stage.recipe for stage in stages])
    pools = [
        training_pool(corpus, family, stage.recipe.data, keep_empty=stage.recipe.training.format.keep_empty)
        for stage, corpus in zip(stages, corpora, strict=True)
    ]
    for stage, pool in zip(stages, pools, strict=True):  # what is wrong is said before the baseline is measured
        format_for(stage.recipe.training, pool, family)
        check_selection(family, stage.recipe.model.train)
    join_processes()
    if not is_main_process():
        _train_stages(stages, pools, dev_splits, family, directory, guards)
        return Run(directory, {})
    _open_directory(recipe, directory, resume)
    sources = [
        {"corpus": str(corpus.root), "fingerprint": corpus.fingerprint(), **pool.to_json()}
        for corpus, pool in zip(corpora, pools, strict=True)
    ]
    if not (directory / "provenance.json").is_file():
        facts: dict[str, Any] = {"data": sources[0], "base": {"name": recipe.model.base, "path": str(base)}}
        facts["base"]["attention"] = attention_of(family.model)
        if recipe.stages:
            facts["stages"] = [{"name": one.name, "data": source} for one, source in zip(stages, sources, strict=True)]
        write_json(directory / "provenance.json", provenance(recipe.training.seed, **facts))
    _same_data(directory, sources, pools)

    with explain_write_errors(directory):
        before = measure(family, measured, recipe, directory, "before")
        _train_stages(stages, pools, dev_splits, family, directory, guards)
        tuned = load_family(directory / "model", language=recipe.model.language)
        after = measure(tuned, measured, recipe, directory, "after")
        run = _finish(recipe, directory, stages[-1], before, after, tuned.contexts)
    upload_when_asked(recipe, directory)
    return run


def _train_stages(
    stages: list[Stage], pools: list[Pool], dev_splits: list[Corpus], base: Family, directory: Path, guards: GuardWatch
) -> None:
    """Carry out the stages that are not done yet, each from the weights of the one before, an adapter merged."""
    started_from: Stage | None = None
    for stage, pool, dev in zip(stages, pools, dev_splits, strict=True):
        if not main_says(stage.is_done):
            recipe = stage.recipe
            family = load_family(started_from.model, language=recipe.model.language) if started_from else base
            if started_from:
                prepare_next_stage(family, recipe, pool.utterances)
            if is_main_process():
                _announce(stage, started_from, pool)
            data, joined = training_set(pool, family, recipe), [JoinMetrics(directory, stages)]
            _fit(recipe, stage.directory, data, dev, joined, guards)
        started_from = stage
    if is_main_process() and stages[0].name:
        join_stages(directory, stages)


def _announce(stage: Stage, started_from: Stage | None, pool: Pool) -> None:
    amount = f"{len(pool.utterances)} utterances, {pool.seconds_of_audio / 60:.1f} min"
    if not stage.name:
        note(f"training on {amount}")
        return
    source = "the base model" if started_from is None else f"what {started_from.name} kept"
    merged = started_from is not None and started_from.recipe.adapter.kind != "none"
    note(f"stage {stage.name}: on {amount}, from {source}{', its adapter merged into the weights' if merged else ''}")
    write_text(stage.directory / RECIPE, _as_yaml(stage.recipe))


def training_set(pool: Pool, family: Family, recipe: Recipe) -> TrainingSet:
    """The examples of a training, with the changes of waveforms and features that its recipe asks for."""
    return TrainingSet(
        pool.corpus,
        pool.utterances,
        family,
        recipe.data,
        draw=pool.draw,
        augment=augment_of(recipe.training, pool, pool.utterances, family.limits.max_audio_s),
        masks=masks_for(recipe.training, by_share=not getattr(family, "draws_masks_by_share", True)),
        format=format_for(recipe.training, pool, family, lower=recipe.data.case == "lower"),
        asides=asides_for(recipe.training, pool.utterances, family),
    )


def set_quiet_beside_main() -> None:
    """Only the main process shows progress."""
    if not is_main_process():
        set_quiet(True)


def _open_directory(recipe: Recipe, directory: Path, resume: bool) -> None:
    stored = directory / RECIPE
    if stored.is_file():
        if not resume:
            raise InputError(f"{directory} holds a run already: add --resume to continue it or choose another --out")
        _same_recipe(load_recipe(stored), recipe, stored)
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} exists and holds no run: choose another --out")
    write_text(stored, _as_yaml(recipe))


def _as_yaml(recipe: Recipe) -> str:
    from omegaconf import OmegaConf

    return OmegaConf.to_yaml(OmegaConf.create(recipe.model_dump()))


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
        if value is None:  # a block that is not given
            return None
        value = value[part]
    return value


def _same_data(directory: Path, sources: list[dict[str, Any]], pools: list[Pool]) -> None:
    record = read_json(directory / "provenance.json")
    stored = [stage["data"] for stage in record.get("stages", [])] or [record["data"]]
    pairs = []
    for then, now, pool in zip(stored, sources, pools, strict=True):
        name = "the corpus" if len(sources) == 1 else now["corpus"]
        pairs.append((name, then["fingerprint"], now["fingerprint"]))
        for old, part in zip(then.get("mix", []), pool.parts, strict=True):
            pairs.append((str(part.corpus.root), old["fingerprint"], part.fingerprint))
    for name, before, after in pairs:
        if before != after:
            raise InputError(
                f"{name} has changed since {directory} was started (fingerprint {before[:12]} then, {after[:12]} now): "
                "restore it, or start a new run with another --out"
            )


def _fit(
    recipe: Recipe,
    directory: Path,
    data: TrainingSet,
    dev: Corpus,
    more_callbacks: Sequence[TrainerCallback],
    guards: GuardWatch,
) -> None:
    """Train, and write the best checkpoint's weights to ``directory/model``."""
    config, family = recipe.training, data.family
    sampler = sampler_for(config, data)
    steps = total_steps(config, sampler)
    prepare_trackers(config.trackers, directory)
    device = next(family.model.parameters()).device.type
    arguments = training_arguments(config, directory, device, steps)
    set_seed(config.seed)
    _spec_augment(recipe, family)
    family.regularise(config.dropout, config.label_smoothing)
    if config.attention_dropout is not None:
        set_attention_dropout(family.model, config.attention_dropout)
    if config.liger:
        apply_liger(family)
    if data.format is not None:
        data.format.begin()
    trained = what_is_trained(family, recipe, steps)
    model = trained.model
    if is_main_process():
        record(trained.plan, directory)
    objectives = objectives_for(config, family, model, directory)
    divided = shards(recipe, family)
    shown = family if divided is None else divided.whole
    schedule = Schedule(config, sampler)
    callbacks = [schedule, _Record(directory, sampler.epoch_ends(), config.batch.accumulate), *trained.callbacks]
    monitor, watching = watched(recipe, directory, data, sampler, model)
    callbacks = [*watching[:-1], schedule, watching[-1], *callbacks[1:], *more_callbacks]
    callbacks += objectives.callbacks if objectives is not None else []
    trainer = SpeechTrainer(
        model,
        arguments,
        data,
        sampler,
        evaluate=lambda: dev_metrics(shown, dev, recipe, monitor.see_dev) | guards.metrics(shown),
        callbacks=callbacks,
        keep_newest=config.keep_checkpoints,
        keep_evaluated=config.average_last,
        keep_best=config.averages.best,
        objectives=objectives,
        plan=trained.plan,
        finder=BatchFinder(directory / record_name()),
        rate=rates(config.schedule, config.schedule_shape, steps, config.warmup_share, config.warmup_steps),
    )
    trainer.gather = None if divided is None else divided.gather
    trainer.remove_callback(PrinterCallback)
    monitor.attach(trainer)
    _start_or_continue(trainer, schedule, directory, config.preflight)
    monitor.go_on(trainer)
    if divided is not None:
        divided.leave(trainer)
        model = shown.model
    if is_main_process():
        keep_the_best(trainer, model, directory, config)
        save_trained(shown, model, directory)


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
    if trainer.state.global_step < trainer.args.max_steps and not (
        schedule.is_over(trainer.state) or (trainer.watch is not None and trainer.watch.is_over(trainer.state))
    ):
        trainer.train(resume_from_checkpoint=str(checkpoint))


def _spec_augment(recipe: Recipe, family: Family) -> None:
    wanted = recipe.training.spec_augment
    config: Any = family.model.config
    config.apply_spec_augment = wanted.time_prob > 0 or wanted.feature_prob > 0
    config.mask_time_prob, config.mask_time_length = wanted.time_prob, wanted.time_length
    config.mask_feature_prob, config.mask_feature_length = wanted.feature_prob, wanted.feature_length
    if not hasattr(config, "mask_feature_min_masks"):  # WavLM of Transformers 5.23 reads it and does not have it
        config.mask_feature_min_masks = 0


def _finish(
    recipe: Recipe,
    directory: Path,
    last: Stage,
    before: list[Measurement],
    after: list[Measurement],
    known: tuple[Context, ...],
) -> Run:
    comparisons = compare_all(before, after, recipe)
    scores = {
        "measurements": [measurement.to_json() for measurement in [*before, *after]],
        "comparisons": comparisons,
    }
    write_json(directory / SCORES, scores)
    state = newest_complete(last.directory / "checkpoints")
    log = read_json(state / "trainer_state.json")["log_history"] if state else []
    summary = {
        "run": str(directory),
        "model": str(directory / "model"),
        "best_step": best_step(log),
        "averaged_steps": _averaged_steps(last.directory),
        "comparisons": comparisons,
        "forgetting": forgetting(before, after, recipe.decoding.context),
        "trained_for": {
            "audio_context": last.recipe.training.audio_context.mode,
            "full_share": last.recipe.training.audio_context.full_share,
        },
    }
    contexts = [one for one in _contexts_trained(last.recipe) if one in known] or list(known)
    recorded = directory / "model" / "speechtune.json"  # some families keep their prompt there
    trained_for = read_json(recorded) if recorded.is_file() else {}
    trained_for |= {"audio_contexts": contexts, "language": recipe.model.language}
    write_json(recorded, trained_for)
    describe_adapter(last.directory, trained_for, None if recipe.stages else recipe.model.base)
    if recipe.stages:
        summary["stages"] = summaries(stages_of(recipe, directory))
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
