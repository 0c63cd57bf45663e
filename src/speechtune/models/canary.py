"""Canary (NVIDIA; Puvvada et al. 2024, arXiv 2406.19674) behind the `Family` protocol.

A FastConformer encoder and a decoder that is told the language by special tokens. They are those that the checkpoint's
own processor writes for a transcription with punctuation, in training as at inference. Labels come behind them, so
only the text and its end are learnt; the batch normalisation of the encoder keeps the checkpoint's statistics.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import AutoProcessor, CanaryForConditionalGeneration

from speechtune.audio.augment import MaskDraw
from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json
from speechtune.models.capabilities import Capabilities
from speechtune.models.ctc_network import FixedBatchNorm
from speechtune.models.family import Limits
from speechtune.models.parakeet import log_mel
from speechtune.models.seq2seq import Seq2SeqFamily, load_parts
from speechtune.models.trainable import Part

MAX_AUDIO_S = 40.0
"""Longer recordings are cut up by NVIDIA's own inference (model card of nvidia/canary-1b-v2)."""

RECORD = "speechtune.json"
_ATTENTION = tuple(f"{one}_proj" for one in "qkvo")


class CanaryFamily(Seq2SeqFamily):
    """A loaded Canary model that transcribes one language."""

    name = "canary"
    title = "a Canary model"
    capabilities = Capabilities(
        title="Canary",
        loss="cross-entropy a token",
        frames_per_second=12.5,
        search=True,
        n_best=True,
        label_likelihood=True,
    )
    input_name = "input_features"
    layers: ClassVar[dict[str, dict[str, tuple[str, ...]]]] = {
        "encoder": {
            "attention": tuple(f"self_attn.{one}" for one in _ATTENTION),
            "self_attention": tuple(f"self_attn.{one}" for one in _ATTENTION),
            "mlp": ("linear1", "linear2"),
        },
        "decoder": {
            "attention": tuple(f"{block}.{one}" for block in ("self_attn", "encoder_attn") for one in _ATTENTION),
            "self_attention": tuple(f"self_attn.{one}" for one in _ATTENTION),
            "cross_attention": tuple(f"encoder_attn.{one}" for one in _ATTENTION),
            "mlp": ("fc1", "fc2"),
        },
    }

    def __init__(self, model: Any, processor: Any, language: str | None) -> None:
        super().__init__(model, processor.feature_extractor, processor.tokenizer, language)
        self.processor = processor
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm1d):
                module.__class__ = FixedBatchNorm
                module.eval()
        self.mel_bins = int(self.extractor.feature_size)
        self.end = int(self.config.eos_token_id)
        self.limits = Limits(MAX_AUDIO_S, int(self.config.decoder_config.max_position_embeddings))
        self._prompt = None if language is None else self._prompt_in(language)

    @classmethod
    def load(cls, path: Path, *, language: str | None = None, device: str = "cpu") -> CanaryFamily:
        """Load a Transformers directory in float32; without a language, for the one it was fine-tuned in.

        Raises:
            InputError: the directory is incomplete, is no Canary model, or does not know the language.
        """
        model, _, _ = load_parts(path, "Canary", CanaryForConditionalGeneration)
        try:
            processor = AutoProcessor.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"the processor in {path} does not load ({reason}): obtain the model again") from error
        file = path / RECORD
        trained_for = read_json(file).get("language") if language is None and file.is_file() else None
        return cls(model.to(device).eval(), processor, language or trained_for)

    @property
    def prompt(self) -> list[int]:  # type: ignore[override]
        """The tokens before every text.

        Raises:
            InputError: no language is given.
        """
        if self._prompt is None:
            raise InputError("a Canary model needs a language: set model.language or --language, as in en")
        return self._prompt

    def _prompt_in(self, language: str) -> list[int]:
        if not self.processor.chat_template:
            raise InputError("this Canary model has no chat template, which makes its prompt: obtain it again")
        silence = np.zeros(1600, dtype=np.float32)
        try:
            text = self.processor.apply_transcription_request(silence, source_language=language, tokenize=False)
        except (ValueError, KeyError) as error:
            reason = " ".join(str(error).split())[:200]
            raise InputError(f"this Canary model cannot transcribe language {language!r} ({reason})") from error
        found = [int(one) for one in self.tokenizer(text)["input_ids"][0]]
        if self.tokenizer.unk_token_id in found:
            raise InputError(f"the tokenizer of this Canary model has no token for language {language!r}")
        return found

    def clip_inputs(self, waveform: np.ndarray, masks: MaskDraw | None = None) -> torch.Tensor:
        """Log-mel features of one clip alone, (frames, bins)."""
        return log_mel(self.extractor, waveform, masks)

    def parts(self) -> list[Part]:
        """Subsampling and layers of the encoder; embeddings, layers, norm of the decoder; output layer and its bias."""
        encoder, decoder = "model.encoder", "model.decoder"
        tied = bool(self.config.tie_word_embeddings)
        return [
            Part("encoder.front_end", (f"{encoder}.subsampling",)),
            Part("encoder.layers", self.stacked("encoder"), stack=True),
            Part("decoder.embeddings", (f"{decoder}.embed_tokens", f"{decoder}.embedding_layernorm")),
            Part("decoder.layers", self.stacked("decoder"), stack=True),
            Part("decoder.final_norm", (f"{decoder}.norm",)),
            Part("head", ("proj_out",), tied_to=f"{decoder}.embed_tokens.weight" if tied else None),
        ]

    def save(self, directory: Path) -> None:
        """Write a directory that ``AutoProcessor`` and ``CanaryForConditionalGeneration`` load."""
        super().save(directory)
        self.processor.save_pretrained(directory)
        write_json(directory / RECORD, {"audio_contexts": list(self.contexts), "language": self.language})
