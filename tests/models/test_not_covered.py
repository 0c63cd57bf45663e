"""A speech model that no family covers is refused in one sentence, with the reason."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from speechtune.core.errors import InputError
from speechtune.models.family import FAMILIES, load_family
from speechtune.models.not_covered import REASONS


@pytest.mark.parametrize("model_type", sorted(REASONS))
def test_one_sentence_says_why(model_type: str, tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"model_type": model_type}))
    with pytest.raises(InputError, match="cannot be loaded: ") as refusal:
        load_family(tmp_path, device="cpu")
    said = str(refusal.value)
    assert REASONS[model_type] in said and "\n" not in said


def test_reasons_are_for_known_models_without_a_family() -> None:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    assert not set(REASONS) & set(FAMILIES)
    assert set(REASONS) <= set(CONFIG_MAPPING)


def test_what_needs_torchaudio_says_so_and_nothing_else_does() -> None:
    import transformers

    folder = Path(transformers.__file__).parent / "models"
    for model_type, reason in REASONS.items():
        name = {"granite_speech5_ctc": "granite_speech5", "granite_speech_plus": "granite_speech", "lasr_ctc": "lasr"}
        files = (folder / name.get(model_type, model_type)).glob("feature_extraction*.py")
        asks = any('backends=("torch", "torchaudio")' in one or '["torchaudio"]' in one for one in map(_read, files))
        assert asks == ("torchaudio" in reason)


def _read(path: Path) -> str:
    return path.read_text(encoding="utf-8")
