"""Evaluation suites: several sets with one normaliser and one rule for the average, written in YAML.

Two come with the package (``suites/*.yaml``): the Open ASR Leaderboard's eight English sets and the six of ivrit.ai's
Hebrew leaderboard. A user's suite names corpora of this machine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.config import load_config
from speechtune.core.errors import InputError
from speechtune.core.files import write_json
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.corpus.importing import Fill, import_corpus
from speechtune.corpus.table import METADATA, Corpus
from speechtune.decoding.kept import Spent, transcribe_kept
from speechtune.decoding.sources import OpenedModel
from speechtune.decoding.transcript import write_transcripts
from speechtune.models.obtaining import models_home
from speechtune.scoring.bootstrap import blocks_of
from speechtune.scoring.config import ScoringConfig
from speechtune.scoring.normalisers import get_normaliser
from speechtune.scoring.score import Score, score_transcripts

PACKAGED = Path(__file__).parent / "suites"
HUB = "hf:"
RESULT = "suite.json"


class SuiteSet(BaseModel):
    """One set of a suite."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="What the set is called in the table.")
    corpus: str = Field(description="A corpus directory (relative to the suite's file), or hf:owner/name:config@split.")
    split: str | None = Field(default=None, description="Only this split of a corpus directory.")
    language: str | None = Field(default=None, description="Language of the speech, where it is not the suite's.")
    normaliser: str | None = Field(default=None, description="Text normaliser, where it is not the suite's.")


class Suite(BaseModel):
    """Several sets, how they are scored, and which average is the suite's number."""

    model_config = ConfigDict(extra="forbid")

    name: str = Field(min_length=1, description="What the suite is called.")
    about: str = Field(default="", description="What it measures, in a sentence.")
    language: str | None = Field(default=None, description="Language of the speech.")
    normaliser: str = Field(default="auto", description="Text normaliser of every set.")
    metric: Literal["wer", "cer"] = Field(default="wer", description="The rate that is averaged.")
    headline: Literal["macro", "micro"] = Field(
        default="macro",
        description="The suite's number: macro, the mean of the sets' rates; micro, all errors over all words.",
    )
    leave_out_empty: bool = Field(
        default=False, description="Leave out utterances whose normalised reference is empty, and count them."
    )
    leave_out_texts: list[str] = Field(
        default_factory=list, description="Leave out utterances with exactly this text, and count them."
    )
    sets: list[SuiteSet] = Field(min_length=1, description="The sets, in the order of the table.")


@dataclass(frozen=True, slots=True)
class Average:
    """A rate over several sets, with a percentile interval (each set is drawn anew by itself)."""

    rate: float | None
    low: float | None = None
    high: float | None = None

    def to_json(self) -> dict[str, Any]:
        """The fields."""
        return {"rate": self.rate, "low": self.low, "high": self.high}


@dataclass(slots=True, kw_only=True)
class SetResult:
    """One set: its score and what was left out of it."""

    name: str
    corpus: str
    score: Score
    spent: Spent
    dropped_by_reason: dict[str, int] = field(default_factory=dict)


@dataclass(slots=True, kw_only=True)
class SuiteResult:
    """Every set of a suite for one model, and both averages."""

    suite: Suite
    model: str
    context: str
    sets: list[SetResult]
    macro: Average
    micro: Average

    @property
    def headline(self) -> Average:
        """The average that the suite calls its number."""
        return self.macro if self.suite.headline == "macro" else self.micro

    def to_json(self) -> dict[str, Any]:
        """Sets and averages, JSON-ready."""
        decode_s, audio_s = (sum(getattr(one.spent, name) for one in self.sets) for name in ("decode_s", "audio_s"))
        return {
            "suite": self.suite.name,
            "model": self.model,
            "context": self.context,
            "metric": self.suite.metric,
            "headline": self.suite.headline,
            self.suite.metric: self.headline.rate,
            "macro": self.macro.to_json(),
            "micro": self.micro.to_json(),
            "rtf": decode_s / audio_s if audio_s else None,
            "kept": sum(len(one.score.utterances) for one in self.sets),
            "seconds_of_audio": sum(one.score.seconds_of_audio for one in self.sets),
            "sets": [
                {"name": one.name, "corpus": one.corpus, "dropped_by_reason": one.dropped_by_reason}
                | one.score.to_json()
                for one in self.sets
            ],
        }


def packaged_suites() -> dict[str, str]:
    """The suites that come with the package: name to what they measure."""
    found = [load_config(Suite, path) for path in sorted(PACKAGED.glob("*.yaml"))]
    return {one.name: one.about for one in found}


def load_suite(name: str) -> tuple[Suite, Path]:
    """A suite by the name of a packaged one or the path of a file, and the directory its corpora are relative to.

    Raises:
        InputError: there is none, or the file is wrong.
    """
    path = Path(name)
    if not path.is_file():
        path = PACKAGED / f"{name}.yaml"
        if not path.is_file():
            known = ", ".join(one.stem for one in sorted(PACKAGED.glob("*.yaml")))
            raise InputError(f"there is no suite {name!r}: give the path of a YAML file, or one of {known}")
    suite = load_config(Suite, path)
    names = [one.name for one in suite.sets]
    for one in suite.sets:
        if names.count(one.name) > 1:
            raise InputError(f"{path}: two sets are called {one.name!r}: give every set a name of its own")
        if one.corpus.startswith(HUB) and one.split:
            raise InputError(f"{path}: set {one.name!r}: write the split into the corpus, as in hf:owner/name@test")
        get_normaliser(one.normaliser or suite.normaliser) if (one.normaliser or suite.normaliser) != "auto" else None
    return suite, path.parent


def set_corpus(suite: Suite, one: SuiteSet, base: Path) -> Corpus:
    """The utterances of a set; a set of the hub is fetched once and kept in ``$SPEECHTUNE_HOME/suites``.

    Raises:
        InputError: the corpus is not there, or the set is not here yet and the hub cannot be reached.
    """
    if not one.corpus.startswith(HUB):
        whole = Corpus.load(base / one.corpus)
        return whole.split(one.split) if one.split else whole
    home = models_home().parent / "suites" / suite.name / one.name
    if not (home / METADATA).is_file():
        note(f"fetching {one.corpus} for the set {one.name}")
        home.parent.mkdir(parents=True, exist_ok=True)
        fill = Fill(language=one.language or suite.language)
        try:
            import_corpus(one.corpus, home, drop_bad=True, allow_empty=True, fill=fill)
        except InputError as error:
            raise InputError(
                f"the set {one.name} of the suite {suite.name} is not on this machine and could not be fetched from "
                f"the Hugging Face hub ({error}); go online (and accept its terms there) and run again, or give a "
                "suite of your own with corpora of this machine"
            ) from error
    return Corpus.load(home)


def evaluate_suite(
    opened: OpenedModel, suite: Suite, base: Path, out: Path, scoring: ScoringConfig | None = None
) -> SuiteResult:
    """Transcribe and score every set. What ``out`` holds already is not transcribed again.

    All sets are looked for before the first is transcribed. Writes ``transcripts/SET.jsonl``, ``sets/`` (the work so
    far) and, last, ``suite.json``.

    Raises:
        InputError: a set is not there, or ``out`` holds another model's transcripts.
    """
    scoring = scoring or ScoringConfig()
    corpora = [set_corpus(suite, one, base) for one in suite.sets]
    results = []
    for one, corpus in zip(suite.sets, corpora, strict=True):
        chosen, dropped = _scored_part(corpus, suite, one, opened.family.limits.max_audio_s)
        key = {
            "model": str(opened.path.resolve()),
            "decoding": opened.decoding.model_dump(mode="json"),
            "language": opened.family.language,
            "fingerprint": chosen.fingerprint(),
        }
        kept = transcribe_kept(lambda: opened, chosen, chosen.utterances, out / "sets" / one.name, key, one.name)
        transcripts = kept.of(chosen)
        write_transcripts(out / "transcripts" / f"{one.name}.jsonl", transcripts)
        score = score_transcripts(
            chosen,
            transcripts,
            normaliser=one.normaliser or suite.normaliser,
            confidence=scoring,
            language=one.language or suite.language or opened.family.language,
        )
        results.append(
            SetResult(
                name=one.name, corpus=one.corpus, score=score, spent=kept.spent(chosen), dropped_by_reason=dropped
            )
        )
    macro, micro = averages([one.score for one in results], suite.metric, scoring)
    result = SuiteResult(
        suite=suite,
        model=str(opened.path),
        context=opened.decoding.context,
        sets=results,
        macro=macro,
        micro=micro,
    )
    write_json(out / RESULT, {**result.to_json(), "provenance": provenance(scoring.seed)})
    return result


def _scored_part(corpus: Corpus, suite: Suite, one: SuiteSet, window_s: float) -> tuple[Corpus, dict[str, int]]:
    """The utterances that count, and how many do not, by reason."""
    name = one.normaliser or suite.normaliser
    normalise = get_normaliser(name) if suite.leave_out_empty and name != "auto" else None
    dropped: dict[str, int] = {}
    kept = []
    for utterance in corpus:
        reason = ""
        if utterance.text.strip() in suite.leave_out_texts:
            reason = "text that the suite leaves out"
        elif suite.leave_out_empty and not (normalise(utterance.text) if normalise else utterance.text.strip()):
            reason = "empty reference"
        elif utterance.duration_s > window_s:
            reason = f"longer than the model's window of {window_s:g} s"
        if reason:
            dropped[reason] = dropped.get(reason, 0) + 1
        else:
            kept.append(utterance)
    if not kept:
        raise InputError(f"no utterance of the set {one.name} is left to score ({dropped}): choose another set")
    return Corpus(corpus.root, kept, corpus.card), dropped


def averages(scores: Sequence[Score], metric: str, scoring: ScoringConfig) -> tuple[Average, Average]:
    """The mean of the sets' rates (macro) and all errors over all units (micro), with intervals.

    Every set is resampled by itself, by speaker where it has enough of them, and the average is taken of each draw:
    the sets are fixed, the utterances in them are not.

    Args:
        scores: one for each set, with their utterances.
        metric: ``wer`` or ``cer``.
        scoring: resamples, level and seed.
    """
    kind = "words" if metric == "wer" else "chars"
    rates, sums, draws = [], [], []
    for number, score in enumerate(scores):
        counts = [getattr(row, kind) for row in score.utterances]
        values = np.array([(one.errors, one.reference_length) for one in counts], dtype=np.int64)
        sums.append(values.sum(axis=0))
        rates.append(float(sums[-1][0] / sums[-1][1]) if sums[-1][1] else None)
        draws.append(_draws(values, [row.block for row in score.utterances], scoring.resamples, (scoring.seed, number)))
    known = [rate for rate in rates if rate is not None]
    whole = np.sum(sums, axis=0)
    macro = sum(known) / len(known) if known else None
    micro = float(whole[0] / whole[1]) if whole[1] else None
    usable = [one for one, rate in zip(draws, rates, strict=True) if rate is not None]
    if not usable or not scoring.resamples:
        return Average(macro), Average(micro)
    tails = [(1 - scoring.confidence_level) / 2, (1 + scoring.confidence_level) / 2]
    each = np.stack(usable)  # [sets, resamples, 2]
    means = (each[..., 0] / np.maximum(each[..., 1], 1)).mean(axis=0)
    pooled = each.sum(axis=0)
    low, high = np.quantile(means, tails)
    first, last = np.quantile(pooled[:, 0] / np.maximum(pooled[:, 1], 1), tails)
    return Average(macro, float(low), float(high)), Average(micro, float(first), float(last))


def _draws(values: np.ndarray, groups: Sequence[str | None], resamples: int, seed: tuple[int, int]) -> np.ndarray:
    """Sums of errors and units of each resample of one set, shape [resamples, 2]."""
    blocks = blocks_of(groups, len(values))
    if blocks is not None:
        sums = np.zeros((int(blocks.max()) + 1, 2), dtype=np.int64)
        np.add.at(sums, blocks, values)
        values = sums
    distinct, multiplicity = np.unique(values, axis=0, return_counts=True)
    generator = np.random.default_rng(seed)
    return generator.multinomial(len(values), multiplicity / len(values), size=resamples) @ distinct


def evaluate_named(
    name: str,
    opening: Callable[..., OpenedModel],
    out: Path | None,
    language: str | None,
    overrides: Sequence[str],
    seed: int,
) -> tuple[dict[str, Any], str]:
    """What ``speechtune evaluate MODEL --suite NAME`` does: the JSON object and the text of it.

    Args:
        name: a packaged suite, the path of one, or ``list``.
        opening: opens the model, given ``language`` and ``overrides``.
        out: directory of the results; ``None``: nothing is kept.
        language: language of the speech where the suite's is not meant.
        overrides: decoding settings.
        seed: of the intervals.

    Raises:
        InputError: as `load_suite` and `evaluate_suite`.
    """
    if name == "list":
        known = packaged_suites()
        return {"suites": known}, "\n".join(f"{one}: {about}" for one, about in known.items())
    suite, base = load_suite(name)
    for one in suite.sets:
        set_corpus(suite, one, base)
    opened = opening(language=language or suite.language, overrides=list(overrides))
    with tempfile.TemporaryDirectory(prefix="speechtune-suite-") as scratch:
        found = evaluate_suite(opened, suite, base, out or Path(scratch), ScoringConfig(seed=seed))
    return found.to_json(), suite_as_text(found)


def need_corpus(corpus: Path | None) -> Path:
    """The corpus, or an `InputError` that says what to give."""
    if corpus is None:
        raise InputError("give a corpus to evaluate on, or --suite")
    return corpus


def suite_as_text(found: SuiteResult) -> str:
    """The table of sets and averages for a person."""
    from speechtune.scoring.comparison_text import bounds, percent, table

    metric = found.suite.metric
    rows = [["set", "utterances", "words", f"{metric.upper()} %", "interval", "left out"]]
    for one in found.sets:
        rate, sure = (one.score.wer, one.score.interval) if metric == "wer" else (one.score.cer, one.score.cer_interval)
        left = ", ".join(f"{amount} {reason}" for reason, amount in one.dropped_by_reason.items()) or "-"
        words = str(one.score.words.reference_length)
        rows.append([one.name, str(len(one.score.utterances)), words, percent(rate), bounds(sure), left])
    for name, average in (("macro average", found.macro), ("micro average", found.micro)):
        star = " *" if average is found.headline else ""
        rows.append([f"{name}{star}", "", "", percent(average.rate), bounds(average), ""])
    return "\n".join(
        [f"{found.suite.name}: {found.model} at {found.context} audio context", *table(rows), "* the suite's number"]
    )
