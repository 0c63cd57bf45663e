"""The loss on a labelled set, per token: what generated WER does not show between two evaluations."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from speechtune.audio.io import load_audio
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import plan_batches
from speechtune.decoding.config import DecodingConfig
from speechtune.models.family import Example, Family

Batch = tuple[dict[str, torch.Tensor], int]
"""The model's keyword arguments on its device, and how many labels count in it."""


def label_batches(family: Family, corpus: Corpus, config: DecodingConfig, lower: bool = False) -> Iterator[Batch]:
    """Batches of a corpus with its labels, in the batches that decoding uses, longest first.

    Utterances whose label has more tokens than the model takes, or none after the prompt, are left out.
    """
    device = next(family.model.parameters()).device
    for utterances, n_frames in plan_batches(family, corpus.utterances, config):
        examples = []
        for one in utterances:
            tokens, prompt = family.tokens(one.text.lower() if lower else one.text)
            if prompt < len(tokens) <= family.limits.max_label_tokens:
                examples.append(Example(load_audio(corpus.path_of(one), one.start_s, one.end_s), tokens, prompt))
        if examples:
            batch = {name: value.to(device) for name, value in family.collate(examples, n_frames).items()}
            yield batch, int((batch["labels"] != -100).sum())


def dev_loss(family: Family, corpus: Corpus, config: DecodingConfig, lower: bool = False) -> float | None:
    """The mean loss over every label of a corpus, in nats a token, without dropout; ``None`` where no label counts."""
    was_training = family.model.training
    family.model.eval()
    total, labels = 0.0, 0
    try:
        with torch.inference_mode():
            for batch, count in label_batches(family, corpus, config, lower):
                total += float(family.model(**batch, num_items_in_batch=1).loss)
                labels += count
    finally:
        family.model.train(was_training)
    return total / labels if labels else None
