"""Weights of a language model over N-best lists, tuned on some speakers and judged on the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json, write_text
from speechtune.corpus.table import Corpus
from speechtune.decoding.lm.causal import scorer_of
from speechtune.decoding.lm.rescoring import Features, features_of
from speechtune.decoding.lm.text import words_function
from speechtune.decoding.transcript import Transcript, read_transcripts
from speechtune.scoring.alignment import word_counts
from speechtune.scoring.bootstrap import Difference, paired_difference
from speechtune.scoring.normalisers import Normaliser, choose_normaliser, get_normaliser

ALPHAS = (0.0, 0.05, 0.1, 0.15, 0.2, 0.25, 0.3, 0.4, 0.5, 0.6, 0.8)
BETAS = (-0.5, 0.0, 0.25, 0.5, 0.75, 1.0, 1.5, 2.0)
LENGTH_POWERS = (0.0, 1.0)


@dataclass(frozen=True, slots=True)
class Setting:
    """Weight of the language model, bonus for each word, and the power of the length that totals are divided by."""

    alpha: float
    beta: float
    length_power: float


@dataclass(frozen=True, slots=True)
class Tuned:
    """The outcome of tuning; error rates are fractions.

    ``wer_before``: the search's own first hypotheses. ``wer_crossed``: every speaker decoded with weights tuned on
    other speakers, the honest figure. ``wer_tuned``: with ``setting``, which has seen all of them.
    ``wer_oracle``: the best hypothesis of every list. ``folds``: the setting of each fold.
    """

    setting: Setting
    wer_before: float
    wer_crossed: float
    wer_tuned: float
    wer_oracle: float
    difference: Difference
    folds: list[Setting]
    chosen: list[int]

    def to_json(self) -> dict[str, Any]:
        """The figures, JSON-ready."""
        return {
            **{name: getattr(self, name) for name in ("wer_before", "wer_crossed", "wer_tuned", "wer_oracle")},
            "setting": asdict(self.setting),
            "difference": self.difference.to_json(),
            "folds": [asdict(one) for one in self.folds],
        }

    def to_text(self) -> str:
        """A few lines for a person."""
        gap = self.difference
        sure = f" [{100 * gap.interval.low:+.2f}, {100 * gap.interval.high:+.2f}]" if gap.interval else ""
        return (
            f"WER {100 * self.wer_before:.2f} % before, {100 * self.wer_crossed:.2f} % with weights from other "
            f"speakers ({100 * (gap.difference or 0):+.2f}{sure} points, p = {gap.p_value or 1:.3g}), "
            f"{100 * self.wer_oracle:.2f} % at best\n"
            f"alpha {self.setting.alpha:g}, beta {self.setting.beta:g}, length power {self.setting.length_power:g} "
            f"(tuned on all: {100 * self.wer_tuned:.2f} %, which is too good to be reported)"
        )


def error_table(corpus: Corpus, transcripts: Sequence[Transcript], normaliser: Normaliser) -> list[np.ndarray]:
    """Word errors of every hypothesis of every utterance, in the corpus's order."""
    heard = {one.utterance_id: one for one in transcripts}
    table = []
    for utterance in corpus:
        if utterance.utterance_id not in heard:
            raise InputError(f"{utterance.utterance_id} has no transcript: decode the whole of {corpus.root}")
        reference = normaliser(utterance.text)
        rows = heard[utterance.utterance_id].nbest
        table.append(np.array([word_counts(reference, normaliser(str(row["text"]))).errors for row in rows]))
    return table


def tune(
    features: Sequence[Features],
    errors: Sequence[np.ndarray],
    lengths: Sequence[int],
    speakers: Sequence[str | None],
    *,
    folds: int = 0,
    resamples: int = 1000,
    seed: int = 0,
    grid: Sequence[Setting] | None = None,
) -> Tuned:
    """Try every setting of a grid; cross-validate over speakers.

    Args:
        features: of each utterance's hypotheses, the first being the search's choice.
        errors: word errors of the same hypotheses.
        lengths: reference words of each utterance.
        speakers: of each utterance; utterances of unknown speakers are one speaker each.
        folds: groups of speakers; 0: each speaker is one.
        resamples, seed: of the interval of the difference.
        grid: settings to try; of equally good ones the first wins.

    Raises:
        InputError: fewer than two speakers, or no reference words.
    """
    settings = list(grid or (Setting(*one) for one in product(ALPHAS, BETAS, LENGTH_POWERS)))
    names = [name if name is not None else f"({place})" for place, name in enumerate(speakers)]
    known = sorted(set(names))
    if len(known) < 2:
        raise InputError(
            "weights cannot be cross-validated over fewer than two speakers: give more, or set them by hand"
        )
    total = int(sum(lengths))
    if not total:
        raise InputError("there are no reference words to tune on: choose another split")
    picks = np.array([[one.best(**asdict(setting)) for setting in settings] for one in features])
    made = np.array([own[pick] for own, pick in zip(errors, picks, strict=True)])
    groups = _groups(known, folds or len(known), seed)
    owner = np.array([groups[name] for name in names])
    chosen = np.zeros(len(features), np.int64)
    fold_settings = []
    for fold in range(int(owner.max()) + 1):
        best = int(made[owner != fold].sum(axis=0).argmin())
        fold_settings.append(settings[best])
        inside = owner == fold
        chosen[inside] = picks[inside, best]
    before = np.array([own[0] for own in errors])
    crossed = np.array([own[pick] for own, pick in zip(errors, chosen, strict=True)])
    best = int(made.sum(axis=0).argmin())
    return Tuned(
        settings[best],
        float(before.sum() / total),
        float(crossed.sum() / total),
        float(made[:, best].sum() / total),
        float(sum(own.min() for own in errors) / total),
        paired_difference(before, crossed, np.array(lengths), list(speakers), resamples, 0.95, seed),
        fold_settings,
        chosen.tolist(),
    )


def _groups(names: Sequence[str], folds: int, seed: int) -> dict[str, int]:
    shuffled = np.random.default_rng(seed).permutation(len(names))
    return {names[place]: number % folds for number, place in enumerate(shuffled.tolist())}


@dataclass(frozen=True, slots=True)
class TuneOptions:
    """How `tune_model` decodes and folds; ``folds`` 0: every speaker is one."""

    split: str | None = "dev"
    beams: int = 8
    folds: int = 0
    language: str | None = None
    words: str = "spoken"
    seed: int = 0


def tune_model(name: str, corpus: Path, lm: str, out: Path, options: TuneOptions, overwrite: bool = False) -> Tuned:
    """Decode N-best lists (kept in ``<out>.nbest.jsonl`` and used again), tune, write a YAML ``decoding`` block.

    Raises:
        InputError: ``out`` exists, or the model, corpus or language model cannot be had.
    """
    import yaml

    from speechtune.decoding.sources import open_model, transcribe_to

    if out.exists() and not overwrite:
        raise InputError(f"{out} exists: choose another name, or add --overwrite")
    words = words_function(options.words)
    scorer = scorer_of(lm, None, words)
    whole = Corpus.load(corpus)
    chosen = whole.split(options.split) if options.split else whole
    keep = out.with_name(f"{out.name}.nbest.jsonl")
    block: dict[str, Any] = {
        "beams": options.beams,
        "search": {"n_best": options.beams, "early_stopping": True},
    }
    overrides = [
        f"decoding.beams={options.beams}",
        f"decoding.search.n_best={options.beams}",
        "decoding.search.early_stopping=true",
    ]
    opened = open_model(name, language=options.language, overrides=overrides)
    mark = keep.with_name(f"{keep.name}.made_of.json")
    made_of = {"model": str(opened.path), "corpus": chosen.fingerprint(), "decoding": opened.decoding.model_dump()}
    if not (keep.is_file() and mark.is_file() and read_json(mark) == made_of):
        transcribe_to(opened, chosen, keep)
        write_json(mark, made_of)
    transcripts = {one.utterance_id: one for one in read_transcripts(keep)}
    languages = [utterance.language or opened.family.language for utterance in chosen]
    normaliser = get_normaliser(choose_normaliser(languages, [utterance.text for utterance in chosen])[0])
    ordered = [transcripts[utterance.utterance_id] for utterance in chosen]
    result = tune(
        [features_of(one, scorer, words) for one in ordered],
        error_table(chosen, ordered, normaliser),
        [len(normaliser(utterance.text).split()) for utterance in chosen],
        [utterance.speaker_id for utterance in chosen],
        folds=options.folds,
        seed=options.seed,
    )
    block["lm"] = {"model": lm, "use": "rescore", "words": options.words, **asdict(result.setting)}
    write_text(out, yaml.safe_dump({"decoding": block}, sort_keys=False))
    return result
