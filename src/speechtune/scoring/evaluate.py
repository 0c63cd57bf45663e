"""Decode a corpus with a model and score what comes out."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from speechtune.core.files import write_json
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus
from speechtune.decoding.sources import OpenedModel, transcribe_to
from speechtune.scoring.score import Score, score_transcripts


def evaluate(
    opened: OpenedModel,
    corpus: Corpus,
    *,
    normaliser: str = "auto",
    slice_by: Sequence[str] = (),
    out: Path | None = None,
) -> Score:
    """Transcribe every utterance and score it.

    With ``out``, three files are kept there: ``transcripts.jsonl``, ``utterances.jsonl`` (counts of each
    utterance) and ``score.json``, written last.

    Raises:
        InputError: see `transcribe_corpus` and `score_transcripts`.
    """
    transcripts = transcribe_to(opened, corpus, out / "transcripts.jsonl" if out else None)
    score = score_transcripts(
        corpus, transcripts, normaliser=normaliser, slice_by=slice_by, language=opened.family.language
    )
    if out:
        score.write_utterances(out / "utterances.jsonl")
        facts = {"model": str(opened.path), "corpus": str(corpus.root), "context": opened.decoding.context}
        write_json(out / "score.json", {**score.to_json(), "provenance": provenance(None, **facts)})
    return score
