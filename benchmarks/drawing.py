"""Small corpora drawn from a real one, for benchmarks that train."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from speechtune.corpus.table import Corpus


def drawn_corpus(corpus: Corpus, out: Path, clips: dict[str, int], seed: int, *, unseen: bool = False) -> Path:
    """A corpus of so many drawn clips of each split, beside the original audio (paths are absolute).

    With ``unseen`` every clip is of a dev speaker: half of them are its train split, the others its dev split. One that
    was drawn before is kept.
    """
    if (out / "corpus.json").is_file():
        return out
    rng, chosen = np.random.default_rng(seed), []
    if unseen:
        dev = corpus.split("dev").utterances
        speakers = sorted({str(one.speaker_id) for one in dev})
        first = {speakers[place] for place in rng.permutation(len(speakers))[: len(speakers) // 2]}
        for one in dev:
            one.split = "train" if str(one.speaker_id) in first else "dev"
        corpus = Corpus(corpus.root, dev, corpus.card)
    for split, count in clips.items():
        rows = corpus.split(split).utterances
        chosen += [rows[place] for place in sorted(rng.permutation(len(rows))[:count])]
    for row in chosen:
        row.file_name = str(corpus.path_of(row).resolve())
    out.mkdir(parents=True)
    Corpus(out, chosen, {"kept": len(chosen), "drawn_from": str(corpus.root), "seed": seed}).save()
    return out
