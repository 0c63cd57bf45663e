"""Tiny models with OpenAI's vocabulary layout, opened once, and a few clips to compare on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("torch")
pytest.importorskip("transformers")


@pytest.fixture(scope="session")
def layout_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An English-only random Whisper of 30 s windows that ends its texts after a few tokens."""
    from openai_layout import make_layout

    directory = tmp_path_factory.mktemp("layout") / "tiny"
    make_layout(directory)
    return directory


@pytest.fixture(scope="session")
def source(layout_model: Path) -> Any:
    """`layout_model`, opened for export."""
    from speechtune.export.source import open_source

    return open_source(str(layout_model))


@pytest.fixture(scope="session")
def texts(source: Any) -> Any:
    """Its own transcripts of silence and four tones."""
    from speechtune.export.clips import Clips, silences, tones
    from speechtune.export.gate import SourceTexts

    return SourceTexts(source, Clips([*silences(30.0), *tones(3, 6.0, count=4)], "tones", "generated"))
