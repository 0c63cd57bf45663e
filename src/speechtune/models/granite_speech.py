"""Granite-Speech (IBM; Saon et al. 2025, arXiv 2505.08699) behind the `Family` protocol.

A conformer with attention in blocks, a projector that makes three positions of every 15 frames, and a Granite language
model. What differs from Transformers 5.23:

- Its features need torchaudio; here they are computed with torch and Transformers' own filter bank, the same numbers.
- It encodes a padded batch without a mask, so a clip's result depends on its neighbours; here every clip has what it
  has alone. Batch normalisation keeps the checkpoint's statistics.
- It leaves out ``logits_scaling`` of the language model, which Granite's own class divides by; here it is divided, so
  log-probabilities, beams, sampling and the loss are those the language model was trained with. The best token of a
  step is the same.
- Its loss is a mean over the batch, whatever is accumulated; here it is summed and divided as for every family.
- An adapter that lies beside the weights is merged into them: speech is all that is recognised here. What is saved says
  ``has_lora_adapter: false``.
- The prompt of the chat template may hold the day's date; ``speechtune.json`` records it, and it is used again.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from transformers import GraniteSpeechForConditionalGeneration
from transformers.audio_utils import mel_filter_bank
from transformers.models.granite_speech.modeling_granite_speech import (
    GraniteSpeechConformerAttention,
    GraniteSpeechConformerConvModule,
)

from speechtune.audio.augment import MaskDraw, apply_masks
from speechtune.audio.mel import SAMPLE_RATE_HZ
from speechtune.core.errors import InputError
from speechtune.core.files import read_json
from speechtune.models.capabilities import Capabilities
from speechtune.models.ctc_network import FixedBatchNorm
from speechtune.models.family import Limits
from speechtune.models.speech_llm import MAX_LABEL_TOKENS, SpeechLlmFamily, SpeechLlmNetwork, as_speech_llm_network
from speechtune.models.trainable import Part

INSTRUCTION = "<|audio|>can you transcribe the speech into a written format?"
"""The request of IBM's model cards (ibm-granite/granite-speech-3.3-2b)."""

MAX_AUDIO_S = 60.0
"""No limit of the architecture; a minute of speech stays within the decoder's usual limit of new tokens."""

SHORTEST_SAMPLES = 1600
"""Clips are filled with silence to 0.1 s: the transform needs 257 samples, the encoder a frame. Our choice."""

FRONT_END_FILES = ("preprocessor_config.json", "processor_config.json")
_SIZES = {"n_fft": 512, "win_length": 400, "hop_length": 160, "n_mels": 80}


class LogMelPairs:
    """Log-mel features as `transformers.GraniteSpeechFeatureExtractor` makes them of one clip, without torchaudio.

    Two frames of 10 ms are one of the encoder; an odd last one is left out.
    """

    def __init__(self, sizes: dict[str, int]) -> None:
        self.window, self.hop = sizes["n_fft"], sizes["hop_length"]
        bank = mel_filter_bank(
            sizes["n_fft"] // 2 + 1,
            sizes["n_mels"],
            0.0,
            SAMPLE_RATE_HZ / 2,
            SAMPLE_RATE_HZ,
            norm=None,
            mel_scale="htk",
        )
        self._filters = torch.from_numpy(bank.T.astype(np.float32))
        self._hann = torch.hann_window(sizes["win_length"])

    def frames(self, samples: int) -> int:
        """Frames of the encoder (20 ms) for a clip of so many samples."""
        return (max(samples, SHORTEST_SAMPLES) // self.hop + 1) // 2

    def __call__(self, waveform: np.ndarray, masks: MaskDraw | None = None) -> torch.Tensor:
        """Features of one clip alone, float32 (frames, two times the bins)."""
        wave = np.pad(waveform.astype(np.float32), (0, max(0, SHORTEST_SAMPLES - len(waveform))))
        spectrum = torch.stft(
            torch.from_numpy(wave),
            self.window,
            self.hop,
            len(self._hann),
            self._hann,
            center=True,
            pad_mode="reflect",
            return_complex=True,
        )
        log_mel = (self._filters @ spectrum.abs() ** 2).clamp(min=1e-10).log10()
        log_mel = torch.maximum(log_mel, log_mel.max() - 8.0) / 4 + 1
        count = 2 * self.frames(len(wave))
        log_mel = log_mel[:, :count] if masks is None else apply_masks(log_mel[:, :count], masks)
        return log_mel.T.reshape(count // 2, -1)


class ClipAttention(GraniteSpeechConformerAttention):
    """Attention in blocks in which every clip has the keys that it has alone; ``inside`` is set by the network."""

    inside: torch.Tensor | None = None

    def forward(self, hidden_states: torch.Tensor, attention_dists: torch.Tensor) -> torch.Tensor:
        """As the parent, with frames outside a clip as no keys."""
        if self.inside is None:
            return super().forward(hidden_states, attention_dists)
        hidden = self.pre_norm(hidden_states)
        batch, frames, _ = hidden.shape
        filled = -frames % self.context_size
        hidden = functional.pad(hidden, (0, 0, 0, filled))
        keep = functional.pad(self.inside, (0, filled)).reshape(-1, 1, 1, self.context_size)

        def blocks(states: torch.Tensor) -> torch.Tensor:
            return states.reshape(len(keep), self.context_size, self.num_heads, -1).transpose(1, 2)

        query = blocks(self.to_q(hidden))
        key, value = (blocks(one) for one in self.to_kv(hidden).chunk(2, dim=-1))
        places = self.rel_pos_emb(attention_dists)
        bias = torch.einsum("bhcd,crd->bhcr", query, places) * self.scale
        bias = bias.masked_fill(~keep, torch.finfo(bias.dtype).min)
        out = functional.scaled_dot_product_attention(query, key, value, attn_mask=bias, scale=self.scale)
        out = out.transpose(1, 2).reshape(batch, hidden.shape[1], -1)
        return self.dropout(self.to_out(out[:, :frames]))


class GraniteNetwork(SpeechLlmNetwork):
    """The audio as Granite-Speech encodes it, clip by clip alone in any batch."""

    audio_names = ("input_features", "feature_frames")
    config: Any
    model: Any

    def embed(self, input_ids: torch.Tensor, **audio: torch.Tensor) -> torch.Tensor:
        """Prompts with the audio in their places; ``feature_frames``, (batch,): how many frames of a row count."""
        features, frames = audio["input_features"], audio["feature_frames"]
        encoder = self.model.encoder
        inside = torch.arange(features.shape[1], device=features.device)[None] < frames[:, None]
        for module in encoder.modules():
            if isinstance(module, ClipAttention | GraniteSpeechConformerConvModule):
                module.inside = inside
        hidden = encoder(features.to(encoder.input_linear.weight.dtype)).last_hidden_state
        projected = self.model.projector(hidden * inside[..., None])
        window = self.config.window_size
        counts = -(-frames // window) * (window // self.config.downsample_rate)
        kept = torch.arange(projected.shape[1], device=counts.device)[None] < counts[:, None]
        there = input_ids == self.config.audio_token_id
        embeddings = self.model.get_input_embeddings()(input_ids.masked_fill(there, 0))
        return embeddings.masked_scatter(there[..., None], projected[kept].to(embeddings.dtype))

    def scaled(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits divided by ``logits_scaling``, as `transformers.GraniteForCausalLM` does."""
        return logits / float(getattr(self.config.text_config, "logits_scaling", 1.0))


def _only_inside(module: Any, given: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...] | None:
    """Silence behind a clip's frames before the convolution over time, as a clip alone has it."""
    inside = module.of[0].inside
    return None if inside is None else (given[0] * inside[:, None].to(given[0].dtype),)


def _clip_by_clip(model: Any) -> None:
    """Make the encoder give every clip of a batch what it has alone, and keep its statistics."""
    for module in model.model.encoder.modules():
        if isinstance(module, GraniteSpeechConformerAttention):
            module.__class__ = ClipAttention
        elif isinstance(module, GraniteSpeechConformerConvModule):
            module.inside = None
            module.depth_conv.of = (module,)  # a tuple, so that it is no child
            module.depth_conv.register_forward_pre_hook(_only_inside)
        elif isinstance(module, torch.nn.BatchNorm1d):
            module.__class__ = FixedBatchNorm
            module.eval()


class GraniteSpeechFamily(SpeechLlmFamily):
    """A loaded Granite-Speech model; ``prompt`` is what stands before every transcript."""

    name = "granite_speech"
    title = "a Granite-Speech model"
    capabilities = Capabilities(
        title="Granite-Speech",
        loss="cross-entropy a token of the answer",
        frames_per_second=50.0,
        audio_in_decoder=True,
        search=True,
        n_best=True,
    )
    inside: ClassVar[dict[str, str]] = {
        "encoder": ".encoder.layers.",
        "projector": ".projector.",
        "decoder": ".language_model.",
    }
    layers: ClassVar[dict[str, dict[str, tuple[str, ...]]]] = {
        "encoder": {"attention": ("to_q", "to_kv", "to_out"), "mlp": ("up_proj", "down_proj")},
        "projector": {"projector": ("query", "key", "value", "dense", "linear")},
        "decoder": {
            "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
            "mlp": ("gate_proj", "up_proj", "down_proj"),
        },
    }
    branch_names = ("ff1", "attn", "conv", "ff2", "self_attn", "mlp")

    def __init__(self, model: Any, tokenizer: Any, language: str | None, source: Path) -> None:
        _clip_by_clip(model)
        super().__init__(as_speech_llm_network(model, GraniteNetwork), tokenizer, language)
        self.front_end_files = {
            name: (source / name).read_bytes() for name in FRONT_END_FILES if (source / name).is_file()
        }
        self.front_end = LogMelPairs(_sizes(source))
        self.mel_bins = int(self.config.encoder_config.input_dim) // 2
        self.end = int(tokenizer.eos_token_id)
        positions = int(self.config.text_config.max_position_embeddings)
        room = min(MAX_LABEL_TOKENS, positions // 2)
        self.limits = Limits(min(MAX_AUDIO_S, math.floor((positions - room) / (self.places(16_000 * 60) / 60))), room)
        self.set_prompt(self.asked())

    @classmethod
    def load(cls, path: Path, *, language: str | None = None, device: str = "cpu") -> GraniteSpeechFamily:
        """Load a Transformers directory in float32, its adapter merged if there is one.

        Raises:
            InputError: the directory is incomplete, or is no Granite-Speech model.
        """
        from transformers import AutoTokenizer

        check_names(path)
        try:
            model, report = GraniteSpeechForConditionalGeneration.from_pretrained(
                path, dtype=torch.float32, local_files_only=True, output_loading_info=True
            )
            tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path} does not load as a Granite-Speech model ({reason})") from error
        absent = sorted([*report["missing_keys"], *report["mismatched_keys"]], key=str)
        if absent:
            raise InputError(
                f"{path} lacks {len(absent)} tensors of a Granite-Speech model ({absent[0]}, …): obtain it again"
            )
        if (path / "adapter_config.json").is_file():
            merge_adapter(model)
        model.config.has_lora_adapter = False
        family = cls(model.to(device).eval(), tokenizer, language, path)
        family.recall(path)
        return family

    def asked(self) -> list[int]:
        """The prompt that the checkpoint's chat template makes of IBM's request for a transcript.

        Raises:
            InputError: there is no template, or it leaves no place for the audio.
        """
        if not self.tokenizer.chat_template:
            raise InputError("this Granite-Speech model has no chat template, which makes its prompt: obtain it again")
        turns = [{"role": "user", "content": INSTRUCTION}]
        text = self.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
        return list(self.tokenizer.encode(text, add_special_tokens=False))

    def places(self, samples: int) -> int:
        """Positions of the language model: three (by default) for every 15 frames of 20 ms that are begun."""
        window = int(self.config.window_size)
        return -(-self.front_end.frames(samples) // window) * (window // int(self.config.downsample_rate))

    def audio_inputs(
        self, waveforms: Sequence[np.ndarray], masks: Sequence[MaskDraw | None] = (), device: str = "cpu"
    ) -> dict[str, torch.Tensor]:
        """``input_features`` (batch, frames, width), padded on the right, and ``feature_frames`` (batch,)."""
        drawn = masks or [None] * len(waveforms)
        clips = [self.front_end(*pair) for pair in zip(waveforms, drawn, strict=True)]
        frames = torch.tensor([len(one) for one in clips])
        return {"input_features": torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), "feature_frames": frames}

    def parts(self) -> list[Part]:
        """Encoder (with its CTC layers), projector, language model, output layer (tied or not)."""
        encoder, text = "model.encoder", "model.language_model"
        counts = self.config.encoder_config.num_layers, self.config.text_config.num_hidden_layers
        tied = bool(self.config.tie_word_embeddings)
        return [
            Part("encoder.front_end", (f"{encoder}.input_linear",)),
            Part("encoder.layers", tuple(f"{encoder}.layers.{n}" for n in range(counts[0])), stack=True),
            Part("encoder.ctc", (f"{encoder}.out", f"{encoder}.out_mid")),
            Part("projector", ("model.projector",)),
            Part("decoder.embeddings", (f"{text}.embed_tokens",)),
            Part("decoder.layers", tuple(f"{text}.layers.{n}" for n in range(counts[1])), stack=True),
            Part("decoder.final_norm", (f"{text}.norm",)),
            Part("head", ("lm_head",), tied_to=f"{text}.embed_tokens.weight" if tied else None),
        ]

    def modules(self) -> dict[str, torch.nn.Module]:
        """The module of each side."""
        model: Any = self.model
        inner = model.model
        return {
            "encoder": inner.encoder,
            "projector": inner.projector,
            "decoder": inner.language_model,
            "head": model.lm_head,
        }

    def save(self, directory: Path) -> None:
        """Write a directory that Transformers loads; its processor's files are those of the checkpoint."""
        super().save(directory)
        for name, content in self.front_end_files.items():
            (directory / name).write_bytes(content)


def _sizes(source: Path) -> dict[str, int]:
    """Sizes of the features from the checkpoint's own files; what they leave open is IBM's."""
    found: dict[str, Any] = {}
    for name in FRONT_END_FILES:
        if (source / name).is_file():
            stored = read_json(source / name)
            found |= stored.get("audio_processor", stored.get("feature_extractor", stored))
    found |= found.get("melspec_kwargs", {})
    return {name: int(found.get(name, usual)) for name, usual in _SIZES.items()}


def check_names(path: Path) -> None:
    """Refuse weights under the names that an adapter gives them.

    Transformers writes such files when it saves a model with its adapter, and loads them with those layers drawn anew.

    Raises:
        InputError: a weight has such a name.
    """
    from safetensors import safe_open

    for file in sorted(path.glob("*.safetensors")):
        with safe_open(file, "pt") as stored:
            if any(".base_layer." in name for name in stored.keys()):  # noqa: SIM118 (it is no dictionary)
                raise InputError(
                    f"{path} was saved with its adapter inside, so that weights have lost their names ({file.name}): "
                    "put the checkpoint's own weights there, or merge the adapter before saving"
                )


def merge_adapter(model: Any) -> None:
    """Put the low-rank updates that Transformers loaded beside the weights into the weights."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, module.get_base_layer())
    model._hf_peft_config_loaded = False
    model._weight_conversions = None  # those of the adapter would rename the weights when they are written
    model.peft_config = {}
