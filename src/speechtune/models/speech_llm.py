"""What language models with an audio tower in Transformers share: labels, loss, parts, roles, saving.

A family adds its front end, its prompt and the names of its layers (`speechtune.models.granite_speech`). The prompt is
tokens with one place for the audio, which `SpeechLlmFamily.expand` makes as many as the clip takes; the transcript and
the end behind it are learnt and nothing else. Qwen3-ASR, whose answer also holds a language's tag, has its own files.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from transformers import GenerationConfig
from transformers.modeling_outputs import CausalLMOutputWithPast

from speechtune.audio.augment import MaskDraw
from speechtune.audio.mel import FRAMES_PER_SECOND
from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json
from speechtune.models.byte_pairs import BytePairText
from speechtune.models.config import Context
from speechtune.models.family import Example, Hypothesis, Limits
from speechtune.models.observe import Taps
from speechtune.models.search_config import SearchConfig
from speechtune.models.seq2seq import drop_residuals, forget_masks
from speechtune.models.speech_llm_search import answer_batch, answer_loss, search_speech_llm
from speechtune.models.trainable import linear_layers

MAX_LABEL_TOKENS = 1024
RECORD = "speechtune.json"


class SpeechLlmNetwork:
    """Mixed into a loaded Transformers model by `as_speech_llm_network`: its loss, right under accumulation.

    ``labels`` (batch, positions) stand at the position that predicts them. The loss is the summed cross-entropy over
    those that are not -100, divided by ``num_items_in_batch`` or, where that is not given, by their number; logits are
    computed at those positions only.
    """

    label_smoothing: float
    audio_names: tuple[str, ...]
    """The arguments that `embed` takes beside the tokens."""

    def embed(self, input_ids: torch.Tensor, **audio: torch.Tensor) -> torch.Tensor:
        """The language model's input for prompts with audio, (batch, positions, width)."""
        raise NotImplementedError

    def scaled(self, logits: torch.Tensor) -> torch.Tensor:
        """Logits as the language model was trained with them."""
        return logits

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        **kwargs: Any,
    ) -> Any:
        """As the parent without ``labels``; with them, a loss alone."""
        model: Any = self
        audio = {name: kwargs.pop(name) for name in self.audio_names if kwargs.get(name) is not None}
        if audio and input_ids is not None:
            inputs_embeds, input_ids = self.embed(input_ids, **audio), None
        given = {"attention_mask": attention_mask, "position_ids": position_ids, "inputs_embeds": inputs_embeds}
        if labels is None:
            out = super().forward(input_ids=input_ids, **given, **kwargs)  # type: ignore[misc]
            out.logits = self.scaled(out.logits)
            return out
        kwargs.pop("return_dict", None)
        hidden = model.model.language_model(**given, use_cache=False).last_hidden_state
        smoothing = self.label_smoothing if model.training else 0.0
        loss = answer_loss(hidden, labels, lambda one: self.scaled(model.lm_head(one)), smoothing, num_items_in_batch)
        return CausalLMOutputWithPast(loss=loss)


def as_speech_llm_network(model: Any, mixin: type[SpeechLlmNetwork]) -> Any:
    """Give a loaded model a loss; weights, names and the class name it is saved under stay."""
    kind = type(model)
    model.__class__ = type(kind.__name__, (mixin, kind), {"__module__": kind.__module__})
    model.label_smoothing = 0.0
    return model


class SpeechLlmFamily(BytePairText):
    """Base of the families whose decoder is a language model that reads the audio as positions of its own."""

    name = "speech_llm"
    title: ClassVar[str] = "a speech language model"
    """Its name in sentences."""

    contexts: tuple[Context, ...] = ("fit",)
    draws_masks_by_share = False
    """The network masks nothing itself, so masks by share are drawn as those by count are."""

    padding_side = "right"
    """Of training batches; the loss is the same on either side."""

    inside: ClassVar[dict[str, str]] = {}
    """What the full names of a side's layers hold."""

    layers: ClassVar[dict[str, dict[str, tuple[str, ...]]]] = {}
    """The endings of the linear layers of each side and role."""

    branch_names: ClassVar[tuple[str, ...]] = ("self_attn", "mlp")
    """The modules of a layer whose outputs are added to the residual stream."""

    mel_bins: int
    limits: Limits
    end: int
    prompt: list[int]
    """The tokens before every transcript, with one place for the audio."""

    def __init__(self, model: Any, tokenizer: Any, language: str | None) -> None:
        self.model: torch.nn.Module = model
        self.tokenizer = tokenizer
        self.config = model.config
        self.language = language
        self.audio_token = int(self.config.audio_token_id)

    def places(self, samples: int) -> int:
        """Positions of the language model that a clip of so many samples takes."""
        raise NotImplementedError

    def audio_inputs(
        self, waveforms: Sequence[np.ndarray], masks: Sequence[MaskDraw | None] = (), device: str = "cpu"
    ) -> dict[str, torch.Tensor]:
        """What `SpeechLlmNetwork.embed` takes of a batch, beside the tokens."""
        raise NotImplementedError

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end an answer."""
        return frozenset([self.end])

    @property
    def filler(self) -> int:
        """The token that stands where there is none."""
        return self.end

    def set_prompt(self, tokens: Sequence[int]) -> None:
        """Take over the tokens before every transcript.

        Raises:
            InputError: they leave not exactly one place for the audio.
        """
        found = [int(one) for one in tokens]
        places = found.count(self.audio_token)
        if places != 1:
            raise InputError(f"the prompt of {self.title} leaves {places} places for the audio and not one")
        self.prompt = found

    def expand(self, tokens: Sequence[int], places: int) -> list[int]:
        """The tokens with as many places for the audio as the clip takes."""
        place = list(tokens).index(self.audio_token)
        return [*tokens[:place], *[self.audio_token] * places, *tokens[place + 1 :]]

    def tokens(self, text: str) -> tuple[list[int], int]:
        """Prompt with one place for the audio, transcript and end; `collate` makes as many places as the clip takes."""
        body = self.tokenizer.encode(text.strip(), add_special_tokens=False)
        return [*self.prompt, *body, self.end], len(self.prompt)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return str(self.tokenizer.decode([int(one) for one in tokens], skip_special_tokens=True)).strip()

    def context_frames(self, seconds: float, context: Context = "fit") -> int:
        """Frames of 10 ms for ``seconds``: there is no fixed window."""
        return math.ceil(seconds * FRAMES_PER_SECOND)

    def collate(self, examples: Sequence[Example], n_frames: int) -> dict[str, torch.Tensor]:
        """Features of each clip's own length (whatever ``n_frames``), tokens, and labels where they are predicted."""
        audio = self.audio_inputs([one.waveform for one in examples], [one.masks for one in examples])
        places = [self.places(len(one.waveform)) for one in examples]
        return audio | answer_batch(examples, self.expand, places, self.filler, self.padding_side)

    def prompt_rows(self, waveforms: Sequence[np.ndarray], search: SearchConfig) -> list[list[int]]:
        """The prompt of each clip, with a place for each position of its audio.

        Raises:
            InputError: the search says something beforehand.
        """
        if search.said_before():
            raise InputError(
                f"decoding.search.prompt and hotwords do not work with {self.title}, whose prompt is fixed: remove them"
            )
        return [self.expand(self.prompt, self.places(len(one))) for one in waveforms]

    def embed(self, tokens: torch.Tensor, waveforms: Sequence[np.ndarray]) -> torch.Tensor:
        """Prompts with the encoded audio in their places, (clips, positions, width)."""
        model: Any = self.model
        audio = self.audio_inputs(waveforms, device=str(tokens.device))
        return model.embed(tokens, **{name: one.to(tokens.device) for name, one in audio.items()})

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
            InputError: guides, which know Whisper's tokens only, or a prompt.
        """
        if guides:
            raise InputError(f"decoding.boost and fused language models do not work with {self.title}: remove them")
        return search_speech_llm(self, waveforms, max_new_tokens, beams, search or SearchConfig())

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that `adapter_targets` knows."""
        kinds = dict.fromkeys(kind for side in self.layers.values() for kind in side)
        return (*kinds, *(f"{side}_{kind}" for side, own in self.layers.items() for kind in own if kind != side))

    def adapter_targets(self, roles: Sequence[str]) -> list[str]:
        """Full names of the linear layers that play the given roles, in one part or all.

        Raises:
            InputError: an unknown role.
        """
        wanted: set[tuple[str, str]] = set()
        for role in roles:
            if role not in self.roles:
                raise InputError(f"{self.title} has no layers of role {role!r}: use {', '.join(self.roles)}")
            for side, kinds in self.layers.items():
                wanted.update((self.inside[side], layer) for layer in kinds.get(role.removeprefix(f"{side}_"), ()))
        return linear_layers(self.model, wanted)

    def modules(self) -> dict[str, torch.nn.Module]:
        """The module of each side, by the names of `part`."""
        raise NotImplementedError

    def part(self, name: str) -> torch.nn.Module:
        """``encoder``, ``projector``, ``decoder`` (the language model) or ``head``.

        Raises:
            InputError: there is no such part.
        """
        found = self.modules()
        if name not in found:
            raise InputError(f"{self.title} has no part {name!r}: use {', '.join(found)}")
        return found[name]

    def taps(self) -> Taps:
        """Where logits and the language model's hidden states come out."""
        text: Any = self.part("decoder")
        return Taps(logits=self.part("head"), blocks={"decoder": list(text.layers)}, last={"decoder": text.norm})

    def regularise(self, dropout: float | None, label_smoothing: float) -> None:
        """Set the loss's label smoothing, and dropout on what every block adds (``None``: as loaded)."""
        model: Any = self.model
        model.label_smoothing = label_smoothing
        if dropout is not None:
            layers: list[Any] = [layer for side in ("encoder", "decoder") for layer in self.part(side).layers]  # type: ignore[union-attr]
            drop_residuals(
                [getattr(layer, name) for layer in layers for name in self.branch_names if hasattr(layer, name)],
                dropout,
            )

    def recall(self, directory: Path) -> None:
        """Take over the prompt that a model or adapter directory records."""
        file = directory / RECORD
        stored: Any = read_json(file).get("prompt") if file.is_file() else None
        if stored:
            self.set_prompt(stored["tokens"])

    def recorded(self) -> dict[str, Any]:
        """What ``speechtune.json`` keeps of the model beside its weights."""
        attention = getattr(self.config, "_attn_implementation", None)
        return {
            "audio_contexts": list(self.contexts),
            "language": self.language,
            "prompt": {"text": str(self.tokenizer.decode(self.prompt)), "tokens": self.prompt},
            "attention": attention,
        }

    def save(self, directory: Path) -> None:
        """Write weights, configuration, generation settings, tokenizer and the record."""
        model: Any = self.model
        model.generation_config = GenerationConfig(eos_token_id=self.end, pad_token_id=self.filler, do_sample=False)
        model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        forget_masks(directory)
        write_json(directory / RECORD, self.recorded())
