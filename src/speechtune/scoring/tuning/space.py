"""The decoding settings that are tried, and how a draw of them becomes a `DecodingConfig`."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import Any, Protocol

from speechtune.decoding.config import DecodingConfig

LADDER = [0.2, 0.4, 0.6, 0.8, 1.0]
"""Whisper's fallback temperatures (openai/whisper ``transcribe.py``), after the search itself."""

_BEAMS = (1, 2, 3, 5, 8)
_MARGINS_S = (0.0, 0.1, 0.2, 0.5, 1.0)
_LENGTH_PENALTIES = (0.0, 0.5, 1.0, 1.5)
_REPETITION_PENALTIES = (1.0, 1.05, 1.1, 1.2)
_NO_REPEAT = (0, 3, 4, 5)
_ALPHAS = (0.05, 0.1, 0.2, 0.3, 0.5)
_BETAS = (0.0, 0.5, 1.0)

Params = dict[str, Any]
"""What was drawn: flat names and plain values, as the study keeps them."""


class Draws(Protocol):
    """What draws one of several values by name: an Optuna trial, or a test."""

    def suggest_categorical(self, name: str, choices: Any) -> Any:
        """One of the choices."""


@dataclass(frozen=True, slots=True)
class Space:
    """What may be varied. ``contexts``: audio contexts that the model was trained for; ``prompt``: a text to try as
    what was said before; ``lm``: a language model to try.
    """

    contexts: tuple[str, ...] = ("fit",)
    most_beams: int = 5
    prompt: str | None = None
    lm: str | None = None


def draw(trial: Draws, space: Space) -> Params:
    """Draw settings; what has no effect beside the others is not drawn."""
    params: Params = {}

    def choose(name: str, choices: tuple[Any, ...]) -> Any:
        params[name] = trial.suggest_categorical(name, list(choices))
        return params[name]

    context = choose("context", space.contexts) if len(space.contexts) > 1 else space.contexts[0]
    if context == "fit":
        choose("margin_s", _MARGINS_S)
    beams = choose("beams", tuple(one for one in _BEAMS if one <= space.most_beams))
    if beams > 1:
        choose("length_penalty", _LENGTH_PENALTIES)
    choose("repetition_penalty", _REPETITION_PENALTIES)
    choose("no_repeat_ngram", _NO_REPEAT)
    choose("fallback", (False, True))
    if space.prompt:
        choose("prompt", (False, True))
    if space.lm:
        # Two names, because a study keeps the choices of a name fixed.
        name, uses = ("lm_use", ("none", "fuse", "rescore")) if beams > 1 else ("lm_use_greedy", ("none", "fuse"))
        if choose(name, uses) != "none":
            choose("alpha", _ALPHAS)
            choose("beta", _BETAS)
    return params


def settings(base: DecodingConfig, params: Params, space: Space) -> DecodingConfig:
    """The decoding configuration of a draw: ``base`` with what was drawn.

    Beam search stops once as many hypotheses as beams are finished (`early_stopping`): without it, five beams cost
    several times as much.
    """
    values = base.model_dump()
    for name in ("context", "margin_s", "beams"):
        if name in params:
            values[name] = params[name]
    search = values["search"]
    for name in ("length_penalty", "repetition_penalty", "no_repeat_ngram"):
        if name in params:
            search[name] = params[name]
    if values["beams"] > 1:
        search["early_stopping"] = True
    if params.get("fallback"):
        values["fallback"]["temperatures"] = LADDER
    if params.get("prompt"):
        search["prompt"] = space.prompt
    use = params.get("lm_use", params.get("lm_use_greedy", "none"))
    if use != "none":
        values["lm"] |= {"model": space.lm, "use": use, "alpha": params["alpha"], "beta": params["beta"]}
        if use == "rescore":
            search["n_best"] = values["beams"]
    return DecodingConfig.model_validate(values)


def key_of(config: DecodingConfig) -> str:
    """A short name of a configuration: equal for equal settings."""
    text = json.dumps(config.model_dump(), sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def block_of(config: DecodingConfig) -> dict[str, Any]:
    """What a recipe's ``decoding:`` block must say: the context, and all that is not the default."""
    return {"context": config.context, **config.model_dump(exclude_defaults=True)}
