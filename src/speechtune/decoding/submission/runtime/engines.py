"""The two ways to turn features into token ids."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np

Settings = dict[str, Any]


class TorchEngine:
    """Transformers' Whisper (4.57 to 5), on a GPU where there is one, at any audio context."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        os.environ.setdefault("HF_HUB_OFFLINE", "1")
        os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
        import torch
        from transformers import WhisperForConditionalGeneration
        from transformers.utils import logging

        logging.set_verbosity_error()  # a warning for each batch would fill the log
        logging.disable_progress_bar()
        self.torch, self.settings = torch, settings
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        wanted = settings["dtype"] if self.device == "cuda" else "float32"
        self.dtype = getattr(torch, wanted)
        model = WhisperForConditionalGeneration.from_pretrained(folder, local_files_only=True)
        self.model: Any = model.to(self.device, self.dtype).eval()
        self.encoder: Any = self.model.get_encoder()
        self.positions = self.encoder.embed_positions.weight.detach().clone()

    @property
    def description(self) -> str:
        """Where and how it computes."""
        return f"torch {self.torch.__version__} on {self.device} in {str(self.dtype).removeprefix('torch.')}"

    def decode(self, features: np.ndarray, limit: int) -> list[list[int]]:
        """Token ids of each clip, at most ``limit``, without prompt and end."""
        from transformers import GenerationConfig, GenerationMixin

        torch, settings = self.torch, self.settings
        with torch.inference_mode():
            encoded = self._encode(torch.from_numpy(features).to(self.device, self.dtype))
            found = GenerationMixin.generate(
                self.model,
                encoder_outputs=encoded,
                decoder_input_ids=torch.tensor([settings["prompt"]] * len(features), device=self.device),
                generation_config=GenerationConfig(
                    max_new_tokens=limit,
                    num_beams=settings["beams"],
                    do_sample=False,
                    eos_token_id=settings["eot"],
                    pad_token_id=settings["eot"],
                    decoder_start_token_id=settings["prompt"][0],
                    suppress_tokens=settings["suppress"] + list(range(settings["first_timestamp"], settings["tokens"])),
                    begin_suppress_tokens=settings["suppress_first"] or None,
                ),
            )
        rows = found[:, len(settings["prompt"]) :].tolist()
        return [row[: row.index(settings["eot"])] if settings["eot"] in row else row for row in rows]

    def _encode(self, features: Any) -> Any:
        """The encoder demands as many frames as its table of positions is long: it is given a table of that length."""
        positions = features.shape[-1] // 2
        table = self.torch.nn.Embedding(positions, self.positions.shape[1], device=self.device, dtype=self.dtype)
        table.weight.data.copy_(self.positions[:positions])
        before = self.encoder.config.max_source_positions
        self.encoder.embed_positions, self.encoder.config.max_source_positions = table, positions
        try:
            return self.encoder(features)
        finally:
            self.encoder.config.max_source_positions = before


class Ctranslate2Engine:
    """CTranslate2's Whisper; it takes any audio context by itself."""

    def __init__(self, folder: Path, settings: Settings) -> None:
        import ctranslate2

        self.settings = settings
        self.library = ctranslate2
        self.device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        able = ctranslate2.get_supported_compute_types(self.device)
        wanted = settings["compute_type"]
        self.compute_type = wanted if wanted in able else "default"
        threads = {} if self.device == "cuda" else {"intra_threads": int(os.environ.get("OMP_NUM_THREADS") or 0)}
        self.model = ctranslate2.models.Whisper(
            str(folder), device=self.device, compute_type=self.compute_type, **threads
        )

    @property
    def description(self) -> str:
        """Where and how it computes."""
        return f"ctranslate2 {self.library.__version__} on {self.device} in {self.compute_type}"

    def decode(self, features: np.ndarray, limit: int) -> list[list[int]]:
        """Token ids of each clip, at most ``limit``, without prompt and end."""
        settings = self.settings
        found = self.model.generate(
            self.library.StorageView.from_array(np.ascontiguousarray(features)),
            [settings["prompt"]] * len(features),
            beam_size=settings["beams"],
            max_length=max(2 * limit, limit + len(settings["prompt"]) - 1),
            suppress_tokens=settings["suppress"] + list(range(settings["first_timestamp"], settings["tokens"])),
        )
        return [list(one.sequences_ids[0]) for one in found]


def open_engine(folder: Path, settings: Settings) -> TorchEngine | Ctranslate2Engine:
    """The engine that the settings name."""
    return (Ctranslate2Engine if settings["engine"] == "ctranslate2" else TorchEngine)(folder, settings)
