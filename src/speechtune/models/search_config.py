"""The ``decoding.search`` part of a recipe: how hypotheses are searched for, and how many are kept."""

from __future__ import annotations

from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from speechtune.core.errors import InputError


class SearchConfig(BaseModel):
    """How hypotheses are searched for. The defaults are plain greedy decoding or beam search."""

    model_config = ConfigDict(extra="forbid")

    n_best: int = Field(
        1, ge=1, description="Hypotheses kept for each clip; at most as many as beams unless they are sampled."
    )
    length_penalty: float = Field(
        1.0,
        description="Beam search ranks by log-probability / tokens ** this: 0 favours short texts, above 1 long ones.",
    )
    early_stopping: bool = Field(
        False,
        description="Stop a clip's beam search once as many hypotheses as beams are finished. Much faster with many "
        "beams: without it Transformers goes on until the worst kept one cannot be beaten.",
    )
    repetition_penalty: float = Field(
        1.0,
        gt=0,
        description="Logits of tokens that occurred are divided by this (Keskar et al. 2019, arXiv 1909.05858); "
        "the prompt counts as occurred.",
    )
    no_repeat_ngram: int = Field(0, ge=0, description="No n-gram of so many tokens occurs twice; 0: no limit.")
    sample: bool = Field(False, description="Draw tokens by their probability instead of taking the best.")
    temperature: float = Field(1.0, gt=0, description="Of sampling: logits are divided by it.")
    top_k: int = Field(0, ge=0, description="Sampling draws among so many best tokens; 0: all.")
    top_p: float = Field(
        1.0,
        gt=0,
        le=1,
        description="Sampling draws among the best tokens that hold this probability (Holtzman et al. 2020).",
    )
    min_p: float = Field(
        0.0, ge=0, lt=1, description="Sampling leaves out tokens below this share of the best one's probability."
    )
    typical_p: float = Field(
        1.0, gt=0, le=1, description="Locally typical sampling (Meister et al. 2023, arXiv 2202.00666)."
    )
    seed: int = Field(0, ge=0, description="Of sampling; a clip's draws also depend on the clips in its batch.")
    prompt: str | None = Field(
        None,
        description="Text given as what was said before (after <|startofprev|>): names, style and spelling follow it. "
        "The last half of the decoder's window of it is used.",
    )
    hotwords: list[str] = Field(
        default_factory=list, description="Words put into the prompt as a list, before its text."
    )
    glossary: dict[str, str] = Field(
        default_factory=dict,
        description="Terms that may be said, each with what it means (or nothing), as in {Okonkwo: a doctor, EKG: ''}; "
        "put into the prompt behind the hotwords, as in Okonkwo (a doctor), EKG.",
    )
    prefix: str | None = Field(None, description="Text that every transcript begins with.")
    languages: list[str] = Field(
        default_factory=list,
        description="Whisper: the languages of the prompt, in order, as in [zh, en] for speech that changes between "
        "them (Peng et al. 2023, arXiv 2305.11095: one language token after the other). Empty: the model's one.",
    )
    task: Literal["transcribe", "translate"] = Field(
        "transcribe", description="Whisper, multilingual: write what was said, or translate it into English."
    )
    suppress: list[str] = Field(
        default_factory=list, description="Texts whose single tokens never occur, with and without a leading space."
    )
    suppress_tokens: list[int] = Field(default_factory=list, description="Token ids that never occur.")
    scores: Literal["auto", "always"] = Field(
        "auto",
        description="auto: sums of log-probabilities and the probability of silence are computed where something "
        "needs them; always: for every clip.",
    )

    @model_validator(mode="after")
    def _sampling_needs_sample(self) -> SearchConfig:
        drawn = ("temperature", "top_k", "top_p", "min_p", "typical_p")
        given = [name for name in drawn if getattr(self, name) != type(self).model_fields[name].default]
        if given and not self.sample:
            raise ValueError(f"{given[0]} acts on sampling only: set sample: true too, or remove it")
        return self

    def said_before(self) -> list[str]:
        """What the prompt holds, in order: hotwords, the glossary, the text."""
        terms = [f"{term} ({gloss})" if gloss else term for term, gloss in self.glossary.items()]
        return [
            *self.hotwords,
            *([", ".join(terms) + "."] if terms else []),
            *([self.prompt.strip()] if self.prompt else []),
        ]

    def controls(self) -> bool:
        """Whether languages or the task of the prompt are others than the model's own."""
        return bool(self.languages) or self.task != "transcribe"

    def is_plain(self) -> bool:
        """Whether nothing asks for more than one best hypothesis of plain greedy decoding or beam search."""
        return self == type(self)()


def check_n_best(search: SearchConfig, beams: int) -> None:
    """A search must find as many hypotheses as are kept.

    Raises:
        InputError: more are kept than there are beams, and they are not sampled.
    """
    if search.n_best > beams and not search.sample:
        raise InputError(
            f"decoding.search.n_best is {search.n_best} and decoding.beams {beams}: set as many beams, or sample: true"
        )
