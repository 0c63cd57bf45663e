"""Logits processors of a decoding configuration: language model fusion and preferred terms."""

from __future__ import annotations

from functools import partial
from typing import Any

from speechtune.core.errors import InputError
from speechtune.decoding.config import DecodingConfig
from speechtune.models.family import Family
from speechtune.models.whisper_search import Guide


def build_guides(family: Family, config: DecodingConfig) -> list[Any]:
    """What changes the scores of the next token, in order: the language model, then the terms.

    Raises:
        InputError: the family's decoder has no tokens to guide, or the language model cannot be had.
    """
    fused = config.lm.model is not None and config.lm.use != "rescore"
    terms = config.boost.all_terms()
    if hasattr(family, "log_probs"):
        return _ctc_guides(config)
    if not config.ctc.is_default():
        raise InputError(f"decoding.ctc works with CTC models only and this is a {family.name} model: remove it")
    if not fused and not terms:
        return []
    whisper: Any = family
    if not hasattr(family, "eot"):
        raise InputError(
            f"decoding.lm.use: fuse and decoding.boost do not work with a {family.name} model: remove them"
        )
    guides: list[Guide] = []
    if fused:
        guides.append(_fusion(whisper, config))
    if terms:
        from speechtune.decoding.boosting import TermBoost, build_tree

        tree = build_tree(whisper.tokenizer, terms)
        guides.append(lambda begin: TermBoost(tree, begin, whisper.eot))
    return guides


def _ctc_guides(config: DecodingConfig) -> list[Any]:
    """The one guide of a CTC model's beam search."""
    if config.fallback.active:
        raise InputError("decoding.fallback does not work with a CTC model: remove it")
    from speechtune.decoding.lm.ctc_words import ctc_guide

    guide = ctc_guide(config)
    return [] if guide is None else [guide]


def _fusion(family: Any, config: DecodingConfig) -> Guide:
    from speechtune.decoding.lm.fusion import TokenFusion, Vocabulary, WordFusion
    from speechtune.decoding.lm.loading import load_lm
    from speechtune.decoding.lm.text import words_function

    lm = config.lm
    model = load_lm(str(lm.model))
    if lm.use == "fuse-tokens":
        return lambda begin: TokenFusion(family.eot, model, lm.alpha, lm.beta, begin)
    vocabulary = Vocabulary.of(family.tokenizer, int(family.config.vocab_size), family.eot, lm.words == "spoken")
    make = partial(WordFusion, vocabulary, model, words_function(lm.words), lm.alpha, lm.beta)
    return lambda begin: make(begin)
