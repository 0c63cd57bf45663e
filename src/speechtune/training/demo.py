"""The demonstration: a personal vocabulary, from nothing to a better model and the proof, offline."""

from __future__ import annotations

from pathlib import Path

from speechtune.core.progress import note
from speechtune.corpus.demo_corpus import build_demo_corpus
from speechtune.corpus.table import METADATA, Corpus
from speechtune.models.obtaining import get_model
from speechtune.training.recipe import Recipe
from speechtune.training.run import Run, train

MODEL = "whisper-tiny.en"


def demo_recipe(corpus: Path, terms: list[str], seed: int) -> Recipe:
    """Fine-tune tiny.en on sentences with the terms; measure unseen such sentences and general ones."""
    return Recipe.model_validate(
        {
            "data": {"corpus": str(corpus)},
            "model": {"base": MODEL},
            "training": {"epochs": 4, "learning_rate": 3e-5, "schedule": "cosine", "seed": seed},
            "evaluation": {
                "sets": [
                    {"name": "target", "split": "test"},
                    {"name": "general", "split": "general", "role": "guard"},
                ],
                "baseline_contexts": ["full"],
                "scoring": {"terms": terms, "slice_by": ["speaker_id"]},
            },
        }
    )


def run_demo(directory: Path, *, seed: int = 0, resume: bool = False) -> Run:
    """Synthesise the corpus, get the model, train, measure: everything below ``directory``.

    Raises:
        InputError: the model or the synthesiser cannot be had, or ``directory`` is taken.
    """
    corpus = directory / "corpus"
    note(f"1/3 model: {MODEL}")
    get_model(MODEL)
    note("2/3 corpus: Hebrew words in English sentences, spoken by espeak-ng in several voices")
    if not (resume and (corpus / METADATA).is_file()):
        build_demo_corpus(corpus, seed=seed)
    note("3/3 baseline, fine-tune, proof")
    recipe = demo_recipe(corpus, Corpus.load(corpus).card["terms"], seed)
    return train(recipe, directory / "run", resume=resume)
