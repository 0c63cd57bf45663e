"""Laws that hold for every family: what batches, accumulation, padding, parts, adapters and saving may not change."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny_ctc
import torch

from speechtune.core.errors import InputError
from speechtune.models.adapters import choose_trainable
from speechtune.models.config import AdapterConfig, ModelConfig
from speechtune.models.family import Example, Family
from speechtune.models.search_config import SearchConfig
from speechtune.models.trainable import Layout

TEXTS = ("abba", "c", "bad cab", "dab")
CORPUS = (*tiny_ctc.TEXTS, "aa", "cab", "dd b", "ac dc", "ba", "cbd", "da ba", "acca")
"""Twenty texts."""


def clips(lengths_s: tuple[float, ...] = (0.9, 0.37, 2.33, 1.0003)) -> list[np.ndarray]:
    """Tones with noise, each of its own pitch."""
    rng = np.random.default_rng(1)
    made = []
    for number, length_s in enumerate(lengths_s):
        time_s = np.arange(round(length_s * 16_000)) / 16_000
        tone = 0.3 * np.sin(2 * np.pi * (300 + 400 * number) * time_s)
        made.append((tone + 0.05 * rng.standard_normal(len(time_s))).astype(np.float32))
    return made


def examples(family: Family, texts: Sequence[str] = TEXTS) -> list[Example]:
    """`clips` with texts as labels."""
    return [Example(clip, *family.tokens(text)) for clip, text in zip(clips(), texts, strict=True)]


def loss_and_gradients(
    family: Family, parts: Sequence[Sequence[Example]], items: int
) -> tuple[float, list[torch.Tensor]]:
    """Of the examples in so many micro-batches, divided by ``items`` in all."""
    family.model.zero_grad()
    total = 0.0
    for part in parts:
        loss = family.model(**family.collate(part, 0), num_items_in_batch=items).loss
        loss.backward()
        total += float(loss.detach())
    return total, [one.grad.clone() for one in family.model.parameters() if one.grad is not None]


def check_that_batches_change_nothing(family: Family, untrained: int = 0) -> None:
    """Micro-batches and the order of clips leave loss and gradient as they are; every weight has a gradient."""
    items = examples(family)
    count = sum(len(item.tokens) - item.prompt_tokens for item in items)
    reference, gradients = loss_and_gradients(family, [items], count)
    assert len(gradients) == len([one for one in family.model.parameters() if one.requires_grad]) - untrained
    scale = max(float(one.abs().max()) for one in gradients)
    for parts in ([[item] for item in items], [items[2:], items[:2]], [items[::-1]]):
        loss, own = loss_and_gradients(family, parts, count)
        assert loss == pytest.approx(reference, rel=1e-5)
        assert max(float((a - b).abs().max()) for a, b in zip(own, gradients, strict=True)) < 1e-4 * scale


def check_that_padding_changes_nothing(family: Any) -> None:
    """`check_that_batches_change_nothing` with prompts padded on either side, and the same loss."""
    check_that_batches_change_nothing(family)
    with torch.no_grad():
        right = float(family.model(**family.collate(examples(family), 0)).loss)
        family.padding_side = "left"
        assert float(family.model(**family.collate(examples(family), 0)).loss) == pytest.approx(right, rel=1e-5)
    check_that_batches_change_nothing(family)


def check_that_the_answer_is_trained(
    family: Any, side: str, prompt_of: Callable[[np.ndarray], list[int]], answer_of: Callable[[str], list[int]]
) -> None:
    """Labels are exactly the answer, each the next input, behind the library's own prompt for the clip."""
    family.padding_side = side
    batch = family.collate(examples(family), 0)
    for row, (text, clip) in enumerate(zip(TEXTS, clips(), strict=True)):
        labels = batch["labels"][row]
        learnt = labels[labels != -100]
        assert learnt.tolist() == answer_of(text) and family.text(learnt.tolist()) == text
        places = (labels != -100).nonzero().flatten()
        inputs, mask = batch["input_ids"][row], batch["attention_mask"][row].bool()
        assert torch.equal(inputs[places[1:]], learnt[:-1])
        before = inputs[: places[0] + 1][mask[: places[0] + 1]]
        assert before.tolist() == prompt_of(clip)


def check_that_the_loss_is_that_of_clips_alone(
    family: Family, alone: Callable[[str, np.ndarray], tuple[float, int]]
) -> None:
    """``alone``: the summed loss of a clip's text by the library, without batch or padding, and its labels."""
    found = [alone(text, clip) for text, clip in zip(TEXTS, clips(), strict=True)]
    total, count = sum(one for one, _ in found), sum(number for _, number in found)
    with torch.no_grad():
        batch = family.collate(examples(family), 0)
        assert float(family.model(**batch).loss) == pytest.approx(total / count, rel=1e-5)
        assert float(family.model(**batch, num_items_in_batch=7).loss) == pytest.approx(total / 7, rel=1e-5)


def check_lists_samples_and_prefixes(family: Any, title: str) -> None:
    """N-best lists without repeats, samples that a seed repeats, a prefix that is kept; a prompt is refused."""
    for one in family.generate(clips()[:2], 0, 8, 4, search=SearchConfig(n_best=3)):
        assert len({tuple(other.tokens) for other in one.nbest}) == 3 and one.nbest[0].tokens == one.tokens
    drawn = SearchConfig(sample=True, temperature=1.5, n_best=2, seed=4)
    again = [family.generate(clips()[:1], 0, 8, 1, search=drawn) for _ in range(2)]
    assert again[0] == again[1]
    assert family.generate(clips()[:1], 0, 8, 1, search=SearchConfig(prefix="abba"))[0].text.startswith("abba")
    with pytest.raises(InputError, match=f"{title}, whose prompt is fixed"):
        family.generate(clips()[:1], 0, 8, 1, search=SearchConfig(hotwords=["Ada"]))


def check_that_regularisation_acts_in_training_only(family: Any) -> None:
    """Label smoothing and dropout change the loss of training and not that of evaluation."""
    batch = family.collate(examples(family), 0)
    with torch.no_grad():
        expected = float(family.model(**batch).loss)
        family.regularise(0.0, 0.2)
        family.model.train()
        assert float(family.model(**batch).loss) != pytest.approx(expected, rel=1e-3)
        family.regularise(0.3, 0.0)
        assert float(family.model(**batch).loss) != float(family.model(**batch).loss)
        family.model.eval()
        assert float(family.model(**batch).loss) == pytest.approx(expected, rel=1e-6)


def check_that_statistics_stay(family: Family) -> None:
    """Training mode does not let a batch into the statistics of batch normalisation."""
    family.model.train()
    norms = [one for one in family.model.modules() if isinstance(one, torch.nn.BatchNorm1d)]
    assert norms and not any(one.training for one in norms)
    before = [one.running_mean.clone() for one in norms if one.running_mean is not None]
    family.model(**family.collate(examples(family), 0))
    assert all(torch.equal(one.running_mean, old) for one, old in zip(norms, before, strict=True))
    family.model.eval()


def check_parts(family: Family, head: list[str]) -> None:
    """Every weight has a place, ranges of depth choose layers of one side, and what is frozen stays as it is."""
    layout = Layout(family)
    for name in layout.parameters:
        layout.place(name)
    assert layout.select("head", "model.train") == head
    choose_trainable(
        family, ModelConfig(train={"encoder.layers": [0.5, 1.0], "decoder.layers": [0.5, 1.0]}), AdapterConfig()
    )
    before = {name: one.detach().clone() for name, one in family.model.named_parameters()}
    optimiser = torch.optim.AdamW([one for one in family.model.parameters() if one.requires_grad], lr=1e-2)
    family.model(**family.collate(examples(family), 0)).loss.backward()
    optimiser.step()
    moved = {name for name, one in family.model.named_parameters() if not torch.equal(one, before[name])}
    upper = layout.select({"encoder.layers": [0.5, 1.0], "decoder.layers": [0.5, 1.0]}, "model.train")
    assert moved == set(upper) and 0 < len(moved) < len(before)
    assert {name for name in moved if ".0." in name and ".1." not in name} == set()


def check_adapters(family: Family, targets: list[str], count: int) -> None:
    """So many layers get an adapter, each learns, and merging it keeps the loss."""
    from speechtune.training.preflight import check_gradients

    batch = family.collate(examples(family), 0)
    adapted: Any = choose_trainable(
        family, ModelConfig(), AdapterConfig(kind="lora", rank=2, dropout=0.0, targets=targets)
    )
    assert len([name for name, _ in adapted.named_parameters() if "lora_A" in name]) == count
    adapted(**batch).loss.backward()
    check_gradients(adapted)
    optimiser = torch.optim.AdamW([one for one in adapted.parameters() if one.requires_grad], lr=0.05)
    optimiser.step()
    adapted.eval()
    with torch.no_grad():
        before = adapted(**batch).loss
        merged = adapted.merge_and_unload()
        assert float(merged(**batch).loss) == pytest.approx(float(before), rel=1e-4)


def check_commands(base: Path, root: Path, family: str, **recipe: Any) -> None:
    """``train``, ``evaluate``, ``transcribe`` and ``models get`` on a tiny model."""
    from typer.testing import CliRunner

    from speechtune.cli.app import build

    app = build()

    def run(*words: Any) -> Any:
        done = CliRunner().invoke(app, [*map(str, words), "--json", "--quiet"])
        assert done.exit_code == 0, f"{done.output}\n{done.exception}"
        return json.loads(done.stdout)

    corpus = tiny_ctc.write_tones(root / "tones", tiny_ctc.TEXTS[:4])
    sections = {"training": {"epochs": 1, "trackers": []}, "decoding": {"max_new_tokens": 8}, **recipe}
    run("train", tiny_ctc.write_recipe(root / "cli.yaml", base, corpus, **sections), "--out", root / "cli")
    checks = json.loads((root / "cli" / "preflight.json").read_text())["checks"]
    assert "decode back" in checks["labels"] and "the same in 1 batch" in checks["loss"]
    run("evaluate", root / "cli", corpus, "--split", "dev")
    assert run("transcribe", root / "cli", corpus / "audio")["kept"] == 8
    obtained = run("models", "get", root / "cli" / "model")
    assert obtained["family"] == family and obtained["verified"] == "loads with Transformers"
