"""Parakeet's transducers (TDT; Xu et al. 2023, arXiv 2304.06795) behind the `Family` protocol.

TDT models are fine-tuned and transcribe; RNN-T ones transcribe only, since their loss in Transformers 5.23 is
torchaudio's. What differs from Transformers:

- Its loss is the mean over the clips of each clip's loss by its tokens, whatever the trainer's ``num_items_in_batch``,
  and takes labels that equal the padding token for padding. Here it is summed and divided as for every family.
- The joint network's output (frames x tokens x vocabulary of every clip) is made for as many clips at a time as fit a
  bound, and again in the backward pass where that is not all, so that memory does not grow with the batch.
- Its ``generate`` takes the scores of durations for those of tokens unless the checkpoint's settings forbid them; here
  they are left out of the choice, and what is saved says so.
- Batch normalisation keeps the checkpoint's statistics (`speechtune.models.ctc_network.FixedBatchNorm`).
- Equal neighbours among the tokens are two letters: the tokenizer's decoding, made for CTC, would merge them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from speechtune.audio.augment import MaskDraw, apply_masks
from speechtune.audio.mel import FRAMES_PER_SECOND, SAMPLE_RATE_HZ
from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.models.capabilities import Capabilities
from speechtune.models.config import Context
from speechtune.models.ctc_config import CtcConfig
from speechtune.models.ctc_vocabulary import CtcVocabulary
from speechtune.models.family import Example, Hypothesis, Limits
from speechtune.models.parakeet_network import as_transducer_network
from speechtune.models.seq2seq import IGNORED, drop_residuals, forget_masks, load_parts
from speechtune.models.trainable import Part

MAX_AUDIO_S = 60.0
"""No limit of the architecture; attention grows with the square of the length (as for Parakeet-CTC)."""

MAX_LABEL_TOKENS = 1024
_SHORTEST_SAMPLES = 3200

_ROLES = {
    "attention": ("q_proj", "k_proj", "v_proj", "o_proj"),
    "mlp": ("linear1", "linear2"),
    "projector": ("encoder_projector", "decoder_projector"),
    "joint": ("joint.head",),
}


def log_mel(extractor: Any, waveform: np.ndarray, masks: MaskDraw | None = None) -> torch.Tensor:
    """Log-mel features of one clip alone, (frames, bins), normalised over the clip, masked afterwards.

    Clips are filled with silence to 0.2 s: the normalisation needs several frames for a variance.
    """
    if len(waveform) < _SHORTEST_SAMPLES:
        waveform = np.pad(waveform, (0, _SHORTEST_SAMPLES - len(waveform)))
    found = extractor(waveform.astype(np.float32), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
    features = found["input_features"][0][: int(found["attention_mask"][0].sum())].to(torch.float32)
    return features if masks is None else apply_masks(features.T, masks).T


class ParakeetFamily:
    """A loaded Parakeet transducer."""

    name = "parakeet"
    capabilities = Capabilities(
        title="Parakeet TDT (RNN-T: transcribing only)",
        loss="transducer with durations, all paths",
        frames_per_second=12.5,
        distillation=False,
    )
    contexts: tuple[Context, ...] = ("fit",)
    draws_masks_by_share = False
    roles = (*_ROLES, "encoder_attention", "encoder_mlp")

    def __init__(self, model: Any, extractor: Any, tokenizer: Any, language: str | None) -> None:
        self.model: torch.nn.Module = as_transducer_network(model)
        self.extractor = extractor
        self.tokenizer = tokenizer
        self.config = model.config
        self.language = language
        self.blank = int(self.config.blank_token_id)
        self.mel_bins = int(extractor.feature_size)
        self.limits = Limits(MAX_AUDIO_S, MAX_LABEL_TOKENS)
        self.labels = CtcVocabulary(tokenizer)
        self._drop_layers(0.0)  # a layer left out in one process of several has no gradient there

    @classmethod
    def load(cls, path: Path, *, language: str | None = None, device: str = "cpu") -> ParakeetFamily:
        """Load a Transformers directory in float32.

        Raises:
            InputError: the directory is incomplete, or is no such model.
        """
        from transformers import AutoConfig, ParakeetForRNNT, ParakeetForTDT

        kind = AutoConfig.from_pretrained(path, local_files_only=True).model_type
        classes = {"parakeet_tdt": ParakeetForTDT, "parakeet_rnnt": ParakeetForRNNT}
        model, extractor, tokenizer = load_parts(path, "Parakeet", classes.get(kind, ParakeetForTDT))
        return cls(model.to(device).eval(), extractor, tokenizer, language)

    def prepare(self, settings: CtcConfig, texts: Sequence[str], seed: int) -> None:
        """Make labels as ``model.ctc`` says of case, punctuation and unknown characters; set LayerDrop.

        Raises:
            InputError: it is an RNN-T model, a new head is asked for, or the vocabulary lacks characters.
        """
        if not hasattr(self.config, "durations"):
            raise InputError(
                "a Parakeet RNN-T model cannot be fine-tuned here: its loss in Transformers is torchaudio's, which is "
                "not among the packages of speechtune; it transcribes, and Parakeet TDT and CTC can be fine-tuned"
            )
        if settings.head == "new":
            raise InputError(
                "model.ctc.head=new works with CTC models only: a transducer's vocabulary is in its decoder too"
            )
        self.labels = CtcVocabulary(
            self.tokenizer,
            case=settings.case,
            strip_punctuation=settings.punctuation == "remove",
            unknown=settings.unknown,
        )
        missing = self.labels.lacks(texts)
        if missing:
            shown = " ".join(repr(one) for one, _ in missing.most_common(20))
            said = f"the model's vocabulary lacks {sum(missing.values())} characters of the training texts ({shown})"
            if settings.unknown == "error":
                raise InputError(
                    f"{said}: set model.ctc.case or punctuation=remove if it writes texts otherwise, "
                    "model.ctc.unknown=remove to leave them out, or take a model of this language"
                )
            note(f"warning: {said}; model.ctc.unknown={settings.unknown}")
        self._drop_layers(settings.layerdrop)

    def _drop_layers(self, share: float) -> None:
        encoder: Any = self.part("encoder")
        encoder.layerdrop = self.config.encoder_config.layerdrop = share

    def written(self, text: str) -> str:
        """The text as the vocabulary writes it: its case, its characters."""
        return self.labels.written(text)

    def refusal(self, duration_s: float, tokens: Sequence[int]) -> str | None:
        """Why the label cannot be learnt: it is empty. A transducer writes any number of tokens at a frame."""
        return None if tokens else "has no text that the model's vocabulary can write"

    def tokens(self, text: str) -> tuple[list[int], int]:
        """The label's token ids: no prompt, no end token."""
        return self.labels.encode(text), 0

    def text(self, tokens: Sequence[int]) -> str:
        """The text of token ids; equal neighbours stay two."""
        return self.labels.decode(tokens)

    def context_frames(self, seconds: float, context: Context = "fit") -> int:
        """Feature frames of 10 ms for ``seconds``: there is no fixed window."""
        return math.ceil(seconds * FRAMES_PER_SECOND)

    def inputs(
        self, waveforms: Sequence[np.ndarray], masks: Sequence[MaskDraw | None] | None = None
    ) -> dict[str, torch.Tensor]:
        """``input_features``, padded behind, and their ``attention_mask``."""
        drawn = masks or [None] * len(waveforms)
        clips = [log_mel(self.extractor, *pair) for pair in zip(waveforms, drawn, strict=True)]
        mask = torch.zeros(len(clips), max(len(clip) for clip in clips), dtype=torch.long)
        for row, clip in enumerate(clips):
            mask[row, : len(clip)] = 1
        return {
            "input_features": torch.nn.utils.rnn.pad_sequence(clips, batch_first=True),
            "attention_mask": mask,
        }

    def collate(self, examples: Sequence[Example], n_frames: int) -> dict[str, torch.Tensor]:
        """Features of each clip's own length (whatever ``n_frames``), ``attention_mask`` and ``labels``."""
        labels = torch.full((len(examples), max(len(one.tokens) for one in examples)), IGNORED)
        for row, example in enumerate(examples):
            labels[row, : len(example.tokens)] = torch.tensor(example.tokens, dtype=torch.long)
        return {**self.inputs([one.waveform for one in examples], [one.masks for one in examples]), "labels": labels}

    @torch.inference_mode()
    def loss_alone(self, example: Example) -> float:
        """The loss of one clip from the plain logits of the model, summed over its tokens: what preflight compares.

        It is computed path by path from the end, unlike the loss that is trained.
        """
        model: Any = self.model
        given = {name: one.to(model.device) for name, one in self.inputs([example.waveform], [example.masks]).items()}
        fed = torch.tensor([[self.blank, *example.tokens]], device=model.device)
        logits = model(**given, decoder_input_ids=fed).logits[0].double().cpu()
        size = int(self.config.vocab_size)
        names, steps = logits[..., :size].log_softmax(-1), logits[..., size:].log_softmax(-1)
        frames, texts = names.shape[:2]
        best = torch.full((frames + 1, texts), -math.inf, dtype=torch.float64)
        best[frames, texts - 1] = 0.0
        for frame in reversed(range(frames)):
            for written in reversed(range(texts)):
                ways = []
                for place, duration in enumerate(self.config.durations):
                    there, step = frame + duration, steps[frame, written, place]
                    if duration and there <= frames:
                        ways.append(names[frame, written, self.blank] + step + best[there, written])
                    if written + 1 < texts and there < frames:
                        token = example.tokens[written]
                        ways.append(names[frame, written, token] + step + best[there, written + 1])
                best[frame, written] = torch.stack(ways).logsumexp(0) if ways else -math.inf
        return -float(best[0, 0])

    @torch.inference_mode()
    def generate(
        self, waveforms: Sequence[np.ndarray], n_frames: int, max_new_tokens: int, beams: int = 1
    ) -> list[Hypothesis]:
        """Greedy decoding with Transformers' own loop; log-probabilities are of the steps, blanks included.

        Raises:
            InputError: beam search is asked for.
        """
        if beams > 1:
            raise InputError("a Parakeet transducer is decoded greedily here: set decoding.beams=1")
        model: Any = self.model
        weight = next(model.parameters())
        batch = {name: one.to(weight.device) for name, one in self.inputs(waveforms).items()}
        batch["input_features"] = batch["input_features"].to(weight.dtype)
        size, pad = int(self.config.vocab_size), int(self.config.pad_token_id)
        frames = int(model._get_subsampling_output_length(batch["attention_mask"].sum(-1)).max())
        recorder = _TokenScores(size)
        found = model.generate(
            **batch,
            generation_config=GenerationConfig(
                max_new_tokens=max_new_tokens + frames,  # a blank goes on by a frame at least
                decoder_start_token_id=self.blank,
                pad_token_id=pad,
                do_sample=False,
            ),
            logits_processor=LogitsProcessorList([recorder]),
        )
        steps = found.sequences[:, 1:].tolist()
        durations = found.durations[:, 1:].tolist()
        own_frames = model._get_subsampling_output_length(batch["attention_mask"].sum(-1)).tolist()
        return [
            self._hypothesis(*one, max_new_tokens)
            for one in zip(steps, durations, recorder.by_row(), own_frames, strict=True)
        ]

    def _hypothesis(
        self, steps: list[int], durations: list[int], scores: list[float], frames: int, limit: int
    ) -> Hypothesis:
        tokens: list[int] = []
        token_scores: list[float] = []
        at, total = 0, 0.0
        for token, step, score in zip(steps, durations, scores, strict=True):
            if at >= frames:
                break  # the clip is over; what follows in its row waits for longer ones
            at += step
            if token != self.blank:
                if len(tokens) == limit:
                    at = 0
                    break
                tokens.append(token)
                token_scores.append(score)
            total += score
        mean = sum(token_scores) / max(len(token_scores), 1)
        return Hypothesis(self.text(tokens), tokens, mean, at < frames, token_scores, total)

    def adapter_targets(self, roles: Sequence[str]) -> list[str]:
        """Full names of the linear layers of the given roles; attention and mlp are the encoder's.

        Raises:
            InputError: an unknown role.
        """
        endings: set[str] = set()
        for role in roles:
            if role not in self.roles:
                raise InputError(f"a Parakeet transducer has no layers of role {role!r}: use {', '.join(self.roles)}")
            endings.update(_ROLES[role.removeprefix("encoder_")])
        return [
            name
            for name, module in self.model.named_modules()
            if isinstance(module, torch.nn.Linear) and any(f".{name}".endswith(f".{one}") for one in endings)
        ]

    def parts(self) -> list[Part]:
        """Subsampling and layers of the encoder, projector, the prediction network (``decoder``), joint ``head``."""
        encoder: Any = self.part("encoder")
        layers = tuple(f"encoder.layers.{number}" for number in range(len(encoder.layers)))
        return [
            Part("encoder.front_end", ("encoder.subsampling",)),
            Part("encoder.layers", layers, stack=True),
            Part("projector", ("encoder_projector",)),
            Part("decoder.embeddings", ("decoder.embedding",)),
            Part("decoder.layers", ("decoder.lstm",)),
            Part("decoder.projection", ("decoder.decoder_projector",)),
            Part("head", ("joint",)),
        ]

    def part(self, name: str) -> torch.nn.Module:
        """``encoder``, ``projector``, ``decoder`` (the prediction network) or ``head`` (the joint network).

        Raises:
            InputError: there is no such part.
        """
        names = {"encoder": "encoder", "projector": "encoder_projector", "decoder": "decoder", "head": "joint"}
        if name not in names:
            raise InputError(f"a Parakeet transducer has no part {name!r}: use {', '.join(names)}")
        return self.model.get_submodule(names[name])

    def regularise(self, dropout: float | None, label_smoothing: float) -> None:
        """Set dropout on what every block of the encoder adds.

        Raises:
            InputError: label smoothing, which a transducer's loss has no labels a step for.
        """
        if label_smoothing:
            raise InputError("a transducer's loss has no label smoothing: set training.label_smoothing=0")
        if dropout is not None:
            encoder: Any = self.part("encoder")
            names = ("feed_forward1", "self_attn", "conv", "feed_forward2")
            drop_residuals([getattr(layer, name) for layer in encoder.layers for name in names], dropout)

    def save(self, directory: Path) -> None:
        """Write a directory that ``AutoProcessor`` and Transformers' class load."""
        from transformers import ParakeetProcessor

        model: Any = self.model
        settings = model.generation_config
        settings.decoder_start_token_id = self.blank
        settings.suppress_tokens = list(range(self.config.vocab_size, model.joint.head.out_features)) or None
        model.save_pretrained(directory)
        self.tokenizer.save_pretrained(directory)
        self.extractor.save_pretrained(directory)
        kind = "tdt" if hasattr(self.config, "durations") else "rnnt"
        blank = self.tokenizer.convert_ids_to_tokens(self.blank)
        options = {"blank_token": blank} if blank is not None else {}
        ParakeetProcessor(self.extractor, self.tokenizer, decoder_type=kind, **options).save_pretrained(directory)
        forget_masks(directory)


class _TokenScores(LogitsProcessor):
    """Leaves the scores of durations out of the choice of a token, and keeps the chosen one's log-probability."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.steps: list[torch.Tensor] = []

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores of tokens; those of durations, which stand behind them, at minus infinity."""
        own = scores[:, : self.size].float()
        self.steps.append(own.amax(-1) - own.logsumexp(-1))
        durations = torch.arange(scores.shape[-1], device=scores.device) >= self.size
        return scores.masked_fill(durations[None], -torch.inf)

    def by_row(self) -> list[list[float]]:
        """Log-probabilities, one list a row of the batch."""
        return torch.stack(self.steps, dim=1).tolist()
