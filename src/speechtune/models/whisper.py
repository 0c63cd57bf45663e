"""OpenAI Whisper (and models of its shape, such as Distil-Whisper) behind the `Family` protocol."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.nn import functional
from transformers import (
    GenerationMixin,
    LogitsProcessor,
    LogitsProcessorList,
    WhisperForConditionalGeneration,
    WhisperTokenizer,
)
from transformers.modeling_outputs import BaseModelOutput, Seq2SeqLMOutput
from transformers.models.whisper.modeling_whisper import WhisperEncoder

from speechtune.audio.augment import apply_masks
from speechtune.audio.mel import FRAMES_PER_SECOND, SAMPLE_RATE_HZ, LogMel
from speechtune.core.errors import InputError
from speechtune.models.byte_pairs import BytePairText
from speechtune.models.capabilities import Capabilities
from speechtune.models.config import Context
from speechtune.models.family import Example, Hypothesis, Limits
from speechtune.models.generation import LogProbs
from speechtune.models.observe import Taps
from speechtune.models.search_config import SearchConfig
from speechtune.models.trainable import Part, linear_layers
from speechtune.models.whisper_format import IGNORED, WhisperFormat
from speechtune.models.whisper_search import ControlIds, Guide, search_whisper

NO_SPACE_LANGUAGES = frozenset({"zh", "ja", "th", "lo", "my", "yue"})
"""Languages written without spaces: Whisper's text starts without one (openai/whisper ``tokenizer.py``)."""

_ATTENTION = ("q_proj", "k_proj", "v_proj", "out_proj")
_ROLES = {
    "attention": tuple(f"{block}.{layer}" for block in ("self_attn", "encoder_attn") for layer in _ATTENTION),
    "self_attention": tuple(f"self_attn.{layer}" for layer in _ATTENTION),
    "cross_attention": tuple(f"encoder_attn.{layer}" for layer in _ATTENTION),
    "mlp": ("fc1", "fc2"),
}


class FitContextEncoder(WhisperEncoder):
    """The encoder without the demand for 3000 frames: a shorter input uses the first positions only.

    For 3000 frames it computes what `WhisperEncoder` does. The idea is icefall's and ESPnet's
    (neither pads Whisper to 30 s); Transformers raises for any other length.
    """

    def forward(self, input_features: torch.Tensor, **kwargs: Any) -> BaseModelOutput:
        """Encode ``input_features`` of shape (batch, n_mels, n_frames) to (batch, n_frames / 2, d_model)."""
        hidden = functional.gelu(self.conv1(input_features.to(self.conv1.weight.dtype)))
        hidden = functional.gelu(self.conv2(hidden)).permute(0, 2, 1)
        hidden = hidden + self.embed_positions.weight[: hidden.shape[1]]
        hidden = functional.dropout(hidden, p=self.dropout, training=self.training)
        for layer in self.layers:
            if self.training and self.layerdrop > 0 and torch.rand([]) < self.layerdrop:
                continue
            hidden = layer(hidden, None)
        return BaseModelOutput(last_hidden_state=self.layer_norm(hidden))


class FitContextWhisper(WhisperForConditionalGeneration):
    """Whisper at any audio context, with a loss that stays right under gradient accumulation.

    Transformers 5.23's own forward takes ``num_items_in_batch`` and ignores it, so its Trainer
    multiplies the loss by the accumulation steps. Here the loss is the summed cross-entropy over the
    labels that count, divided by ``num_items_in_batch`` when it is given and by their number when it
    is not. Logits are computed only where there is a label.
    """

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.model.encoder.__class__ = FitContextEncoder
        self.label_smoothing = 0.0

    def forward(
        self,
        *args: Any,
        labels: torch.Tensor | None = None,
        num_items_in_batch: torch.Tensor | int | None = None,
        encoder_outputs: Any = None,
        **kwargs: Any,
    ) -> Seq2SeqLMOutput:
        """As the parent; ``labels`` (batch, tokens) are the targets of ``decoder_input_ids`` position by position."""
        if labels is None:
            return super().forward(*args, encoder_outputs=encoder_outputs, **kwargs)
        hidden = self.model(*args, encoder_outputs=encoder_outputs, use_cache=False, **kwargs).last_hidden_state
        counted = labels != IGNORED
        logits = self.proj_out(hidden[counted])
        smoothing = self.label_smoothing if self.training else 0.0
        total = functional.cross_entropy(logits.float(), labels[counted], reduction="sum", label_smoothing=smoothing)
        return Seq2SeqLMOutput(loss=total / (counted.sum() if num_items_in_batch is None else num_items_in_batch))


class WhisperFamily(BytePairText):
    """A loaded Whisper model."""

    name = "whisper"
    capabilities = Capabilities(
        title="Whisper",
        loss="cross-entropy a token",
        frames_per_second=50.0,
        word_times="cross-attention",
        time_tokens=True,
        search=True,
        n_best=True,
        lm_fusion=True,
        no_speech=True,
        label_likelihood=True,
        grpo=True,
        shrinks=True,
        exports=("adapter", "ctranslate2", "ggml", "onnx", "openai", "transformers"),
    )
    contexts: tuple[Context, ...] = ("fit", "full")

    def __init__(self, model: FitContextWhisper, tokenizer: WhisperTokenizer, language: str | None) -> None:
        self.model: torch.nn.Module = model
        self.tokenizer = tokenizer
        self.language = language
        self.config = model.config
        self.generation_config = model.generation_config
        self.mel_bins = int(self.config.num_mel_bins)
        self.front_end = LogMel(self.mel_bins)
        self.window_frames = 2 * int(self.config.max_source_positions)
        self.limits = Limits(self.window_frames / FRAMES_PER_SECOND, int(self.config.max_target_positions))
        self.prompt = self.prompt_for([language] if language else [])
        self.eot: int = int(self.config.eos_token_id)
        if not getattr(self.generation_config, "is_multilingual", False):
            self.language = "en"
        self._leading_space = "" if language in NO_SPACE_LANGUAGES else " "

    @classmethod
    def load(cls, path: Path, *, language: str | None = None, device: str = "cpu") -> WhisperFamily:
        """Load a Transformers Whisper directory in float32.

        Raises:
            InputError: the directory is incomplete, or the language is not one the model has.
        """
        try:
            model = FitContextWhisper.from_pretrained(path, dtype=torch.float32, local_files_only=True)
            tokenizer = WhisperTokenizer.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            raise InputError(f"{path} does not load as a Whisper model ({str(error).splitlines()[0]})") from error
        # The sinusoidal positions are constants of the architecture; Transformers 5.23 loads them as trainable.
        model.get_encoder().embed_positions.requires_grad_(False)
        return cls(model.to(device), tokenizer, language)

    def prompt_for(self, languages: Sequence[str], task: str = "transcribe") -> list[int]:
        """Start of the transcript, languages in order (several for speech that changes between them), task, no times.

        Raises:
            InputError: the model has no such language or task, or is multilingual and none is given.
        """
        ids = self.tokenizer.convert_tokens_to_ids
        multilingual = getattr(self.generation_config, "is_multilingual", False)
        known = ControlIds(
            start=int(self.config.decoder_start_token_id),
            no_timestamps=int(ids("<|notimestamps|>")),
            languages=self.generation_config.lang_to_id if multilingual else {},
            task=lambda name: int(ids(f"<|{name}|>")),
            other_model="set model.base to a multilingual model such as whisper-base",
            say_language="set model.language or --language",
        )
        return known.prompt(languages, task)

    def tokens(self, text: str) -> tuple[list[int], int]:
        """Prompt, text (with the leading space that Whisper's own transcripts have) and end-of-text."""
        body = self.tokenizer.encode(self._leading_space + text.strip(), add_special_tokens=False)
        return [*self.prompt, *body, self.eot], len(self.prompt)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special and timestamp tokens left out."""
        spoken = [int(token) for token in tokens if token < self._first_timestamp]
        return self.tokenizer.decode(spoken, skip_special_tokens=True).strip()

    def label_format(self) -> WhisperFormat:
        """What writes labels with timestamps, previous text and so on for this model."""
        return WhisperFormat(
            self.tokenizer,
            lambda language, task: self.prompt_for([one for one in [language or self.language] if one], task),
            lambda language: "" if (language or self.language) in NO_SPACE_LANGUAGES else " ",
            max_tokens=self.limits.max_label_tokens,
            window_s=self.limits.max_audio_s,
            vocabulary=int(self.config.vocab_size),
        )

    def allow_empty(self) -> None:
        """Let decoding end at once: without this, the first token of a transcript may not be its end."""
        first = self.generation_config.begin_suppress_tokens
        if first is not None:
            self.generation_config.begin_suppress_tokens = [token for token in first if token != self.eot] or None

    def context_frames(self, seconds: float, context: Context = "fit") -> int:
        """Mel frames for ``seconds`` of audio: even (the encoder halves them), 2 at least, the window at most."""
        if context == "full":
            return self.window_frames
        return min(self.window_frames, max(2, 2 * math.ceil(seconds * FRAMES_PER_SECOND / 2)))

    def collate(self, examples: Sequence[Example], n_frames: int) -> dict[str, torch.Tensor]:
        """``input_features``, ``decoder_input_ids`` and ``labels`` of a batch.

        The tokens are fed without their last and predicted without their first, so no start token is
        doubled; labels that predict the prompt, and padding, are -100.
        """
        longest = max(len(example.tokens) for example in examples) - 1
        inputs = torch.full((len(examples), longest), self.eot)
        labels = torch.full((len(examples), longest), IGNORED)
        for row, example in enumerate(examples):
            tokens = torch.tensor(example.tokens)
            inputs[row, : len(tokens) - 1] = tokens[:-1] if example.inputs is None else torch.tensor(example.inputs)
            labels[row, example.prompt_tokens - 1 : len(tokens) - 1] = tokens[example.prompt_tokens :]
            if example.targets is not None:
                labels[row, : len(tokens) - 1] = torch.tensor(example.targets)
        features = self.front_end([example.waveform for example in examples], n_frames)
        for row, example in enumerate(examples):
            if example.masks is not None:
                features[row] = apply_masks(features[row], example.masks)
        return {"input_features": features, "decoder_input_ids": inputs, "labels": labels}

    @torch.inference_mode()
    def generate(
        self,
        waveforms: Sequence[np.ndarray],
        n_frames: int,
        max_new_tokens: int,
        beams: int = 1,
        *,
        search: SearchConfig | None = None,
        guides: Sequence[Guide] = (),
    ) -> list[Hypothesis]:
        """Greedy decoding or beam search with Whisper's suppressed tokens, without timestamps.

        Transformers' Whisper ``generate`` pads every clip to 30 s; the plain seq2seq one does not. ``search`` and
        ``guides``: see `search_whisper`.
        """
        if guides or not (search is None or search.is_plain()):
            return search_whisper(self, waveforms, n_frames, max_new_tokens, beams, search or SearchConfig(), guides)
        device = next(self.model.parameters()).device
        features = self.front_end(waveforms, n_frames, device=str(device))
        prompt = torch.tensor([self.prompt] * len(waveforms), device=device)
        limit = min(max_new_tokens, self.limits.max_label_tokens - len(self.prompt))
        recorder = LogProbs()
        processors: list[LogitsProcessor] = [_NoTimestamps(self._first_timestamp)]
        encoded = self.part("encoder")(features)
        hidden = encoded.last_hidden_state  # generate repeats it, in place, for every beam
        found: Any = GenerationMixin.generate(
            self.model,
            encoder_outputs=encoded,
            decoder_input_ids=prompt,
            generation_config=self._search(limit, beams),
            logits_processor=LogitsProcessorList([*processors, recorder] if beams == 1 else processors),
        )
        rows = found[:, len(self.prompt) :].tolist()
        encoded = BaseModelOutput(last_hidden_state=hidden)
        log_probs = recorder.by_row() if beams == 1 else self._log_probs(encoded, found)
        return [self._hypothesis(row, own, limit) for row, own in zip(rows, log_probs, strict=True)]

    def _log_probs(self, encoded: Any, tokens: torch.Tensor) -> list[list[float]]:
        """Log-probability of every token after the prompt, among the tokens that decoding allows."""
        model: Any = self.model
        logits = model(encoder_outputs=encoded, decoder_input_ids=tokens[:, :-1]).logits.float()
        logits = logits[:, len(self.prompt) - 1 :]
        logits[..., self._first_timestamp :] = -torch.inf
        logits[..., self.generation_config.suppress_tokens or []] = -torch.inf
        logits[:, 0, self.generation_config.begin_suppress_tokens or []] = -torch.inf
        chosen = tokens[:, len(self.prompt) :, None]
        return logits.log_softmax(-1).gather(-1, chosen).squeeze(-1).tolist()

    def _search(self, limit: int, beams: int) -> Any:
        from transformers import GenerationConfig

        return GenerationConfig(
            max_new_tokens=limit,
            num_beams=beams,
            do_sample=False,
            eos_token_id=self.eot,
            pad_token_id=self.eot,
            decoder_start_token_id=self.config.decoder_start_token_id,
            suppress_tokens=self.generation_config.suppress_tokens or None,
            begin_suppress_tokens=self.generation_config.begin_suppress_tokens or None,
        )

    def no_timestamps(self) -> LogitsProcessor:
        """What forbids timestamp tokens."""
        return _NoTimestamps(self._first_timestamp)

    @property
    def first_timestamp(self) -> int:
        """The id of the first timestamp token; ``<|nospeech|>`` is two before it."""
        return self._first_timestamp

    @property
    def _first_timestamp(self) -> int:
        return int(self.tokenizer.convert_tokens_to_ids("<|notimestamps|>")) + 1

    def _hypothesis(self, row: list[int], log_probs: list[float], limit: int) -> Hypothesis:
        ended = self.eot in row
        length = row.index(self.eot) if ended else len(row)
        counted = log_probs[: length + ended]
        return Hypothesis(
            text=self.text(row[:length]),
            tokens=row[:length],
            log_prob=sum(counted) / max(len(counted), 1),
            truncated=not ended and length >= limit,
            token_log_probs=counted[:length],
        )

    roles = (*_ROLES, *(f"{side}_{kind}" for side in ("encoder", "decoder") for kind in _ROLES))

    def adapter_targets(self, roles: Sequence[str]) -> list[str]:
        """Full names of the linear layers that play the given roles, in encoder, decoder or both."""
        suffixes: set[tuple[str, str]] = set()
        for role in roles:
            if role not in self.roles:
                raise InputError(f"Whisper has no layers of role {role!r}: use {', '.join(self.roles)}")
            side = role.split("_")[0] if role.startswith(("encoder_", "decoder_")) else ""
            kind = role.removeprefix(f"{side}_") if side else role
            for part in [side] if side else ["encoder", "decoder"]:
                suffixes.update((f".{part}.", layer) for layer in _ROLES[kind])
        return linear_layers(self.model, suffixes)

    def parts(self) -> list[Part]:
        """Front end, layers and final norm of both stacks, the embeddings, and the output layer (tied or not)."""
        tied = bool(self.config.tie_word_embeddings)

        def layers(side: str) -> tuple[str, ...]:
            stack: Any = self.part(side)
            return tuple(f"model.{side}.layers.{number}" for number in range(len(stack.layers)))

        return [
            Part("encoder.front_end", ("model.encoder.conv1", "model.encoder.conv2")),
            Part("encoder.positions", ("model.encoder.embed_positions",)),
            Part("encoder.layers", layers("encoder"), stack=True),
            Part("encoder.final_norm", ("model.encoder.layer_norm",)),
            Part("decoder.embeddings", ("model.decoder.embed_tokens", "model.decoder.embed_positions")),
            Part("decoder.layers", layers("decoder"), stack=True),
            Part("decoder.final_norm", ("model.decoder.layer_norm",)),
            Part("head", ("proj_out",), tied_to="model.decoder.embed_tokens.weight" if tied else None),
        ]

    def part(self, name: str) -> torch.nn.Module:
        """``encoder`` or ``decoder``."""
        return getattr(self.model.get_submodule("model"), name)

    def taps(self) -> Taps:
        """Where logits and hidden states come out (`speechtune.models.observe`)."""
        model: Any = self.model
        stacks = {"encoder": model.model.encoder, "decoder": model.model.decoder}
        return Taps(
            logits=model.proj_out,
            blocks={part: list(stack.layers) for part, stack in stacks.items()},
            last={part: stack.layer_norm for part, stack in stacks.items()},
            front_end=stacks["encoder"].conv2,
            widen=_widen,
        )

    def regularise(self, dropout: float | None, label_smoothing: float) -> None:
        """Set the dropout of both stacks' residual branches and embeddings, and the loss's label smoothing."""
        model: Any = self.model
        model.label_smoothing = label_smoothing
        if dropout is not None:
            for side in (self.part("encoder"), self.part("decoder")):
                stack: Any = side
                for block in (stack, *stack.layers):
                    block.dropout = dropout

    def save(self, directory: Path) -> None:
        """Write weights, configuration, tokenizer and feature extractor as Transformers does."""
        from transformers import WhisperFeatureExtractor, WhisperProcessor

        model: Any = self.model
        model.save_pretrained(directory)
        extractor = WhisperFeatureExtractor(feature_size=self.config.num_mel_bins, sampling_rate=SAMPLE_RATE_HZ)
        WhisperProcessor(extractor, self.tokenizer).save_pretrained(directory)
        extractor.save_pretrained(directory)
        _name_the_parent_class(directory)


def _widen(batch: Mapping[str, torch.Tensor], n_frames: int) -> dict[str, torch.Tensor]:
    """The same clips at a longer audio context: the log-mel of silence, 8 below each clip's maximum, is put behind.

    It equals features computed at that context where the clip's maximum is in sight (`speechtune.audio.mel`).
    """
    features = batch["input_features"]
    longer = n_frames - features.shape[-1]
    if longer <= 0:
        return dict(batch)
    silence = (features.amax(dim=(1, 2), keepdim=True) - 2.0).clamp(min=-1.5)  # in Whisper's scale, (x + 4) / 4
    padding = silence.expand(-1, features.shape[1], longer)
    return {**batch, "input_features": torch.cat([features, padding], -1)}


class _NoTimestamps(LogitsProcessor):
    """Forbids timestamp tokens: the prompt asked for none."""

    def __init__(self, first: int) -> None:
        self.first = first

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Scores with every timestamp at minus infinity."""
        scores[:, self.first :] = -torch.inf
        return scores


def _name_the_parent_class(directory: Path) -> None:
    """Make ``config.json`` name the class that exists without speechtune."""
    import json

    path = directory / "config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    config["architectures"] = ["WhisperForConditionalGeneration"]
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
