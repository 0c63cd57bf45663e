"""Training a model whose weights are in another process: OWSM, in ESPnet's (`speechtune.models.owsm_worker`).

Data, batches, augmentation, rates, evaluation and scores are those of every run; a step's clips go to the other
process, which takes the optimiser step. What a recipe sets and this way of training lacks is refused by its key.
"""

from __future__ import annotations

import math
import time
import unicodedata
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.config import fields_of
from speechtune.core.errors import InputError, SpeechtuneError, explain_write_errors
from speechtune.core.files import read_json, write_json, write_jsonl
from speechtune.core.progress import Bar, note
from speechtune.core.provenance import provenance
from speechtune.corpus.reading import load_corpus
from speechtune.corpus.table import Corpus
from speechtune.decoding.searching import Searcher
from speechtune.models.family import load_family
from speechtune.models.obtaining import resolve_model
from speechtune.models.owsm import is_checkpoint, is_owsm
from speechtune.models.owsm_family import OwsmFamily
from speechtune.training.augment_by import augment_of
from speechtune.training.data import BucketSampler, Pick, TrainingSet, evaluation_steps, sampler_for, total_steps
from speechtune.training.evaluation import Measurement, compare_all, dev_metrics, measure, sets_of
from speechtune.training.forgetting import GuardWatch, forgetting
from speechtune.training.pool import Pool, training_pool
from speechtune.training.precision import precision_of
from speechtune.training.processes import world_size
from speechtune.training.recipe import Recipe
from speechtune.training.schedules import rates

SECTIONS = ("data", "decoding", "evaluation", "training.batch", "training.speed", "training.augment")
KEYS = {
    *("model.base", "model.family", "model.language", "adapter.kind", "adapter.rank", "adapter.alpha"),
    *("adapter.dropout", "adapter.targets", "training.epochs", "training.learning_rate", "training.max_steps"),
    *("training.schedule", "training.schedule_shape.start_share", "training.schedule_shape.floor_share"),
    *("training.schedule_shape.hold_share", "training.schedule_shape.decay_share", "training.warmup_share"),
    *("training.warmup_steps", "training.weight_decay", "training.max_grad_norm", "training.optimiser.betas"),
    *("training.optimiser.eps", "training.augment_by.column", "training.augment_by.values", "training.precision"),
    *("training.seed", "training.evaluations_per_epoch", "training.checkpoint_every_steps"),
    *("training.keep_checkpoints", "training.patience", "training.preflight"),
}
"""What is honoured; any other key must have its default value."""

LABELS_CHECKED = 500
"""Training texts whose tokens the preflight reads back."""

STATE = "state.json"
"""In ``RUN/checkpoints``: the step that stands, written after the update it names."""


@dataclass(slots=True)
class Progress:
    """How far a training has come: what ``state.json`` holds.

    ``best_step`` is of the lowest dev WER so far; ``seen`` are the steps since the last row of ``metrics.jsonl``.
    """

    step: int = 0
    best_step: int | None = None
    since_best: int = 0
    seconds: float = 0.0
    rows: list[dict[str, Any]] = field(default_factory=list)
    seen: list[dict[str, float]] = field(default_factory=list)


def is_elsewhere(recipe: Recipe) -> bool:
    """Whether the recipe's base is a model that is trained in another process."""
    if recipe.model.family is not None:
        return recipe.model.family == OwsmFamily.name
    return is_owsm(recipe.model.base) or is_checkpoint(Path(recipe.model.base).expanduser())


def train_elsewhere(
    recipe: Recipe,
    directory: Path,
    open_directory: Callable[[], None],
    same_data: Callable[[list[dict[str, Any]], list[Pool]], None],
) -> dict[str, Any]:
    """Carry out a recipe: baseline, preflight, training, best update, merged model, proof.

    Args:
        recipe: what to do.
        directory: of the run.
        open_directory: writes the recipe into it, or refuses a directory that is taken.
        same_data: refuses data that have changed since the run was started.

    Returns:
        The summary, which is also ``run.json``.

    Raises:
        InputError: unusable input, a key that is not honoured, or no environment with ESPnet.
    """
    check_recipe(recipe)
    corpus = load_corpus(recipe.data)
    dev = corpus.split(recipe.data.dev_split)
    measured = sets_of(recipe, corpus)
    guards = GuardWatch(recipe, measured, directory)
    base = resolve_model(recipe.model.base)
    family = _loaded(base, recipe)
    try:
        Searcher(family, recipe.decoding)
        family.generate([], 0, 1, recipe.decoding.beams)  # refuses a language or beams that the model has not
        pool = training_pool(corpus, family, recipe.data)
        adapter, settings = recipe.adapter, _optimiser(recipe, family.device)
        about = family.worker.adapt(_targets(recipe), adapter.rank, adapter.alpha, **settings)
        training = ElsewhereTraining(recipe, directory, family, pool, dev, guards)
        open_directory()
        source = {"corpus": str(corpus.root), "fingerprint": corpus.fingerprint(), **pool.to_json()}
        if not (directory / "provenance.json").is_file():
            here = {key: family.worker.about.get(key) for key in ("espnet", "torch")}
            facts = {"data": source, "base": {"name": recipe.model.base, "path": str(base)}, "espnet_process": here}
            write_json(directory / "provenance.json", provenance(recipe.training.seed, **facts))
        same_data([source], [pool])
        with explain_write_errors(directory):
            before = measure(family, measured, recipe, directory, "before")  # an update begins at zero
            amount = f"{len(pool.utterances)} utterances, {pool.seconds_of_audio / 60:.1f} min"
            note(f"training updates of {about['layers']} layers, {about['trained']:,} parameters, on {amount}")
            progress = training.run()
            training.save(progress, base)
    finally:
        family.worker.close()
    tuned = _loaded(directory / "model", recipe)
    try:
        with explain_write_errors(directory):
            after = measure(tuned, measured, recipe, directory, "after")
            return _finish(recipe, directory, before, after, progress, about)
    finally:
        tuned.worker.close()


def check_recipe(recipe: Recipe) -> None:
    """Refuse what this way of training does not do.

    Raises:
        InputError: the sentence names the key.
    """
    if world_size() > 1:
        raise InputError("OWSM is trained by one ESPnet process: start speechtune train without torchrun")
    plain = Recipe(data=recipe.data)
    for key, _ in fields_of(Recipe):
        known = key in KEYS or any(key == one or key.startswith(f"{one}.") for one in SECTIONS)
        given = _value(recipe, key)
        nothing = key == "training.trackers" and not given  # metrics.jsonl is all that is written
        if not known and not nothing and given != _value(plain, key):
            raise InputError(
                f"{key} is {given!r}, and the training of OWSM in ESPnet's process has no such setting: remove it"
            )
    if recipe.adapter.kind != "lora":
        raise InputError(
            f"adapter.kind is {recipe.adapter.kind!r} and of OWSM only a low-rank update is trained: set adapter.kind: "
            "lora"
        )
    if recipe.training.precision == "fp16":
        raise InputError("training.precision is 'fp16' and OWSM is trained in fp32 or bf16: set one of them, or auto")
    _targets(recipe)


def _value(recipe: Recipe, key: str) -> Any:
    value: Any = recipe
    for part in key.split("."):
        value = None if value is None else getattr(value, part)
    return value


def _targets(recipe: Recipe) -> list[str]:
    targets = recipe.adapter.targets
    if isinstance(targets, dict):
        raise InputError(
            f"adapter.targets is {targets!r} and OWSM's layers are chosen by role alone: give a list, as in "
            "[attention, mlp]"
        )
    return [targets] if isinstance(targets, str) else list(targets)


def _optimiser(recipe: Recipe, device: str) -> dict[str, Any]:
    """The settings of `speechtune.models.owsm.OwsmWorker.adapt` beside the update's size."""
    config = recipe.training
    kind = device.partition(":")[0]
    precision = precision_of(config, kind)
    if precision == "fp16":  # auto, on a GPU without bf16
        note("training.precision: this GPU has no bf16, so OWSM is trained in fp32")
    return {
        "dropout": recipe.adapter.dropout,
        "seed": config.seed,
        "betas": config.optimiser.betas,
        "eps": config.optimiser.eps,
        "weight_decay": config.weight_decay,
        "max_grad_norm": config.max_grad_norm,
        "bf16": precision == "bf16",
    }


def _loaded(path: Path, recipe: Recipe) -> OwsmFamily:
    family: Any = load_family(path, family=OwsmFamily.name, language=recipe.model.language)
    return family


class ElsewhereTraining:
    """The steps of one run, their evaluations and what is kept of them.

    Every draw is a function of the seed and the step, so that a resumed run ends with the weights of an uninterrupted
    one on the same machine.
    """

    def __init__(
        self, recipe: Recipe, directory: Path, family: OwsmFamily, pool: Pool, dev: Corpus, guards: GuardWatch
    ) -> None:
        self.recipe, self.directory, self.family, self.dev, self.guards = recipe, directory, family, dev, guards
        window_s = family.limits.max_audio_s
        augment = augment_of(recipe.training, pool, pool.utterances, window_s)
        self.data: Any = TrainingSet(
            pool.corpus,
            pool.utterances,
            family,
            recipe.data,
            draw=pool.draw,
            augment=augment,
        )
        self.config = _within_window(recipe, window_s).training
        self.sampler = sampler_for(self.config, self.data)
        self.steps = total_steps(self.config, self.sampler)
        accumulate = self.config.batch.accumulate
        self.ends = self.sampler.epoch_ends()
        planned = evaluation_steps(self.ends, accumulate, self.config.evaluations_per_epoch)
        self.evaluations = {step for step in planned if step < self.steps} | {self.steps}
        self.rate = rates(
            self.config.schedule,
            self.config.schedule_shape,
            self.steps,
            self.config.warmup_share,
            self.config.warmup_steps,
        )

    def run(self) -> Progress:
        """Train from where the run stands to its end.

        Raises:
            SpeechtuneError: the loss or the gradient is not finite.
        """
        progress = self._restored()
        if progress.step == 0 and self.config.preflight:
            self._preflight()
        every, log = self.config.checkpoint_every_steps, max(1, min(10, self.steps // 20))
        started, seen, detail = time.monotonic() - progress.seconds, progress.seen, ""
        with Bar("train", self.steps, progress.step) as bar:
            for step, batches in enumerate(steps_of(self.sampler, self.config.batch.accumulate), start=1):
                if step <= progress.step:
                    continue
                if step > self.steps or self._is_over(progress):
                    break
                seen.append(self._step(step, batches))
                if step % log == 0 or step == self.steps:
                    means = {name: float(np.mean([one[name] for one in seen])) for name in seen[0]}
                    progress.rows.append(self._row(step, "train", means))
                    seen.clear()
                    detail = f"loss {means['loss']:.3f}"
                progress.step, progress.seconds = step, time.monotonic() - started
                if step in self.evaluations:
                    detail = self._evaluate(progress)
                if step in self.evaluations or (every and step % every == 0):
                    self._keep(progress)
                bar.advance(step, detail)
        return progress

    def save(self, progress: Progress, base: Path) -> None:
        """Write the best update, merged, to ``RUN/model``, unless it stands."""
        assert progress.best_step is not None
        if not is_checkpoint(self.directory / "model"):
            self.family.worker.go_back(self._file(progress.best_step))
            self.family.worker.save(self.directory / "model", base)
        known = {"audio_contexts": list(self.family.contexts), "language": self.recipe.model.language}
        write_json(self.directory / "model" / "speechtune.json", known)

    def _step(self, step: int, batches: list[list[Pick]]) -> dict[str, float]:
        picks = [pick for batch in batches for pick in batch]
        waveforms = [self.data.waveform(one.index, one.epoch, one.place, one.speed) for one in picks]
        rate = self.config.learning_rate * self.rate(step - 1)
        found = self.family.worker.step(
            waveforms,
            [self.data.label_text(self.data.utterances[one.index]) for one in picks],
            *self.family.prompt(),
            learning_rate=rate,
            sizes=[len(batch) for batch in batches],
            seed=int(np.random.SeedSequence((self.config.seed, step)).generate_state(1)[0]),
        )
        if not all(map(math.isfinite, found.values())):
            raise SpeechtuneError(
                f"step {step} has loss {found['loss']} and gradient norm {found['grad_norm']}: lower "
                "training.learning_rate, or look at the utterances of the step"
            )
        return {**found, "learning_rate": rate}

    def _preflight(self) -> None:
        """Labels and the loss of a batch, proved before the first step.

        Raises:
            InputError: ESPnet's tokens do not give the letters of a text back.
            SpeechtuneError: a batch's loss is not the mean of its clips'.
        """
        began, worker = time.monotonic(), self.family.worker
        texts = [self.data.label_text(one) for one in self.data.utterances[:LABELS_CHECKED]]
        for text, tokens in zip(texts, worker.tokens(texts), strict=True):
            back = worker.text(tokens)
            if _letters(back) != _letters(text):
                raise InputError(
                    f"the model's tokens give {back!r} back for the training text {text!r}: write it with letters that "
                    "the model has, or set data.case"
                )
        picks = [pick for batch in next(steps_of(self.sampler, 1)) for pick in batch][:2]
        waveforms = [self.data.waveform(one.index, one.epoch, one.place, one.speed) for one in picks]
        said = [self.data.label_text(self.data.utterances[one.index]) for one in picks]
        alone = float(np.mean(worker.loss(waveforms, said, *self.family.prompt())))
        (together,) = worker.loss(waveforms, said, *self.family.prompt(), together=True)
        if not math.isclose(alone, together, rel_tol=1e-3):
            raise SpeechtuneError(
                f"the loss of a batch of {len(picks)} clips is {together:.6g} and the mean of their own {alone:.6g}: "
                "training would depend on the size of the batches, which is a fault of this checkpoint or of ESPnet"
            )
        checks = {
            "labels": f"the tokens of {len(texts)} texts give their letters back",
            "loss": f"{together:.4g} for {len(picks)} clips together, as for each alone",
        }
        record = {"checks": checks, "seconds": round(time.monotonic() - began, 2)}
        write_json(self.directory / "preflight.json", record)
        note(f"preflight passed in {record['seconds']} s: " + "; ".join(checks.values()))

    def _evaluate(self, progress: Progress) -> str:
        """Decode the dev split; the line for the progress bar."""
        family: Any = self.family
        found = dev_metrics(family, self.dev, self.recipe) | self.guards.metrics(family)
        earlier = [row["wer"] for row in progress.rows if row["kind"] == "dev"]
        progress.rows.append(self._row(progress.step, "dev", found))
        better = not earlier or found["wer"] < min(earlier)
        progress.since_best = 0 if better else progress.since_best + 1
        progress.best_step = progress.step if better else progress.best_step
        if progress.step == self.steps or self._is_over(progress):
            runtime = {"train_runtime": round(progress.seconds, 2)}
            progress.rows.append(self._row(progress.step, "summary", runtime))
        return f"dev WER {100 * found['wer']:.1f} %"

    def _is_over(self, progress: Progress) -> bool:
        """Whether patience has run out."""
        return self.config.patience is not None and progress.since_best >= self.config.patience

    def _row(self, step: int, kind: str, values: dict[str, Any]) -> dict[str, Any]:
        """A row of ``metrics.jsonl``, with the epochs that are done after a step."""
        ends = [0, *(end / self.config.batch.accumulate for end in self.ends)]
        epoch = round(float(np.interp(step, ends, range(len(ends)))), 3)
        return {"step": step, "epoch": epoch, "kind": kind, **values}

    def _file(self, step: int) -> Path:
        return self.directory / "checkpoints" / f"update-{step}.pt"

    def _keep(self, progress: Progress) -> None:
        """Write the update, then that it stands; older ones but the best go last."""
        file = self._file(progress.step)
        file.parent.mkdir(exist_ok=True)
        self.family.worker.keep(file)
        write_json(file.parent / STATE, asdict(progress))
        write_jsonl(self.directory / "metrics.jsonl", progress.rows)
        kept = sorted(file.parent.glob("update-*.pt"), key=lambda one: int(one.stem[7:]))
        for old in kept[: -self.config.keep_checkpoints]:
            if old != self._file(progress.best_step or 0):
                old.unlink()

    def _restored(self) -> Progress:
        """Where the run stands, with the update in the other process."""
        state = self.directory / "checkpoints" / STATE
        if not state.is_file():
            return Progress()
        progress = Progress(**read_json(state))
        self.family.worker.go_back(self._file(progress.step))
        write_jsonl(self.directory / "metrics.jsonl", progress.rows)
        note(f"continuing from step {progress.step} of {self.steps}")
        return progress


def steps_of(sampler: BucketSampler, accumulate: int) -> Iterator[list[list[Pick]]]:
    """The micro-batches of each optimiser step of a run, in order."""
    batches: list[list[Pick]] = []
    for one in sampler:
        if one and isinstance(one[0], list):  # `speechtune.training.steps.StepSampler` says the steps itself
            yield one
            continue
        batches.append(one)
        if len(batches) == accumulate:
            yield batches
            batches = []
    if batches:
        yield batches


def _within_window(recipe: Recipe, window_s: float) -> Recipe:
    """The recipe with micro-batches that respect ``training.batch.seconds`` where every clip takes the whole window."""
    batch = recipe.training.batch
    most = min(batch.utterances, max(1, int(batch.seconds / window_s)))
    batch = batch.model_copy(update={"utterances": most})
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"batch": batch})})


def _letters(text: str) -> str:
    """Letters and digits alone: tokenizers normalise the rest in ways of their own."""
    return "".join(one for one in unicodedata.normalize("NFKC", text) if one.isalnum()).casefold()


def _finish(
    recipe: Recipe,
    directory: Path,
    before: list[Measurement],
    after: list[Measurement],
    progress: Progress,
    about: dict[str, Any],
) -> dict[str, Any]:
    """Write ``scores.json`` and, last, ``run.json``."""
    comparisons = compare_all(before, after, recipe)
    measurements = [one.to_json() for one in [*before, *after]]
    write_json(directory / "scores.json", {"measurements": measurements, "comparisons": comparisons})
    summary = {
        "run": str(directory),
        "model": str(directory / "model"),
        "best_step": progress.best_step,
        "averaged_steps": None,
        "comparisons": comparisons,
        "forgetting": forgetting(before, after, recipe.decoding.context),
        "trained_parameters": about["trained"],
        "adapted_layers": about["layers"],
    }
    write_json(directory / "run.json", summary)
    return summary
