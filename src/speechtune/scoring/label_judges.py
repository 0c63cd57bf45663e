"""What models make of the labelled recordings of a corpus: a judge's hypotheses, and how probable it finds the labels.

A judge is a model, or a file of transcripts from any system. A model's answers are kept as they come, so that an
interrupted check continues where it stopped.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from speechtune.core.errors import InputError
from speechtune.core.files import read_json, read_jsonl, write_jsonl
from speechtune.core.progress import Bar
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.batched import plan_batches
from speechtune.decoding.label_likelihood import label_likelihoods
from speechtune.decoding.sources import OpenedModel
from speechtune.decoding.transcript import read_transcripts

_PART_UTTERANCES = 64
"""Utterances whose answers are written together: what an interruption can cost."""


@dataclass(slots=True, kw_only=True)
class Answer:
    """One judge on one utterance.

    ``text``: its hypothesis. ``label``, ``own``: what it makes of the transcript and of its hypothesis (the fields of
    `Likelihood`); ``None`` where they are not known. ``problem``: why there is no hypothesis, else ``None``.
    """

    text: str
    flags: list[str] = field(default_factory=list)
    label: dict[str, Any] | None = None
    own: dict[str, Any] | None = None
    problem: str | None = None


@dataclass(slots=True, kw_only=True)
class Judge:
    """A judge's answers by utterance id; ``warning`` says why it should not be trusted on this corpus."""

    name: str
    answers: dict[str, Answer]
    warning: str | None = None


def judge_from_file(path: Path, corpus: Corpus) -> Judge:
    """Transcripts that some system wrote, as a judge; those of other utterances are left aside.

    Raises:
        InputError: the file is not one of transcripts, or has none of this corpus.
    """
    known = {utterance.utterance_id for utterance in corpus}
    found = {
        one.utterance_id: Answer(text=one.text, flags=list(one.flags))
        for one in read_transcripts(path)
        if one.utterance_id in known
    }
    if not found:
        raise InputError(f"{path} has no transcript of an utterance of {corpus.root}: check that they belong together")
    return Judge(name=path.stem, answers=found)


def judge_with_model(opened: OpenedModel, name: str, corpus: Corpus, folder: Path) -> Judge:
    """Transcribe every utterance and score its label; what ``folder`` holds of this judge already is used.

    Audio that cannot be read, and utterances longer than the model's window, are answered with a ``problem``.

    Args:
        opened: the model, from `open_model`.
        name: what the user called it.
        corpus: the labelled utterances.
        folder: where the answers are kept; those of one model and its settings have a folder of their own.
    """
    own = folder / _folder_name(opened, name)
    found = _kept(own, corpus)
    limit_s = opened.family.limits.max_audio_s
    wanted = [row for row in corpus if row.utterance_id not in found]
    short = [row for row in wanted if row.duration_s <= limit_s]
    for row in wanted:
        if row.duration_s > limit_s:
            found[row.utterance_id] = Answer(text="", problem="longer than the model's window")
    number = len(list(own.glob("part-*.jsonl")))
    part: list[dict[str, Any]] = []
    with Bar(f"judge {name}", len(corpus), len(corpus) - len(short)) as bar:
        for utterance, answer in _ask(opened, corpus, short):
            found[utterance.utterance_id] = answer
            part.append({**_identity(utterance), "answer": asdict(answer)})
            bar.advance()
            if len(part) >= _PART_UTTERANCES:
                number += 1
                write_jsonl(own / f"part-{number:05d}.jsonl", part)
                part = []
    if part:
        write_jsonl(own / f"part-{number + 1:05d}.jsonl", part)
    return Judge(name=name, answers=found, warning=in_sample_warning(name, corpus))


def _ask(opened: OpenedModel, corpus: Corpus, utterances: Sequence[Utterance]) -> Iterator[tuple[Utterance, Answer]]:
    from speechtune.audio.io import load_audio

    family = opened.family
    family.model.eval()
    for batch, n_frames in plan_batches(family, utterances, opened.decoding):
        heard, waveforms = [], []
        for utterance in batch:
            try:
                waveforms.append(load_audio(corpus.path_of(utterance), utterance.start_s, utterance.end_s))
                heard.append(utterance)
            except (InputError, FileNotFoundError):
                yield utterance, Answer(text="", problem="audio cannot be read")
        if not heard:
            continue
        hypotheses = family.generate(waveforms, n_frames, opened.decoding.max_new_tokens, opened.decoding.beams)
        texts = [[row.text, one.text] for row, one in zip(heard, hypotheses, strict=True)]
        found = label_likelihoods(family, waveforms, texts, n_frames)
        for utterance, one, (label, own) in zip(heard, hypotheses, found, strict=True):
            yield (
                utterance,
                Answer(
                    text=one.text,
                    flags=["truncated"] if one.truncated else [],
                    label=label.to_json() if label else None,
                    own=own.to_json() if own else None,
                ),
            )


def _identity(utterance: Utterance) -> dict[str, Any]:
    """What an answer depends on; an answer is used again only while all of it stands."""
    names = ("utterance_id", "file_name", "start_s", "end_s", "duration_s", "text")
    return {name: getattr(utterance, name) for name in names}


def _kept(folder: Path, corpus: Corpus) -> dict[str, Answer]:
    rows = {row.utterance_id: _identity(row) for row in corpus}
    found = {}
    for path in sorted(folder.glob("part-*.jsonl")):
        for row in read_jsonl(path):
            answer = row.pop("answer")
            if rows.get(row["utterance_id"]) == row:
                found[row["utterance_id"]] = Answer(**answer)
    return found


def _folder_name(opened: OpenedModel, name: str) -> str:
    """The judge's name and a fingerprint of its files (names, sizes, times) and settings."""
    files = sorted(path for path in opened.path.iterdir() if path.is_file())
    facts = [[path.name, path.stat().st_size, path.stat().st_mtime_ns] for path in files]
    settings = [opened.decoding.model_dump(), opened.family.language]
    digest = hashlib.sha256(json.dumps([facts, settings], default=str).encode()).hexdigest()
    return f"{re.sub(r'[^A-Za-z0-9.]+', '-', name).strip('-')[-40:]}-{digest[:8]}"


def in_sample_warning(model: str, corpus: Corpus) -> str | None:
    """A sentence if a run was trained on utterances of this corpus: it may have learnt their wrong labels.

    Known from the run's ``provenance.json`` (the corpus's fingerprint) and ``recipe.yaml`` (its path and train split).
    """
    run = Path(model)
    if not (run / "recipe.yaml").is_file() or not (run / "provenance.json").is_file():
        return None
    facts = read_json(run / "provenance.json").get("data") or {}
    split = _train_split(run)
    paths = [entry.get("corpus") for entry in [facts, *(facts.get("corpora") or [])] if isinstance(entry, dict)]
    same = facts.get("fingerprint") in (corpus.card.get("fingerprint"), corpus.fingerprint())
    same = same or any(path and _ends_with(corpus.root.resolve(), Path(path)) for path in paths)
    trained = sum(1 for row in corpus if row.split in (None, split)) if same else 0
    if not trained:
        return None
    return (
        f"{model} was trained on {trained} of these {len(corpus)} utterances and may repeat their wrong labels: judge "
        "them with a model trained on other speakers (speechtune split --folds; see docs/label_check.md)"
    )


def _ends_with(whole: Path, path: Path) -> bool:
    """Whether ``whole`` may be ``path``, which may be relative to an unknown directory."""
    parts = [part for part in path.parts if part not in (".", "..")]
    return bool(parts) and list(whole.parts[-len(parts) :]) == parts


def _train_split(run: Path) -> str:
    from omegaconf import OmegaConf

    recipe = OmegaConf.to_container(OmegaConf.load(run / "recipe.yaml"))
    data = recipe.get("data") if isinstance(recipe, dict) else None
    return str((data or {}).get("train_split", "train"))
