"""Search over decoding settings: draw, decode, count, choose, write. Interrupted runs go on where they were."""

from __future__ import annotations

import csv
import io
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from speechtune.core.errors import InputError, missing_extra
from speechtune.core.files import read_json, write_json, write_text
from speechtune.core.progress import note
from speechtune.corpus.table import Corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.sources import OpenedModel, open_model, trained_for
from speechtune.scoring.normalisers import choose_normaliser
from speechtune.scoring.tuning.choosing import Choice, Limits, choose
from speechtune.scoring.tuning.measuring import Measured, Measurer, Metric
from speechtune.scoring.tuning.nonspeech import draw_clips, make_corpus
from speechtune.scoring.tuning.space import Params, Space, block_of, draw, key_of, settings

_CLIP_SEED = 20_260
_REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class TuneDecodingOptions:
    """How to search. ``folds``: groups of speakers, 0: each speaker; ``clips``: without speech, 0: none.

    ``sampler``: ``random`` draws settings without looking at results, so that the cross-validated figure is unbiased;
    ``tpe`` (Optuna's) goes where results were good, which have been seen on all speakers. ``context``: the only audio
    context to try; ``None``: every one that the model was trained for.
    """

    split: str | None = "dev"
    trials: int = 20
    metric: Metric = "wer"
    folds: int = 5
    sampler: Literal["random", "tpe"] = "random"
    most_beams: int = 5
    clips: int = 20
    limits: Limits = field(default_factory=Limits)
    prompt: str | None = None
    lm: str | None = None
    language: str | None = None
    context: str | None = None
    resamples: int = 1000
    seed: int = 0


@dataclass(slots=True)
class Row:
    """One setting: what was drawn (nothing for the default), what came out, or why it could not be decoded."""

    params: Params
    config: DecodingConfig
    measured: Measured | None = None
    refused: str = ""


@dataclass(slots=True)
class TunedDecoding:
    """The outcome of `tune_decoding`."""

    rows: list[Row]
    places: list[int]
    choice: Choice
    metric: Metric
    utterances: int
    reference_length: int
    seconds_of_audio: float

    def row(self, place: int) -> Row:
        """The row of a place among those that were measured."""
        return self.rows[self.places[place]]

    def to_json(self) -> dict[str, Any]:
        """The figures, JSON-ready; places are numbers of trials, 0 the default."""
        choice = self.choice
        default, chosen = self.row(0).measured, self.row(choice.chosen).measured
        assert default is not None and chosen is not None
        return {
            "metric": self.metric,
            "kept": self.utterances,
            "dropped_by_reason": {},
            "seconds_of_audio": round(self.seconds_of_audio, 3),
            "trials": len(self.rows) - 1,
            "distinct": len({key_of(one.config) for one in self.rows}),
            "refused": {str(place): one.refused for place, one in enumerate(self.rows) if one.refused},
            "default": {"rate": choice.rate_default, **_costs(default)},
            "crossed": {"rate": choice.rate_crossed, "difference": choice.difference.to_json()},
            "significant": choice.significant,
            "chosen": {
                "trial": self.places[choice.chosen],
                "rate_on_what_it_was_chosen_on": choice.rate_chosen,
                **_costs(chosen),
                "decoding": block_of(self.row(choice.chosen).config),
            },
            "folds": [self.places[one] for one in choice.folds],
            "pareto": [self.places[one] for one in choice.pareto],
        }

    def to_text(self) -> str:
        """A few lines for a person."""
        choice, name = self.choice, self.metric.upper()
        default, chosen = self.row(0).measured, self.row(choice.chosen).measured
        assert default is not None and chosen is not None
        gap = choice.difference
        change = 100 * (gap.difference or 0)
        sure = f" [{100 * gap.interval.low:+.2f}, {100 * gap.interval.high:+.2f}]" if gap.interval else ""
        chance = f", p = {gap.p_value:.3g}" if gap.p_value is not None else ""
        verdict = (
            "the gain is significant"
            if choice.significant
            else "no significant gain: nothing that was tried is shown to be better than the default"
        )
        return "\n".join(
            [
                f"{name} {100 * choice.rate_default:.2f} % with the default, {100 * choice.rate_crossed:.2f} % "
                f"with settings chosen on other speakers ({change:+.2f}{sure} points{chance}): {verdict}",
                f"chosen on all speakers: trial {self.places[choice.chosen]} of {len(self.rows) - 1}, {name} "
                f"{100 * choice.rate_chosen:.2f} % there, which is too good to be reported",
                f"words a minute without speech: {default.inserted_per_min:.1f} with the default, "
                f"{chosen.inserted_per_min:.1f} with the chosen; "
                f"real-time factor {default.rtf:.3f} and {chosen.rtf:.3f}",
            ]
        )

    def to_csv(self) -> str:
        """One line a setting: the default first, then the trials in order."""
        names = list(dict.fromkeys(name for row in self.rows for name in row.params))
        front = {self.places[one] for one in self.choice.pareto}
        allowed = {self.places[one] for one in self.choice.admissible}
        stream = io.StringIO()
        writer = csv.writer(stream, lineterminator="\n")
        header = ["trial", "setting", self.metric, "errors", "inserted_per_min", "rtf", "pareto", "within_limits"]
        writer.writerow([*header, "chosen", "folds", "refused", *names])
        for number, row in enumerate(self.rows):
            made = row.measured
            figures: list[Any] = ["", "", "", ""]
            if made is not None:
                errors = int(made.errors.sum())
                figures = [
                    f"{errors / self.reference_length:.6f}",
                    errors,
                    f"{made.inserted_per_min:.3f}",
                    f"{made.rtf:.4f}",
                ]
            folds = sum(self.places[one] == number for one in self.choice.folds)
            marks = [
                int(number in front),
                int(number in allowed),
                int(number == self.places[self.choice.chosen]),
                folds,
            ]
            own = [row.params.get(name, "") for name in names]
            writer.writerow([number, key_of(row.config), *figures, *marks, row.refused, *own])
        return stream.getvalue()


def tune_decoding(
    name: str, corpus: Path, out: Path, options: TuneDecodingOptions, overwrite: bool = False
) -> TunedDecoding:
    """Try settings and write the best as a ``decoding:`` block to ``out``; ``trials.csv`` and all else beside it.

    ``<out without suffix>.tuning/`` holds the study, each distinct setting's transcripts, ``trials.csv`` and
    ``result.json``. The same call goes on there; with more ``trials`` it adds to them.

    Raises:
        InputError: ``out`` exists, what stands beside it was made of something else, or model or corpus cannot be had.
    """
    import yaml

    _check(options)
    if out.exists() and not overwrite:
        raise InputError(f"{out} exists: choose another name, or add --overwrite (what was decoded is kept)")
    whole = Corpus.load(corpus)
    chosen = whole.split(options.split) if options.split else whole
    opened = open_model(name, language=options.language, context=options.context)
    keep = out.with_name(f"{out.stem}.tuning")
    _claim(keep, opened, chosen, options, overwrite)
    languages = [utterance.language or opened.family.language for utterance in chosen]
    normaliser = choose_normaliser(languages, [utterance.text for utterance in chosen])[0]
    clips = draw_clips(options.clips, _CLIP_SEED, min(8.0, opened.family.limits.max_audio_s))
    nonspeech = make_corpus(keep / "nonspeech", clips, opened.family.language) if clips else None
    measurer = Measurer(opened.family, chosen, nonspeech, normaliser, options.metric, keep / "settings")
    contexts = _contexts(opened) if options.context is None else (opened.decoding.context,)
    space = Space(contexts, options.most_beams, options.prompt, options.lm)
    rows = _search(measurer, opened.decoding, space, options, keep / "study.sqlite")
    places = [place for place, row in enumerate(rows) if row.measured is not None]
    choice = choose(
        [row.measured for row in rows if row.measured is not None],
        measurer.lengths,
        [utterance.speaker_id for utterance in chosen],
        options.limits,
        folds=options.folds,
        resamples=options.resamples,
        seed=options.seed,
    )
    length = int(measurer.lengths.sum())
    result = TunedDecoding(rows, places, choice, options.metric, len(chosen), length, chosen.seconds_of_audio)
    write_text(keep / "trials.csv", result.to_csv())
    write_json(keep / "result.json", result.to_json())
    write_text(out, yaml.safe_dump({"decoding": block_of(result.row(choice.chosen).config)}, sort_keys=False))
    return result


def _search(
    measurer: Measurer, base: DecodingConfig, space: Space, options: TuneDecodingOptions, storage: Path
) -> list[Row]:
    """The default, then every trial of the study, old and new."""
    study, optuna = _study(storage)
    rows = [Row({}, base, measurer.measure(base, "default"))]
    states = optuna.trial.TrialState
    for trial in study.get_trials(deepcopy=False):
        if trial.state in (states.RUNNING, states.WAITING):  # interrupted: its draw is made again
            study.tell(trial.number, state=states.FAIL)
    known = [
        one for one in study.get_trials(deepcopy=False) if one.state == states.COMPLETE or _REFUSED in one.user_attrs
    ]
    done = known[: options.trials]
    rows += [_row(measurer, settings(base, trial.params, space), dict(trial.params), "again") for trial in done]
    for number in range(len(done), options.trials):
        seed = options.seed + 1000 * number
        study.sampler = (
            optuna.samplers.RandomSampler(seed)
            if options.sampler == "random"
            else optuna.samplers.TPESampler(seed=seed, n_startup_trials=max(5, options.trials // 4))
        )
        trial = study.ask()
        params = draw(trial, space)
        row = _row(measurer, settings(base, params, space), params, f"trial {number + 1} of {options.trials}")
        if row.measured is None:
            note(f"trial {number + 1} is left out: {row.refused}")
            trial.set_user_attr(_REFUSED, row.refused)
            study.tell(trial, state=states.FAIL)
        else:
            made = row.measured
            study.tell(trial, [float(made.errors.sum()), made.inserted_per_min, made.rtf])
        rows.append(row)
    return rows


def _row(measurer: Measurer, config: DecodingConfig, params: Params, title: str) -> Row:
    try:
        return Row(params, config, measurer.measure(config, title))
    except InputError as error:
        return Row(params, config, refused=str(error))


def _study(storage: Path) -> tuple[Any, Any]:
    try:
        import optuna
    except ImportError as error:
        raise missing_extra("optuna", "tune") from error
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    storage.parent.mkdir(parents=True, exist_ok=True)
    study = optuna.create_study(
        study_name="decoding",
        storage=f"sqlite:///{storage.resolve()}",
        load_if_exists=True,
        directions=["minimize"] * 3,
    )
    return study, optuna


def _check(options: TuneDecodingOptions) -> None:
    if options.metric not in ("wer", "cer"):
        raise InputError(f"--metric {options.metric!r} is unknown: use wer or cer")
    if options.sampler not in ("random", "tpe"):
        raise InputError(f"--sampler {options.sampler!r} is unknown: use random or tpe")
    if options.limits.slowdown < 1 or options.limits.more_inserted_per_min < 0:
        raise InputError("--max-slowdown must be 1 or more and --more-inserted 0 or more: the default must be allowed")


def _contexts(opened: OpenedModel) -> tuple[str, ...]:
    trained = trained_for(opened.path).get("audio_contexts", [opened.decoding.context])
    known = tuple(one for one in opened.family.contexts if one in trained)
    return known or (opened.decoding.context,)


def _claim(keep: Path, opened: OpenedModel, corpus: Corpus, options: TuneDecodingOptions, overwrite: bool) -> None:
    """Make sure that what was decoded before is of the same model, speech and options."""
    files = sorted(opened.path.iterdir()) if opened.path.is_dir() else []
    made_of = {
        "model": str(opened.path),
        "files": [[one.name, one.stat().st_size, one.stat().st_mtime_ns] for one in files if one.is_file()],
        "corpus": corpus.fingerprint(),
        "base": opened.decoding.model_dump(),
        "most_beams": options.most_beams,
        "sampler": options.sampler,
        "clips": options.clips,
        "prompt": options.prompt,
        "lm": options.lm,
        "seed": options.seed,
        "context": options.context,
    }
    mark = keep / "made_of.json"
    if mark.is_file() and read_json(mark) != made_of:
        if not overwrite:
            raise InputError(
                f"{keep} holds trials of another model, corpus or search: choose another --out, or add --overwrite"
            )
        shutil.rmtree(keep)
    if not mark.is_file():
        write_json(mark, made_of)


def _costs(made: Measured) -> dict[str, float]:
    return {"inserted_per_min": round(made.inserted_per_min, 3), "rtf": round(made.rtf, 4)}
