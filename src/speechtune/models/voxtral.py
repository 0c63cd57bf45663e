"""Voxtral (Mistral AI; Liu et al. 2025, arXiv 2507.13264) behind the `Family` protocol.

Whisper's encoder over whole windows of 30 s, a projector that makes one position of every four of its, and a Llama
language model. A clip is filled with silence to the end of its last window, a longer one takes several.

The tokenizer is Mistral's ``tekken.json``. mistral-common, which reads it, asks for numpy below 2.4; here Transformers'
own conversion of the file is used wherever it runs, and the tokens of a transcription request are put together from
it: the same ones (`tests/models/test_voxtral.py` compares them where mistral-common is installed).
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import VoxtralForConditionalGeneration, WhisperFeatureExtractor

from speechtune.audio.augment import MaskDraw, apply_masks
from speechtune.audio.mel import SAMPLE_RATE_HZ
from speechtune.core.errors import InputError
from speechtune.core.files import read_json
from speechtune.corpus.language_codes import short_code
from speechtune.models.capabilities import Capabilities
from speechtune.models.family import Limits
from speechtune.models.speech_llm import (
    MAX_LABEL_TOKENS,
    RECORD,
    SpeechLlmFamily,
    SpeechLlmNetwork,
    as_speech_llm_network,
)
from speechtune.models.trainable import Part

REQUEST = ("<s>", "[INST]", "[BEGIN_AUDIO]", "[AUDIO]", "[/INST]")
"""What stands before the language of a transcription request (``encode_transcription`` of mistral-common 1.13.1)."""

TRANSCRIBE, END = "[TRANSCRIBE]", "</s>"

MAX_AUDIO_S = 60.0
"""Mistral's card of Voxtral-Mini-3B-2507 gives 30 minutes; a minute stays within the usual limit of new tokens."""

TEKKEN = "tekken.json"
FRONT_END_FILES = ("preprocessor_config.json", "processor_config.json")
_ATTENTION = ("q_proj", "k_proj", "v_proj")


class VoxtralNetwork(SpeechLlmNetwork):
    """The audio as Voxtral encodes it, window by window."""

    audio_names = ("input_features", "feature_windows")
    config: Any
    model: Any

    def embed(self, input_ids: torch.Tensor, **audio: torch.Tensor) -> torch.Tensor:
        """Prompts with the audio in their places; ``feature_windows``, (batch,): how many windows of a row count."""
        features, windows = audio["input_features"], audio["feature_windows"]
        there = torch.arange(features.shape[1], device=features.device)[None] < windows[:, None]
        heard = self.model.get_audio_features(features[there], return_dict=True).pooler_output
        places = input_ids == self.config.audio_token_id
        embeddings = self.model.get_input_embeddings()(input_ids.masked_fill(places, 0))
        return embeddings.masked_scatter(places[..., None], heard.to(embeddings.dtype))


class VoxtralFamily(SpeechLlmFamily):
    """A loaded Voxtral model; ``prompt`` is a request for a transcript, in a language where one is known."""

    name = "voxtral"
    title = "a Voxtral model"
    capabilities = Capabilities(
        title="Voxtral",
        loss="cross-entropy a token of the answer",
        frames_per_second=50.0,
        audio_in_decoder=True,
        search=True,
        n_best=True,
    )
    context_title = "whole windows of 30 s"
    """What the table of families says instead of its context, which the encoder fixes."""

    aliases: ClassVar[dict[str, str]] = {"audio_tower": "encoder", "language_model": "decoder"}
    """Transformers' names of the two stacks, understood wherever a recipe names a part."""

    inside: ClassVar[dict[str, str]] = {
        "encoder": ".audio_tower.layers.",
        "projector": ".multi_modal_projector.",
        "decoder": ".language_model.",
    }
    layers: ClassVar[dict[str, dict[str, tuple[str, ...]]]] = {
        "encoder": {"attention": (*_ATTENTION, "out_proj"), "mlp": ("fc1", "fc2")},
        "projector": {"projector": ("linear_1", "linear_2")},
        "decoder": {"attention": (*_ATTENTION, "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")},
    }
    branch_names = ("self_attn", "fc2", "mlp")

    def __init__(self, model: Any, tokenizer: Any, extractor: Any, language: str | None, source: Path) -> None:
        super().__init__(as_speech_llm_network(model, VoxtralNetwork), tokenizer, language)
        self.extractor = extractor
        self.told = language is not None
        self.files = {
            name: (source / name).read_bytes() for name in (TEKKEN, *FRONT_END_FILES) if (source / name).is_file()
        }
        audio, text = self.config.audio_config, self.config.text_config
        self.mel_bins = int(audio.num_mel_bins)
        self.window_frames = 2 * int(audio.max_source_positions)
        self.window_places = int(audio.max_source_positions) * int(audio.hidden_size) // int(audio.intermediate_size)
        self.check(source)
        self.end = self.control(END)
        positions = int(text.max_position_embeddings)
        room = min(MAX_LABEL_TOKENS, positions // 2)
        window_s = self.window_samples / SAMPLE_RATE_HZ
        self.limits = Limits(min(MAX_AUDIO_S, (positions - room) // self.window_places * window_s), room)
        self.set_prompt(self.asked())

    @classmethod
    def load(cls, path: Path, *, language: str | None = None, device: str = "cpu") -> VoxtralFamily:
        """Load a Transformers directory in float32; without a language, for the one it was fine-tuned in, if any.

        Raises:
            InputError: the directory is incomplete, is no Voxtral model, or the language is none.
        """
        try:
            model, report = VoxtralForConditionalGeneration.from_pretrained(
                path, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
            own = any((path / name).is_file() for name in FRONT_END_FILES)
            bins = int(model.config.audio_config.num_mel_bins)
            extractor = (
                WhisperFeatureExtractor.from_pretrained(path, local_files_only=True)
                if own
                else WhisperFeatureExtractor(feature_size=bins)
            )
            tokenizer = read_tokenizer(path)
        except (OSError, ValueError, KeyError, RuntimeError, ImportError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path} does not load as a Voxtral model ({reason})") from error
        absent = sorted([*report["missing_keys"], *report["mismatched_keys"]], key=str)
        if absent:
            raise InputError(f"{path} lacks {len(absent)} tensors of a Voxtral model ({absent[0]}, …): obtain it again")
        family = cls(model.to(device).eval(), tokenizer, extractor, language, path)
        family.recall(path)
        return family

    def check(self, source: Path) -> None:
        """Refuse a tokenizer or a feature extractor of another model.

        Raises:
            InputError: the sentence says which.
        """
        audio, vocabulary = self.config.audio_config, int(self.config.text_config.vocab_size)
        given = int(self.extractor.feature_size), int(self.extractor.sampling_rate)
        if given != (self.mel_bins, SAMPLE_RATE_HZ):
            raise InputError(
                f"{source}: the feature extractor makes {given[0]} bins at {given[1]} Hz and the encoder takes "
                f"{self.mel_bins} at {SAMPLE_RATE_HZ}: take the files of this checkpoint"
            )
        if self.audio_token != self.control("[AUDIO]") or len(self.tokenizer) > vocabulary:
            raise InputError(f"{source}: the tokenizer belongs to another model: take the files of this checkpoint")
        if int(audio.max_source_positions) * int(audio.hidden_size) % int(audio.intermediate_size):
            raise InputError(f"{source}: a window of the encoder makes no whole number of positions: obtain it again")

    def control(self, name: str) -> int:
        """The id of a control token.

        Raises:
            InputError: the tokenizer has none of this name.
        """
        found = self.tokenizer.convert_tokens_to_ids(name)
        if found is None or self.tokenizer.convert_ids_to_tokens(found) != name:  # the unknown token's
            raise InputError(f"the tokenizer of this Voxtral model has no token {name}: take the checkpoint's {TEKKEN}")
        return int(found)

    def asked(self) -> list[int]:
        """The tokens of a transcription request, with one place for the audio.

        Raises:
            InputError: the language has no code of two letters, which is how Voxtral is told it.
        """
        said: list[int] = []
        if self.language:
            code = short_code(self.language)
            if not re.fullmatch("[a-z]{2}", code):
                raise InputError(
                    f"Voxtral is told a language by its code of two letters and {self.language!r} has none: "
                    "set model.language or --language to one such as en, or leave it out"
                )
            said = self.tokenizer.encode(f"lang:{code}", add_special_tokens=False)
        return [*(self.control(one) for one in REQUEST), *said, self.control(TRANSCRIBE)]

    def recall(self, directory: Path) -> None:
        """Take over the language and the prompt that a model or adapter directory records, unless one was given."""
        file = directory / RECORD
        if not self.told and file.is_file():
            self.language = read_json(file).get("language")
            super().recall(directory)

    @property
    def window_samples(self) -> int:
        """Samples of a window of the encoder."""
        return self.window_frames * int(self.extractor.hop_length)

    def windows(self, samples: int) -> int:
        """Windows that a clip of so many samples takes."""
        return max(1, -(-samples // self.window_samples))

    def places(self, samples: int) -> int:
        """Positions of the language model: 375 (in the released models) for every window that is begun."""
        return self.windows(samples) * self.window_places

    def log_mel(self, waveform: np.ndarray, masks: MaskDraw | None = None, device: str = "cpu") -> torch.Tensor:
        """Features of one clip alone, float32 (windows, bins, frames); silence is floored by the loudest of all."""
        made = self.extractor(
            waveform.astype(np.float32),
            sampling_rate=SAMPLE_RATE_HZ,
            padding=True,
            truncation=False,
            pad_to_multiple_of=self.window_samples,
            return_tensors="pt",
            device=device,
        )["input_features"][0]
        features = made if masks is None else apply_masks(made, masks)
        return features.reshape(self.mel_bins, -1, self.window_frames).transpose(0, 1)

    def audio_inputs(
        self, waveforms: Sequence[np.ndarray], masks: Sequence[MaskDraw | None] = (), device: str = "cpu"
    ) -> dict[str, torch.Tensor]:
        """``input_features`` (batch, windows, bins, frames), filled with zeros, and ``feature_windows`` (batch,)."""
        drawn = masks or [None] * len(waveforms)
        clips = [self.log_mel(*pair, device) for pair in zip(waveforms, drawn, strict=True)]
        windows = torch.tensor([len(one) for one in clips])
        return {"input_features": torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), "feature_windows": windows}

    def parts(self) -> list[Part]:
        """Encoder (Transformers' ``audio_tower``), projector, language model, output layer."""
        tower, text = "model.audio_tower", "model.language_model"
        counts = self.config.audio_config.num_hidden_layers, self.config.text_config.num_hidden_layers
        return [
            Part("encoder.front_end", (f"{tower}.conv1", f"{tower}.conv2")),
            Part("encoder.positions", (f"{tower}.embed_positions",)),
            Part("encoder.layers", tuple(f"{tower}.layers.{n}" for n in range(counts[0])), stack=True),
            Part("encoder.final_norm", (f"{tower}.layer_norm",)),
            Part("projector", ("model.multi_modal_projector",)),
            Part("decoder.embeddings", (f"{text}.embed_tokens",)),
            Part("decoder.layers", tuple(f"{text}.layers.{n}" for n in range(counts[1])), stack=True),
            Part("decoder.final_norm", (f"{text}.norm",)),
            Part("head", ("lm_head",)),
        ]

    def modules(self) -> dict[str, torch.nn.Module]:
        """The module of each side."""
        model: Any = self.model
        inner = model.model
        return {
            "encoder": inner.audio_tower,
            "projector": inner.multi_modal_projector,
            "decoder": inner.language_model,
            "head": model.lm_head,
        }

    def part(self, name: str) -> torch.nn.Module:
        """As the base, by Transformers' names too."""
        return super().part(self.aliases.get(name, name))

    def save(self, directory: Path) -> None:
        """Write a directory that Transformers loads, with mistral-common or without it."""
        super().save(directory)
        self.extractor.save_pretrained(directory)
        for name, content in self.files.items():
            (directory / name).write_bytes(content)


def read_tokenizer(path: Path) -> Any:
    """The fast tokenizer of a directory, from ``tekken.json`` or, without it, ``tokenizer.json``.

    A control token's name inside a text is text, as for mistral-common.

    Raises:
        OSError: neither file is there.
        ValueError, KeyError, ImportError: it is no such file, or one from before Voxtral.
    """
    from transformers import AutoTokenizer
    from transformers.integrations.mistral.tokenizer import convert_tekken_tokenizer

    if (path / TEKKEN).is_file():
        tokenizer: Any = convert_tekken_tokenizer(str(path / TEKKEN), chat_template="")
        tokenizer.chat_template = None
    elif (path / "tokenizer.json").is_file():
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True, fix_mistral_regex=True)
    else:
        raise OSError(f"there is no {TEKKEN} and no tokenizer.json")
    tokenizer.split_special_tokens = True
    return tokenizer
