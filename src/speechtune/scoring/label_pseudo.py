"""Pseudo-labels: a corpus from recordings whose transcripts a model writes, filtered with counted reasons."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.errors import InputError
from speechtune.core.progress import Bar
from speechtune.core.provenance import provenance
from speechtune.corpus.naming import audio_stem, id_from_name
from speechtune.corpus.resumable import Workshop, link_or_copy, resumable_directory
from speechtune.corpus.table import Corpus, Utterance
from speechtune.corpus.text_measures import repeated_phrase
from speechtune.decoding.batched import plan_batches
from speechtune.decoding.sources import OpenedModel, open_source
from speechtune.scoring.alignment import word_counts
from speechtune.scoring.normalisers import default_normaliser, get_normaliser


class PseudoLabelConfig(BaseModel):
    """Which pseudo-labels are kept."""

    model_config = ConfigDict(extra="forbid")

    min_log_prob: float = Field(
        -0.36,
        le=0,
        description="Lowest mean log-probability of the tokens; -0.36 is a probability of 0.7 a token, the limit of "
        "the third of the children's challenge's phonetic track.",
    )
    min_duration_s: float = Field(0.5, ge=0, description="Shortest recording.")
    max_duration_s: float = Field(math.inf, gt=0, description="Longest recording; the model's window limits it too.")
    min_chars_per_s: float = Field(0.5, ge=0, description="Slowest speech; less means that words are missing.")
    max_chars_per_s: float = Field(30.0, gt=0, description="Fastest speech; more means that words are made up.")
    max_wer: float = Field(0.2, ge=0, description="How much a second model may differ, as a WER.")


@dataclass(slots=True, kw_only=True)
class PseudoResult:
    """The corpus, and what became of the recordings."""

    corpus: Path
    kept: int
    dropped_by_reason: dict[str, int]
    seconds_of_audio: float
    round: int
    model: str
    mean_log_prob: float

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {**asdict(self), "corpus": str(self.corpus)}

    def __str__(self) -> str:
        lines = [f"{self.corpus}: {self.kept} labels by {self.model} ({self.seconds_of_audio / 60:.1f} min)"]
        lines += [f"  left out: {count}, {reason}" for reason, count in self.dropped_by_reason.items()]
        return "\n".join(lines)


@dataclass(frozen=True, slots=True, kw_only=True)
class Labeller:
    """A model that labels: what it is called, and the opened model."""

    name: str
    opened: OpenedModel


def label_recordings(
    source: Path,
    labeller: Labeller,
    out: Path,
    config: PseudoLabelConfig,
    *,
    second: Labeller | None = None,
    split: str | None = None,
    overwrite: bool = False,
) -> PseudoResult:
    """Transcribe recordings into a new corpus; an interrupted run continues where it stopped.

    Labels have ``label_source`` model, ``label_model``, ``label_log_prob``, ``label_round`` (one more than the source
    has) and, with a second model, ``label_disagreement`` (its WER). A transcript that the source had is kept in
    ``text_before_label``. Audio is linked or copied.

    Args:
        source: an audio file, a folder of them, or a corpus.
        labeller: the model.
        out: the corpus to make.
        config: what is kept.
        second: a model that must agree.
        split: of a source that is a corpus, only this split.
        overwrite: replace ``out``.

    Raises:
        InputError: nothing to label, or no label passes, or ``out`` cannot be written.
    """
    found = open_source(source, split, window_s=math.inf)
    models = [labeller, *([second] if second else [])]
    with resumable_directory(out, _key(found, models, config), overwrite) as workshop:
        for place, one in enumerate(models):
            _transcribe(found, one, place, workshop)
        return _assemble(found, models, config, workshop, out)


def _key(source: Corpus, models: Sequence[Labeller], config: PseudoLabelConfig) -> str:
    facts = [
        source.fingerprint(),
        [[one.name, str(one.opened.path.resolve()), one.opened.decoding.model_dump()] for one in models],
        [one.opened.family.language for one in models],
        config.model_dump(),
    ]
    return hashlib.sha256(json.dumps(facts, default=str).encode()).hexdigest()


def _transcribe(source: Corpus, labeller: Labeller, place: int, workshop: Workshop) -> None:
    from speechtune.audio.io import load_audio

    family, decoding = labeller.opened.family, labeller.opened.decoding
    family.model.eval()
    wanted = [row for row in source if f"{place}:{row.utterance_id}" not in workshop.done]
    for row in [row for row in wanted if row.duration_s > family.limits.max_audio_s]:
        workshop.finish(f"{place}:{row.utterance_id}", {"problem": "longer than the model's window"})
    short = [row for row in wanted if row.duration_s <= family.limits.max_audio_s]
    with Bar(f"label with {labeller.name}", len(source), len(source) - len(short)) as bar:
        for batch, n_frames in plan_batches(family, short, decoding):
            heard, waveforms = [], []
            for row in batch:
                try:
                    waveforms.append(load_audio(source.path_of(row), row.start_s, row.end_s))
                    heard.append(row)
                except (InputError, FileNotFoundError):
                    workshop.finish(f"{place}:{row.utterance_id}", {"problem": "audio cannot be read"})
            hypotheses = family.generate(waveforms, n_frames, decoding.max_new_tokens, decoding.beams) if heard else []
            for row, one in zip(heard, hypotheses, strict=True):
                facts = {"text": one.text, "log_prob": round(one.log_prob, 4), "truncated": one.truncated}
                workshop.finish(f"{place}:{row.utterance_id}", facts)
            bar.advance(bar.done + len(batch))


def _assemble(
    source: Corpus, models: Sequence[Labeller], config: PseudoLabelConfig, workshop: Workshop, out: Path
) -> PseudoResult:
    name, family = models[0].name, models[0].opened.family
    normalise = get_normaliser(default_normaliser(family.language))
    number = 1 + max((int(row.extra.get("label_round") or 0) for row in source), default=0)
    rows: list[Utterance] = []
    dropped: dict[str, int] = {}
    files: dict[str, str] = {}
    taken: set[str] = set()
    for row in source:
        answers = [workshop.done[f"{place}:{row.utterance_id}"] for place in range(len(models))]
        reason, disagreement = why_not(row, answers, config, normalise)
        if reason is not None:
            dropped[reason] = dropped.get(reason, 0) + 1
            continue
        if row.file_name not in files:
            stem = audio_stem(id_from_name(row.file_name.lstrip("/")), taken)
            files[row.file_name] = f"audio/{stem}{Path(row.file_name).suffix.lower()}"
            link_or_copy(source.path_of(row), workshop.folder / files[row.file_name])
        rows.append(_labelled(row, answers[0], files[row.file_name], name, number))
        rows[-1].language = row.language or family.language
        if disagreement is not None:
            rows[-1].extra["label_disagreement"] = round(disagreement, 4)
    if not rows:
        reasons = ", ".join(f"{reason}: {count}" for reason, count in dropped.items())
        raise InputError(f"no label of {source.root} passes ({reasons}): loosen the limits")
    corpus = Corpus(workshop.folder, rows)
    mean = sum(row.extra["label_log_prob"] for row in rows) / len(rows)
    result = PseudoResult(
        corpus=out,
        kept=len(rows),
        dropped_by_reason=dict(sorted(dropped.items(), key=lambda item: -item[1])),
        seconds_of_audio=round(corpus.seconds_of_audio, 3),
        round=number,
        model=name,
        mean_log_prob=round(mean, 4),
    )
    facts = {**result.to_json(), "second_model": models[1].name if len(models) > 1 else None}
    limits = {key: value for key, value in config.model_dump().items() if value != math.inf}
    corpus.card = {"format": "label", **facts, "limits": limits, "source": str(source.root)}
    corpus.card |= {"fingerprint": corpus.fingerprint(), "provenance": provenance()}
    corpus.save()
    return result


def _labelled(row: Utterance, answer: dict[str, Any], file_name: str, model: str, number: int) -> Utterance:
    labelled = Utterance.from_row({**row.to_row(), "file_name": file_name, "text": answer["text"]})
    if row.text.strip():
        labelled.extra["text_before_label"] = row.text
    labelled.extra |= {
        "label_source": "model",
        "label_model": model,
        "label_log_prob": answer["log_prob"],
        "label_round": number,
    }
    return labelled


def why_not(
    row: Utterance, answers: Sequence[dict[str, Any]], config: PseudoLabelConfig, normalise: Callable[[str], str]
) -> tuple[str | None, float | None]:
    """Why a pseudo-label is not kept (``None``: it is), and how much the second model differs, as a WER.

    Args:
        row: the recording.
        answers: of the labelling model and, if there is one, of the second: ``text``, ``log_prob`` and ``truncated``,
            or ``problem``.
        config: the limits.
        normalise: what is done to both texts before they are compared.
    """
    problem = next((one["problem"] for one in answers if "problem" in one), None)
    if problem:
        return problem, None
    first = answers[0]
    rate = len("".join(first["text"].split())) / max(row.duration_s, 1e-9)
    checks = (
        (row.duration_s < config.min_duration_s, f"shorter than {config.min_duration_s:g} s"),
        (row.duration_s > config.max_duration_s, f"longer than {config.max_duration_s:g} s"),
        (not normalise(first["text"]), "the model heard no words"),
        (bool(first["truncated"]), "the model ran into its token limit"),
        (repeated_phrase(first["text"]) is not None, "the model repeats itself"),
        (first["log_prob"] < config.min_log_prob, f"log-probability below {config.min_log_prob:g}"),
        (rate < config.min_chars_per_s, f"fewer than {config.min_chars_per_s:g} characters a second"),
        (rate > config.max_chars_per_s, f"more than {config.max_chars_per_s:g} characters a second"),
    )
    reason = next((words for true, words in checks if true), None)
    if reason is not None or len(answers) == 1:
        return reason, None
    wer = word_counts(normalise(first["text"]), normalise(answers[1]["text"])).rate
    differs = wer is None or wer > config.max_wer
    return (f"the models differ by more than {config.max_wer:g} WER" if differs else None), wer
