"""Whisper's log-mel spectrogram for a batch, at any audio context instead of always 30 s.

The numbers are those of Transformers' ``WhisperFeatureExtractor`` (Slaney mel filters over a 25 ms
Hann window every 10 ms, log10, floored 8 below the clip's maximum, then ``(x + 4) / 4``), cut after
the frames that are asked for. Padding a clip to 30 s and cutting gives the same values to 1e-4.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

SAMPLE_RATE_HZ = 16_000
HOP_SAMPLES = 160
WINDOW_SAMPLES = 400
FRAMES_PER_SECOND = SAMPLE_RATE_HZ // HOP_SAMPLES
FULL_FRAMES = 3_000
FULL_SAMPLES = FULL_FRAMES * HOP_SAMPLES


class LogMel:
    """The front end for one number of mel bins (80, or 128 for Whisper large-v3)."""

    def __init__(self, n_mels: int = 80) -> None:
        from transformers.audio_utils import mel_filter_bank

        filters = mel_filter_bank(
            num_frequency_bins=1 + WINDOW_SAMPLES // 2,
            num_mel_filters=n_mels,
            min_frequency=0.0,
            max_frequency=SAMPLE_RATE_HZ / 2,
            sampling_rate=SAMPLE_RATE_HZ,
            norm="slaney",
            mel_scale="slaney",
        )
        self.n_mels = n_mels
        self._filters = torch.from_numpy(filters.T.copy()).to(torch.float32)
        self._window = torch.hann_window(WINDOW_SAMPLES)

    @property
    def filters(self) -> np.ndarray:
        """The mel filters, float32 of shape (n_mels, 201)."""
        return self._filters.numpy()

    def __call__(self, waveforms: Sequence[np.ndarray], n_frames: int, device: str = "cpu") -> torch.Tensor:
        """Features of a batch.

        Args:
            waveforms: float32 mono arrays at 16 kHz, each no longer than ``n_frames * 160`` samples.
            n_frames: the audio context in mel frames (10 ms each), at most 3000.
            device: where the transform is computed and the result stays.

        Returns:
            float32 tensor, shape (batch, n_mels, n_frames).

        Raises:
            ValueError: a waveform is longer than the context, or the context is longer than 30 s.
        """
        if not 0 < n_frames <= FULL_FRAMES:
            raise ValueError(f"n_frames must be between 1 and {FULL_FRAMES}, got {n_frames}")
        longest = max(len(waveform) for waveform in waveforms)
        if longest > n_frames * HOP_SAMPLES:
            raise ValueError(f"a waveform of {longest} samples does not fit a context of {n_frames} frames")
        # At 30 s the reference reflects the end of the signal; before that it sees the zeros of its padding.
        # Two more frames are computed because the window of the last frames may still touch the clip.
        samples = FULL_SAMPLES if n_frames == FULL_FRAMES else n_frames * HOP_SAMPLES + 2 * WINDOW_SAMPLES
        padded = torch.zeros(len(waveforms), samples)
        for row, waveform in zip(padded, waveforms, strict=True):
            row[: len(waveform)] = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
        padded = padded.to(device)
        spectrum = torch.stft(padded, WINDOW_SAMPLES, HOP_SAMPLES, window=self._window.to(device), return_complex=True)
        power = (spectrum[..., :-1].abs() ** 2).contiguous()
        log_mel = (self._filters.to(device) @ power).clamp(min=1e-10).log10()
        log_mel = torch.maximum(log_mel, log_mel.amax(dim=(1, 2), keepdim=True) - 8.0)
        return ((log_mel + 4.0) / 4.0)[..., :n_frames].contiguous()
