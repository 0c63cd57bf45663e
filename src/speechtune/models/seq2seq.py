"""What encoder-decoder families of Transformers share: labels, loss, search, roles. A family adds its front end.

The encoder is given an ``attention_mask`` and returns one of its own frames, so a clip's result does not depend on
the clips it is batched with (`speechtune.models.whisper` knows no such mask and is not built on this).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch.nn import functional
from transformers.modeling_outputs import Seq2SeqLMOutput

from speechtune.audio.augment import MaskDraw
from speechtune.audio.mel import FRAMES_PER_SECOND
from speechtune.core.errors import InputError
from speechtune.core.files import read_json, write_json
from speechtune.models.byte_pairs import BytePairText
from speechtune.models.config import Context
from speechtune.models.family import Example, Hypothesis, Limits
from speechtune.models.observe import Taps
from speechtune.models.search_config import SearchConfig
from speechtune.models.seq2seq_search import search_seq2seq
from speechtune.models.trainable import Part, linear_layers

IGNORED = -100
"""The label value of what is not learnt."""


class Seq2SeqNetwork:
    """Mixed into a loaded Transformers model by `as_seq2seq_network`: its loss, right under accumulation.

    ``labels`` (batch, tokens) are the targets of ``decoder_input_ids`` position by position, so nothing is shifted
    twice. The loss is the summed cross-entropy over those that are not -100, divided by ``num_items_in_batch`` or,
    where that is not given, by their number. Logits are computed where there is a label only.
    """

    label_smoothing: float

    def forward(
        self,
        *args: Any,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        encoder_outputs: Any = None,
        **kwargs: Any,
    ) -> Any:
        """As the parent without ``labels``; with them, a loss alone."""
        model: Any = self
        if labels is None:
            return super().forward(*args, encoder_outputs=encoder_outputs, **kwargs)  # type: ignore[misc]
        kwargs.pop("return_dict", None)
        hidden = model.model(*args, encoder_outputs=encoder_outputs, use_cache=False, **kwargs).last_hidden_state
        counted = labels != IGNORED
        logits = model.proj_out(hidden[counted]).float()
        smoothing = self.label_smoothing if model.training else 0.0
        total = functional.cross_entropy(logits, labels[counted], reduction="sum", label_smoothing=smoothing)
        return Seq2SeqLMOutput(loss=total / (counted.sum() if num_items_in_batch is None else num_items_in_batch))


def as_seq2seq_network(model: Any) -> Any:
    """Give a loaded model the loss of `Seq2SeqNetwork`; weights, names and the class name it is saved under stay."""
    name = type(model).__name__
    model.__class__ = type(name, (Seq2SeqNetwork, type(model)), {"__module__": type(model).__module__})
    model.label_smoothing = 0.0
    return model


class Seq2SeqFamily(BytePairText):
    """Base of the encoder-decoder families: ``prompt`` stands before every text and ``end`` behind it."""

    name = "seq2seq"
    title: ClassVar[str] = "an encoder-decoder model"
    """Its name in sentences."""

    contexts: tuple[Context, ...] = ("fit",)
    draws_masks_by_share = False
    """The network masks nothing itself, so masks by share are drawn as those by count are."""

    layers: ClassVar[dict[str, dict[str, tuple[str, ...]]]] = {}
    """The endings of the linear layers of each side and role."""

    input_name: ClassVar[str] = "input_values"
    prompt: list[int]
    end: int
    limits: Limits
    mel_bins: int

    def __init__(self, model: Any, extractor: Any, tokenizer: Any, language: str | None) -> None:
        self.model: torch.nn.Module = as_seq2seq_network(model)
        self.extractor = extractor
        self.tokenizer = tokenizer
        self.config = model.config
        self.language = language

    @property
    def ends(self) -> frozenset[int]:
        """The tokens that end a text."""
        return frozenset([self.end])

    def clip_inputs(self, waveform: np.ndarray, masks: MaskDraw | None = None) -> torch.Tensor:
        """What the encoder is given of one clip alone, its time in the first dimension."""
        raise NotImplementedError

    def parts(self) -> list[Part]:
        """Every weight's part."""
        raise NotImplementedError

    def most_tokens(self, samples: int) -> int | None:
        """Text tokens after which a clip of so many samples must end; ``None``: no limit of its own."""
        return None

    def tokens(self, text: str) -> tuple[list[int], int]:
        """Prompt, text and end token; a tokenizer's own begin and end tokens are not asked for."""
        body = self.tokenizer.encode(text.strip(), add_special_tokens=False)
        return [*self.prompt, *body, self.end], len(self.prompt)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special tokens left out."""
        return self.tokenizer.decode([int(one) for one in tokens], skip_special_tokens=True).strip()

    def context_frames(self, seconds: float, context: Context = "fit") -> int:
        """Frames of 10 ms for ``seconds``: there is no fixed window."""
        return math.ceil(seconds * FRAMES_PER_SECOND)

    def inputs(
        self, waveforms: Sequence[np.ndarray], masks: Sequence[MaskDraw | None] | None = None
    ) -> dict[str, torch.Tensor]:
        """The encoder's input, padded on the right, and its ``attention_mask``."""
        drawn = masks or [None] * len(waveforms)
        clips = [self.clip_inputs(*pair) for pair in zip(waveforms, drawn, strict=True)]
        mask = torch.zeros(len(clips), max(len(clip) for clip in clips), dtype=torch.long)
        for row, clip in enumerate(clips):
            mask[row, : len(clip)] = 1
        return {self.input_name: torch.nn.utils.rnn.pad_sequence(clips, batch_first=True), "attention_mask": mask}

    def collate(self, examples: Sequence[Example], n_frames: int) -> dict[str, torch.Tensor]:
        """Inputs of each clip's own length (whatever ``n_frames``), ``decoder_input_ids`` and ``labels``."""
        longest = max(len(example.tokens) for example in examples) - 1
        inputs = torch.full((len(examples), longest), self.end)
        labels = torch.full((len(examples), longest), IGNORED)
        for row, example in enumerate(examples):
            tokens = torch.tensor(example.tokens)
            inputs[row, : len(tokens) - 1] = tokens[:-1]
            labels[row, example.prompt_tokens - 1 : len(tokens) - 1] = tokens[example.prompt_tokens :]
        audio = self.inputs([one.waveform for one in examples], [one.masks for one in examples])
        return {**audio, "decoder_input_ids": inputs, "labels": labels}

    @torch.inference_mode()
    def encode(self, waveforms: Sequence[np.ndarray]) -> Any:
        """The encoder's output for clips: ``last_hidden_state`` and the ``attention_mask`` of its frames."""
        weight = next(self.model.parameters())
        batch = {name: one.to(weight.device) for name, one in self.inputs(waveforms).items()}
        batch[self.input_name] = batch[self.input_name].to(weight.dtype)
        return self.part("encoder")(**batch)

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
        """Greedy decoding, beam search or sampling; see `search_seq2seq`.

        Raises:
            InputError: guides, which know Whisper's tokens only, or a prompt, which this model has no place for.
        """
        if guides:
            raise InputError(f"decoding.boost and fused language models do not work with {self.title}: remove them")
        return search_seq2seq(self, waveforms, max_new_tokens, beams, search or SearchConfig())

    @property
    def roles(self) -> tuple[str, ...]:
        """The roles that `adapter_targets` knows."""
        kinds = dict.fromkeys(kind for side in self.layers.values() for kind in side)
        return (*kinds, *(f"{side}_{kind}" for side, own in self.layers.items() for kind in own))

    def adapter_targets(self, roles: Sequence[str]) -> list[str]:
        """Full names of the linear layers that play the given roles, in encoder, decoder or both.

        Raises:
            InputError: an unknown role.
        """
        wanted: set[tuple[str, str]] = set()
        for role in roles:
            if role not in self.roles:
                raise InputError(f"{self.title} has no layers of role {role!r}: use {', '.join(self.roles)}")
            for side, kinds in self.layers.items():
                kind = role.removeprefix(f"{side}_")
                wanted.update((f".{side}.", layer) for layer in kinds.get(kind, ()))
        return linear_layers(self.model, wanted)

    def part(self, name: str) -> torch.nn.Module:
        """``encoder``, ``decoder`` or ``head``.

        Raises:
            InputError: there is no such part.
        """
        model: Any = self.model
        found = {"encoder": model.model.encoder, "decoder": model.model.decoder, "head": model.proj_out}
        if name not in found:
            raise InputError(f"{self.title} has no part {name!r}: use {', '.join(found)}")
        return found[name]

    def stacked(self, side: str) -> tuple[str, ...]:
        """The names of the layers of a side."""
        stack: Any = self.part(side)
        return tuple(f"model.{side}.layers.{number}" for number in range(len(stack.layers)))

    def taps(self) -> Taps:
        """Where logits and the decoder's hidden states come out."""
        model: Any = self.model
        decoder = model.model.decoder
        return Taps(logits=model.proj_out, blocks={"decoder": list(decoder.layers)}, last={"decoder": decoder.norm})

    def regularise(self, dropout: float | None, label_smoothing: float) -> None:
        """Set the loss's label smoothing, and dropout on what every block adds (``None``: as loaded)."""
        model: Any = self.model
        model.label_smoothing = label_smoothing
        if dropout is not None:
            drop_residuals(self.branches(), dropout)

    def branches(self) -> list[torch.nn.Module]:
        """The attention and feed-forward modules whose outputs are added to the residual stream."""
        names = ("self_attn", "encoder_attn", "mlp", "feed_forward1", "conv", "feed_forward2")
        layers: list[Any] = [layer for side in ("encoder", "decoder") for layer in self.part(side).layers]  # type: ignore[union-attr]
        return [getattr(layer, name) for layer in layers for name in names if hasattr(layer, name)]

    def save(self, directory: Path) -> None:
        """Write weights, configuration, tokenizer and feature extractor as Transformers does."""
        model: Any = self.model
        model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        self.extractor.save_pretrained(directory)
        forget_masks(directory)


def forget_masks(directory: Path) -> None:
    """Take out of ``config.json`` what a training with SpecAugment left there: the network does not read it."""
    config = read_json(directory / "config.json")
    kept = {name: one for name, one in config.items() if not name.startswith(("mask_", "apply_spec_augment"))}
    write_json(directory / "config.json", kept)


def drop_residuals(branches: Sequence[torch.nn.Module], share: float) -> None:
    """Dropout on the outputs of modules that have none; it stays when adapters are put into them later."""

    def drop(module: Any, inputs: Any, output: Any) -> Any:
        if isinstance(output, tuple):
            return (module.residual_dropout(output[0]), *output[1:])
        return module.residual_dropout(output)

    for branch in branches:
        module: Any = branch
        if not hasattr(module, "residual_dropout"):
            module.residual_dropout = torch.nn.Dropout(0.0)
            module.register_forward_hook(drop)
        module.residual_dropout.p = share


def load_parts(path: Path, kind: str, model_class: Any, **options: Any) -> tuple[Any, Any, Any]:
    """Model (float32), feature extractor and tokenizer of a Transformers directory; nothing is missing.

    Args:
        path: the directory.
        kind: what the model is called in messages, such as ``Moonshine``.
        model_class: the class of Transformers that has the loss.
        options: more for ``from_pretrained``.

    Raises:
        InputError: the directory is incomplete, or is not such a model.
    """
    from transformers import AutoFeatureExtractor, AutoTokenizer

    try:
        model, report = model_class.from_pretrained(
            path, dtype=torch.float32, local_files_only=True, output_loading_info=True, **options
        )
        extractor = AutoFeatureExtractor.from_pretrained(path, local_files_only=True)
        tokenizer = AutoTokenizer.from_pretrained(path, local_files_only=True)
    except (OSError, ValueError, RuntimeError, ImportError) as error:
        reason = str(error).strip().splitlines()[0]
        raise InputError(f"{path} does not load as a {kind} model ({reason})") from error
    absent = sorted([*report["missing_keys"], *report["mismatched_keys"]], key=str)
    if absent:
        raise InputError(f"{path} lacks {len(absent)} tensors of a {kind} model ({absent[0]}, …): obtain it again")
    if len(tokenizer) > int(model.config.vocab_size):
        raise InputError(f"{path}: the tokenizer has more tokens than the output layer: it belongs to another model")
    return model, extractor, tokenizer
