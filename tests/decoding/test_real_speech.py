"""Real clips at full context: the same text as Transformers' own Whisper and faster-whisper, greedy and with beams."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from speechtune.audio.io import load_audio
from speechtune.core.errors import InputError
from speechtune.models.obtaining import resolve_model

CLIPS = 12
WINDOW = 480_000


@pytest.fixture(scope="module")
def model() -> Path:
    """A real English Whisper: SPEECHTUNE_TEST_MODEL, or whisper-tiny.en if it is below SPEECHTUNE_HOME."""
    try:
        return resolve_model(os.environ.get("SPEECHTUNE_TEST_MODEL", "whisper-tiny.en"))
    except InputError as error:
        pytest.skip(f"no real model here ({error})")


@pytest.fixture(scope="module")
def clips(shared_speech: Path) -> list[np.ndarray]:
    files = sorted((shared_speech / "speechocean762" / "children").rglob("*.ogg"))
    if not files:
        pytest.skip(f"no clips below {shared_speech}")
    return [load_audio(file) for file in files[:: len(files) // CLIPS][:CLIPS]]


def texts(found: list[Any]) -> list[str]:
    assert sum(len(one.text) for one in found) > 10 * len(found)
    return [one.text for one in found]


@pytest.mark.parametrize("beams", [1, 5])
def test_torch_says_what_transformers_says(model: Path, clips: list[np.ndarray], beams: int) -> None:
    from transformers import WhisperFeatureExtractor, WhisperForConditionalGeneration, WhisperTokenizer

    from speechtune.models.family import load_family

    family: Any = load_family(model, device="cpu")
    family.model.eval()
    ours = texts(family.generate(clips, family.context_frames(1.0, "full"), 100, beams))
    reference: Any = WhisperForConditionalGeneration.from_pretrained(model, dtype=torch.float32).eval()
    extractor = WhisperFeatureExtractor(feature_size=80)
    features = extractor(clips, sampling_rate=16_000, return_tensors="pt").input_features
    with torch.inference_mode():
        found = reference.generate(features, num_beams=beams, max_new_tokens=100, return_timestamps=False)
    theirs = WhisperTokenizer.from_pretrained(model).batch_decode(found, skip_special_tokens=True)
    assert ours == [one.strip() for one in theirs]


@pytest.mark.parametrize("beams", [1, 5])
def test_ctranslate2_says_what_faster_whisper_says(model: Path, clips: list[np.ndarray], beams: int) -> None:
    """Same weights, no timestamps, temperature 0, no thresholds; each clip is padded to the window with silence.

    faster-whisper itself pads the features with zeros, which is not what silence looks like to Whisper.
    """
    faster_whisper = pytest.importorskip("faster_whisper")
    from speechtune.decoding.engines.converting import converted
    from speechtune.decoding.engines.ctranslate2 import Ctranslate2Whisper

    directory = converted(model, "float32")
    family = Ctranslate2Whisper.load(directory, threads=(1, 1), device="cpu")
    ours = texts(family.generate(clips, family.context_frames(1.0, "full"), 200, beams))
    other = faster_whisper.WhisperModel(str(directory), device="cpu", compute_type="float32", cpu_threads=1)
    theirs = []
    for clip in clips:
        segments, _ = other.transcribe(
            np.pad(clip, (0, WINDOW - len(clip))),
            language="en",
            beam_size=beams,
            temperature=0.0,
            without_timestamps=True,
            condition_on_previous_text=False,
            compression_ratio_threshold=None,
            log_prob_threshold=None,
            no_speech_threshold=None,
        )
        theirs.append(" ".join(one.text.strip() for one in segments))
    assert ours == theirs
