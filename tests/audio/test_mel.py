"""The front end against Transformers' own, which pads to 30 s."""

from __future__ import annotations

import numpy as np
import pytest

from speechtune.audio.mel import FULL_FRAMES, LogMel

torch = pytest.importorskip("torch")


def clips(seed: int = 0) -> list[np.ndarray]:
    """Noise, a tone that ends loudly, a click on the last sample, near silence, digital silence."""
    rng = np.random.default_rng(seed)
    tone = (0.5 * np.sin(np.arange(20_011) * 0.3)).astype(np.float32)
    click = np.zeros(16_000, dtype=np.float32)
    click[-1] = 1.0
    noise = rng.standard_normal(31_337).astype(np.float32) * 0.1
    return [noise, tone, click, noise[:5_000] * 1e-4, np.zeros(8_000, dtype=np.float32)]


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("n_frames", [196, 300, 1_000, 2_998, FULL_FRAMES])
def test_equals_the_padded_reference_cut_to_the_context(n_mels: int, n_frames: int) -> None:
    from transformers import WhisperFeatureExtractor

    reference = WhisperFeatureExtractor(feature_size=n_mels)
    expected = reference(clips(), sampling_rate=16_000, return_tensors="pt").input_features[..., :n_frames]
    got = LogMel(n_mels)(clips(), n_frames)
    assert got.shape == (5, n_mels, n_frames)
    assert float((got - expected).abs().max()) < 1e-4


def test_a_clip_of_exactly_thirty_seconds_is_reflected_at_its_end_as_the_reference_does() -> None:
    from transformers import WhisperFeatureExtractor

    clip = np.random.default_rng(1).standard_normal(480_000).astype(np.float32) * 0.1
    expected = WhisperFeatureExtractor()(clip, sampling_rate=16_000, return_tensors="pt").input_features
    assert float((LogMel()([clip], FULL_FRAMES) - expected).abs().max()) < 1e-4


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    front_end = LogMel()
    batch = front_end(clips(), 400)
    for row, clip in zip(batch, clips(), strict=True):
        assert torch.equal(front_end([clip], 400)[0], row)


def test_refuses_a_clip_longer_than_the_context() -> None:
    with pytest.raises(ValueError, match="does not fit"):
        LogMel()([np.zeros(16_001, dtype=np.float32)], 100)
    with pytest.raises(ValueError, match="between 1 and 3000"):
        LogMel()([np.zeros(100, dtype=np.float32)], 3_001)
