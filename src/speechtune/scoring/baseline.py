"""Which model to begin with: 3-5 on a small part, the best on everything, then the hard parts; resumable.

The three phases are those of the notebook (screening on ten minutes, deep evaluation of the two or three best, edge
cases), with a probability of being the best instead of a bare ranking.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json, write_text
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.corpus.sampling import subset_of_seconds
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.kept import transcribe_kept
from speechtune.decoding.sources import OpenedModel, open_model
from speechtune.models.obtaining import list_models, resolve_model
from speechtune.scoring.baseline_advice import Advice, advise
from speechtune.scoring.baseline_edges import edge_cases
from speechtune.scoring.comparison import SystemComparison, SystemInput, compare_systems, cost_of
from speechtune.scoring.config import ScoringConfig

SEARCH, RESULT, RECIPE = "search.json", "baseline.json", "recipe.yaml"
MAX_MODELS = 5
_STILL_POSSIBLE = 0.05
"""A model with a smaller chance of being the best does not go on, unless it is one of the two lowest."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineOptions:
    """How the search is made.

    ``models``: names or paths; empty: what is on this machine. ``minutes``: of the screening. ``full_minutes``: most
    audio of the second phase (``None``: everything). ``edge_minutes``: most audio of each hard part. ``keep``: most
    models that go on. ``split``: only this split; ``None``: all but the test split.
    """

    models: tuple[str, ...] = ()
    minutes: float = 10.0
    full_minutes: float | None = None
    edge_minutes: float = 2.0
    keep: int = 3
    split: str | None = None
    language: str | None = None
    batch_size: int = 16
    beams: int = 1
    seed: int = 0


@dataclass(slots=True, kw_only=True)
class EdgeResult:
    """One hard part: what it is and the finalists on it."""

    name: str
    about: str
    comparison: SystemComparison


@dataclass(slots=True, kw_only=True)
class BaselineResult:
    """What the search found. ``eliminated`` says why a model did not go on to the second phase."""

    corpus: Corpus
    options: BaselineOptions
    screening: SystemComparison
    eliminated: dict[str, str]
    full: SystemComparison
    edges: list[EdgeResult]
    advice: Advice
    dropped_by_reason: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        return {
            "corpus": str(self.corpus.root),
            "kept": len(self.corpus),
            "dropped_by_reason": self.dropped_by_reason,
            "seconds_of_audio": self.corpus.seconds_of_audio,
            "recommendation": self.advice.to_json(),
            "eliminated": self.eliminated,
            "screening": self.screening.to_json(),
            "full": self.full.to_json(),
            "edge_cases": [
                {"name": one.name, "about": one.about, "comparison": one.comparison.to_json()} for one in self.edges
            ],
        }


def find_baseline(root: Path, out: Path, options: BaselineOptions) -> BaselineResult:
    """Search for the best model to begin with; what ``out`` holds of the same search already is not done again.

    Writes ``search.json`` (what was asked), ``models/`` (transcripts and costs), ``recipe.yaml`` (to train the
    recommended model) and, last, ``baseline.json``.

    Raises:
        InputError: fewer than two models, one that cannot be opened, a corpus without text or audio, or an ``out``
            that holds another search.
    """
    whole = Corpus.load(root)
    pool, dropped = _pool(whole, options.split)
    language = options.language or _only_language(pool)
    models = list(options.models) or models_at_hand(language)
    _check_models(models)
    asked = {**asdict(options), "models": models, "language": language, "fingerprint": pool.fingerprint()}
    _claim(out, {name: asked[name] for name in sorted(asked)})
    bench = _Bench(pool, out, language, options, _labels(models))

    scoring = ScoringConfig(seed=options.seed, resamples=10_000)
    small = _subset(pool, options.minutes, options.seed)
    note(f"phase 1 of 3: {len(models)} models on {small.seconds_of_audio / 60:.1f} minutes")
    screening = compare_systems(small, [bench.system(name, small.utterances) for name in bench.models], scoring)
    finalists, eliminated = _finalists(screening, options.keep)

    large = _subset(pool, options.full_minutes, options.seed) if options.full_minutes else pool
    hours = sum((one.cost.rtf or 0.0) for one in screening.systems if one.name in finalists)
    hours *= large.seconds_of_audio / 3600
    note(
        f"phase 2 of 3: {', '.join(finalists)} on {large.seconds_of_audio / 60:.1f} minutes, about {60 * hours:.0f} "
        "minutes of work (an interrupted search goes on where it was)"
    )
    sliced = scoring.model_copy(update={"slice_by": _slices(large)})
    systems = [bench.system(name, large.utterances) for name in finalists]
    full = compare_systems(large, systems, sliced)
    if full.best()[0] != full.reference:
        full = compare_systems(large, systems, sliced, reference=full.best()[0])

    edges = []
    found = edge_cases(pool, options.edge_minutes, options.seed, out / "noise.json")
    note(f"phase 3 of 3: edge cases ({', '.join(one.name for one in found) or 'none'})")
    for edge in found:
        part = Corpus(pool.root, edge.utterances, pool.card)
        systems = [bench.system(name, edge.utterances) for name in finalists]
        edges.append(EdgeResult(name=edge.name, about=edge.about, comparison=compare_systems(part, systems, scoring)))

    recipe = out / RECIPE
    advice = advise(full, [(one.name, one.comparison) for one in edges], next_steps(whole, recipe))
    result = BaselineResult(
        corpus=pool,
        options=options,
        screening=screening,
        eliminated=eliminated,
        full=full,
        edges=edges,
        advice=advice,
        dropped_by_reason=dropped,
    )
    write_text(recipe, _recipe(root, bench.models[advice.model], language))
    write_json(out / RESULT, {**result.to_json(), "provenance": provenance(options.seed)})
    return result


def models_at_hand(language: str | None) -> list[str]:
    """The models on this machine that can know the language, the smallest number of bytes first, at most five.

    Raises:
        InputError: there are fewer than two.
    """
    rows = [row for row in list_models() if row["path"]]
    usable = [row for row in rows if language in (None, "en") or row["languages"] != "English"]
    names = sorted((row["name"] for row in usable), key=lambda name: _bytes(resolve_model(name)))
    if len(names) < 2:
        here = f"only {names[0]} is" if names else "none is"
        raise InputError(
            f"a search needs two models and {here} on this machine: run speechtune models get whisper-base and the "
            "like (speechtune models list shows them), or name models with --models a,b"
        )
    return names[:MAX_MODELS]


def _bytes(path: Path) -> int:
    return sum(one.stat().st_size for one in path.glob("*.safetensors"))


def _check_models(models: Sequence[str]) -> None:
    if not 2 <= len(models) <= MAX_MODELS:
        raise InputError(f"{len(models)} models cannot be searched: name 2 to {MAX_MODELS} with --models a,b,c")
    for name in models:
        if models.count(name) > 1:
            raise InputError(f"--models names {name} twice: leave one out")
        if not (Path(name) / "recipe.yaml").is_file():
            resolve_model(name)


def _labels(models: Sequence[str]) -> dict[str, str]:
    """Short name to what was given: the last folder of a path where no other has it."""
    short = [Path(name).resolve().name if Path(name).exists() else name for name in models]
    labels = [one if short.count(one) == 1 else name for one, name in zip(short, models, strict=True)]
    return dict(zip(labels, models, strict=True))


def _pool(whole: Corpus, split: str | None) -> tuple[Corpus, dict[str, int]]:
    """The utterances that may be looked at: one split, or all but the test split, those without text left out."""
    part = whole.split(split) if split else whole.subset(lambda one: one.split != "test")
    told = part.subset(lambda one: bool(one.text.strip()))
    if len(told) < 2:
        raise InputError(f"{whole.root} has {len(told)} utterances with text to compare models on: give it more")
    dropped = {"of another split" if split else "of the test split": len(whole) - len(part)}
    dropped["without text"] = len(part) - len(told)
    return told, {reason: amount for reason, amount in dropped.items() if amount}


def _only_language(corpus: Corpus) -> str | None:
    languages = {one.language for one in corpus}
    return languages.pop() if len(languages) == 1 else None


def _claim(out: Path, asked: dict[str, Any]) -> None:
    plain = {name: list(value) if isinstance(value, tuple) else value for name, value in asked.items()}
    if (out / SEARCH).is_file():
        found = read_json(out / SEARCH)
        if found != plain:
            what = next(name for name in {**plain, **found} if plain.get(name) != found.get(name))
            raise InputError(
                f"{out} holds a search with {what} {found.get(what)!r}, not {plain.get(what)!r}: choose another --out, "
                "or add --overwrite to begin anew"
            )
        return
    if out.exists() and any(out.iterdir()):
        raise InputError(f"{out} exists and holds something else: choose another --out")
    write_json(out / SEARCH, plain)


def _subset(pool: Corpus, minutes: float, seed: int) -> Corpus:
    """A part of the corpus in which every speaker has about the same share as in the whole; smaller ones lie inside."""
    if pool.seconds_of_audio <= 60 * minutes:
        return pool
    places = subset_of_seconds(pool.utterances, 60 * minutes, seed)
    if len(places) < 2:
        raise InputError(f"{minutes:g} minutes hold {len(places)} utterance of {pool.root}: ask for more minutes")
    return Corpus(pool.root, [pool.utterances[place] for place in places], pool.card)


def _finalists(screening: SystemComparison, keep: int) -> tuple[list[str], dict[str, str]]:
    """The models that go on, the lowest rate first, and why the others do not."""
    order = [screening.systems[place] for place in screening.best()]
    possible = [one for rank, one in enumerate(order) if rank < 2 or (one.best_probability or 0.0) >= _STILL_POSSIBLE][
        : max(keep, 2)
    ]
    names = [one.name for one in possible]
    out = {}
    for one in order:
        if one.name not in names:
            chance = one.best_probability
            reason = (
                f"only the best {max(keep, 2)} go on"
                if chance is None or chance >= _STILL_POSSIBLE
                else f"chance of being the best {100 * chance:.1f} %"
            )
            out[one.name] = reason
    return names, out


def _slices(corpus: Corpus) -> list[str]:
    columns = []
    for column in ("source", "language", "age", "gender"):
        values = {one.column(column) for one in corpus}
        if 1 < len(values) <= 20:
            columns.append(column)
    return [*columns, "duration_s"]


def next_steps(corpus: Corpus, recipe: Path) -> dict[str, str]:
    """The command that follows, by what the rate asks for: ``train`` it, or ``use`` it."""
    root, splits = shlex.quote(str(corpus.root)), {one.split for one in corpus}
    train = f"speechtune train {shlex.quote(str(recipe))} --out runs/first"
    if not {"train", "dev"} <= splits:
        train = f"speechtune split {root}, then {train}"
    test = " --split test" if "test" in splits else ""
    return {"train": train, "use": f"speechtune evaluate MODEL {root}{test}"}


def _recipe(root: Path, model: str, language: str | None) -> str:
    import yaml

    base = {"base": model, **({"language": language} if language else {})}
    head = "# The least recipe for the recommended model; speechtune recipe explain says what else can be set.\n"
    return head + yaml.safe_dump({"data": {"corpus": str(root)}, "model": base}, allow_unicode=True, sort_keys=False)


@dataclass(slots=True)
class _Bench:
    """Opens one model at a time and hands out its transcripts."""

    corpus: Corpus
    out: Path
    language: str | None
    options: BaselineOptions
    models: dict[str, str]

    def system(self, name: str, utterances: Sequence[Utterance]) -> SystemInput:
        """The transcripts of a model for these utterances, made where they are missing."""
        spec = self.models[name]
        settings = {"language": self.language, "beams": self.options.beams}
        key = {"model": spec, **settings, "fingerprint": self.corpus.fingerprint()}

        def open_it() -> OpenedModel:
            return open_model(spec, **settings, batch_size=self.options.batch_size)  # type: ignore[arg-type]

        folder = self.out / "models" / name.replace("/", "--")
        kept = transcribe_kept(open_it, self.corpus, utterances, folder, key, name)
        return SystemInput(name=name, source=spec, transcripts=kept.of(utterances), cost=cost_of(kept, utterances))
