"""The model that is exported: opened, with what a runtime must be told of it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.files import read_json
from speechtune.decoding.sources import open_model, trained_for
from speechtune.models.adapters import base_of, is_adapter
from speechtune.models.checking import is_transformers
from speechtune.models.importers.whisper_tokens import WhisperTokens, read_tokens
from speechtune.models.whisper import WhisperFamily

FLOAT16_MAX = 65504.0
"""The largest float16 number (IEEE 754 binary16)."""


@dataclass(slots=True)
class Source:
    """A loaded Whisper model and where it came from; ``run`` is its run directory, if it is one of speechtune's."""

    name: str
    path: Path
    family: WhisperFamily
    run: Path | None
    contexts: list[str]

    @property
    def multilingual(self) -> bool:
        """Whether the prompt names a language and a task."""
        return bool(getattr(self.family.generation_config, "is_multilingual", False))

    @property
    def limit(self) -> int:
        """Tokens that may be generated for a clip: half the text context, Whisper's own rule."""
        return self.family.limits.max_label_tokens // 2

    def tokens(self) -> WhisperTokens:
        """The tokenizer, completed and checked against the weights.

        Raises:
            InputError: it belongs to another model.
        """
        return read_tokens(self.tokenizer_directory, int(self.family.config.vocab_size))

    @property
    def tokenizer_directory(self) -> Path:
        """Where ``tokenizer.json`` lies: with the model, or with the base of an adapter."""
        return base_of(self.path) if is_adapter(self.path) else self.path

    def tensors(self) -> dict[str, np.ndarray]:
        """The float32 weights under their Transformers names; the tied output projection is left out."""
        state = self.family.model.state_dict()
        if self.family.config.tie_word_embeddings:
            state.pop("proj_out.weight", None)
        return {name: tensor.detach().cpu().numpy() for name, tensor in state.items()}

    def check_float16(self, kind: str) -> None:
        """Refuse a model whose weights float16 cannot hold.

        Raises:
            InputError: a weight is not finite, or beyond what float16 reaches; the sentence names the tensor.
        """
        for name, values in self.tensors().items():
            worst = float(np.abs(values).max()) if values.size else 0.0
            if not np.isfinite(worst):
                raise InputError(f"{self.path} has a weight in {name} that is not a number: train it again")
            if worst > FLOAT16_MAX:
                raise InputError(
                    f"{self.path} has a weight of {worst:.3g} in {name}, beyond float16's {FLOAT16_MAX:.0f}, so it "
                    f"cannot be written as {kind}: export float32"
                )


def open_source(model: str, language: str | None = None) -> Source:
    """Load what is to be exported, an adapter merged into its base.

    Raises:
        InputError: no such model, or one that is not a Whisper.
    """
    opened = open_model(model, language=language)
    if not isinstance(opened.family, WhisperFamily):
        raise InputError(
            f"{model} is of family {opened.family.name}, and export knows Whisper models: "
            f"{opened.path} is already a plain Transformers directory"
        )
    given = Path(model)
    places = (given, given.parent) if given.exists() else ()
    run = next((one for one in places if (one / "recipe.yaml").is_file()), None)
    contexts = list(trained_for(opened.path).get("audio_contexts", ["full"]))
    opened.family.model.eval()
    return Source(model, opened.path, opened.family, run, contexts)


@contextmanager
def plain_directory(source: Source, scratch: Path) -> Iterator[Path]:
    """A Transformers directory with the whole float32 model: the source's own, or one with its adapter merged."""
    if is_transformers(source.path) and not is_adapter(source.path):
        yield source.path
        return
    folder = scratch / "merged"
    source.family.save(folder)
    yield folder


def generation_settings(source: Source) -> dict[str, Any]:
    """What decoding must be told: prompt, end, suppressed tokens, limits."""
    family, generation = source.family, source.family.generation_config
    return {
        "prompt": family.prompt,
        "eot": family.eot,
        "first_timestamp": family.first_timestamp,
        "vocabulary": int(family.config.vocab_size),
        "suppress": list(generation.suppress_tokens or []),
        "begin_suppress": list(generation.begin_suppress_tokens or []),
        "limit": min(224, source.limit),
        "language": family.language,
        "multilingual": source.multilingual,
    }


def alignment_heads(source: Source) -> list[list[int]]:
    """The cross-attention heads that follow time: those named by the model, else its last half of layers."""
    named = getattr(source.family.generation_config, "alignment_heads", None)
    if named:
        return [list(map(int, pair)) for pair in named]
    config = source.family.config
    layers, heads = int(config.decoder_layers), int(config.decoder_attention_heads)
    return [[layer, head] for layer in range(layers // 2, layers) for head in range(heads)]


def preprocessor_settings(source: Source) -> dict[str, Any]:
    """``preprocessor_config.json`` of this model, from its weights and not from what lay beside them."""
    from speechtune.models.importers.ctranslate2_whisper import preprocessor_config

    config = source.family.config
    sizes = {"num_mel_bins": int(config.num_mel_bins), "max_source_positions": int(config.max_source_positions)}
    return preprocessor_config(sizes)


def missing_or_wrong(source: Source, out: Path, names: Sequence[str]) -> list[str]:
    """What an artefact with a ``preprocessor_config.json`` lacks or contradicts, in sentences; empty if nothing."""
    missing = [f"{name} is missing" for name in names if not (out / name).is_file()]
    if missing:
        return missing
    mels = read_json(out / "preprocessor_config.json").get("feature_size")
    if mels != source.family.mel_bins:
        return [f"preprocessor_config.json says {mels} mel bins where the model has {source.family.mel_bins}"]
    return []


def recorded_contexts(source: Source) -> dict[str, Any]:
    """``speechtune.json`` of the artefact: the audio contexts the model was trained for, and its language."""
    file = source.path / "speechtune.json"
    known = {"audio_contexts": source.contexts, "language": source.family.language}
    return read_json(file) if file.is_file() else known
