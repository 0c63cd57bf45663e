"""Several adapters from one recipe: one run per slice of the data, each on the untouched base.

RUN/slices/NAME/     the corpus of the slice (rows only; audio stays where it is)
RUN/parts/NAME/      the complete run of one adapter: preflight, curves, proof, resumable
RUN/adapters/NAME/   the adapter
RUN/run.json         the finish mark, with every adapter's comparison
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, read_json, write_json, write_text
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.corpus.conditions import Condition
from speechtune.corpus.reading import load_corpus
from speechtune.corpus.table import Corpus, Utterance
from speechtune.training.processes import is_main_process, join_processes
from speechtune.training.recipe import Recipe, load_recipe

ADAPTERS = "adapters"
RECIPE, FINISHED = "recipe.yaml", "run.json"


@dataclass(frozen=True, slots=True)
class Slice:
    """One adapter's share of the data; ``language`` where the slices are languages."""

    name: str
    where: tuple[Condition, ...]
    language: str | None = None

    def has(self, utterance: Utterance) -> bool:
        """Whether an utterance belongs to it."""
        return all(condition.why_not(utterance) is None for condition in self.where)


def train_adapters(
    recipe: Recipe, directory: Path, resume: bool, train: Callable[..., Any]
) -> tuple[Path, dict[str, Any]]:
    """Carry out a recipe with ``adapter.per``.

    Args:
        recipe: what to do.
        directory: the run's directory; new, unless ``resume``.
        resume: go on with what an interrupted run left; finished adapters are kept.
        train: what carries out one adapter's recipe (`speechtune.training.run.train`).

    Returns:
        The directory and the summary that ``run.json`` holds (empty in helper processes).

    Raises:
        InputError: a column or slice names nothing, or the directory is taken.
    """
    corpus = load_corpus(recipe.data)
    slices = slices_of(recipe, corpus)
    if is_main_process():
        _open(recipe, directory, resume)
        for one in slices:
            _write_corpora(one, recipe, corpus, directory)
    join_processes()
    finished = []
    for number, one in enumerate(slices, start=1):
        note(f"adapter {one.name} ({number} of {len(slices)})")
        part = directory / "parts" / one.name
        run = train(recipe_of(one, recipe, directory), part, resume=part.exists())
        if is_main_process():
            _publish(part, directory / ADAPTERS / one.name)
            finished.append((one, run.summary))
    if not is_main_process():
        return directory, {}
    summary = _summary(recipe, directory, corpus, finished)
    write_json(directory / FINISHED, summary)
    return directory, summary


def slices_of(recipe: Recipe, corpus: Corpus) -> list[Slice]:
    """The adapters that ``adapter.per`` means for a corpus, in the order of their names or of the list.

    Raises:
        InputError: the column has no values, a name stands twice, or a slice has no training or no dev utterance.
    """
    per = recipe.adapter.per
    training, dev = corpus.split(recipe.data.train_split), corpus.split(recipe.data.dev_split)
    if isinstance(per, str):
        values = sorted({str(row.column(per)) for row in training if row.column(per) is not None})
        if not values:
            raise InputError(f"adapter.per: no training utterance of {corpus.root} has the column {per!r}: use another")
        slices = [
            Slice(
                _file_name(value),
                (Condition.model_validate({"column": per, "in": [value]}),),
                value if per == "language" else None,
            )
            for value in values
        ]
    else:
        slices = [Slice(one.name, tuple(one.where)) for one in per or []]
    names = [one.name for one in slices]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise InputError(f"adapter.per: two adapters would be called {twice!r}: give each its own name")
    for one in slices:
        for split, rows in ((recipe.data.train_split, training), (recipe.data.dev_split, dev)):
            if not any(one.has(row) for row in rows):
                raise InputError(
                    f"adapter.per: the adapter {one.name} has no utterance in the {split} split of {corpus.root}: "
                    "leave it out, or split the corpus so that every slice is in both"
                )
    return slices


def recipe_of(one: Slice, recipe: Recipe, directory: Path) -> Recipe:
    """The recipe of one adapter: its slice of every corpus, and its language."""
    values = recipe.model_dump(exclude_unset=True, by_alias=True)
    values["adapter"]["per"] = None
    values["data"]["corpus"] = str(_slice_directory(directory, one, None))
    values["data"].pop("split", None)  # the slices have their splits
    conditions = [*recipe.data.where, *one.where]
    values["data"]["where"] = [condition.model_dump() for condition in conditions]
    if recipe.upload.repo is not None:
        values["upload"]["repo"] = f"{recipe.upload.repo}-{one.name}"
    if one.language is not None:
        values.setdefault("model", {})["language"] = one.language
    sets = []
    for wanted in recipe.evaluation.sets:
        folder = _slice_directory(directory, one, wanted.name if wanted.corpus else None)
        if wanted.corpus is None or (folder / "metadata.jsonl").is_file():
            rows = Corpus.load(folder)
            if wanted.split is None or any(row.split == wanted.split for row in rows):
                sets.append({**wanted.model_dump(), "corpus": str(folder) if wanted.corpus else None})
    if recipe.evaluation.sets:
        values["evaluation"]["sets"] = sets
    return Recipe.model_validate(values)


def _slice_directory(directory: Path, one: Slice, test_set: str | None) -> Path:
    return directory / "slices" / (one.name if test_set is None else f"{one.name}.{test_set}")


def _write_corpora(one: Slice, recipe: Recipe, corpus: Corpus, directory: Path) -> None:
    _write_slice(one, corpus, _slice_directory(directory, one, None))
    for wanted in recipe.evaluation.sets:
        if wanted.corpus:
            _write_slice(one, Corpus.load(wanted.corpus), _slice_directory(directory, one, wanted.name))


def _write_slice(one: Slice, corpus: Corpus, folder: Path) -> None:
    rows = [replace(row, file_name=str(corpus.path_of(row).resolve())) for row in corpus if one.has(row)]
    if rows and not (folder / "metadata.jsonl").is_file():
        Corpus(folder, rows, {"kept": len(rows), "slice_of": str(corpus.root), "adapter": one.name}).save()


def _publish(part: Path, target: Path) -> None:
    if not target.is_dir():
        with new_directory(target) as draft:
            shutil.copytree(part / "adapter", draft, dirs_exist_ok=True)


def _open(recipe: Recipe, directory: Path, resume: bool) -> None:
    from omegaconf import OmegaConf

    stored = directory / RECIPE
    if stored.is_file():
        if not resume:
            raise InputError(f"{directory} holds a run already: add --resume to continue it or choose another --out")
        if load_recipe(stored) != recipe:
            raise InputError(f"{stored} is another recipe: resume with the same one or choose another --out")
        return
    if directory.exists() and (not directory.is_dir() or any(directory.iterdir())):
        raise InputError(f"{directory} exists and holds no run: choose another --out")
    write_text(stored, OmegaConf.to_yaml(OmegaConf.create(recipe.model_dump())))


def _summary(
    recipe: Recipe, directory: Path, corpus: Corpus, finished: Sequence[tuple[Slice, dict[str, Any]]]
) -> dict[str, Any]:
    rows = corpus.split(recipe.data.train_split).utterances
    kept = [row for row in rows if any(one.has(row) for one, _ in finished)]
    facts = provenance(recipe.training.seed, data={"corpus": str(corpus.root), "fingerprint": corpus.fingerprint()})
    write_json(directory / "provenance.json", facts)
    adapters = {}
    for one, summary in finished:
        pool = read_json(directory / "parts" / one.name / "provenance.json")["data"]
        adapters[one.name] = {
            "directory": str(directory / ADAPTERS / one.name),
            "run": str(directory / "parts" / one.name),
            "where": [condition.model_dump() for condition in one.where],
            **{key: pool[key] for key in ("kept", "dropped_by_reason", "seconds_of_audio")},
            "comparisons": summary["comparisons"],
        }
    return {
        "run": str(directory),
        "kept": len(kept),
        "dropped_by_reason": {"in no adapter's slice": len(rows) - len(kept)} if len(rows) > len(kept) else {},
        "seconds_of_audio": round(sum(row.duration_s for row in kept), 3),
        "adapters": adapters,
    }


def _file_name(value: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "_" for letter in value)
