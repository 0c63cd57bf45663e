"""The training texts of a recipe, before the model has chosen what it can take: what a new vocabulary is made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from speechtune.corpus.conditions import filter_utterances
from speechtune.corpus.config import DataConfig, MixPart
from speechtune.corpus.reading import load_corpus
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.family import Family
from speechtune.training.asides import text_of
from speechtune.training.recipe import Recipe


def prepare_family(family: Family, recipes: Sequence[Recipe]) -> None:
    """Give the base model of a run what its recipes' training texts ask for (`Family.prepare`).

    Args:
        family: the base model.
        recipes: of all stages; their texts together make a new vocabulary.

    Raises:
        InputError: see `Family.prepare`.
    """
    configure(family, recipes[0])
    texts = [text for recipe in recipes for text in label_texts(recipe.data)]
    family.prepare(recipes[0].model.ctc, texts, recipes[0].training.seed)
    _second_vocabulary(family, recipes[0], texts, lambda column: label_texts(recipes[0].data, column))


def prepare_next_stage(family: Family, recipe: Recipe, utterances: Iterable[Utterance]) -> None:
    """Prepare what an earlier stage kept: its vocabulary and head stay."""
    configure(family, recipe)
    kept = recipe.model.ctc.model_copy(update={"head": "keep"})
    rows = list(utterances)
    texts = _texts(rows, recipe.data)
    family.prepare(kept, texts, recipe.training.seed)
    _second_vocabulary(family, recipe, texts, lambda column: _texts(rows, recipe.data, column))


def _second_vocabulary(
    family: Family, recipe: Recipe, texts: Sequence[str], of_column: Callable[[str], list[str]]
) -> None:
    wanted, seed = recipe.training.objectives.second_ctc, recipe.training.seed
    if wanted.enabled and hasattr(family, "add_second_head"):
        if wanted.column is None:
            family.add_second_head(wanted.units, wanted.bpe_size, texts, seed)
        else:
            family.add_second_head(wanted.units, wanted.bpe_size, of_column(wanted.column), seed, own=False)


def configure(family: Family, recipe: Recipe) -> None:
    """Tell a family that has a prompt what the recipe says of it."""
    if hasattr(family, "configure"):
        family.configure(recipe.model)


def label_texts(data: DataConfig, column: str | None = None) -> list[str]:
    """The texts of the training split, or of every part of a mixture, that fulfil the recipe's conditions.

    With ``column`` those in that column, where there are some, as they stand.
    """
    own = load_corpus(data)
    if not data.mix:
        return _filtered(own.split(data.train_split), data, MixPart(weight=1.0), column)
    found: list[str] = []
    for part in data.mix:
        whole = own if part.corpus is None or Path(part.corpus) == own.root else Corpus.load(part.corpus)
        unsplit = part.split is None and all(row.split is None for row in whole)
        chosen = whole if unsplit else whole.split(part.split or data.train_split)
        if part.language is not None:
            chosen = chosen.subset(lambda row, code=part.language: row.language == code)  # type: ignore[misc]
        found += _filtered(chosen, data, part, column)
    return found


def _filtered(corpus: Corpus, data: DataConfig, part: MixPart, column: str | None = None) -> list[str]:
    kept, _ = filter_utterances(corpus.utterances, [*data.where, *part.where], str(corpus.root))
    return _texts(kept, data, column)


def _texts(utterances: Iterable[Utterance], data: DataConfig, column: str | None = None) -> list[str]:
    if column is not None:
        return [text for text in (text_of(one, column) for one in utterances) if text]
    return [one.text.lower() if data.case == "lower" else one.text for one in utterances]
