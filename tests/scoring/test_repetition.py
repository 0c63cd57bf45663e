"""The repetition diagnosis: planted causes are named, and the sweep leaves the model as it was."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from speechtune.core.errors import InputError
from speechtune.corpus.table import Corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.models.family import load_family
from speechtune.scoring.repetition import (
    BIASES,
    CONTEXTS,
    PRECISIONS,
    EndBias,
    Row,
    conclude,
    diagnose,
    rounded,
    stored_as,
)


def rows(**repeating: int) -> list[Row]:
    """Rows of a sweep over 40 clips; ``fit=12`` plants twelve repeating clips in that setting."""
    found = []
    for factor, settings in (
        ("audio context", CONTEXTS),
        ("precision", PRECISIONS),
        ("end of text", [f"+{bias:g}" for bias in BIASES]),
    ):
        for setting in settings:
            key = (setting if factor != "end of text" else f"end{setting}").replace(" ", "_")
            found.append(Row(factor, setting, 40, repeating.get(key, repeating.get(factor.split()[-1], 0)), 0, None))
    return found


@pytest.mark.parametrize(
    ("planted", "cause", "said"),
    [
        ({}, "none", "Nothing repeats"),
        ({"fit": 12, "+1_s": 6}, "audio context", "+3 s of context more"),
        ({"context": 12, "full": 0, "precision": 12, "text": 12}, "audio context", "12 of 40"),
        ({"4_bit": 9}, "precision", "4 bit weights"),
        ({"context": 9, "precision": 9, "text": 9, "end+2": 1}, "end of text", "+2 on the end-of-text"),
        ({"context": 9, "precision": 9, "text": 9}, "model", "Neither"),
        ({"fit": 12, "4_bit": 30}, "audio context", "before converting"),  # the first factor comes first
        ({"fit": 1}, "model", "Neither"),  # one clip is no difference, and it is not hidden
    ],
)
def test_the_first_factor_that_matters_is_named(planted: dict[str, int], cause: str, said: str) -> None:
    found, sentence = conclude(rows(**planted), "fit")
    assert found == cause
    assert said in sentence


def test_weights_are_rounded_as_they_are_stored() -> None:
    weight = torch.randn(6, 70)
    assert torch.equal(rounded(weight, "bfloat16"), weight.bfloat16().float())
    for bits, levels in (("8 bit", 127), ("4 bit", 7)):
        block, own = weight[:, 32:64], rounded(weight, bits)[:, 32:64]
        step = block.abs().amax(1, keepdim=True) / levels
        assert ((own - block).abs() <= step / 2 + 1e-6).all()
        assert torch.allclose(own / step, (own / step).round(), atol=1e-3)


def test_the_bias_raises_the_end_alone() -> None:
    scores = torch.zeros(2, 5)
    assert EndBias(3, 2.0)(torch.zeros(2, 1), scores).tolist() == [[0, 0, 0, 2, 0]] * 2
    assert not scores.any()


def test_the_sweep_covers_every_setting_and_leaves_the_model_as_it_was(tiny_model: Path, tiny_corpus: Path) -> None:
    family = load_family(tiny_model)
    before = {name: value.clone() for name, value in family.model.state_dict().items()}
    found = diagnose(family, Corpus.load(tiny_corpus), DecodingConfig(max_new_tokens=10), limit=4)
    assert [row.setting for row in found.rows] == [*CONTEXTS, *PRECISIONS, *(f"+{bias:g}" for bias in BIASES)]
    assert all(row.clips == 4 and row.wer is not None for row in found.rows)
    assert found.of("precision")[0] == Row(**{**vars_of(found.rows[0]), "factor": "precision", "setting": "float32"})
    assert all(torch.equal(value, before[name]) for name, value in family.model.state_dict().items())
    with pytest.raises(RuntimeError), stored_as(family.model, "4 bit"):
        raise RuntimeError
    assert all(torch.equal(value, before[name]) for name, value in family.model.state_dict().items())


def vars_of(row: Row) -> dict[str, Any]:
    return {name: getattr(row, name) for name in Row.__dataclass_fields__}


def test_only_whisper_is_diagnosed(tiny_corpus: Path) -> None:
    class Other:
        name = "ctc"

    with pytest.raises(InputError, match="not a Other"):
        diagnose(Other(), Corpus.load(tiny_corpus), DecodingConfig())  # type: ignore[arg-type]


def test_the_verb(speechtune: Callable[..., Any], tiny_model: Path, tiny_corpus: Path) -> None:
    done = speechtune("diagnose-repetition", tiny_model, tiny_corpus / "audio", "--clips", 2, "--json", "--quiet")
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["kept"] == 2
    assert result["cause"] in ("none", "audio context", "precision", "end of text", "model")
    assert len(result["rows"]) == len(CONTEXTS) + len(PRECISIONS) + len(BIASES)
    assert speechtune("diagnose-repetition", tiny_model, tiny_corpus / "nowhere").returncode == 2
