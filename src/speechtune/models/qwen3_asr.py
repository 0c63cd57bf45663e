"""Qwen3-ASR behind the `Family` protocol, on Transformers' native class.

Features are in `qwen3_asr_features`, the chat in `qwen3_asr_format`, the loss in `qwen3_asr_network`, decoding in
`speech_llm_search`, the layout of Qwen's own package in `qwen3_asr_layout`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import GenerationConfig, Qwen3ASRFeatureExtractor, Qwen3ASRProcessor

from speechtune.audio.mel import FRAMES_PER_SECOND
from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json
from speechtune.models.byte_pairs import BytePairText
from speechtune.models.capabilities import Capabilities
from speechtune.models.config import Context, ModelConfig
from speechtune.models.family import Example, Hypothesis, Limits
from speechtune.models.observe import Taps
from speechtune.models.qwen3_asr_features import ClipFeatures
from speechtune.models.qwen3_asr_format import CHAT_TEMPLATE, ChatFormat, Prompt, language_name
from speechtune.models.qwen3_asr_layout import TO_NATIVE, is_original, native_config
from speechtune.models.qwen3_asr_network import Qwen3AsrNetwork, add_dropout
from speechtune.models.search_config import SearchConfig
from speechtune.models.speech_llm_search import answer_batch, search_speech_llm
from speechtune.models.trainable import Part, linear_layers

MAX_AUDIO_S = 60.0
"""No limit of the architecture, which Qwen's package gives up to 20 minutes; a minute of speech stays within the
decoder's usual limit of new tokens and within a GPU's memory."""

MAX_LABEL_TOKENS = 1024
RECORD = "speechtune.json"

_ROLES: dict[str, dict[str, tuple[str, ...]]] = {
    "encoder": {"attention": ("q_proj", "k_proj", "v_proj", "out_proj"), "mlp": ("fc1", "fc2")},
    "projector": {"projector": ("linear_1", "linear_2")},
    "decoder": {"attention": ("q_proj", "k_proj", "v_proj", "o_proj"), "mlp": ("gate_proj", "up_proj", "down_proj")},
}
_INSIDE = {"encoder": ".audio_tower.", "projector": ".multi_modal_projector.", "decoder": ".language_model."}


class Qwen3AsrFamily(BytePairText):
    """A loaded Qwen3-ASR model; ``prompt`` is what stands around every transcript."""

    name = "qwen3_asr"
    capabilities = Capabilities(
        title="Qwen3-ASR",
        loss="cross-entropy a token of the answer",
        frames_per_second=12.5,
        audio_in_decoder=True,
        search=True,
        n_best=True,
        grpo=True,
    )
    contexts: tuple[Context, ...] = ("fit",)
    roles = (
        "attention",
        "mlp",
        "projector",
        *(f"{side}_{kind}" for side in ("encoder", "decoder") for kind in ("attention", "mlp")),
    )
    aliases: ClassVar[dict[str, str]] = {"audio_tower": "encoder", "language_model": "decoder"}
    """Qwen's names of the two stacks, understood wherever a recipe names a part."""

    draws_masks_by_share = False
    """The network masks nothing itself, so masks by share are drawn as those by count are."""

    padding_side = "right"
    """Of training batches; the loss is the same on either side."""

    def __init__(self, model: Qwen3AsrNetwork, processor: Any, language: str | None) -> None:
        self.model: torch.nn.Module = model
        self.processor = processor
        self.tokenizer = processor.tokenizer
        self.config = model.config
        self.language = language
        self.mel_bins = int(self.config.audio_config.num_mel_bins)
        self.front_end = ClipFeatures(processor.feature_extractor)
        template = processor.chat_template or self.tokenizer.chat_template or CHAT_TEMPLATE
        self.format = ChatFormat(self.tokenizer, template, int(self.config.audio_token_id))
        self.prompt = Prompt(language=language_name(language))
        self.ends = frozenset([self.format.end, *_as_list(self.config.eos_token_id)])
        positions = int(self.config.text_config.max_position_embeddings)
        room = min(MAX_LABEL_TOKENS, positions // 2)
        audio_s = math.floor((positions - room) / (self.front_end.tokens(16_000 * 100) / 100))
        self.limits = Limits(min(MAX_AUDIO_S, float(audio_s)), room)

    @classmethod
    def load(cls, path: Path, *, language: str | None = None, device: str = "cpu") -> Qwen3AsrFamily:
        """Load a directory of Transformers' layout or of the ``qwen-asr`` package's, in float32.

        The context and the place of the language's tag are those that ``speechtune.json`` records there, if it does.

        Raises:
            InputError: the directory is incomplete, or is no Qwen3-ASR model.
        """
        config = read_json(path / "config.json")
        original = is_original(config)
        options: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True, "output_loading_info": True}
        if original:
            options |= {"config": native_config(config), "key_mapping": TO_NATIVE}
        try:
            model, report = Qwen3AsrNetwork.from_pretrained(path, **options)
            processor = _processor(path, model.config, original)
        except (OSError, ValueError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path} does not load as a Qwen3-ASR model ({reason})") from error
        absent = sorted([*report["missing_keys"], *report["mismatched_keys"]], key=str)
        if absent:
            raise InputError(
                f"{path} lacks {len(absent)} tensors of a Qwen3-ASR model ({absent[0]}, …): obtain it again"
            )
        bare: Any = model
        bare._weight_conversions = None  # it is written in Transformers' layout whatever it was read from
        blocks = processor.feature_extractor.n_window, model.config.audio_config.n_window
        if blocks[0] != blocks[1]:
            raise InputError(
                f"{path}: the feature extractor's blocks ({blocks[0]}) are not the encoder's ({blocks[1]}): take the "
                "processor of this checkpoint"
            )
        family = cls(model.to(device).eval(), processor, language)
        family.recall(path)
        return family

    def recall(self, directory: Path) -> None:
        """Take over the context and the place of the tag that a model or adapter directory records."""
        file = directory / RECORD
        stored: Any = read_json(file).get("prompt") if file.is_file() else None
        if stored:
            name = self.prompt.language or (None if self.language else stored.get("language"))
            self.prompt = Prompt(stored["context"], name, stored["language_tag"])

    def configure(self, model: ModelConfig) -> None:
        """Take over what a recipe says of the prompt; what it leaves open stays as it is."""
        wanted = model.qwen3_asr
        context = self.prompt.context if wanted.context is None else wanted.context
        self.prompt = Prompt(context, self.prompt.language, wanted.language_tag or self.prompt.language_tag)
        self.format.prompt(self.prompt, with_tag=True)

    def tokens(self, text: str) -> tuple[list[int], int]:
        """Prompt with one place for the audio, answer and its end; `collate` makes as many places as the clip takes."""
        return self.format.example(self.prompt, text)

    def text(self, tokens: Sequence[int]) -> str:
        """The transcript in an answer."""
        return self.format.text(tokens, self.ends)

    def context_frames(self, seconds: float, context: Context = "fit") -> int:
        """Feature frames of 10 ms for ``seconds``: there is no fixed window."""
        return math.ceil(seconds * FRAMES_PER_SECOND)

    def collate(self, examples: Sequence[Example], n_frames: int) -> dict[str, torch.Tensor]:
        """Features of each clip's own length (whatever ``n_frames``), tokens, and labels where they are predicted."""
        features, mask = self.front_end([one.waveform for one in examples], [one.masks for one in examples])
        places = [self.front_end.tokens(len(one.waveform)) for one in examples]
        answers = answer_batch(examples, self.format.expand, places, self.filler, self.padding_side)
        return {"input_features": features, "input_features_mask": mask, **answers}

    @torch.inference_mode()
    def generate(
        self,
        waveforms: Sequence[np.ndarray],
        n_frames: int,
        max_new_tokens: int,
        beams: int = 1,
        *,
        search: SearchConfig | None = None,
        guides: Sequence[Any] = (),
    ) -> list[Hypothesis]:
        """Greedy decoding, beam search or sampling; see `search_speech_llm`.

        Raises:
            InputError: guides, which change scores token by token and know Whisper's tokens only.
        """
        if guides:
            raise InputError("decoding.boost and fused language models do not work with a Qwen3-ASR model: remove them")
        return search_speech_llm(self, waveforms, max_new_tokens, beams, search or SearchConfig())

    @property
    def filler(self) -> int:
        """The token that stands where there is none."""
        return self.format.end

    def prompt_rows(self, waveforms: Sequence[np.ndarray], search: SearchConfig) -> list[list[int]]:
        """The prompt of each clip, with what a search says beforehand and a place for each position of its audio."""
        words = search.said_before()
        tokens = self.format.prompt(self.prompt.with_more(words) if words else self.prompt, with_tag=True)
        return [self.format.expand(tokens, self.front_end.tokens(len(one))) for one in waveforms]

    def embed(self, tokens: torch.Tensor, waveforms: Sequence[np.ndarray]) -> torch.Tensor:
        """Prompts with the encoded audio in their places, (clips, positions, width)."""
        model: Any = self.model
        return model.embed(tokens, *self.front_end(waveforms, device=str(tokens.device)))

    def adapter_targets(self, roles: Sequence[str]) -> list[str]:
        """Full names of the linear layers that play the given roles, in one stack or both.

        Raises:
            InputError: an unknown role.
        """
        wanted: set[tuple[str, str]] = set()
        for role in roles:
            if role not in self.roles:
                raise InputError(f"Qwen3-ASR has no layers of role {role!r}: use {', '.join(self.roles)}")
            side, _, kind = role.rpartition("_")
            for part in [side] if side else list(_ROLES):
                wanted.update((_INSIDE[part], layer) for layer in _ROLES[part].get(kind, ()))
        return linear_layers(self.model, wanted)

    def parts(self) -> list[Part]:
        """Audio tower (``encoder``), projector, language model (``decoder``), output layer (tied or not)."""
        tower, text = "model.audio_tower", "model.language_model"
        audio, language = self.config.audio_config, self.config.text_config
        tied = bool(self.config.tie_word_embeddings)
        return [
            Part("encoder.front_end", tuple(f"{tower}.{one}" for one in ("conv2d1", "conv2d2", "conv2d3", "conv_out"))),
            Part("encoder.layers", tuple(f"{tower}.layers.{n}" for n in range(audio.encoder_layers)), stack=True),
            Part("encoder.final_norm", (f"{tower}.ln_post",)),
            Part("projector", ("model.multi_modal_projector",)),
            Part("decoder.embeddings", (f"{text}.embed_tokens",)),
            Part("decoder.layers", tuple(f"{text}.layers.{n}" for n in range(language.num_hidden_layers)), stack=True),
            Part("decoder.final_norm", (f"{text}.norm",)),
            Part("head", ("lm_head",), tied_to=f"{text}.embed_tokens.weight" if tied else None),
        ]

    def part(self, name: str) -> torch.nn.Module:
        """``encoder`` (the audio tower), ``projector``, ``decoder`` (the language model) or ``head``.

        Raises:
            InputError: there is no such part.
        """
        model: Any = self.model
        found = {
            "encoder": model.model.audio_tower,
            "projector": model.model.multi_modal_projector,
            "decoder": model.model.language_model,
            "head": model.lm_head,
        }
        if self.aliases.get(name, name) not in found:
            raise InputError(f"Qwen3-ASR has no part {name!r}: use {', '.join(found)}")
        return found[self.aliases.get(name, name)]

    def taps(self) -> Taps:
        """Where logits and the language model's hidden states come out.

        The audio tower's are not shown: it packs the clips of a batch into one row.
        """
        model: Any = self.model
        text = model.model.language_model
        return Taps(logits=model.lm_head, blocks={"decoder": list(text.layers)}, last={"decoder": text.norm})

    def regularise(self, dropout: float | None, label_smoothing: float) -> None:
        """Set the loss's label smoothing and dropout behind the blocks of both stacks (``None``: none, as loaded)."""
        model: Any = self.model
        model.label_smoothing = label_smoothing
        if dropout is not None:
            add_dropout(model, dropout)

    def recorded(self) -> dict[str, Any]:
        """What ``speechtune.json`` keeps of the model beside its weights."""
        attention = getattr(self.config, "_attn_implementation", None)
        return {
            "audio_contexts": list(self.contexts),
            "language": self.language,
            "prompt": self.prompt.to_json(),
            "attention": attention,
        }

    def save(self, directory: Path) -> None:
        """Write weights, configuration, generation settings, tokenizer, feature extractor and chat template."""
        model: Any = self.model
        model.generation_config = GenerationConfig(
            eos_token_id=sorted(self.ends), pad_token_id=self.format.end, do_sample=False
        )
        model.save_pretrained(directory, save_original_format=False)
        self.processor.save_pretrained(directory)
        config = read_json(directory / "config.json")
        config["architectures"] = ["Qwen3ASRForConditionalGeneration"]
        for name in [one for one in config if one.startswith("mask_") or one == "apply_spec_augment"]:
            del config[name]
        write_json(directory / "config.json", config)
        write_json(directory / RECORD, self.recorded())


def _as_list(ids: Any) -> list[int]:
    return [int(one) for one in ids] if isinstance(ids, list | tuple) else [int(ids)]


def _processor(path: Path, config: Any, original: bool) -> Any:
    """The checkpoint's processor; one of the ``qwen-asr`` layout gets Transformers' feature extractor and template."""
    from transformers import AutoTokenizer

    if not original:
        return Qwen3ASRProcessor.from_pretrained(path, local_files_only=True)
    tokenizer: Any = AutoTokenizer.from_pretrained(path, local_files_only=True)
    for name, token in (("audio", "audio_pad"), ("audio_bos", "audio_start"), ("audio_eos", "audio_end")):
        if not hasattr(tokenizer, f"{name}_token"):
            setattr(tokenizer, f"{name}_token", f"<|{token}|>")
    audio = config.audio_config
    extractor = Qwen3ASRFeatureExtractor(feature_size=audio.num_mel_bins, n_window=audio.n_window)
    config.eos_token_id = [one for one in {tokenizer.eos_token_id, tokenizer.pad_token_id} if one is not None]
    config.pad_token_id = tokenizer.pad_token_id
    return Qwen3ASRProcessor(extractor, tokenizer, chat_template=CHAT_TEMPLATE)
