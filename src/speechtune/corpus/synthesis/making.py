"""The whole way from texts or terms to a synthetic corpus; what ``speechtune synthesise`` does."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.corpus.synthesis.engines import Engine, EngineChoice, open_engine
from speechtune.corpus.synthesis.planning import Sentence, plan_corpus
from speechtune.corpus.synthesis.texts import read_carriers, read_sentences, read_terms, term_sentences
from speechtune.corpus.synthesis.writing import write_corpus
from speechtune.corpus.table import count_by

LONGEST_CLIP_S = 30.0


@dataclass(frozen=True, slots=True)
class SynthesisOrder:
    """What to speak (``texts``, or ``terms`` in ``carriers``, or both), in which language, by how many voices."""

    texts: Path | None = None
    terms: Path | None = None
    carriers: Path | None = None
    per_term: int = 5
    language: str = "en"
    voices: int = 4
    engine: EngineChoice = field(default_factory=EngineChoice)
    split: str = "train"
    seed: int = 0


@dataclass(frozen=True, slots=True)
class SynthesisResult:
    """What was written."""

    out: Path
    kept: int
    dropped_by_reason: dict[str, int]
    seconds_of_audio: float
    voices: dict[str, int]
    clips_per_term: dict[str, int]

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "out": str(self.out)}

    def __str__(self) -> str:
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped_by_reason.items()) or "none"
        terms = f", {len(self.clips_per_term)} terms" if self.clips_per_term else ""
        return (
            f"{self.out}: {self.kept} synthetic utterances, {self.seconds_of_audio / 60:.1f} minutes, "
            f"{len(self.voices)} voices{terms}\nnot written: {dropped}"
        )


def synthesise_corpus(
    order: SynthesisOrder, out: Path, *, overwrite: bool = False, workers: int | None = None
) -> SynthesisResult:
    """Speak texts, and terms in carrier sentences, into a corpus marked as synthetic.

    Raises:
        InputError: nothing to say is given, a file of it is wrong, the engine or its voices are not there, or ``out``
            cannot be written.
    """
    if (order.terms is None) != (order.carriers is None):
        raise InputError("--terms and --carriers go together: the terms, and the sentences they are put into")
    sentences: list[Sentence] = []
    pronunciations: dict[str, str] = {}
    if order.texts is not None:
        sentences += read_sentences(order.texts, order.split)
    if order.terms is not None and order.carriers is not None:
        terms = read_terms(order.terms)
        sentences += term_sentences(terms, read_carriers(order.carriers), order.per_term, order.split, order.seed)
        pronunciations = {term.spelling: term.pronunciation for term in terms if term.pronunciation}
    if not sentences:
        raise InputError("nothing to say: give a file of texts, or --terms with --carriers")
    engine = open_engine(order.engine)
    names = choose_voices(engine, order.language, order.voices, order.seed)
    plan = plan_corpus(sentences, {order.split: names}, order.seed, engine)
    plan = [replace(clip, name=f"tts-{number:06d}") for number, clip in enumerate(plan, start=1)]
    corpus = write_corpus(
        out,
        plan,
        pronunciations,
        order.seed,
        overwrite,
        engine=order.engine,
        max_clip_s=LONGEST_CLIP_S,
        workers=workers,
        terms=sorted({term for sentence in sentences for term in sentence.terms}),
    )
    counts = count_by(corpus, "term")
    counts.pop("(unknown)", None)
    return SynthesisResult(
        out,
        len(corpus),
        corpus.card["dropped_by_reason"],
        corpus.card["seconds_of_audio"],
        count_by(corpus, "speaker_id"),
        counts,
    )


def choose_voices(engine: Engine, language: str, count: int, seed: int) -> list[str]:
    """``count`` voices of a language, drawn with a seed.

    Raises:
        InputError: the engine has fewer.
    """
    known = engine.voices(language)
    if count > len(known):
        raise InputError(
            f"{engine.name} has {len(known)} voices for {language!r}, not {count}: lower --voices or name more models"
        )
    order = np.random.default_rng([seed, 5]).permutation(len(known))[:count]
    return [known[index] for index in order.tolist()]
