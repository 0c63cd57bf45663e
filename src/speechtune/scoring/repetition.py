"""Why a model repeats itself: the audio context first, then the precision of its weights, then the end of the text.

The order is that of likelihood. A Whisper model that was never trained at a cut window loops when it gets one: FUTO's
whisper-acft reports tiny.en at 4.7 % WER with 30 s and 226 % with a window cut to the clip (its README), which is
what phone keyboards do; converting or quantising it again changes nothing. So nothing else is judged before that.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import LogitsProcessor

from speechtune.audio.io import SAMPLE_RATE_HZ, load_audio
from speechtune.core.errors import InputError
from speechtune.core.progress import Bar
from speechtune.corpus.table import Corpus, Utterance
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.guard_detectors import is_impossible, is_loop
from speechtune.decoding.long.timing import is_single_whisper
from speechtune.decoding.transcript import Transcript
from speechtune.models.family import Family, Hypothesis
from speechtune.models.search_config import SearchConfig
from speechtune.scoring.score import score_transcripts

_COMPRESSION_RATIO = 2.4
_MARKED_SHARE = 0.05
"""Settings differ where the share of repeating clips does by more than this, and by two clips."""
_BLOCK = 32
_BATCH = 8
CONTEXTS: tuple[str, ...] = ("fit", "+1 s", "+3 s", "+8 s", "full")
PRECISIONS: tuple[str, ...] = ("float32", "bfloat16", "8 bit", "4 bit")
BIASES: tuple[float, ...] = (0.0, 1.0, 2.0, 4.0)


@dataclass(frozen=True, slots=True)
class Row:
    """One setting: of ``clips``, how many ``repeat`` themselves, how many reached the token limit, and the WER."""

    factor: str
    setting: str
    clips: int
    repeating: int
    at_limit: int
    wer: float | None
    example: str = ""

    @property
    def share(self) -> float:
        """Of clips that repeat."""
        return self.repeating / self.clips


@dataclass(slots=True)
class Diagnosis:
    """The sweep's rows in order, and what follows from them."""

    rows: list[Row] = field(default_factory=list)
    cause: str = "none"
    conclusion: str = ""
    seconds_of_audio: float = 0.0

    def of(self, factor: str) -> list[Row]:
        """The rows of one factor."""
        return [row for row in self.rows if row.factor == factor]

    def to_json(self) -> dict[str, Any]:
        """JSON-ready."""
        return {
            "cause": self.cause,
            "conclusion": self.conclusion,
            "rows": [{**asdict(row), "share": round(row.share, 4)} for row in self.rows],
            "kept": self.rows[0].clips if self.rows else 0,
            "dropped_by_reason": {},
            "seconds_of_audio": round(self.seconds_of_audio, 3),
        }

    def to_text(self) -> str:
        """A table and the sentence."""
        lines = [f"{'factor':<14}{'setting':<10}{'repeating':>12}{'at limit':>10}{'WER':>9}"]
        for row in self.rows:
            wer = "" if row.wer is None else f"{100 * row.wer:.1f} %"
            lines.append(
                f"{row.factor:<14}{row.setting:<10}{f'{row.repeating}/{row.clips}':>12}{row.at_limit:>10}{wer:>9}"
            )
        return "\n".join([*lines, "", self.conclusion])


def diagnose(family: Family, corpus: Corpus, config: DecodingConfig, limit: int = 40) -> Diagnosis:
    """Sweep the three factors over the first clips that fit the window, spread over the corpus.

    Args:
        family: a Whisper model of Transformers.
        corpus: clips, with or without texts (with them there are word error rates).
        config: token limit, margin and the context that the other factors are judged at.
        limit: how many clips.

    Raises:
        InputError: another kind of model, or no clip that fits its window.
    """
    if not is_single_whisper(family):
        raise InputError(f"repetition is diagnosed for one Transformers Whisper model, not a {type(family).__name__}")
    usable = [one for one in corpus.utterances if one.duration_s <= family.limits.max_audio_s]
    if not usable:
        raise InputError(
            f"{corpus.root} has no clip of at most {family.limits.max_audio_s:g} s: cut the recordings first"
        )
    places = np.unique(np.linspace(0, len(usable) - 1, min(limit, len(usable))).round().astype(int))
    sweep = _Sweep(family, corpus, [usable[place] for place in places], config)
    found = Diagnosis(seconds_of_audio=sum(one.duration_s for one in sweep.utterances))
    worst = "full" if config.context == "full" else "fit"
    with Bar("sweep", len(CONTEXTS) + len(PRECISIONS) + len(BIASES)) as bar:
        for name in CONTEXTS:
            found.rows.append(sweep.row("audio context", name, context=name))
            bar.advance()
        for name in PRECISIONS:
            with stored_as(family.model, name):
                found.rows.append(sweep.row("precision", name, context=worst))
            bar.advance()
        for bias in BIASES:
            found.rows.append(sweep.row("end of text", f"+{bias:g}", context=worst, bias=bias))
            bar.advance()
    found.cause, found.conclusion = conclude(found.rows, worst)
    return found


class _Sweep:
    """Decodes the same clips under one setting after the other."""

    def __init__(self, family: Family, corpus: Corpus, chosen: Sequence[Utterance], config: DecodingConfig) -> None:
        self.family: Any = family
        self.config = config
        self.utterances = sorted(chosen, key=lambda one: -one.duration_s)
        self.corpus = Corpus(corpus.root, self.utterances, {})
        self.waveforms = [load_audio(corpus.path_of(one), one.start_s, one.end_s) for one in self.utterances]
        family.model.eval()

    def row(self, factor: str, setting: str, context: str, bias: float = 0.0) -> Row:
        """The figures of one setting."""
        texts: list[Hypothesis] = []
        for first in range(0, len(self.waveforms), _BATCH):
            batch = self.waveforms[first : first + _BATCH]
            n_frames = self._frames(len(batch[0]) / SAMPLE_RATE_HZ, context)
            guides = [lambda begin: EndBias(self.family.eot, bias)] if bias else []
            texts += self.family.generate(
                batch, n_frames, self.config.max_new_tokens, 1, search=SearchConfig(), guides=guides
            )
        bad = [
            one
            for one, waveform in zip(texts, self.waveforms, strict=True)
            if is_loop(one.text, _COMPRESSION_RATIO, one.truncated)
            or is_impossible(one.text, len(waveform) / SAMPLE_RATE_HZ)
        ]
        example = min((one.text for one in bad), key=len, default="")
        at_limit = sum(one.truncated for one in texts)
        return Row(factor, setting, len(texts), len(bad), at_limit, self._wer(texts), example[:120])

    def _frames(self, longest_s: float, context: str) -> int:
        if context == "full":
            return int(self.family.context_frames(longest_s, "full"))
        more_s = 0.0 if context == "fit" else float(context.split()[0])
        return int(self.family.context_frames(longest_s + self.config.margin_s + more_s, "fit"))

    def _wer(self, texts: Sequence[Hypothesis]) -> float | None:
        if not any(one.text for one in self.utterances):
            return None
        said = [
            Transcript(utterance_id=one.utterance_id, text=text.text)
            for one, text in zip(self.utterances, texts, strict=True)
        ]
        score = score_transcripts(self.corpus, said, language=self.family.language)
        return score.wer


class EndBias(LogitsProcessor):
    """Adds to the logit of the end of the text."""

    def __init__(self, eot: int, bias: float) -> None:
        self.eot, self.bias = eot, bias

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """The scores, the end's raised."""
        scores = scores.clone()
        scores[:, self.eot] += self.bias
        return scores


@contextmanager
def stored_as(model: torch.nn.Module, precision: str) -> Iterator[None]:
    """Inside: the weights of linear layers have lost what they lose when they are stored so.

    ``8 bit`` and ``4 bit`` are symmetric, with a scale for every 32 weights, as GGML's Q8_0 and (nearly) Q4_0.
    Arithmetic stays float32, so what is seen is the weights' rounding alone.
    """
    if precision == "float32":
        yield
        return
    layers = [one for one in model.modules() if isinstance(one, torch.nn.Linear)]
    kept = [one.weight.data for one in layers]
    try:
        for layer in layers:
            layer.weight.data = rounded(layer.weight.data, precision)
        yield
    finally:
        for layer, weight in zip(layers, kept, strict=True):
            layer.weight.data = weight


def rounded(weight: torch.Tensor, precision: str) -> torch.Tensor:
    """A weight matrix as it comes back from storage."""
    if precision == "bfloat16":
        return weight.to(torch.bfloat16).to(weight.dtype)
    highest = 2 ** (int(precision.split()[0]) - 1) - 1
    columns = weight.shape[1]
    padded = torch.nn.functional.pad(weight, (0, -columns % _BLOCK))
    blocks = padded.reshape(weight.shape[0], -1, _BLOCK)
    scale = blocks.abs().amax(-1, keepdim=True).clamp(min=1e-12) / highest
    return ((blocks / scale).round() * scale).reshape(weight.shape[0], -1)[:, :columns].contiguous()


def conclude(rows: Sequence[Row], judged_at: str) -> tuple[str, str]:
    """The cause (``none``, ``audio context``, ``precision``, ``end of text``, ``model``) and one sentence about it."""
    contexts = {row.setting: row for row in rows if row.factor == "audio context"}
    precise = {row.setting: row for row in rows if row.factor == "precision"}
    biased = [row for row in rows if row.factor == "end of text"]
    fit, full = contexts["fit"], contexts["full"]
    shortest = next((row for row in contexts.values() if not _worse(row, full)), full)
    if _worse(fit, full):
        cure = "" if shortest.setting == "full" else f" ({shortest.setting} of context more than the clip is enough)"
        return "audio context", (
            f"The audio context is the cause: {_of(fit)} repeat with the window cut to the clip and {_of(full)} at the "
            f"whole window{cure}; train with training.audio_context (fit) or the acft objective, or decode at full, "
            "before converting or quantising anything else."
        )
    broken = next((row for row in precise.values() if _worse(row, precise["float32"])), None)
    if broken:
        return "precision", (
            f"Storage precision is the cause: {_of(broken)} repeat with {broken.setting} weights and "
            f"{_of(precise['float32'])} with float32; export with more bits."
        )
    base = biased[0]
    cured = next((row for row in biased[1:] if _worse(base, row)), None)
    if cured:
        lost = ""
        if base.wer is not None and cured.wer is not None:
            lost = f" (WER {100 * base.wer:.1f} % without, {100 * cured.wer:.1f} % with it)"
        return "end of text", (
            f"The model ends its texts too late: {_of(base)} repeat at {judged_at} context, {_of(cured)} with "
            f"{cured.setting} on the end-of-text logit{lost}; train on labels that end with it, on clips of mixed "
            "lengths."
        )
    if base.repeating or fit.repeating or full.repeating:
        return "model", (
            f"Neither context, precision nor the end of the text explains it: {_of(base)} repeat at {judged_at} "
            "context under all of them; look at the training (learning rate, looping labels), and use "
            "decoding.guards meanwhile."
        )
    return "none", f"Nothing repeats: {_of(full)} at the whole window, {_of(fit)} with the window cut to the clip."


def _worse(one: Row, other: Row) -> bool:
    return one.repeating - other.repeating >= 2 and one.share - other.share > _MARKED_SHARE


def _of(row: Row) -> str:
    return f"{row.repeating} of {row.clips} clips"
