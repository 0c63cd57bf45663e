"""Limits by length, and which text is likelier: against decoding and scoring one clip at a time."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from typer.testing import CliRunner

from speechtune.cli.app import build
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.label_likelihood import label_likelihoods
from speechtune.decoding.searching import Searcher
from speechtune.models.family import load_family


def test_a_clip_is_cut_at_its_own_limit_whatever_is_beside_it(tiny_model: Path) -> None:
    """A random model hardly ever ends: every text is what its clip's limit allows, a prefix of the unlimited one."""
    family: Any = load_family(tiny_model, device="cpu")
    family.model.eval()
    rng = np.random.default_rng(0)
    waves = [rng.normal(0, 0.1, samples).astype(np.float32) for samples in (8_000, 24_000, 32_000)]
    limited = Searcher(family, DecodingConfig(tokens_per_s=6, tokens_at_least=4, max_new_tokens=14))
    free = Searcher(family, DecodingConfig(max_new_tokens=14))
    together = limited._generate(waves, 300, limited.search, 1)
    whole = free._generate(waves, 300, free.search, 1)
    limits = [4 + 3, 4 + 9, 14]
    for one, other, limit in zip(together, whole, limits, strict=True):
        assert one.tokens == other.tokens[:limit] and one.text == family.text(other.tokens[:limit])
        assert one.truncated == (other.truncated or len(other.tokens) > limit)
    assert len(together[0].tokens) == 7 < len(whole[0].tokens)
    alone = [limited._generate([wave], 300, limited.search, 1)[0] for wave in waves]
    assert [one.tokens for one in alone] == [one.tokens for one in together]
    assert [one.log_prob for one in alone] == pytest.approx([one.log_prob for one in together], rel=1e-3)


def test_the_verb_orders_texts_by_their_own_likelihood(tiny_model: Path, tmp_path: Path) -> None:
    tone = (0.3 * np.sin(np.arange(12_000) * 0.05)).astype(np.float32)
    soundfile.write(tmp_path / "tone.wav", tone, 16_000, subtype="FLOAT")
    texts = ["the thing", "sing", "a ring in the inn"]
    words = ["likelier", str(tiny_model), str(tmp_path / "tone.wav"), *texts, "--context", "fit", "--json", "--quiet"]
    done = CliRunner().invoke(build(), words)
    assert done.exit_code == 0, done.output
    rows = json.loads(done.stdout)["texts"]
    family = load_family(tiny_model, device="cpu")
    family.model.eval()
    totals = {}
    for text in texts:
        (one,) = label_likelihoods(family, [tone], [[text]], family.context_frames(0.75 + 0.2))[0]
        assert one is not None
        totals[text] = one.total
    assert [row["text"] for row in rows] == sorted(texts, key=lambda text: -totals[text])
    weights = np.exp([totals[row["text"]] for row in rows])
    assert [row["share"] for row in rows] == pytest.approx((weights / weights.sum()).tolist(), abs=2e-3)
    refused = CliRunner().invoke(build(), [*words[:3], "sing", "sing"])
    assert refused.exit_code == 2 and "different texts" in refused.output
