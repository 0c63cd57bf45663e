"""Qwen3-ASR's log-mel features for a batch, each clip as Transformers' feature extractor makes it alone.

`transformers.Qwen3ASRFeatureExtractor` (5.23) pads the waveforms of a batch before the transform, so that a clip's last
frames, and its number of frames where its samples are no multiple of the hop, depend on its neighbours. Here each clip
has what it has alone, which is also what a server that takes one clip a request sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.nn import functional

from speechtune.audio.augment import MaskDraw, apply_masks


class ClipFeatures:
    """The front end of one checkpoint: its extractor's filters, hop, least length and block size."""

    def __init__(self, extractor: Any) -> None:
        self.hop = int(extractor.hop_length)
        self.window = int(extractor.n_fft)
        self.least_samples = int(extractor.min_length)
        self.block = 2 * int(extractor.n_window)
        self._filters = torch.from_numpy(np.asarray(extractor.mel_filters).T.copy()).to(torch.float32)
        self._hann = torch.hann_window(self.window)

    def frames(self, samples: int) -> int:
        """Feature frames of a clip of so many samples; short clips are filled with silence (to 0.5 s)."""
        return max(samples, self.least_samples) // self.hop

    def tokens(self, samples: int) -> int:
        """Positions of the language model that the clip takes: three halvings, block by block (13 a second)."""
        whole, rest = divmod(self.frames(samples), self.block)
        return whole * _halved(self.block) + _halved(rest)

    def __call__(
        self, waveforms: Sequence[np.ndarray], masks: Sequence[MaskDraw | None] = (), device: str = "cpu"
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Features and their mask.

        Args:
            waveforms: float32 mono arrays at 16 kHz.
            masks: SpecAugment stripes, one entry a clip, or none at all.
            device: where the transform is computed and the result stays.

        Returns:
            float32 (batch, bins, frames) with zeros behind each clip, and int64 (batch, frames), 1 for its frames; the
            frames are a multiple of the encoder's block (1 s).
        """
        half = self.window // 2
        lengths = [max(len(one), self.least_samples) for one in waveforms]
        padded = torch.zeros(len(waveforms), max(lengths) + self.window)
        for row, waveform, length in zip(padded, waveforms, lengths, strict=True):
            clip = torch.zeros(1, length)
            clip[0, : len(waveform)] = torch.from_numpy(np.ascontiguousarray(waveform, dtype=np.float32))
            row[: length + self.window] = functional.pad(clip, (half, half), mode="reflect")[0]
        spectrum = torch.stft(
            padded.to(device),
            self.window,
            self.hop,
            window=self._hann.to(device),
            center=False,
            return_complex=True,
        )
        log_mel = (self._filters.to(device) @ spectrum.abs() ** 2).clamp(min=1e-10).log10()
        frames = [self.frames(length) for length in lengths]
        width = -(-max(frames) // self.block) * self.block
        features = torch.zeros(len(waveforms), log_mel.shape[1], width, device=device)
        mask = torch.zeros(len(waveforms), width, dtype=torch.long, device=device)
        for row, count in enumerate(frames):
            own = log_mel[row, :, :count]
            own = (torch.maximum(own, own.max() - 8.0) + 4.0) / 4.0
            drawn = masks[row] if masks else None
            features[row, :, :count] = own if drawn is None else apply_masks(own, drawn)
            mask[row, :count] = 1
        return features, mask


def _halved(frames: int) -> int:
    """Frames after three convolutions of stride 2."""
    for _ in range(3):
        frames = (frames + 1) // 2
    return frames
