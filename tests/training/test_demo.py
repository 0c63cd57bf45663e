"""The demonstration with a tiny model and a handful of clips: the same road, in seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

pytest.importorskip("espeakng_loader")


def test_the_demonstration_ends_with_numbers_and_the_next_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from tiny_whisper import make_transformers

    from speechtune.cli.app import build
    from speechtune.corpus import demo_corpus
    from speechtune.training import demo

    make_transformers(tmp_path / "model", multilingual=False, positions=500, text_positions=200)
    sizes = demo_corpus.DemoSizes(train_terms=6, train_plain=2, dev_terms=2, dev_plain=1, test_terms=3, general=3)
    monkeypatch.setattr(demo, "MODEL", str(tmp_path / "model"))
    monkeypatch.setattr(demo, "get_model", lambda name: None)
    monkeypatch.setattr(
        demo, "build_demo_corpus", lambda out, seed: demo_corpus.build_demo_corpus(out, seed, sizes=sizes)
    )
    recipe = demo.demo_recipe

    def quick(*words: object) -> object:
        made = recipe(*words)  # type: ignore[arg-type]
        made.training.epochs, made.training.trackers, made.decoding.max_new_tokens = 1, [], 8
        return made

    monkeypatch.setattr(demo, "demo_recipe", quick)
    done = CliRunner().invoke(build(), ["demo", "--out", str(tmp_path / "demo"), "--quiet"])
    assert done.exit_code == 0, done.output
    for part in ("words recognised (recall)", "WER, ordinary sentences", "report:", "next:"):
        assert part in done.output
    scores = json.loads((tmp_path / "demo" / "run" / "scores.json").read_text())
    assert {(row["set"], row["system"], row["context"]) for row in scores["measurements"]} == {
        *((name, "before", "full") for name in ("target", "general")),
        *((name, "after", context) for name in ("target", "general") for context in ("fit", "full")),
    }
    assert all(row["terms"]["reference"] > 0 for row in scores["measurements"] if row["set"] == "target")
    assert (tmp_path / "demo" / "run" / "report.html").stat().st_size > 10_000
