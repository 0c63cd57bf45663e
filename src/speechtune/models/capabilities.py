"""What a family can do, declared once on its class and read by the code, the documentation and the catalogue.

A family's class has a ``capabilities``. Code that serves some families asks it instead of comparing names, and the
table of ``docs/families.md`` is made from it (`python -m speechtune.models.capabilities_table`).
`tests/models/test_capabilities.py` proves every declaration with a tiny model: what is declared works, what is not is
refused in one sentence.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Literal

from speechtune.core.errors import InputError


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """The declaration of a family.

    Attributes:
        title: its name in tables.
        loss: what training minimises, in a few words.
        frames_per_second: positions of the encoder for a second of audio.
        audio_in_decoder: the decoder reads the audio as positions of its own (a language model with an audio tower).
        full: all weights can be trained.
        lora: low-rank adapters.
        layer_wise: freezing and rates by depth.
        word_times: where the times of words come from; ``None``: there are none.
        time_tokens: it is trained with, and decodes, timestamps of its own (``decoding.long: sequential``).
        search: ``decoding.search`` (sampling, penalties, constraints).
        n_best: lists of hypotheses.
        lm_fusion: an n-gram model inside the search.
        streaming: live transcription.
        no_speech: a probability that nobody speaks.
        label_likelihood: a probability for every token of a given text.
        distillation: a teacher's logits and hidden states, and the other terms that look inside.
        grpo: rewarding sampled transcripts.
        shrinks: `speechtune models shrink` makes students of it.
        exports: the formats of `speechtune export`; every family's own directory loads with Transformers.
    """

    title: str
    loss: str
    frames_per_second: float
    audio_in_decoder: bool = False
    full: bool = True
    lora: bool = True
    layer_wise: bool = True
    word_times: Literal["cross-attention", "CTC alignment"] | None = None
    time_tokens: bool = False
    search: bool = False
    n_best: bool = False
    lm_fusion: bool = False
    streaming: bool = True
    no_speech: bool = False
    label_likelihood: bool = False
    distillation: bool = True
    grpo: bool = False
    shrinks: bool = False
    exports: tuple[str, ...] = ()


def family_class(model_type: str) -> Any:
    """The class that loads a ``model_type``; ``None`` where no family does. Imports torch."""
    from speechtune.models.family import FAMILIES

    if model_type not in FAMILIES:
        return None
    module, attribute = FAMILIES[model_type].split(":")
    return getattr(import_module(module), attribute)


def capabilities_of(model_type: str) -> Capabilities | None:
    """The declaration of the family of a ``model_type``; ``None`` where there is no family or it declares nothing."""
    return getattr(family_class(model_type), "capabilities", None)


def declared() -> Mapping[str, tuple[Any, tuple[str, ...]]]:
    """Every family that declares its capabilities: by name its class and the model types it loads, in their order."""
    from speechtune.models.family import FAMILIES

    found: dict[str, tuple[Any, tuple[str, ...]]] = {}
    for model_type in FAMILIES:
        kind = family_class(model_type)
        if getattr(kind, "capabilities", None) is not None:
            types = found.get(kind.name, (kind, ()))[1]
            found[kind.name] = (kind, (*types, model_type))
    return found


def can(family: Any, what: str) -> bool:
    """Whether a loaded family declares a capability; one without a declaration can nothing."""
    return bool(getattr(getattr(family, "capabilities", None), what, False))


def require(model_type: str, what: str, sentence: str) -> None:
    """Refuse a model type without a capability.

    Raises:
        InputError: the ``sentence``.
    """
    declaration = capabilities_of(model_type)
    if declaration is None or not getattr(declaration, what):
        raise InputError(sentence)
