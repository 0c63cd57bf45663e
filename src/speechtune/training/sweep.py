"""One recipe trained with many settings: every combination of lists, or a search in ranges; one table at the end."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError, SpeechtuneError
from speechtune.core.files import read_json, write_json
from speechtune.core.progress import note
from speechtune.training.recipe import Recipe, load_recipe
from speechtune.training.run import FINISHED, RECIPE, SCORES, Run, train
from speechtune.training.sweep_space import Params, Searcher, Space, read_space

RECORD = "sweep.json"
"""What is varied, and every combination with its run and result; written after each."""

SEED = "training.seed"
"""Rows that differ in this key alone are also shown as one, with the mean of their WER."""

Train = Callable[..., Run]


@dataclass(frozen=True, slots=True)
class SweepOptions:
    """What to vary.

    Attributes:
        recipe: the recipe (YAML) that all have in common.
        overrides: settings that all have in common, as in ``training.epochs=3``.
        grid: ``key=a,b`` options; all combinations are trained, or drawn from where there is a range.
        ranges: ``key=low:high`` or ``key=low:high:log`` options; then ``trials`` combinations are drawn.
        trials: how many.
        method: ``random``, or ``tpe`` (Bergstra et al. 2011), which learns from the earlier trials.
        seed: of the draws (not of the trainings).
    """

    recipe: Path
    overrides: Sequence[str] = ()
    grid: Sequence[str] = ()
    ranges: Sequence[str] = ()
    trials: int | None = None
    method: str = "tpe"
    seed: int = 0


@dataclass(slots=True)
class Row:
    """One combination: its settings, the name of its run, and what came of it."""

    params: Params
    run: str
    wer: float | None = None
    low: float | None = None
    high: float | None = None
    error: str | None = None
    values: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready record."""
        names = ("params", "run", "wer", "low", "high", "error", "values")
        return {name: getattr(self, name) for name in names}


def sweep(options: SweepOptions, out: Path, train: Train = train) -> dict[str, Any]:
    """Train every combination below ``out/runs`` and write ``out/sweep.json``; the same call again continues.

    A training that fails is a row with its sentence, and is tried again by the next call. The stock model is decoded
    once for all runs that measure it on the same data in the same way.

    Returns:
        The rows, best first (dev WER, a fraction), and ``seeds``: rows that differ in `SEED` alone taken together.

    Raises:
        InputError: a combination is not a valid recipe (before anything is trained), ``out`` holds another sweep, or
            an option is malformed.
        SpeechtuneError: every training failed.
    """
    space = read_space(options.grid, options.ranges)
    if options.method not in ("random", "tpe"):
        raise InputError(f"--method {options.method!r} is unknown: use random or tpe")
    if space.ranges and options.trials is None:
        raise InputError("a range has no end of values: say with --trials how many are tried")
    if options.trials is not None and not space.ranges:
        raise InputError("--trials is for ranges: without one every combination of --grid is trained")
    known = _open(options, out)
    rows: list[Row] = []
    if space.ranges:
        assert options.trials is not None
        for end in ("low", "high"):
            _recipe(options, _typed({key: getattr(one, end) for key, one in space.ranges.items()}) | _firsts(space))
        searcher = Searcher(space, options.method, options.seed, max(3, options.trials // 4))
        for number in range(options.trials):
            values = known[number].values if number < len(known) else searcher.draw(number)
            row = _carry_out(number, _typed(values), values, options, out, rows, known, train)
            searcher.learn(values, row.wer)
    else:
        combinations = space.combinations()
        for params in combinations:
            _recipe(options, params)
        for number, params in enumerate(combinations):
            _carry_out(number, params, dict(params), options, out, rows, known, train)
    done = [row for row in rows if row.wer is not None]
    if not done:
        raise SpeechtuneError(f"every training of the sweep failed; the first says: {rows[0].error}")
    ordered = sorted(done, key=lambda row: (row.wer, row.run)) + [row for row in rows if row.wer is None]
    return {
        "out": str(out),
        "best": ordered[0].to_json(),
        "rows": [row.to_json() for row in ordered],
        "seeds": over_seeds(done),
    }


def _carry_out(
    number: int,
    params: Params,
    values: dict[str, Any],
    options: SweepOptions,
    out: Path,
    rows: list[Row],
    known: list[Row],
    train: Train,
) -> Row:
    """Train one combination, or read what stands; the record is written before and after."""
    row = Row(params, f"runs/{run_name(number, params)}", values=values)
    same = next((one for one in rows if one.params == params), None)
    if same is not None:  # drawn again
        row.run = same.run
    rows.append(row)
    _write(options, out, rows + known[len(rows) :])
    directory = out / row.run
    recipe = _recipe(options, params)
    try:
        if not (directory / FINISHED).is_file():
            note(f"sweep {number + 1}: " + ", ".join(f"{key}={value}" for key, value in params.items()))
            _share_baseline(recipe, directory, [out / one.run for one in rows[:-1]])
            train(recipe, directory, resume=True)
        row.wer, row.low, row.high = dev_wer(directory, recipe)
    except SpeechtuneError as error:
        row.error = str(error)
        note(f"failed: {error}")
    _write(options, out, rows + known[len(rows) :])
    return row


def _recipe(options: SweepOptions, params: Params) -> Recipe:
    recipe = load_recipe(options.recipe, [*options.overrides, *(f"{key}={value}" for key, value in params.items())])
    if recipe.adapter.per:
        raise InputError("adapter.per makes several models in one run, and a sweep compares one a run: leave it out")
    return recipe


def _firsts(space: Space) -> Params:
    return {key: values[0] for key, values in space.grid.items()}


def _typed(values: dict[str, Any]) -> Params:
    """Drawn values as one would type them; seven digits, so that the recipe says what was trained."""
    return {key: f"{value:.7g}" if isinstance(value, float) else str(value) for key, value in values.items()}


def run_name(number: int, params: Params) -> str:
    """A readable name of a run's directory: its number and its settings by the last word of each key."""
    words = [f"{key.rsplit('.', 1)[-1]}={value}" for key, value in params.items()]
    return f"{number:03d}-" + re.sub(r"[^\w.=+-]+", "_", "-".join(words))[:80].rstrip("-_.")


def dev_wer(directory: Path, recipe: Recipe) -> tuple[float, float | None, float | None]:
    """The WER of a finished run's model on its first target set, as a fraction, with its interval.

    The audio context is the recipe's ``decoding.context`` where it was measured, else the first that was.
    """
    measured = [
        one
        for one in read_json(directory / SCORES)["measurements"]
        if one["system"] == "after" and one["role"] == "target"
    ] or [one for one in read_json(directory / SCORES)["measurements"] if one["system"] == "after"]
    first = [one for one in measured if one["set"] == measured[0]["set"]]
    chosen = next((one for one in first if one["context"] == recipe.decoding.context), first[0])
    interval = chosen["score"].get("interval") or {}
    return float(chosen["score"]["wer"]), interval.get("low"), interval.get("high")


def _share_baseline(recipe: Recipe, directory: Path, others: Sequence[Path]) -> None:
    """Take the base model's transcripts from a finished run that made them in the same way; a run keeps such ones."""
    own = recipe.model_dump()
    for other in others:
        if not (other / FINISHED).is_file():
            continue
        stored = load_recipe(other / RECIPE).model_dump()
        alike = [key for key in own["model"] if key != "train"]
        if stored["decoding"] != own["decoding"] or stored["data"]["corpus"] != own["data"]["corpus"]:
            continue
        if any(stored["model"][key] != own["model"][key] for key in alike) or _sets(stored) != _sets(own):
            continue
        if directory.exists() or own["model"]["ctc"]["head"] == "new":  # a fresh head depends on seed and texts
            continue
        import yaml

        from speechtune.core.files import new_directory

        with new_directory(directory) as draft:
            (draft / RECIPE).write_text(yaml.safe_dump(own), encoding="utf-8")
            (draft / "transcripts").mkdir()
            for file in sorted((other / "transcripts").glob("*.before.*")):
                shutil.copyfile(file, draft / "transcripts" / file.name)
        return


def _sets(recipe: dict[str, Any]) -> Any:
    evaluation = recipe["evaluation"]
    contexts = evaluation["baseline_contexts"] or evaluation["contexts"]
    return evaluation["sets"], contexts, recipe["data"]["dev_split"], recipe["data"].get("split")


def over_seeds(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Rows that differ in `SEED` alone as one: how many, and the mean, least and greatest WER; best mean first."""
    groups: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for row in rows:
        if SEED in row.params and row.wer is not None:
            rest = tuple((key, value) for key, value in row.params.items() if key != SEED)
            groups.setdefault(rest, []).append(row.wer)
    found = [
        {"params": dict(rest), "runs": len(wers), "mean": sum(wers) / len(wers), "low": min(wers), "high": max(wers)}
        for rest, wers in groups.items()
    ]
    return sorted(found, key=lambda one: float(one["mean"]))


def _open(options: SweepOptions, out: Path) -> list[Row]:
    """The rows of an earlier call, after a check that it asked for the same."""
    if not (out / RECORD).is_file():
        if out.exists() and (not out.is_dir() or any(out.iterdir())):
            raise InputError(f"{out} exists and holds no sweep: choose another --out")
        return []
    stored = read_json(out / RECORD)
    for name, now in _asked(options).items():
        then = stored["asked"][name]
        more = name == "trials" and None not in (then, now) and now >= then
        if then != now and not more:
            raise InputError(
                f"{out} holds a sweep with {name} {then} and now {now} is asked for: ask for the same or choose "
                "another --out"
            )
    return [Row(**row) for row in stored["rows"]]


def _asked(options: SweepOptions) -> dict[str, Any]:
    return {
        "recipe": str(options.recipe),
        "overrides": list(options.overrides),
        "grid": list(options.grid),
        "ranges": list(options.ranges),
        "trials": options.trials,
        "method": options.method,
        "seed": options.seed,
    }


def _write(options: SweepOptions, out: Path, rows: Sequence[Row]) -> None:
    write_json(out / RECORD, {"asked": _asked(options), "rows": [row.to_json() for row in rows]})


def sweep_text(found: dict[str, Any]) -> str:
    """The table a person reads: one line a combination, best first."""
    lines = ["dev WER    interval        settings"]
    for row in found["rows"]:
        settings = " ".join(f"{key}={value}" for key, value in row["params"].items())
        if row["wer"] is None:
            lines.append(f"failed                     {settings}: {row['error']}")
            continue
        interval = "" if row["low"] is None else f"[{100 * row['low']:.1f}, {100 * row['high']:.1f}]"
        lines.append(f"{100 * row['wer']:6.1f} %   {interval:<15} {settings}")
    if any(one["runs"] > 1 for one in found["seeds"]):
        lines += ["", "mean over seeds (least, greatest)"]
        for one in found["seeds"]:
            settings = " ".join(f"{key}={value}" for key, value in one["params"].items()) or "(only the seed differs)"
            spread = f"({100 * one['low']:.1f}, {100 * one['high']:.1f})"
            lines.append(f"{100 * one['mean']:6.1f} %   {spread:<15} {one['runs']} runs  {settings}")
    best = found["best"]["run"]
    lines += ["", f"best: {found['out']}/{best}", "Settings chosen by the dev WER look better there than they are."]
    return "\n".join(lines)
