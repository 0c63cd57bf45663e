"""Counts and normalisers against outside judges: 100,000 generated texts or pairs each."""

from __future__ import annotations

import random
import re
import subprocess
from pathlib import Path

import jiwer
import numpy as np
import pytest
from generated_texts import english_text, pair
from transformers.models.whisper.english_normalizer import BasicTextNormalizer, EnglishTextNormalizer

from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.transcript import Transcript
from speechtune.scoring.alignment import count_many
from speechtune.scoring.alignment_weighted import align_by_cost
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.normalisation.whisper import spelling_map
from speechtune.scoring.normalisers import get_normaliser
from speechtune.scoring.score import score_transcripts

NUMBER = 100_000
SCLITE = Path("/usr/lib/sctk/bin/sclite")


def _spaced(text: str) -> str:
    return " ".join(text.split())


@pytest.fixture(scope="module")
def english() -> tuple[list[str], list[str]]:
    """Raw texts, and what Transformers makes of them."""
    draw = random.Random(11)
    texts = [english_text(draw) for _ in range(NUMBER)]
    theirs = EnglishTextNormalizer(spelling_map())
    return texts, [theirs(text) for text in texts]


def test_english_normaliser_equals_transformers(english: tuple[list[str], list[str]]) -> None:
    ours = get_normaliser("whisper-english")
    for text, expected in zip(*english, strict=True):
        assert ours(text) == _spaced(expected), text


def test_basic_normaliser_equals_transformers() -> None:
    draw = random.Random(12)
    theirs, ours = BasicTextNormalizer(), get_normaliser("whisper-basic")
    for _ in range(NUMBER):
        text = english_text(draw) if draw.random() < 0.7 else pair(draw)[1]
        assert ours(text) == _spaced(theirs(text)), text


def test_counts_equal_jiwer() -> None:
    draw = random.Random(13)
    pairs = [pair(draw) for _ in range(NUMBER)]
    references, hypotheses = [one for one, _ in pairs], [one for _, one in pairs]
    words = count_many([one.split() for one in references], [one.split() for one in hypotheses])
    chars = count_many(references, hypotheses)
    by_words, by_chars = jiwer.process_words(references, hypotheses), jiwer.process_characters(references, hypotheses)
    for ours, theirs in ((words, by_words), (chars, by_chars)):
        assert ours.sum(axis=0).tolist() == [theirs.hits, theirs.substitutions, theirs.deletions, theirs.insertions]
    for row, chunks in zip(words.tolist(), by_words.alignments, strict=True):
        assert row == _of_chunks(chunks)


def _of_chunks(chunks: list[jiwer.AlignmentChunk]) -> list[int]:
    counts = dict.fromkeys(("equal", "substitute", "delete", "insert"), 0)
    for one in chunks:
        counts[one.type] += max(one.ref_end_idx - one.ref_start_idx, one.hyp_end_idx - one.hyp_start_idx)
    return list(counts.values())


def test_the_challenges_definition(english: tuple[list[str], list[str]]) -> None:
    """Whisper's English normaliser on both sides, then jiwer's corpus-level rate; in one process and in two."""
    texts, normalised = english
    draw = random.Random(14)
    heard = [place if draw.random() < 0.5 else draw.randrange(NUMBER) for place in range(NUMBER)]
    judged = jiwer.process_words(normalised, [normalised[place] for place in heard])
    utterances = [
        Utterance(utterance_id=str(number), file_name="", text=text, duration_s=1.0)
        for number, text in enumerate(texts)
    ]
    transcripts = [Transcript(utterance_id=str(number), text=texts[place]) for number, place in enumerate(heard)]
    for workers in (1, 2):
        config = ScoringConfig(normaliser="whisper-english", resamples=0, workers=workers)
        score = score_transcripts(Corpus(Path("c"), utterances), transcripts, confidence=config)
        assert score.wer == judged.wer
        found = (score.words.hits, score.words.substitutions, score.words.deletions, score.words.insertions)
        assert found == (judged.hits, judged.substitutions, judged.deletions, judged.insertions)


@pytest.mark.skipif(not SCLITE.is_file(), reason="NIST sclite is not installed (apt-get install sctk)")
def test_counts_against_sclite(tmp_path: Path) -> None:
    """sclite minimises 4 S + 3 (D + I): its cost is the least possible, and its errors are nearly always ours."""
    draw = random.Random(15)
    pairs = [one for one in (pair(draw) for _ in range(5 * NUMBER // 4)) if one[0]]
    for side, name in enumerate(("ref", "hyp")):
        rows = [f"{texts[side]} (s-{number:06d})" for number, texts in enumerate(pairs)]
        (tmp_path / name).write_text("\n".join(rows) + "\n", encoding="utf-8")
    command = [SCLITE, "-r", tmp_path / "ref", "trn", "-h", tmp_path / "hyp", "trn"]
    options = ["-i", "spu_id", "-e", "utf-8", "-s", "-o", "pra", "stdout"]
    output = subprocess.run([*map(str, command), *options], capture_output=True, check=True).stdout
    found = re.findall(rb"^Scores: \(#C #S #D #I\) (\d+) (\d+) (\d+) (\d+)", output, flags=re.M)
    ids = [int(one) for one in re.findall(rb"^id: \(s-(\d+)\)", output, flags=re.M)]
    theirs = np.zeros((len(pairs), 4), dtype=np.int64)
    theirs[ids] = np.array(found, dtype=np.int64)
    ours = count_many([ref.split() for ref, _ in pairs], [hyp.split() for _, hyp in pairs])
    assert len(ids) == len(pairs) > NUMBER
    assert (theirs[:, :3].sum(axis=1) == ours[:, :3].sum(axis=1)).all()
    more = theirs[:, 1:].sum(axis=1) - ours[:, 1:].sum(axis=1)
    assert (more >= 0).all() and (more > 0).mean() < 0.01
    for index in [*np.flatnonzero(more)[:200], *range(300)]:
        reference, hypothesis = (text.split() for text in pairs[index])
        costs = np.array([[4 * (one != other) for other in hypothesis] for one in reference], dtype=np.int64)
        least = align_by_cost(reference, hypothesis, costs.reshape(len(reference), len(hypothesis)), indel=3)[1]
        assert least == 4 * theirs[index, 1] + 3 * theirs[index, 2:].sum()
