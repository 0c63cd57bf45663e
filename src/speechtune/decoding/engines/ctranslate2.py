"""Whisper decoded by CTranslate2 (OpenNMT; MIT), at full or fitted audio context.

faster-whisper pads every clip to 30 s; CTranslate2's encoder itself takes fewer frames and uses the first positions,
as `FitContextEncoder` does in torch.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch

from speechtune.audio.mel import FRAMES_PER_SECOND, LogMel
from speechtune.core.errors import InputError, missing_extra
from speechtune.core.files import read_json
from speechtune.decoding.engines.threads import choose_threads, generate_split
from speechtune.models.config import Context
from speechtune.models.family import Hypothesis, Limits, best_of
from speechtune.models.importers.ctranslate2 import read_ctranslate2
from speechtune.models.importers.whisper_tokens import WhisperTokens, read_tokens
from speechtune.models.search_config import SearchConfig, check_n_best
from speechtune.models.whisper import NO_SPACE_LANGUAGES
from speechtune.models.whisper_search import ControlIds, control_tokens, prompt_tokens


class OnlyTranscribesError(InputError, AttributeError):
    """Something was asked of a CTranslate2 model that needs the torch one."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """What decoding must know of a model's shape."""

    width: int
    layers: int
    mel_bins: int
    window_frames: int
    text_positions: int
    vocabulary: int


class Ctranslate2Whisper:
    """A CTranslate2 Whisper that decodes as `WhisperFamily` does; it can do nothing else of a family."""

    name = "whisper-ctranslate2"
    contexts: tuple[Context, ...] = ("fit", "full")

    def __init__(
        self, engine: Any, tokens: WhisperTokens, sizes: Sizes, *, language: str | None, facts: dict[str, Any]
    ) -> None:
        from tokenizers import Tokenizer
        from transformers import PreTrainedTokenizerFast

        self.engine = engine
        self.facts = facts
        self.model: torch.nn.Module = torch.nn.Identity()  # stands for weights that torch does not hold
        self.ids = tokens
        self.sizes = sizes
        self.batch_seconds_factor = 2.0 if facts.get("device", "cpu") == "cpu" else 1.0
        self.tokenizer = PreTrainedTokenizerFast(
            tokenizer_object=Tokenizer.from_str(json.dumps(tokens.document)), clean_up_tokenization_spaces=False
        )
        self.mel_bins = sizes.mel_bins
        self.front_end = LogMel(sizes.mel_bins)
        self.window_frames = sizes.window_frames
        self.limits = Limits(sizes.window_frames / FRAMES_PER_SECOND, sizes.text_positions)
        self.prompt = self.prompt_for([language] if language else [])
        self.eot = tokens.end_of_text
        self.language = language if tokens.multilingual else "en"
        self.first_timestamp = tokens.no_timestamps + 1
        self._leading_space = "" if language in NO_SPACE_LANGUAGES else " "
        self._suppressed = [*(facts["suppress_tokens"] or []), *range(self.first_timestamp, sizes.vocabulary)]

    @classmethod
    def load(
        cls,
        directory: Path,
        *,
        language: str | None = None,
        compute_type: str = "float32",
        threads: tuple[int, int] = (0, 0),
        device: str | None = None,
    ) -> Ctranslate2Whisper:
        """Load a CTranslate2 directory.

        Args:
            directory: ``model.bin``, ``config.json``, ``tokenizer.json`` and a vocabulary file.
            language: of the speech; multilingual models need it.
            compute_type: CTranslate2's name of how it computes, as in float32 or int8.
            threads: within a batch, and pieces of it decoded at once; 0: measured (`choose_threads`).
            device: cpu or cuda; a GPU that CTranslate2 can use is taken unless told otherwise.

        Raises:
            InputError: ctranslate2 is not installed, files are missing or broken, the language is unknown to the model,
                or the machine cannot compute so.
        """
        try:
            import ctranslate2
        except ImportError as error:
            raise missing_extra("ctranslate2", "ctranslate2") from error
        device = device or ("cuda" if ctranslate2.get_cuda_device_count() else "cpu")
        able = ctranslate2.get_supported_compute_types(device)
        if compute_type not in (*able, "auto", "default"):
            raise InputError(
                f"decoding.compute_type {compute_type!r} is not what CTranslate2 can do on this {device}: "
                f"use one of {', '.join(sorted(able))}"
            )
        sizes = _sizes(directory)
        tokens = read_tokens(directory, sizes.vocabulary)
        options: dict[str, Any] = {"device": device, "compute_type": compute_type}
        if device == "cuda":
            options["device_index"] = int(os.environ.get("LOCAL_RANK", 0))  # as `pick_device`
        else:
            options["intra_threads"], options["inter_threads"] = threads
            if 0 in threads:
                options["intra_threads"], options["inter_threads"] = _threads(directory, compute_type, sizes, tokens)
        try:
            engine = ctranslate2.models.Whisper(str(directory), **options)
        except (RuntimeError, ValueError) as error:
            raise InputError(f"CTranslate2 cannot load {directory} ({error}): convert the model again") from error
        return cls(engine, tokens, sizes, language=language, facts={**_settings(directory), **options})

    def __getattr__(self, name: str) -> NoReturn:
        raise OnlyTranscribesError(
            f"a CTranslate2 model can only transcribe (it has no {name}): give the Transformers model it was made from"
        )

    def prompt_for(self, languages: Sequence[str], task: str = "transcribe") -> list[int]:
        """As `WhisperFamily.prompt_for`."""
        known = ControlIds(
            start=self.ids.start_of_transcript,
            no_timestamps=self.ids.no_timestamps,
            languages=self.ids.languages if self.ids.multilingual else {},
            task=self.ids.tasks.__getitem__,
            other_model="use a multilingual model",
            say_language="set --language",
        )
        return known.prompt(languages, task)

    def tokens(self, text: str) -> tuple[list[int], int]:
        """Prompt, text and end-of-text, as `WhisperFamily.tokens`."""
        body = self.tokenizer.encode(self._leading_space + text.strip(), add_special_tokens=False)
        return [*self.prompt, *body, self.eot], len(self.prompt)

    def text(self, tokens: Sequence[int]) -> str:
        """The text of token ids, special and timestamp tokens left out."""
        spoken = [int(token) for token in tokens if token < self.first_timestamp]
        return self.tokenizer.decode(spoken, skip_special_tokens=True).strip()

    def context_frames(self, seconds: float, context: Context = "fit") -> int:
        """Mel frames for ``seconds`` of audio: even, 2 at least, the window at most."""
        if context == "full":
            return self.window_frames
        return min(self.window_frames, max(2, 2 * math.ceil(seconds * FRAMES_PER_SECOND / 2)))

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
        """Decode a batch at one audio context.

        Greedy decoding is torch's. CTranslate2's beam search ends when as many hypotheses as beams are finished, so
        ``search.early_stopping`` changes nothing; with penalties or sampling, log-probabilities are after them.

        Raises:
            InputError: guides, or a way of sampling that CTranslate2 does not have.
        """
        search = search or SearchConfig()
        _refuse(search, beams, bool(guides))
        given, start = prompt_tokens(self, search)  # type: ignore[arg-type]
        limit = min(max_new_tokens, self.limits.max_label_tokens - len(given))
        if limit < 1:
            raise InputError(
                f"prompt and prefix take {len(given)} of the {self.limits.max_label_tokens} tokens that the model has "
                "for them and the text: shorten them"
            )
        features = self.front_end(waveforms, n_frames).numpy()
        prefix = given[start + len(control_tokens(self, search)) :]  # type: ignore[arg-type]
        options = self._options(search, beams, limit + len(prefix), len(given) - len(prefix))
        found = generate_split(self.engine, features, given, self.facts.get("inter_threads", 1), options)
        return [self._hypotheses(one, search, prefix, limit) for one in found]

    def no_speech_probabilities(self, waveforms: Sequence[np.ndarray], n_frames: int) -> list[float]:
        """The probability of ``<|nospeech|>`` behind the start of the transcript, for each clip."""
        found = self.generate(waveforms, n_frames, 1, search=SearchConfig(scores="always"))
        return [float(one.no_speech_prob or 0.0) for one in found]

    def _options(self, search: SearchConfig, beams: int, limit: int, given: int) -> dict[str, Any]:
        import ctranslate2

        banned = {*self._suppressed, *search.suppress_tokens}
        for text in search.suppress:
            for form in (text, " " + text):
                tokens = self.tokenizer.encode(form, add_special_tokens=False)
                banned |= {int(tokens[0])} if len(tokens) == 1 else set()
        if self.eot in banned:
            raise InputError(f"decoding.search.suppress_tokens forbids the end of the text ({self.eot}): remove it")
        if search.sample:
            ctranslate2.set_random_seed(search.seed)
        return {
            "beam_size": beams,
            "num_hypotheses": search.n_best,
            "length_penalty": search.length_penalty,
            "repetition_penalty": search.repetition_penalty,
            "no_repeat_ngram_size": search.no_repeat_ngram,
            "sampling_topk": search.top_k if search.sample else 1,
            "sampling_temperature": search.temperature,
            "suppress_tokens": sorted(banned),
            "max_length": max(2 * limit, limit + given - 1),  # CTranslate2 takes half of it, less what is given
            "return_scores": True,
            "return_no_speech_prob": not search.is_plain(),
        }

    def _hypotheses(self, found: Any, search: SearchConfig, prefix: list[int], limit: int) -> Hypothesis:
        silence = None if search.is_plain() else float(found.no_speech_prob)
        kept = []
        for ids, score in zip(found.sequences_ids, found.scores, strict=True):  # with the prefix
            new = len(ids) - len(prefix)
            truncated = new >= limit
            total = score * max(len(ids), 1) ** search.length_penalty
            kept.append(
                Hypothesis(
                    text=self.text(ids),
                    tokens=list(ids),
                    log_prob=total / max(new + (not truncated), 1),
                    truncated=truncated,
                    sum_log_prob=None if search.is_plain() else total,
                    no_speech_prob=silence,
                )
            )
        return best_of(kept, search)


def _refuse(search: SearchConfig, beams: int, guided: bool) -> None:
    if guided:
        raise InputError(
            "decoding.boost and a fused language model need the scores of every token, which CTranslate2 does not "
            "give: use decoding.engine=torch, or decoding.lm.use=rescore"
        )
    for name in ("top_p", "min_p", "typical_p"):
        if getattr(search, name) != SearchConfig.model_fields[name].default:
            raise InputError(f"decoding.search.{name} is not in CTranslate2: remove it or use decoding.engine=torch")
    if search.sample and beams > 1:
        raise InputError(f"CTranslate2 samples with one beam, not with {beams}: set decoding.beams to 1")
    check_n_best(search, beams)


def _sizes(directory: Path) -> Sizes:
    arrays = read_ctranslate2(directory / "model.bin").arrays
    try:
        mel_bins = arrays["encoder/conv1/weight"].shape[1]
        positions, width = arrays["encoder/position_encodings/encodings"].shape
        text_positions = arrays["decoder/position_encodings/encodings"].shape[0]
        vocabulary = arrays["decoder/embeddings/weight"].shape[0]
    except KeyError as error:
        raise InputError(f"{directory} is not a CTranslate2 Whisper (it has no {error}): check the path") from error
    layers = len({name.split("/")[1] for name in arrays if name.startswith("decoder/layer_")} - {"layer_norm"})
    return Sizes(width, layers, mel_bins, 2 * positions, text_positions, vocabulary)


def _settings(directory: Path) -> dict[str, Any]:
    """Suppressed tokens: CTranslate2's own configuration has them; the first token's it applies by itself."""
    settings = read_json(directory / "config.json") if (directory / "config.json").is_file() else {}
    return {"suppress_tokens": settings.get("suppress_ids") or []}


def _threads(directory: Path, compute_type: str, sizes: Sizes, tokens: WhisperTokens) -> tuple[int, int]:
    from speechtune.decoding.engines.converting import conversions_home

    numbers = {
        "width": sizes.width,
        "layers": sizes.layers,
        "mels": sizes.mel_bins,
        "window": sizes.window_frames,
        "eot": tokens.end_of_text,
        "start": tokens.start_of_transcript,
    }
    return choose_threads(directory, compute_type, conversions_home() / "threads.json", numbers)
