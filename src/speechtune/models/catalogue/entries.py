"""The catalogue of models: what each is, what it needs and who says so (``catalogue.yaml``).

Nothing here loads torch or a model. Every number carries the key of a source, and loading the file proves that each
key exists.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from speechtune.core.errors import InputError
from speechtune.corpus.language_codes import short_code

FILE = Path(__file__).with_name("catalogue.yaml")

Knows = Literal["yes", "maybe", "new head", "no"]
"""Whether a model writes a language: it is listed; only a number of languages is published; after a new head; no."""

Evidence = Literal["measured", "competition", "reported", "opinion"]
"""What stands behind a preference: measured with speechtune; a competition on such data; published figures on other
data; a statement without figures."""


class _Block(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Source(_Block):
    """Who says it: what, and where to read it."""

    what: str
    where: str


class Figure(_Block):
    """A number and the key of its source."""

    value: float
    source: str


class Claim(_Block):
    """A word and the key of its source."""

    value: str
    source: str


class Languages(_Block):
    """The languages of a model: a named ``set``, ``codes``, or only their ``count``.

    ``kind``: ``recognised`` (it writes them) or ``pretrained`` (it heard them and needs a head).
    """

    set: str | None = None
    codes: tuple[str, ...] = ()
    count: int | None = None
    kind: Literal["recognised", "pretrained"] = "recognised"
    source: str

    @model_validator(mode="after")
    def _says_one_thing(self) -> Languages:
        if sum(one is not None and one != () for one in (self.set, self.codes, self.count)) != 1:
            raise ValueError("languages are a set, codes or a count: give exactly one")
        return self


class Memory(_Block):
    """Memory that its source states, MB (10^6 bytes)."""

    mb: float
    runtime: str
    precision: str
    source: str


class Speed(_Block):
    """A speed that its source states; ``unit`` says whether more is faster."""

    value: float
    unit: str
    hardware: str
    source: str


class Accuracy(_Block):
    """A published word error rate, percent, and on what."""

    value: float
    test_set: str
    source: str


class FamilyEntry(_Block):
    """What all models of a family share. ``punctuation``: whether they write it as published."""

    title: str
    architecture: str
    runs_with: Literal["transformers", "nemo", "espnet", "fairseq2"]
    punctuation: bool
    about: str


class CatalogueModel(_Block):
    """One model. ``model_type`` is that of its ``config.json``, where it has one."""

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9.-]*$")
    hub: str
    family: str
    model_type: str | None = None
    runs_with: Literal["transformers", "nemo", "espnet", "fairseq2"] | None = None
    parameters_m: Figure
    licence: Claim
    commercial: bool = True
    recognises: bool = True
    languages: Languages
    about: str = ""
    memory: tuple[Memory, ...] = ()
    speed: tuple[Speed, ...] = ()
    wer_percent: Accuracy | None = None
    errata: tuple[str, ...] = ()


class Preference(_Block):
    """Models that suit a purpose, the best first, what says so, and how it is known."""

    models: tuple[str, ...]
    evidence: Evidence
    why: str
    source: str
    small: bool = False


class Purpose(_Block):
    """What a recogniser is for, and the models preferred for it."""

    about: str
    prefer: tuple[Preference, ...]
    max_parameters_m: Figure | None = None
    needs_export: str | None = None


class LeftOut(_Block):
    """What the notebook names and the catalogue does not offer."""

    name: str
    why: str
    source: str


class SmallData(_Block):
    """Below so many hours the notebook keeps full fine-tuning to models of at most this size (millions)."""

    hours: float
    largest_m: float
    source: str


class Catalogue(_Block):
    """The whole file."""

    sources: dict[str, Source]
    language_sets: dict[str, tuple[str, ...]]
    families: dict[str, FamilyEntry]
    models: tuple[CatalogueModel, ...]
    purposes: dict[str, Purpose]
    cpu_limit_m: Figure
    small_data: SmallData
    left_out: tuple[LeftOut, ...]

    @model_validator(mode="after")
    def _holds_together(self) -> Catalogue:
        names = [one.name for one in self.models]
        if len(set(names)) != len(names):
            raise ValueError("two models of the catalogue have one name")
        for key in _sources_in(self.model_dump(exclude={"sources"})):
            if key not in self.sources:
                raise ValueError(f"no source is called {key!r}")
        for one in self.models:
            if one.family not in self.families:
                raise ValueError(f"{one.name}: no family is called {one.family!r}")
            if one.languages.set is not None and one.languages.set not in self.language_sets:
                raise ValueError(f"{one.name}: no set of languages is called {one.languages.set!r}")
        for purpose in self.purposes.values():
            for name in (name for one in purpose.prefer for name in one.models):
                if name not in names:
                    raise ValueError(f"a purpose prefers {name!r}, which is not in the catalogue")
        return self

    def get(self, name: str) -> CatalogueModel:
        """The model of a name or hub id.

        Raises:
            InputError: there is none; the sentence offers the nearest names.
        """
        bare = name.removeprefix("hf:").split("@")[0]
        for one in self.models:
            if bare in (one.name, one.hub):
                return one
        near = difflib.get_close_matches(name, [one.name for one in self.models], n=3, cutoff=0.5)
        hint = f"did you mean {' or '.join(near)}?" if near else "see speechtune models list"
        raise InputError(f"no model of the catalogue is called {name!r}: {hint}")

    def languages_of(self, model: CatalogueModel) -> tuple[str, ...]:
        """The codes that are known one by one; empty where only their number is published."""
        return self.language_sets[model.languages.set] if model.languages.set else model.languages.codes

    def language_text(self, model: CatalogueModel) -> str:
        """The languages in a few words, as a table shows them."""
        codes = self.languages_of(model)
        if codes == ("en",):
            return "English"
        if 0 < len(codes) <= 5:
            return " ".join(codes)
        return f"{len(codes) or model.languages.count} languages"

    def knows(self, model: CatalogueModel, language: str) -> Knows:
        """Whether the model writes a language (a code, tag or English name)."""
        if not model.recognises:
            return "new head"
        codes = self.languages_of(model)
        if not codes:
            return "maybe"
        return "yes" if short_code(language) in {short_code(one) for one in codes} else "no"

    def runs_with(self, model: CatalogueModel) -> str:
        """The library that loads it."""
        return model.runs_with or self.families[model.family].runs_with


def _sources_in(value: Any) -> Iterator[str]:
    """Every ``source`` in a nested value."""
    if isinstance(value, dict):
        for key, one in value.items():
            if key == "source":
                yield one
            else:
                yield from _sources_in(one)
    elif isinstance(value, list | tuple):
        for one in value:
            yield from _sources_in(one)


@cache
def catalogue() -> Catalogue:
    """The catalogue, read and checked once."""
    loader = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    return Catalogue.model_validate(yaml.load(FILE.read_text(encoding="utf-8"), Loader=loader))


def hub_names() -> dict[str, str]:
    """Short names of what `speechtune models get` fetches from the Hugging Face hub, with the ids they stand for."""
    known = catalogue()
    return {one.name: one.hub for one in known.models if known.runs_with(one) in ("transformers", "espnet")}
