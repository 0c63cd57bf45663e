"""Transformers' CTC models behind the `Family` protocol: wav2vec 2.0, MMS, HuBERT, WavLM, W2v-BERT 2.0, Parakeet-CTC.

The exactness under padding and the loss are in `ctc_network`, vocabularies in `ctc_vocabulary`, decoding in
`ctc_decoding`. Features are made clip by clip with the checkpoint's own feature extractor, so its normalisation never
sees another clip or padding.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from speechtune.audio.augment import MaskDraw, apply_masks
from speechtune.audio.mel import FRAMES_PER_SECOND, SAMPLE_RATE_HZ
from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.models.capabilities import Capabilities
from speechtune.models.config import Context
from speechtune.models.ctc_config import CtcConfig, UnitKind
from speechtune.models.ctc_decoding import GreedyPath, greedy
from speechtune.models.ctc_loading import (
    HEADS,
    SECOND_HEAD,
    has_module,
    is_below,
    is_complete,
    tokenizer_of,
    use_adapter,
)
from speechtune.models.ctc_network import IGNORED, as_ctc_network, frames_needed
from speechtune.models.ctc_search import CtcGuide, Units, beam_search, guide_of
from speechtune.models.ctc_vocabulary import CtcVocabulary, build_vocabulary, character_tokenizer, check_coverage
from speechtune.models.family import Example, Hypothesis, Limits
from speechtune.models.search_config import SearchConfig
from speechtune.models.trainable import Part

if TYPE_CHECKING:
    from speechtune.models.observe import Taps

MAX_AUDIO_S = 60.0
"""No limit of the architectures: attention grows with the square of the length, and 60 s of it still fits a GPU."""

_SHORTEST_SAMPLES = 3200
"""Clips are filled with silence to 0.2 s: W2v-BERT and Parakeet need several frames for a variance."""

_ROLES = {
    "attention": ("q_proj", "k_proj", "v_proj", "out_proj", "o_proj", "linear_q", "linear_k", "linear_v", "linear_out"),
    "mlp": ("intermediate_dense", "output_dense", "linear1", "linear2"),
}


class CtcFamily:
    """A loaded CTC model. ``vocabulary`` is ``None`` for an encoder without a tokenizer, until `prepare`."""

    name = "ctc"
    capabilities = Capabilities(
        title="CTC",
        loss="CTC",
        frames_per_second=50.0,
        n_best=True,
        grpo=True,
        lm_fusion=True,
        word_times="CTC alignment",
    )
    contexts: tuple[Context, ...] = ("fit",)
    roles = (*_ROLES, *(f"encoder_{kind}" for kind in _ROLES))

    def __init__(self, model: Any, extractor: Any, tokenizer: Any | None, language: str | None, trained: bool) -> None:
        self.model: torch.nn.Module = as_ctc_network(model)
        self.extractor = extractor
        self.config = model.config
        self.language = language
        self.has_trained_head = trained
        self.head_name = next(name for name in HEADS if hasattr(model, name))
        self.vocabulary = None if tokenizer is None else CtcVocabulary(tokenizer)
        self.takes_features = "input_features" in extractor.model_input_names
        self.mel_bins = int(getattr(extractor, "num_mel_bins", extractor.feature_size)) if self.takes_features else 1
        self.limits = Limits(MAX_AUDIO_S, round(MAX_AUDIO_S * FRAMES_PER_SECOND))
        self.fresh: list[str] = [] if trained else [self.head_name]
        self.second: CtcVocabulary | None = None
        model.on_impossible = self._say_impossible
        masked = getattr(self._base, "masked_spec_embed", None)
        if masked is not None:  # learnt in pre-training; used by SpecAugment only, so often without a gradient
            masked.requires_grad_(False)

    @classmethod
    def load(cls, path: Path, *, language: str | None = None, device: str = "cpu") -> CtcFamily:
        """Load a Transformers directory in float32; one that was only pre-trained gets its head in `prepare`.

        Raises:
            InputError: the directory is incomplete, or has no adapter for the language.
        """
        from transformers import AutoConfig, AutoFeatureExtractor, AutoModelForCTC

        try:
            config = AutoConfig.from_pretrained(path, local_files_only=True)
            unmasked = getattr(config, "mask_time_prob", None) == 0 and config.mask_feature_prob == 0
            if unmasked:  # Transformers makes the mask's vector only for a model that masks when it is loaded
                config.mask_time_prob = 0.05
            loading: dict[str, Any] = {"dtype": torch.float32, "local_files_only": True, "output_loading_info": True}
            model, report = AutoModelForCTC.from_pretrained(path, config=config, **loading)
            if unmasked:
                config.mask_time_prob = 0.0
            extractor = AutoFeatureExtractor.from_pretrained(path, local_files_only=True)
        except (OSError, ValueError) as error:
            reason = str(error).strip().splitlines()[0]
            raise InputError(f"{path} does not load as a CTC model ({reason})") from error
        trained = is_complete(path, model, report["missing_keys"])
        tokenizer = tokenizer_of(path)
        if getattr(config, "adapter_attn_dim", None) is not None and language is not None and tokenizer is not None:
            language = use_adapter(path, model, tokenizer, language)
        if tokenizer is not None and len(tokenizer.get_vocab()) > config.vocab_size and trained:
            raise InputError(
                f"{path} has {len(tokenizer.get_vocab())} tokens and an output layer for {config.vocab_size}: its "
                "tokenizer belongs to another model"
            )
        return cls(model.to(device).eval(), extractor, tokenizer, language, trained)

    def prepare(self, settings: CtcConfig, texts: Sequence[str], seed: int) -> None:
        """Make the model ready to be trained on ``texts``: vocabulary, head, what is frozen, LayerDrop.

        Raises:
            InputError: the vocabulary lacks characters of the texts, or a head is to be kept and there is none.
        """
        if settings.head == "new":
            self.vocabulary = build_vocabulary(texts, settings)
            self._renew_head(seed)
            note(f"new head with {len(self.vocabulary)} {settings.units}, blank and word mark included")
        elif self.vocabulary is None or not self.has_trained_head:
            raise InputError(
                f"this {self.config.model_type} model has no trained CTC head: set model.ctc.head=new, which makes a "
                "vocabulary from the training transcripts"
            )
        else:
            self.vocabulary = CtcVocabulary(
                self.vocabulary.tokenizer,
                case=settings.case,
                strip_punctuation=settings.punctuation == "remove",
                unknown=settings.unknown,
            )
        said = check_coverage(self.vocabulary, texts)
        if said:
            note(f"warning: {said}")
        model: Any = self.model
        model.focal_gamma, model.divided = settings.focal_gamma, settings.reduction == "tokens"
        if settings.freeze_feature_encoder and hasattr(model, "freeze_feature_encoder"):
            model.freeze_feature_encoder()
        for owner in (self.config, getattr(self.config, "encoder_config", None), *self.model.modules()):
            if isinstance(getattr(owner, "layerdrop", None), float | int):
                owner.layerdrop = settings.layerdrop

    def _renew_head(self, seed: int) -> None:
        assert self.vocabulary is not None
        model: Any = self.model
        old = getattr(model, self.head_name)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            if isinstance(old, torch.nn.Linear):
                new: torch.nn.Module = torch.nn.Linear(old.in_features, len(self.vocabulary))
            else:
                new = type(old)(old.in_channels, len(self.vocabulary), kernel_size=1)
            setattr(model, self.head_name, new.to(old.weight.device))
            if getattr(self.config, "adapter_attn_dim", None) is not None:
                model.init_adapter_layers()
        self.config.vocab_size = len(self.vocabulary)
        self.config.pad_token_id = self.vocabulary.blank
        self.fresh = [self.head_name]
        self.has_trained_head = True
        if getattr(self.config, "adapter_attn_dim", None) is not None and not self.vocabulary.pieces and self.language:
            self.vocabulary.tokenizer = character_tokenizer(self.vocabulary.tokenizer.vocab, self.language)
            model.target_lang = self.language

    def add_second_head(
        self, units: UnitKind, bpe_size: int, texts: Sequence[str], seed: int, *, own: bool = True
    ) -> None:
        """An output layer over a second vocabulary, made from the texts; it is trained beside the head and not saved.

        With ``own`` the texts are the head's labels, and are spelled as it spells them.

        Raises:
            InputError: the texts are empty.
        """
        settings = CtcConfig(head="new", units=units, bpe_size=bpe_size, unknown="remove")
        self.second = build_vocabulary([self.written(text) for text in texts] if own else list(texts), settings)
        head: Any = self.part("head")
        width = head.in_features if isinstance(head, torch.nn.Linear) else head.in_channels
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed + 1)
            made = torch.nn.Linear(width, len(self.second))
        self.model.add_module(SECOND_HEAD, made.to(head.weight.device))
        note(f"second head with {len(self.second)} {units}, used in training only")

    @property
    def _labels(self) -> CtcVocabulary:
        if self.vocabulary is None:
            raise InputError("this model has no vocabulary: it was only pre-trained; train it with model.ctc.head=new")
        return self.vocabulary

    @property
    def _base(self) -> torch.nn.Module:
        """Everything but the head."""
        model: Any = self.model
        return getattr(model, model.base_model_prefix, None) or model.encoder

    def tokens(self, text: str) -> tuple[list[int], int]:
        """The label's token ids: no prompt, no end token."""
        return self._labels.encode(text), 0

    def text(self, tokens: Sequence[int]) -> str:
        """The text of collapsed token ids."""
        return self._labels.decode(tokens)

    def written(self, text: str) -> str:
        """The text as the vocabulary writes it: its case, its characters."""
        return self._labels.written(text)

    def refusal(self, duration_s: float, tokens: Sequence[int]) -> str | None:
        """Why so much audio cannot be aligned with these tokens, or ``None``."""
        if not tokens:
            return "has no text that the model's vocabulary can write"
        frames, needed = self.logit_frames(round(duration_s * SAMPLE_RATE_HZ)), frames_needed(list(tokens))
        if frames < needed:
            return f"is too short for its text (CTC needs {needed} frames for {len(tokens)} tokens, there are {frames})"
        return None

    def logit_frames(self, samples: int) -> int:
        """Frames of output for a clip of so many samples."""
        steps = max(samples, _SHORTEST_SAMPLES)
        if self.takes_features:
            stride = int(getattr(self.extractor, "stride", 0))
            steps = ((steps - 400) // 160 + 1) // stride if stride else steps // int(self.extractor.hop_length)
        model: Any = self.model
        return int(model.frames_of(torch.tensor([steps]))[0])

    def context_frames(self, seconds: float, context: Context = "fit") -> int:
        """Feature frames of 10 ms for ``seconds``: there is no fixed window."""
        return math.ceil(seconds * FRAMES_PER_SECOND)

    def features(self, waveform: np.ndarray, masks: MaskDraw | None = None) -> torch.Tensor:
        """What the model is given of one clip: (samples,), or (frames, bins) for models over log-mel features.

        Raises:
            InputError: masks by count are asked for a model that takes waveforms.
        """
        if len(waveform) < _SHORTEST_SAMPLES:
            waveform = np.pad(waveform, (0, _SHORTEST_SAMPLES - len(waveform)))
        found = self.extractor(waveform.astype(np.float32), sampling_rate=SAMPLE_RATE_HZ, return_tensors="pt")
        if not self.takes_features:
            if masks is not None:
                raise InputError(
                    f"{self.config.model_type} takes waveforms, which SpecAugment by count cannot mask: use "
                    "training.spec_augment.time_prob and feature_prob, which mask its hidden states"
                )
            return found["input_values"][0].to(torch.float32)
        features = found["input_features"][0][: int(found["attention_mask"][0].sum())].to(torch.float32)
        if masks is not None:
            spectrum = features.reshape(-1, self.mel_bins)  # W2v-BERT stacks two frames
            features = apply_masks(spectrum.T, masks).T.reshape(features.shape)
        return features

    def collate(self, examples: Sequence[Example], n_frames: int) -> dict[str, torch.Tensor]:
        """Inputs padded to the longest clip (whatever ``n_frames``), ``attention_mask`` and ``labels``."""
        batch = self._inputs([self.features(example.waveform, example.masks) for example in examples])
        longest = max(len(example.tokens) for example in examples)
        labels = torch.full((len(examples), max(longest, 1)), IGNORED)
        for row, example in enumerate(examples):
            labels[row, : len(example.tokens)] = torch.tensor(example.tokens, dtype=torch.long)
        return {**batch, "labels": labels}

    def _inputs(self, features: Sequence[torch.Tensor]) -> dict[str, torch.Tensor]:
        name = "input_features" if self.takes_features else "input_values"
        mask = torch.zeros(len(features), max(len(one) for one in features), dtype=torch.long)
        for row, one in enumerate(features):
            mask[row, : len(one)] = 1
        return {name: torch.nn.utils.rnn.pad_sequence(list(features), batch_first=True), "attention_mask": mask}

    @torch.inference_mode()
    def log_probs(self, waveforms: Sequence[np.ndarray]) -> tuple[torch.Tensor, torch.Tensor]:
        """Natural-log probabilities (batch, frames, vocabulary) in float32, and how many frames of each row count."""
        device = next(self.model.parameters()).device
        batch = {name: one.to(device) for name, one in self._inputs([self.features(w) for w in waveforms]).items()}
        model: Any = self.model
        logits = model(**batch).logits
        return logits.float().log_softmax(-1), model.frames_of(batch["attention_mask"].sum(-1))

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
        """Greedy decoding, or prefix beam search; no limit of tokens applies, since a clip's frames bound them.

        Raises:
            InputError: the search asks for what a CTC model cannot do.
        """
        guide = guide_of(guides, search or SearchConfig(), beams)
        log_probs, frames = self.log_probs(waveforms)
        if beams > 1:
            return self._searched(log_probs, frames, beams, search or SearchConfig(), guide)
        return [self._hypothesis(path) for path in greedy(log_probs, frames, self._labels.blank)]

    def _searched(
        self, log_probs: torch.Tensor, frames: torch.Tensor, beams: int, search: SearchConfig, guide: CtcGuide
    ) -> list[Hypothesis]:
        units = Units.of(self._labels, log_probs.shape[-1])
        hypotheses = []
        for row, count in zip(log_probs.cpu().numpy(), frames.tolist(), strict=True):
            found = [
                Hypothesis(
                    self.text(one.tokens), one.tokens, one.log_prob / (len(one.tokens) + 1), False, None, one.log_prob
                )
                for one in beam_search(row[:count], units, beams, search.n_best, guide)
            ]
            hypotheses.append(found[0].with_nbest(found if search.n_best > 1 else ()))
        return hypotheses

    def _hypothesis(self, path: GreedyPath) -> Hypothesis:
        return Hypothesis(self.text(path.tokens), path.tokens, path.log_prob, False, path.log_probs)

    def adapter_targets(self, roles: Sequence[str]) -> list[str]:
        """Full names of the linear layers of the given roles; the whole network counts as encoder.

        Raises:
            InputError: a role of a decoder.
        """
        suffixes: set[str] = set()
        for role in roles:
            side, _, kind = role.rpartition("_")
            if side not in ("", "encoder") or kind not in _ROLES:
                raise InputError(f"a CTC model has no layers of role {role!r}: use {', '.join(self.roles)}")
            suffixes.update(_ROLES[kind])
        return [
            name
            for name, module in self.model.named_modules()
            if isinstance(module, torch.nn.Linear) and name.rpartition(".")[2] in suffixes
        ]

    def parts(self) -> list[Part]:
        """Feature encoder, projection, positions, layers, final norm, MMS language adapters, and the head."""
        model: Any = self.model
        names = {id(module): name for name, module in model.named_modules()}
        base = names[id(self._base)]
        stack = next(name for name in (f"{base}.encoder.layers", f"{base}.layers") if has_module(model, name))
        above = getattr(self.config, "do_stable_layer_norm", False) or self.config.model_type == "wav2vec2-conformer"
        norm = Part("encoder.final_norm" if above else "encoder.first_norm", (f"{base}.encoder.layer_norm",))
        layers = tuple(f"{stack}.{number}" for number in range(len(model.get_submodule(stack))))
        adapters = tuple(name for name, one in model.named_modules() if type(one).__name__.endswith("AttnAdapterLayer"))
        found = [
            Part("encoder.feature_encoder", (f"{base}.feature_extractor", f"{base}.subsampling")),
            Part("encoder.projection", (f"{base}.feature_projection", f"{base}.masked_spec_embed")),
            Part("encoder.positions", (f"{base}.encoder.pos_conv_embed", f"{base}.encoder.embed_positions")),
            *([] if above else [norm]),
            Part("encoder.layers", layers, stack=True),
            *([norm] if above else []),
            *([Part("encoder.language_adapter", adapters)] if adapters else []),
            Part("head", (self.head_name,)),
            *([Part(SECOND_HEAD, (SECOND_HEAD,))] if self.second is not None else []),
        ]
        parameters = [name for name, _ in model.named_parameters()]
        known = [one for one in found if any(is_below(name, one) for name in parameters)]
        covered = all(any(is_below(name, one) for one in known) for name in parameters)
        return known if covered else [*known, Part("encoder.rest", (base,))]

    def part(self, name: str) -> torch.nn.Module:
        """``encoder`` (all but the head), ``feature_encoder``, ``head``, ``language_adapter``, ``attention``, ``mlp``.

        Raises:
            InputError: the model has no such part.
        """
        model: Any = self.model
        found: Any = None
        if name == "encoder":
            found = self._base
        elif name == "head":
            found = getattr(model, self.head_name)
        elif name == "feature_encoder":
            base: Any = self._base
            found = next(
                (getattr(base, one) for one in ("feature_extractor", "subsampling") if hasattr(base, one)), None
            )
        elif name == "language_adapter":
            adapters = [one for one in model.modules() if type(one).__name__.endswith("AttnAdapterLayer")]
            found = torch.nn.ModuleList([*adapters, self.part("head")]) if adapters else None
        elif name in _ROLES:
            found = torch.nn.ModuleList([model.get_submodule(one) for one in self.adapter_targets([name])])
        if found is None:
            raise InputError(
                f"a {self.config.model_type} model has no part {name!r}: it has encoder, feature_encoder, head, "
                "attention and mlp, and language_adapter if it is MMS"
            )
        return found

    def taps(self) -> Taps:
        """Where logits and hidden states come out."""
        from speechtune.models.ctc_taps import ctc_taps

        return ctc_taps(self)

    def regularise(self, dropout: float | None, label_smoothing: float) -> None:
        """Set the dropout after the blocks, the features and before the head; not that inside attention and MLP.

        Raises:
            InputError: label smoothing, which a CTC loss has no labels a frame for.
        """
        if label_smoothing:
            raise InputError("a CTC loss has no label smoothing: set training.label_smoothing=0")
        if dropout is None:
            return
        for name, module in self.model.named_modules():
            inside = name.endswith(("self_attn.dropout", "attention.dropout", "intermediate_dropout"))
            if isinstance(module, torch.nn.Dropout) and not inside:
                module.p = dropout
        base: Any = self._base
        if isinstance(getattr(base, "dropout", None), float | int):
            base.dropout = dropout

    def save(self, directory: Path) -> None:
        """Write weights, configuration, tokenizer and feature extractor as Transformers does."""
        from transformers import ParakeetProcessor, Wav2Vec2BertProcessor, Wav2Vec2Processor

        model: Any = self.model
        weights = {name: one for name, one in model.state_dict().items() if not name.startswith(SECOND_HEAD + ".")}
        model.save_pretrained(directory, state_dict=weights if self.second is not None else None)
        self.extractor.save_pretrained(directory)
        if self.vocabulary is None:
            return
        kind: Any = Wav2Vec2Processor
        if self.takes_features:
            kind = Wav2Vec2BertProcessor if hasattr(self.extractor, "stride") else ParakeetProcessor
        self._labels.tokenizer.save_pretrained(directory)
        kind(self.extractor, self._labels.tokenizer).save_pretrained(directory)
        if getattr(self.config, "adapter_attn_dim", None) is not None and self.language:
            from safetensors.torch import save_file

            weights = {name: one.detach().contiguous().cpu() for name, one in model._get_adapters().items()}
            save_file(weights, directory / f"adapter.{self.language}.safetensors", metadata={"format": "pt"})

    def _say_impossible(self, count: int) -> None:
        note(
            f"warning: {count} clips of a batch became too short for their text (a speed or tempo change) and are left "
            "out of this step's loss"
        )
