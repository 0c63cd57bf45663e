"""A diagonal Fisher information: the mean over examples of the squared gradient of each example's log-likelihood.

Per example, not per batch: the square of a batch's mean gradient is something else, and vanishes at an optimum.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch

from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.core.progress import track
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.family import Example, Family
from speechtune.models.observe import IGNORED, Needs, Taps, taps_of, watch
from speechtune.training.objectives.config import EwcConfig

Weights = Mapping[str, torch.nn.Parameter]
SAVE_EVERY = 25
"""Examples between two writes of the unfinished sum."""


def estimate_fisher(
    family: Family, weights: Weights, config: EwcConfig, run: Path, seed: int, *, writes: bool = True
) -> dict[str, torch.Tensor]:
    """The Fisher information of ``weights`` on the proxy corpus; kept in ``run/fisher``, and continued from there.

    Every process of a run computes the same; one of them writes.

    Args:
        family: the model at its start; it is left as it was.
        weights: by name, those the Fisher information is wanted of.
        config: the proxy corpus and how labels are taken.
        run: the run's directory.
        seed: of the draw of utterances and of labels.
        writes: whether this process writes.

    Raises:
        InputError: the proxy corpus has no usable utterance, or labels cannot be drawn from this family.
    """
    assert config.corpus is not None
    whole = Corpus.load(config.corpus)
    corpus = whole.split(config.split) if config.split else whole
    chosen = _draw(family, corpus, config.utterances, seed)
    facts = [corpus.fingerprint(), [one.utterance_id for one in chosen], config.labels, config.context, seed]
    key = hashlib.sha256(json.dumps([*facts, weights_digest(weights)]).encode()).hexdigest()[:16]
    path = run / "fisher" / f"{key}.safetensors"
    done, sums = _read(path, weights)
    taps = taps_of(family, "drawing labels for objectives.ewc") if config.labels == "sampled" else None
    if taps is not None and taps.framewise:
        raise InputError(f"labels cannot be drawn from a {family.name} model: set objectives.ewc.labels=given")
    was_training = family.model.training
    family.model.eval()
    try:
        for place in track(range(done, len(chosen)), "Fisher information"):
            waveform = load_audio(corpus.path_of(chosen[place]), chosen[place].start_s, chosen[place].end_s)
            draw = torch.Generator().manual_seed(_seed_of(seed, place)) if taps is not None else None
            batch = _batch(family, waveform, chosen[place].text, config)
            for name, gradient in log_likelihood_gradient(family, weights, batch, taps, draw).items():
                sums[name] += gradient.float() ** 2
            if writes and ((place + 1) % SAVE_EVERY == 0 or place + 1 == len(chosen)):
                _write(path, place + 1, sums)
    finally:
        family.model.train(was_training)
    return {name: value / len(chosen) for name, value in sums.items()}


def log_likelihood_gradient(
    family: Family,
    weights: Weights,
    batch: dict[str, torch.Tensor],
    taps: Taps | None = None,
    draw: torch.Generator | None = None,
) -> dict[str, torch.Tensor]:
    """The gradient of one example's summed negative log-likelihood, by the weight's name.

    With a ``draw``, each label is first replaced by one drawn from the model's distribution at its position (behind
    the true prefix).
    """
    if taps is not None and draw is not None:
        with torch.no_grad(), watch(taps, Needs(logits=True)) as seen:
            family.model(**batch)
        assert seen.logits is not None
        drawn = torch.multinomial(seen.logits.float().softmax(-1).cpu(), 1, generator=draw)[:, 0]
        labels = batch["labels"].clone()
        labels[labels != IGNORED] = drawn.to(labels.device)
        batch = {**batch, "labels": labels}
    loss = family.model(**batch, num_items_in_batch=torch.tensor(1, device=batch["labels"].device)).loss
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    return {name: one for name, one in zip(weights, found, strict=True) if one is not None}


def weights_digest(weights: Weights) -> str:
    """A digest of the weights' values: a later stage starts elsewhere and needs a Fisher information of its own."""
    digest = hashlib.sha256()
    for name, weight in sorted(weights.items()):
        digest.update(name.encode())
        digest.update(np.ascontiguousarray(weight.detach().float().cpu().numpy()).tobytes())
    return digest.hexdigest()


def _draw(family: Family, corpus: Corpus, count: int, seed: int) -> list[Utterance]:
    usable = [
        one
        for one in corpus
        if one.text.strip()
        and one.duration_s <= family.limits.max_audio_s
        and len(family.tokens(one.text)[0]) <= family.limits.max_label_tokens
    ]
    if not usable:
        raise InputError(f"{corpus.root} has no transcribed utterance that fits the model: choose another ewc.corpus")
    order = np.random.default_rng(seed).permutation(len(usable))[:count]
    return [usable[place] for place in order]


def _batch(family: Family, waveform: np.ndarray, text: str, config: EwcConfig) -> dict[str, torch.Tensor]:
    device = next(family.model.parameters()).device
    frames = family.context_frames(len(waveform) / 16_000, config.context)
    batch = family.collate([Example(waveform, *family.tokens(text))], frames)
    return {name: value.to(device) for name, value in batch.items()}


def _seed_of(seed: int, place: int) -> int:
    return int(np.random.SeedSequence((seed, place)).generate_state(1, np.uint64)[0] >> 1)


def _read(path: Path, weights: Weights) -> tuple[int, dict[str, torch.Tensor]]:
    from safetensors import safe_open

    if path.is_file():
        with safe_open(path, "pt") as file:
            sums = {name: file.get_tensor(name).to(weight.device) for name, weight in weights.items()}
            return int(file.metadata()["examples"]), sums
    return 0, {name: torch.zeros_like(weight, dtype=torch.float32) for name, weight in weights.items()}


def _write(path: Path, examples: int, sums: dict[str, torch.Tensor]) -> None:
    from safetensors.torch import save_file

    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_suffix(".writing")
    save_file(sums, draft, metadata={"examples": str(examples), "holds": "sum of squared per-example gradients"})
    os.replace(draft, path)
