"""What a user may name as a model and as input, opened."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from speechtune.core.config import load_config
from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.corpus.table import METADATA, Corpus, Utterance
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.engines.opening import open_engine
from speechtune.decoding.together.opening import names_several, open_ensemble
from speechtune.decoding.transcript import Transcript, write_transcripts
from speechtune.models.checking import is_ctranslate2
from speechtune.models.family import Family
from speechtune.models.obtaining import resolve_model


@dataclass(slots=True)
class OpenedModel:
    """A loaded model, where it came from, and how it will decode."""

    path: Path
    family: Family
    decoding: DecodingConfig


class _Settings(BaseModel):
    """What a settings file and overrides may say."""

    model_config = ConfigDict(extra="forbid")

    decoding: DecodingConfig = Field(default_factory=DecodingConfig)


def open_model(
    name: str,
    *,
    language: str | None = None,
    context: str | None = None,
    batch_size: int = 16,
    beams: int = 1,
    settings: Path | None = None,
    overrides: Sequence[str] = (),
) -> OpenedModel:
    """Load a run's model, a model directory, a catalogue model, or several of them joined by ``+`` as an ensemble.

    Without ``context``: ``fit`` where the model was trained for it (``speechtune.json`` beside its
    weights says so), else ``full``. Without ``language``: the one the run was trained with. ``settings`` is a YAML
    file with a ``decoding`` block, ``overrides`` are ``decoding.key=value``; what they set wins over the arguments.

    Raises:
        InputError: no such model, an unknown context, or settings that are wrong.
    """
    if names_several(name):
        return open_ensemble(
            name,
            lambda one: open_model(
                one,
                language=language,
                context=context,
                batch_size=batch_size,
                beams=beams,
                settings=settings,
                overrides=overrides,
            ),
        )
    decoding = load_config(_Settings, settings, overrides).decoding
    given = decoding.model_fields_set
    path = _directory(name)
    if not path.is_dir() and (Path(name) / "adapters").is_dir():
        names = ", ".join(sorted(one.name for one in (Path(name) / "adapters").iterdir() if one.is_dir()))
        raise InputError(f"{name} holds several adapters ({names}): give one of them, as in {name}/adapters/NAME")
    if not path.is_dir():
        raise InputError(f"{name} holds no finished model: wait for the run, or continue it with --resume")
    trained = trained_for(path)
    first = decoding.search.languages[0] if decoding.search.languages else None
    family = open_engine(path, decoding, language or trained.get("language") or first)
    contexts = trained.get("audio_contexts", list(family.contexts[-1:]))
    chosen = (decoding.context if "context" in given else context) or ("fit" if "fit" in contexts else "full")
    if chosen not in ("fit", "full"):
        raise InputError(f"--context {chosen!r} is unknown: use fit or full")
    if chosen not in family.contexts:
        raise InputError(f"{name} has no padded window to decode at, so --context {chosen} means nothing: leave it out")
    if chosen not in contexts:
        note(f"warning: {name} was not trained at {chosen} context; expect many errors (trained for: {contexts})")
    rest = {"context": chosen, "batch_size": batch_size, "beams": beams}
    return OpenedModel(path, family, decoding.model_copy(update={k: v for k, v in rest.items() if k not in given}))


def _directory(name: str) -> Path:
    """Where a model lies: in its run, where it is, or below `models_home`."""
    if (Path(name) / "recipe.yaml").is_file():
        return Path(name) / "model"
    return Path(name) if is_ctranslate2(Path(name)) else resolve_model(name)


def trained_for(path: Path) -> dict[str, Any]:
    """What a model's ``speechtune.json`` says of its training: audio contexts and language; empty without one."""
    file = path / "speechtune.json"
    return json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}


def open_source(source: Path, split: str | None = None, *, window_s: float) -> Corpus:
    """A corpus, a folder of audio files (recursively), or one audio file, as a corpus with empty texts.

    Raises:
        InputError: nothing readable there, or a file is longer than ``window_s``.
    """
    from speechtune.audio.io import AUDIO_SUFFIXES, probe

    if (source / METADATA).is_file():
        corpus = Corpus.load(source)
        return corpus.split(split) if split else corpus
    if not source.exists():
        raise InputError(f"{source} does not exist: check the path")
    files = [source] if source.is_file() else sorted(path for path in source.rglob("*") if _is_audio(path))
    if not files:
        raise InputError(f"{source} holds no audio files ({', '.join(sorted(AUDIO_SUFFIXES))}): check the path")
    root = source.parent if source.is_file() else source
    utterances = []
    for file in files:
        duration_s = probe(file).duration_s
        if duration_s > window_s:
            raise InputError(
                f"{file} is {duration_s:.1f} s long and the model's window is {window_s:g} s: cut it into shorter clips"
            )
        name = str(file.relative_to(root))
        utterances.append(Utterance(utterance_id=name, file_name=name, text="", duration_s=duration_s))
    return Corpus(root, utterances)


def _is_audio(path: Path) -> bool:
    from speechtune.audio.io import AUDIO_SUFFIXES

    return path.is_file() and path.suffix.lower() in AUDIO_SUFFIXES and not path.name.startswith(".")


def transcribe_to(opened: OpenedModel, corpus: Corpus, out: Path | None) -> list[Transcript]:
    """Transcribe a corpus of utterances of any length, and write the transcripts to ``out`` if it is given."""
    from speechtune.decoding.long.transcribing import transcribe_all

    transcripts = transcribe_all(opened.family, corpus, opened.decoding)
    if out is not None:
        write_transcripts(out, transcripts)
    return transcripts
