"""What each way of decoding gains or loses on one set: search, fallback, language models, prompts, tuning, ensembles.

    python benchmarks/decoding_ablation.py CORPUS RUN_A RUN_B RUN_C --split dev --lm own.arpa:0.5+english:0.5 \
        --tuned tuned.yaml --prompt "A child reads aloud." --out ablation/

The first model is decoded in every way; all of them are combined. ``--lm`` must come from other text than the split's.
Rows that choose among hypotheses use weights tuned on the other speakers (cross-fitted), the rest is fixed beforehand.
``--tuned`` is what ``speechtune tune-decoding`` or ``lm tune`` wrote: it must come from other speakers than the split's
to be honest, and the table says so. Every decoded system stays in ``--out`` and every row is scored from there, so an
interrupted run goes on where it stopped. Differences are to greedy, paired, with intervals over speakers.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.files import write_json
from speechtune.core.progress import note
from speechtune.corpus.table import Corpus
from speechtune.decoding.lm.causal import scorer_of
from speechtune.decoding.lm.rescoring import features_of
from speechtune.decoding.lm.text import spoken_words
from speechtune.decoding.sources import open_model, transcribe_to
from speechtune.decoding.together.rover import RoverOptions
from speechtune.decoding.together.systems import read_systems
from speechtune.decoding.transcript import Transcript, read_transcripts
from speechtune.scoring.alignment import word_counts
from speechtune.scoring.bootstrap import bootstrap_interval, paired_difference
from speechtune.scoring.combining import CombineOptions, combine
from speechtune.scoring.lm_tuning import error_table, tune
from speechtune.scoring.normalisers import get_normaliser


def beams(count: int) -> list[str]:
    """Overrides of an N-best search."""
    return [f"decoding.beams={count}", f"decoding.search.n_best={count}", "decoding.search.early_stopping=true"]


@dataclass(frozen=True)
class Row:
    """One line of the table: the errors of every utterance, the seconds of decoding where it decodes by itself."""

    name: str
    errors: np.ndarray
    seconds: float | None = None
    remark: str = ""


class Ablation:
    """One set, several models, and the transcripts of every way."""

    def __init__(self, given: argparse.Namespace) -> None:
        self.given, self.out = given, Path(given.out)
        self.out.mkdir(parents=True, exist_ok=True)
        corpus = Corpus.load(given.corpus).split(given.split)
        if given.clips:
            order = np.random.default_rng(given.seed).permutation(len(corpus))[: given.clips]
            corpus = Corpus(corpus.root, [corpus.utterances[int(place)] for place in sorted(order)], corpus.card)
        self.corpus = corpus
        self.normaliser = get_normaliser(given.normaliser)
        self.references = [self.normaliser(one.text) for one in corpus]
        self.lengths = np.array([len(one.split()) for one in self.references])
        self.speakers = [one.speaker_id for one in corpus]
        self.rows: list[Row] = []

    def decode(self, name: str, model: str, overrides: Sequence[str] = (), settings: Path | None = None) -> Path:
        """Transcribe unless these words, clips and this model were already; the seconds are kept beside it."""
        said = [model, *overrides, settings.read_text(encoding="utf-8") if settings else ""]
        names = [one.utterance_id for one in self.corpus]
        key = hashlib.sha256(json.dumps([said, names, self.given.context]).encode()).hexdigest()[:10]
        path = self.out / f"{name}.{key}.jsonl"
        if not path.is_file():
            note(f"decoding {name}")
            context = [] if self.given.context is None else [f"decoding.context={self.given.context}"]
            opened = open_model(
                model, language=self.given.language, settings=settings, overrides=[*context, *overrides]
            )
            began_s = time.perf_counter()
            transcribe_to(opened, self.corpus, path)
            write_json(path.with_suffix(".json"), {"said": said, "seconds": time.perf_counter() - began_s})
        return path

    def read(self, path: Path) -> list[Transcript]:
        """Transcripts in the corpus's order."""
        held = {one.utterance_id: one for one in read_transcripts(path)}
        return [held[one.utterance_id] for one in self.corpus]

    def errors(self, texts: Sequence[str]) -> np.ndarray:
        """Word errors of every utterance."""
        pairs = zip(self.references, texts, strict=True)
        return np.array([word_counts(one, self.normaliser(text)).errors for one, text in pairs])

    def add(self, name: str, texts: Sequence[str], seconds: float | None = None, remark: str = "") -> None:
        """A row from texts."""
        self.keep(Row(name, self.errors(texts), seconds, remark))

    def keep(self, row: Row) -> None:
        """A row; it is printed and everything is written anew."""
        self.rows.append(row)
        print(self.lines()[-1], flush=True)
        write_json(self.out / "ablation.json", [self.to_json(one) for one in self.rows])
        text = "\n".join(
            ["| decoding | WER % [95 %] | against greedy | x time | |", "|---|---|---|---|---|", *self.lines()]
        )
        (self.out / "ablation.md").write_text(text + "\n", encoding="utf-8")

    def decoded(self, name: str, overrides: Sequence[str] = (), remark: str = "", **options: Any) -> list[Transcript]:
        """A row that the first model decodes."""
        path = self.decode(name.replace(" ", "-"), self.given.models[0], overrides, **options)
        found = self.read(path)
        seconds = json.loads(path.with_suffix(".json").read_text(encoding="utf-8"))["seconds"]
        self.add(name, [one.text for one in found], seconds, remark)
        return found

    def rescored(self, name: str, lists: Sequence[Transcript], lm: str | None, causal: str | None) -> None:
        """Rescoring of N-best lists, weights cross-fitted over speakers."""
        scorer = scorer_of(lm, causal, spoken_words)
        features = [features_of(one, scorer, spoken_words) for one in lists]
        table = error_table(self.corpus, list(lists), self.normaliser)
        found = tune(features, table, self.lengths.tolist(), self.speakers)
        errors = np.array([own[pick] for own, pick in zip(table, found.chosen, strict=True)])
        self.keep(Row(name, errors, None, f"oracle of the lists {100 * (found.wer_oracle or 0):.1f} %"))

    def combined(self, name: str, paths: Sequence[Path], options: CombineOptions) -> None:
        """A combination of the systems."""
        report = combine(read_systems(list(paths)), options, self.corpus)
        held = {one.utterance_id: one.text for one in report.transcripts}
        self.add(name, [held[one.utterance_id] for one in self.corpus])

    def to_json(self, row: Row) -> dict[str, Any]:
        """A row with its interval and its difference to greedy."""
        interval = bootstrap_interval(row.errors, self.lengths, self.speakers)
        gap = paired_difference(self.rows[0].errors, row.errors, self.lengths, self.speakers)
        return {
            "name": row.name,
            "wer": float(row.errors.sum() / self.lengths.sum()),
            "interval": interval.to_json() if interval else None,
            "from_greedy": gap.to_json(),
            "seconds": row.seconds,
            "remark": row.remark,
        }

    def lines(self) -> list[str]:
        """The rows as Markdown."""
        found = []
        for row in self.rows:
            one = self.to_json(row)
            sure = "" if one["interval"] is None else "[{low:.1f}, {high:.1f}]".format(
                **{side: 100 * one["interval"][side] for side in ("low", "high")}
            )  # fmt: skip
            gap, difference = "", one["from_greedy"]
            if difference["interval"] and row is not self.rows[0]:
                low, high = (100 * difference["interval"][side] for side in ("low", "high"))
                gap = (
                    f"{100 * difference['difference']:+.1f} [{low:+.1f}, {high:+.1f}], p = {difference['p_value']:.2g}"
                )
            first = self.rows[0].seconds
            times = f"{row.seconds / first:.1f}" if row.seconds and first else ""
            found.append(f"| {row.name} | {100 * one['wer']:.1f} {sure} | {gap} | {times} | {row.remark} |")
        return found


def single(table: Ablation, given: argparse.Namespace) -> None:
    """The rows of the first model alone."""
    table.decoded("greedy")
    table.decoded("beam 5", ["decoding.beams=5", "decoding.search.early_stopping=true"])
    table.decoded("fallback", ["decoding.fallback.temperatures=[0.2,0.4,0.6,0.8,1.0]"])
    if given.prompt:
        table.decoded("prompt", [f"decoding.search.prompt={json.dumps(given.prompt)}"], given.prompt)
    lists = table.decoded("beam 8, the best of its list", beams(8))
    if given.lm:
        fused = [f"decoding.lm.model={given.lm}", "decoding.lm.use=fuse", "decoding.search.length_penalty=0"]
        table.decoded("LM fusion", [*beams(8), *fused], "alpha 0.3, beta 0, not tuned")
        table.rescored("LM rescoring", lists, given.lm, None)
    if given.causal:
        table.rescored("rescoring by a causal LM", lists, None, given.causal)
    if given.tuned:
        table.decoded("tuned settings", settings=given.tuned, remark=str(given.tuned.name))


def several(table: Ablation, given: argparse.Namespace) -> None:
    """The rows of all models."""
    names = [chr(ord("A") + place) for place in range(len(given.models))]
    greedy, listed = [], []
    for place, (name, model) in enumerate(zip(names, given.models, strict=True)):
        greedy.append(table.decode("greedy" if not place else f"{name}-greedy", model))
        listed.append(table.decode("beam-8,-the-best-of-its-list" if not place else f"{name}-beam-8", model, beams(8)))
        if place:
            table.add(f"model {name}, greedy", [one.text for one in table.read(greedy[-1])])
    both: list[tuple[str, Sequence[Path], Callable[[], CombineOptions]]] = [
        ("ROVER of all, greedy", greedy, CombineOptions),
        ("ROVER of all, beam 8, medoid first", listed, lambda: CombineOptions(rover=RoverOptions(medoid=True))),
        ("agreement, else A", greedy, lambda: CombineOptions(method="agree")),
        ("MBR of the joint lists", listed, lambda: CombineOptions(method="mbr")),
        ("learned selection (cross-fitted)", greedy, lambda: CombineOptions(method="select")),
    ]
    for name, paths, options in both:
        try:
            table.combined(name, paths, options())
        except Exception as error:  # a method may lack its package, or too few speakers to cross-fit
            note(f"{name}: {error}")
    joint = table.decode("ensemble", "+".join(given.models))
    seconds = json.loads(joint.with_suffix(".json").read_text(encoding="utf-8"))["seconds"]
    table.add("logit ensemble, greedy", [one.text for one in table.read(joint)], seconds)


def main() -> None:
    """Decode, score, and write ``ablation.md`` and ``ablation.json``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path)
    parser.add_argument("models", nargs="+", help="the one that is decoded in every way first")
    parser.add_argument("--split", default="dev")
    parser.add_argument("--clips", type=int, help="only so many, drawn by --seed")
    parser.add_argument("--lm", help="a language model as decoding.lm.model names it")
    parser.add_argument("--causal", help="a causal language model's directory")
    parser.add_argument("--tuned", type=Path, help="a YAML file with a decoding block")
    parser.add_argument("--prompt", help="text given as what was said before")
    parser.add_argument("--context", choices=("fit", "full"))
    parser.add_argument("--language")
    parser.add_argument("--normaliser", default="whisper-english")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, required=True)
    given = parser.parse_args()
    table = Ablation(given)
    single(table, given)
    if len(given.models) > 1:
        several(table, given)
    print((given.out / "ablation.md").read_text(encoding="utf-8"))


if __name__ == "__main__":
    main()
