"""A small planted-defect corpus and its audit, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
from noise_corpus import write_noise

from speechtune.corpus.audit.engine import AuditResult, audit


@pytest.fixture(scope="session")
def planted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One clip of every defect kind and level among 60 clean ones."""
    pytest.importorskip("espeakng_loader", reason="the planted corpus speaks with espeak-ng (extra: demo)")
    from planted_defects import write_planted

    root = tmp_path_factory.mktemp("planted") / "corpus"
    write_planted(root, per_kind=1, clean=60, seed=1)
    return root


@pytest.fixture(scope="session")
def audited(planted: Path) -> AuditResult:
    return audit(planted, planted.parent / "audit", workers=1)


@pytest.fixture
def noise_corpus(tmp_path: Path) -> Path:
    """Ten short noise clips: enough for everything but judgement."""
    return write_noise(tmp_path / "corpus", 10)
