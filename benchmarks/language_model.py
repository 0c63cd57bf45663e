"""What a language model adds: greedy, beams 5 and 10, rescoring and shallow fusion, judged across speakers.

    python benchmarks/language_model.py RUN CORPUS --split dev --out language_model/

Weights are tuned on all speakers but one and used on that one, in turn (`speechtune.scoring.lm_tuning`); the share of
the two models in the mixture is one half, set beforehand. Every decoded system stays in ``--out`` and is used again.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.files import write_json
from speechtune.core.progress import note
from speechtune.corpus.table import Corpus
from speechtune.decoding.lm.arpa import write_arpa
from speechtune.decoding.lm.causal import scorer_of
from speechtune.decoding.lm.english import get_english
from speechtune.decoding.lm.rescoring import features_of
from speechtune.decoding.lm.text import read_sentences, spoken_words
from speechtune.decoding.lm.training import train_ngram
from speechtune.decoding.sources import open_model, transcribe_to
from speechtune.decoding.transcript import Transcript, read_transcripts
from speechtune.scoring.alignment import word_counts
from speechtune.scoring.bootstrap import paired_difference
from speechtune.scoring.lm_tuning import Setting, error_table, tune
from speechtune.scoring.normalisers import get_normaliser

FUSION_ALPHAS = (0.1, 0.2, 0.3, 0.4)
FUSION_BETAS = (0.0, 0.5)


class Bench:
    """One model on one set."""

    def __init__(self, model: str, corpus: Path, split: str, out: Path, normaliser: str) -> None:
        self.model, self.root, self.out = model, corpus, out
        self.corpus = Corpus.load(corpus).split(split)
        self.normaliser = get_normaliser(normaliser)
        self.references = [self.normaliser(one.text) for one in self.corpus]
        self.lengths = [len(one.split()) for one in self.references]
        self.speakers = [one.speaker_id for one in self.corpus]
        self.rows: dict[str, dict[str, Any]] = {}
        self.greedy: np.ndarray | None = None

    def decode(self, name: str, *overrides: str) -> list[Transcript]:
        """Transcripts of one system, in the corpus's order."""
        path = self.out / f"{name}.jsonl"
        if not path.is_file():
            note(f"decoding {name}")
            transcribe_to(open_model(self.model, overrides=overrides), self.corpus, path)
        held = {one.utterance_id: one for one in read_transcripts(path)}
        return [held[one.utterance_id] for one in self.corpus]

    def errors(self, texts: Sequence[str]) -> np.ndarray:
        """Word errors of each utterance."""
        pairs = zip(self.references, texts, strict=True)
        return np.array([word_counts(one, self.normaliser(text)).errors for one, text in pairs])

    def report(self, name: str, errors: np.ndarray, **facts: Any) -> None:
        """Keep and print one row: WER, and its difference from greedy with the interval over speakers."""
        if self.greedy is None:
            self.greedy = errors
        gap = paired_difference(self.greedy, errors, np.array(self.lengths), self.speakers)
        self.rows[name] = {"wer": errors.sum() / sum(self.lengths), "from_greedy": gap.to_json(), **facts}
        sure = f"[{100 * gap.interval.low:+.2f}, {100 * gap.interval.high:+.2f}]" if gap.interval else ""
        print(f"{name:32} {100 * self.rows[name]['wer']:6.2f} %  {100 * (gap.difference or 0):+.2f} {sure}", flush=True)

    def rescored(self, name: str, lists: list[Transcript], lm: str) -> None:
        """Rescoring of N-best lists, cross-validated over speakers."""
        scorer = scorer_of(lm, None, spoken_words)
        features = [features_of(one, scorer, spoken_words) for one in lists]
        table = error_table(self.corpus, lists, self.normaliser)
        found = tune(features, table, self.lengths, self.speakers)
        errors = np.array([own[pick] for own, pick in zip(table, found.chosen, strict=True)])
        self.report(name, errors, setting=found.to_json()["setting"], oracle=found.wer_oracle)

    def fused(self, name: str, beams: int, lm: str) -> None:
        """Shallow fusion; every (alpha, beta) is decoded, and each speaker gets the one best for the others."""
        grid = [Setting(alpha, beta, 0.0) for alpha in FUSION_ALPHAS for beta in FUSION_BETAS]
        made = np.stack(
            [
                self.errors(
                    [one.text for one in self.decode(f"{name}-{at.alpha:g}-{at.beta:g}", *_fusion(beams, lm, at))]
                )
                for at in grid
            ]
        )
        owner = np.array([str(one) for one in self.speakers])
        crossed = np.zeros(len(self.lengths), np.int64)
        for speaker in sorted(set(owner)):
            best = int(made[:, owner != speaker].sum(axis=1).argmin())
            crossed[owner == speaker] = made[best, owner == speaker]
        self.report(
            name,
            crossed,
            grid={f"{at.alpha:g},{at.beta:g}": int(own.sum()) for at, own in zip(grid, made, strict=True)},
        )


def _beams(beams: int) -> list[str]:
    return [f"decoding.beams={beams}", f"decoding.search.n_best={beams}", "decoding.search.early_stopping=true"]


def _fusion(beams: int, lm: str, at: Setting) -> list[str]:
    return [
        *_beams(beams),
        f"decoding.lm.model={lm}",
        "decoding.lm.use=fuse",
        f"decoding.lm.alpha={at.alpha:g}",
        f"decoding.lm.beta={at.beta:g}",
    ]


def main() -> None:
    """Run the ablation and write ``language_model.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("corpus", type=Path)
    parser.add_argument("--split", default="dev")
    parser.add_argument("--train-split", default="train")
    parser.add_argument("--normaliser", default="whisper-english")
    parser.add_argument("--out", type=Path, default=Path("language_model"))
    parser.add_argument("--fuse", action="store_true", help="Also fuse in the search: eight decodings.")
    given = parser.parse_args()
    get_english()
    own = given.out / "own.arpa"
    if not own.is_file():
        write_arpa(train_ngram(read_sentences(given.corpus, spoken_words, given.train_split), 3).model, own)
    both = f"{own}:0.5+english:0.5"
    bench = Bench(given.model, given.corpus, given.split, given.out, given.normaliser)
    bench.report("greedy", bench.errors([one.text for one in bench.decode("greedy")]))
    for beams in (5, 10):
        lists = bench.decode(f"beams-{beams}", *_beams(beams))
        bench.report(f"beams {beams}", bench.errors([one.text for one in lists]))
        for label, lm in (("own", str(own)), ("English", "english"), ("both", both)):
            bench.rescored(f"beams {beams}, rescored ({label})", lists, lm)
    if given.fuse:
        bench.fused("fused-5", 5, both)
    write_json(given.out / "language_model.json", json.loads(json.dumps(bench.rows, default=float)))


if __name__ == "__main__":
    main()
