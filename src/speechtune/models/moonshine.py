"""Moonshine (Useful Sensors; Jeffries et al. 2024, arXiv 2410.15608) behind the `Family` protocol.

It reads waveforms of any length, without Whisper's 30 s window. Three things differ from Transformers 5.23:

- Its first normalisation takes statistics over all frames, padding included, and its mask keeps frames that reach into
  the padding, so a clip's result depends on its batch. `ClipEncoder` gives every clip what it has by itself.
- Its tokenizer puts a begin token and no end token around a text, and the decoder begins with that same token: labels
  made with it never teach the model to stop. Labels here are text and end, behind one start token.
- Decoding ends after so many tokens a second of audio, as the authors' own package does against repetition.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from transformers.masking_utils import create_bidirectional_mask
from transformers.models.moonshine.modeling_moonshine import (
    MoonshineEncoder,
    MoonshineEncoderModelOutput,
    MoonshineForConditionalGeneration,
)

from speechtune.audio.augment import MaskDraw
from speechtune.audio.mel import HOP_SAMPLES, SAMPLE_RATE_HZ
from speechtune.core.files import read_json, write_json
from speechtune.core.progress import note
from speechtune.models.capabilities import Capabilities
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.ctc_network import ClipGroupNorm
from speechtune.models.family import Limits
from speechtune.models.observe import Batch, Taps
from speechtune.models.seq2seq import Seq2SeqFamily, load_parts
from speechtune.models.trainable import Part

MAX_AUDIO_S = 64.0
"""The longest clip that the authors' package accepts (``transcribe.py`` of usefulsensors/moonshine)."""

SHORTEST_SAMPLES = 1600
"""Clips are filled with silence to 0.1 s, the shortest that package accepts; the convolutions need 895 samples."""

TOKENS_PER_S = 6.5
"""The authors' limit for English (model card of UsefulSensors/moonshine-tiny)."""

CHARACTERS_PER_S = 26.0
"""The same limit in characters, at the tokenizer's 4 characters a token of English: what a vocabulary that cuts a
language into smaller pieces is allowed instead. Our choice."""

FEWEST_TOKENS = 8
"""A limit is never below this: half a second of "no, no, no" has more than three tokens. Our choice."""

RECORD = "speechtune.json"
_KERNELS = ((127, 64), (7, 3), (3, 2))
"""Width and stride of the three convolutions (section 3.1 of the paper)."""


def frames_after(samples: torch.Tensor, convolutions: int = 3) -> torch.Tensor:
    """Frames that lie wholly inside clips of so many samples, after the first so many convolutions."""
    for width, stride in _KERNELS[:convolutions]:
        samples = (samples - width).div(stride, rounding_mode="floor") + 1
    return samples


class ClipEncoder(MoonshineEncoder):
    """The encoder with every clip's frames as they are when it is alone."""

    def forward(
        self, input_values: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> MoonshineEncoderModelOutput:
        """Encode (batch, samples) to (batch, frames, width); the mask says how many samples of a row count."""
        lengths = torch.full(input_values.shape[:1], input_values.shape[1], device=input_values.device)
        if attention_mask is not None:
            lengths = attention_mask.sum(-1)
        norm: Any = self.groupnorm
        norm.frames = frames_after(lengths, 1)
        hidden = torch.tanh(self.conv1(input_values.unsqueeze(1).to(self.conv1.weight.dtype)))
        hidden = norm(hidden).to(self.conv2.weight.dtype)
        hidden = functional.gelu(self.conv3(functional.gelu(self.conv2(hidden)))).permute(0, 2, 1)
        frames = frames_after(lengths)
        inside = (torch.arange(hidden.shape[1], device=hidden.device)[None] < frames[:, None]).int()
        mask = create_bidirectional_mask(config=self.config, inputs_embeds=hidden, attention_mask=inside)
        positions = torch.arange(hidden.shape[1], device=hidden.device).unsqueeze(0)
        rotation = self.rotary_emb(hidden, position_ids=positions)
        for layer in self.layers:
            hidden = layer(hidden, attention_mask=mask, position_ids=positions, position_embeddings=rotation)
        return MoonshineEncoderModelOutput(last_hidden_state=self.layer_norm(hidden), attention_mask=inside)


class MoonshineFamily(Seq2SeqFamily):
    """A loaded Moonshine model; ``tokens_per_s`` bounds what it writes."""

    name = "moonshine"
    title = "a Moonshine model"
    capabilities = Capabilities(
        title="Moonshine",
        loss="cross-entropy a token",
        frames_per_second=SAMPLE_RATE_HZ / 384,
        search=True,
        n_best=True,
        label_likelihood=True,
    )
    mel_bins = 1
    layers: ClassVar[dict[str, dict[str, tuple[str, ...]]]] = {
        "encoder": {
            "attention": tuple(f"self_attn.{one}_proj" for one in "qkvo"),
            "self_attention": tuple(f"self_attn.{one}_proj" for one in "qkvo"),
            "mlp": ("fc1", "fc2"),
        },
        "decoder": {
            "attention": tuple(f"{block}.{one}_proj" for block in ("self_attn", "encoder_attn") for one in "qkvo"),
            "self_attention": tuple(f"self_attn.{one}_proj" for one in "qkvo"),
            "cross_attention": tuple(f"encoder_attn.{one}_proj" for one in "qkvo"),
            "mlp": ("fc1", "fc2"),
        },
    }

    def __init__(self, model: Any, extractor: Any, tokenizer: Any, language: str | None) -> None:
        super().__init__(model, extractor, tokenizer, language)
        encoder: Any = model.model.encoder
        encoder.__class__ = type("MoonshineEncoder", (ClipEncoder,), {"__module__": MoonshineEncoder.__module__})
        encoder.groupnorm.__class__ = ClipGroupNorm
        self.prompt = [int(self.config.decoder_start_token_id)]
        end = self.config.eos_token_id
        self.end = int(end[0] if isinstance(end, list | tuple) else end)
        self.limits = Limits(MAX_AUDIO_S, int(self.config.max_position_embeddings))
        self.tokens_per_s = TOKENS_PER_S
        self._said_no_bins = False

    @classmethod
    def load(cls, path: Path, *, language: str | None = None, device: str = "cpu") -> MoonshineFamily:
        """Load a Transformers directory in float32.

        Raises:
            InputError: the directory is incomplete, or is no Moonshine model.
        """
        model, extractor, tokenizer = load_parts(path, "Moonshine", MoonshineForConditionalGeneration)
        family = cls(model.to(device).eval(), extractor, tokenizer, language)
        family.recall(path)
        return family

    def recall(self, directory: Path) -> None:
        """Take over the limit of tokens that a model or adapter directory records."""
        file = directory / RECORD
        stored = read_json(file).get("tokens_per_s") if file.is_file() else None
        self.tokens_per_s = float(stored) if stored else self.tokens_per_s

    def recorded(self) -> dict[str, Any]:
        """What ``speechtune.json`` keeps of the model beside its weights."""
        return {
            "audio_contexts": list(self.contexts),
            "language": self.language,
            "tokens_per_s": round(self.tokens_per_s, 2),
        }

    def prepare(self, settings: CtcConfig, texts: Sequence[str], seed: int) -> None:
        """Raise the limit of tokens a second where the vocabulary cuts these texts into smaller pieces than English."""
        spoken = [text for text in texts if text.strip()]
        characters = sum(len(text) for text in spoken)
        if characters:
            tokens = sum(len(self.tokens(text)[0]) - 2 for text in spoken)
            self.tokens_per_s = max(self.tokens_per_s, round(CHARACTERS_PER_S * tokens / characters, 2))

    def most_tokens(self, samples: int) -> int:
        """As many as so much speech can have, and no fewer than a short clip may need."""
        return max(FEWEST_TOKENS, math.ceil(self.tokens_per_s * samples / SAMPLE_RATE_HZ))

    def clip_inputs(self, waveform: np.ndarray, masks: MaskDraw | None = None) -> torch.Tensor:
        """The samples of one clip, shape (samples,); masks of time are silence, masks of frequencies are left out."""
        if masks is not None and masks.bins and not self._said_no_bins:
            self._said_no_bins = True
            note(
                "warning: Moonshine takes waveforms, so SpecAugment masks time only and its frequency masks are left "
                "out; training.augment has filters that act on waveforms"
            )
        if len(waveform) < SHORTEST_SAMPLES:
            waveform = np.pad(waveform, (0, SHORTEST_SAMPLES - len(waveform)))
        found = self.extractor(waveform.astype(np.float32), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        clip = found["input_values"][0].to(torch.float32)
        for first, width in masks.time if masks is not None else ():
            clip[first * HOP_SAMPLES : (first + width) * HOP_SAMPLES] = 0.0
        return clip

    def parts(self) -> list[Part]:
        """Front end, layers and final norm of the encoder, embeddings, layers and norm of the decoder, output layer."""
        encoder, decoder = "model.encoder", "model.decoder"
        front = tuple(f"{encoder}.{one}" for one in ("conv1", "conv2", "conv3", "groupnorm"))
        tied = bool(self.config.tie_word_embeddings)
        return [
            Part("encoder.front_end", front),
            Part("encoder.layers", self.stacked("encoder"), stack=True),
            Part("encoder.final_norm", (f"{encoder}.layer_norm",)),
            Part("decoder.embeddings", (f"{decoder}.embed_tokens",)),
            Part("decoder.layers", self.stacked("decoder"), stack=True),
            Part("decoder.final_norm", (f"{decoder}.norm",)),
            Part("head", ("proj_out",), tied_to=f"{decoder}.embed_tokens.weight" if tied else None),
        ]

    def taps(self) -> Taps:
        """Where logits and the hidden states of both stacks come out."""
        encoder: Any = self.part("encoder")
        decoder: Any = self.part("decoder")

        def frames(batch: Batch) -> torch.Tensor:
            return frames_after(batch["attention_mask"].sum(-1))

        return Taps(
            logits=self.part("head"),
            blocks={"encoder": list(encoder.layers), "decoder": list(decoder.layers)},
            last={"encoder": encoder.layer_norm, "decoder": decoder.norm},
            front_end=encoder.conv3,
            frames=frames,
        )

    def save(self, directory: Path) -> None:
        """Write a directory that ``AutoProcessor`` and ``MoonshineForConditionalGeneration`` load, and the record."""
        from transformers import Wav2Vec2Processor

        super().save(directory)
        Wav2Vec2Processor(self.extractor, self.tokenizer).save_pretrained(directory)
        write_json(directory / RECORD, self.recorded())
