"""Which models to try first for given data, device and purpose, how sure that is, and why.

The order for a purpose does not depend on the device; memory only takes models away, those with the most parameters
first. So less memory never leads to a larger model (`tests/models/test_catalogue_recommend.py`).
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Literal

from speechtune.core.errors import InputError
from speechtune.corpus.language_codes import short_code
from speechtune.models.catalogue.entries import Catalogue, CatalogueModel, Evidence, Preference, Purpose, catalogue
from speechtune.models.catalogue.memory import Need, inference_gib, training_needs

PURPOSES = ("general", "server", "phone", "dictation", "personal", "children", "low-resource", "code-switched")
Sureness = Literal["low", "medium"]
"""A table cannot make anyone surer than that: only a measurement on one's own data can."""

OFFERED = 3
"""Models that are offered for measurement."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Needs:
    """What is known of the data, the device and the purpose; ``None``: unknown.

    ``gpu_gb``: memory of the training GPU, 10^9 bytes; ``None`` with ``ram_gb``: there is no GPU and everything runs
    on the CPU. ``commercial``: the result is sold.
    """

    purpose: str | None = None
    hours: float | None = None
    languages: tuple[str, ...] = ()
    speakers: int | None = None
    children: bool = False
    code_switching: bool = False
    gpu_gb: float | None = None
    ram_gb: float | None = None
    commercial: bool = False
    corpus: str | None = None

    @property
    def memory_gib(self) -> float:
        """What may be used: the GPU's memory, else the machine's."""
        given = self.gpu_gb if self.gpu_gb is not None else self.ram_gb
        return float("inf") if given is None else given * 1e9 / 2**30


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """One sentence and who says so: a key of the catalogue's sources, or lines of the requirements notebook."""

    text: str
    source: str


@dataclass(slots=True, kw_only=True)
class Candidate:
    """A model to try. ``ways``: the ways of training it that fit, the one with the most memory first."""

    name: str
    parameters_m: float
    evidence: Evidence
    licence: str
    reasons: list[Reason]
    ways: list[Need]
    needs_head: bool


@dataclass(slots=True, kw_only=True)
class Recommendation:
    """The candidates in order, and what to do with them. ``commands`` ends with the baseline.

    ``sources``: what each key of a source stands for.
    """

    purpose: str
    candidates: list[Candidate]
    sure: Sureness
    why_not_surer: list[str]
    remarks: list[Reason]
    left_out: dict[str, int]
    commands: list[str] = field(default_factory=list)
    sources: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Everything, JSON-ready."""
        return asdict(self)


def recommend(
    needs: Needs, loadable: Callable[[CatalogueModel], bool], exports: Callable[[CatalogueModel], Sequence[str]]
) -> Recommendation:
    """The models to measure, the likeliest first.

    Args:
        needs: what is known.
        loadable: whether this speechtune loads and trains a model.
        exports: the formats a model can be exported to.

    Raises:
        InputError: the purpose is unknown, or no model of the catalogue fits.
    """
    known = catalogue()
    name = needs.purpose or _inferred(needs, known)
    if name not in known.purposes:
        raise InputError(f"there is no purpose {name!r}: use one of {', '.join(known.purposes)}")
    purpose = known.purposes[name]
    left_out: dict[str, int] = {}
    order = _order(known, purpose, needs, name)
    reasons: dict[str, str] = {}
    for model in order:
        why = _refusal(known, model, needs, purpose, loadable, exports)
        if why is not None:
            reasons[model.name] = why
            left_out[why] = left_out.get(why, 0) + 1
    fitting = [model for model in order if model.name not in reasons]
    if not fitting:
        raise InputError(_nothing(left_out))
    chosen = fitting[:OFFERED]
    candidates = [_candidate(known, model, purpose, needs) for model in chosen]
    doubts = _doubts(needs, candidates[0], name, known, chosen[0])
    result = Recommendation(
        purpose=name,
        candidates=candidates,
        sure="low" if len(doubts) > 1 or candidates[0].evidence == "opinion" else "medium",
        why_not_surer=doubts,
        remarks=_remarks(needs, name, known, candidates),
        left_out=left_out,
    )
    said = [reason.source for one in candidates for reason in one.reasons] + [one.source for one in result.remarks]
    result.sources = {
        key: f"{known.sources[key].what} ({known.sources[key].where})" for key in said if key in known.sources
    }
    result.commands = _commands(needs, chosen, fitting)
    return result


def memory_needed_gib(model: CatalogueModel, decode_only: bool = False) -> float:
    """The least memory with which the model is offered: an adapter on a base at 4 bits, or decoding at 8 bits, GiB."""
    parameters = model.parameters_m.value * 1e6
    return inference_gib(parameters, "int8") if decode_only else training_needs(parameters)[-1].gib


def _inferred(needs: Needs, known: Catalogue) -> str:
    if needs.code_switching:
        return "code-switched"
    if needs.children:
        return "children"
    if needs.languages and not any(
        all(known.knows(model, one) == "yes" for one in needs.languages) for model in known.models
    ):
        return "low-resource"
    return "personal" if needs.speakers == 1 else "general"


def _order(known: Catalogue, purpose: Purpose, needs: Needs, name: str) -> list[CatalogueModel]:
    """All models, the preferred ones first, then the others by size; the device plays no part."""
    ranks = {model: place for place, model in enumerate(one for rule in purpose.prefer for one in rule.models)}
    certainty = {"yes": 0, "maybe": 1, "new head": 2, "no": 3}

    def key(model: CatalogueModel) -> tuple[int, int, float]:
        worst = max((certainty[known.knows(model, one)] for one in needs.languages), default=0)
        if not needs.languages and not model.recognises:
            worst = 2
        if name == "low-resource":
            worst = 0
        return worst, ranks.get(model.name, len(ranks)), -model.parameters_m.value

    return sorted(known.models, key=key)


def _refusal(
    known: Catalogue,
    model: CatalogueModel,
    needs: Needs,
    purpose: Purpose,
    loadable: Callable[[CatalogueModel], bool],
    exports: Callable[[CatalogueModel], Sequence[str]],
) -> str | None:
    """Why a model is not offered, in words that are counted."""
    if not loadable(model):
        return "not trained by this version of speechtune"
    if any(known.knows(model, one) == "no" for one in needs.languages):
        return "does not know the language"
    if not needs.languages and known.languages_of(model) and len(known.languages_of(model)) <= 2:
        return "knows one or two languages and yours is not given"
    if needs.commercial and not model.commercial:
        return "not for commercial use"
    if purpose.needs_export and purpose.needs_export not in exports(model):
        return f"cannot be exported as {purpose.needs_export}"
    limit = purpose.max_parameters_m
    if limit is not None and model.parameters_m.value > limit.value:
        return "too large for the purpose"
    if needs.gpu_gb is None and needs.ram_gb is not None and model.parameters_m.value > known.cpu_limit_m.value:
        return "too slow without a GPU"
    return "needs more memory" if memory_needed_gib(model) > needs.memory_gib else None


def _candidate(known: Catalogue, model: CatalogueModel, purpose: Purpose, needs: Needs) -> Candidate:
    rule = _rule(purpose, model)
    reasons = []
    if rule is not None:
        reasons.append(Reason(text=rule.why, source=rule.source))
    if model.wer_percent is not None:
        text = f"{model.wer_percent.value:g} % WER on {model.wer_percent.test_set}"
        reasons.append(Reason(text=text, source=model.wer_percent.source))
    for one in needs.languages:
        knows = known.knows(model, one)
        if knows == "maybe":
            text = f"it may know {short_code(one)}: only the number of its languages is published"
            reasons.append(Reason(text=text, source=model.languages.source))
    if not model.recognises:
        text = "it writes nothing before it is trained (model.ctc.head=new)"
        reasons.append(Reason(text=text, source=model.languages.source))
    if not reasons:
        text = known.families[model.family].about
        reasons.append(Reason(text=text, source=model.languages.source))
    ways = [one for one in training_needs(model.parameters_m.value * 1e6) if one.gib <= needs.memory_gib]
    return Candidate(
        name=model.name,
        parameters_m=model.parameters_m.value,
        evidence=rule.evidence if rule else "opinion",
        licence=model.licence.value,
        reasons=reasons,
        ways=ways,
        needs_head=not model.recognises,
    )


def _rule(purpose: Purpose, model: CatalogueModel) -> Preference | None:
    return next((one for one in purpose.prefer if model.name in one.models), None)


def _doubts(needs: Needs, first: Candidate, purpose: str, known: Catalogue, model: CatalogueModel) -> list[str]:
    doubts = {
        "opinion": ["no figure stands behind the first choice, only the notebook's or our opinion"],
        "reported": ["the figures behind the first choice are of other speech than yours"],
        "competition": ["the competition's children, recordings and amounts of data are not yours"],
        "measured": ["it was measured on one corpus, with one seed"],
    }[first.evidence]
    if not needs.languages:
        doubts.append("the language is not given")
    elif any(known.knows(model, one) != "yes" for one in needs.languages):
        doubts.append("it is not known whether the first choice writes your language")
    elif model.wer_percent is not None and {short_code(one) for one in needs.languages} != {"en"}:
        doubts.append("its published error rate is of English")
    if needs.hours is None:
        doubts.append("the hours of training audio are not given")
    if purpose == "code-switched":
        doubts.append("the sources contradict each other about code-switching")
    if needs.gpu_gb is None and needs.ram_gb is None:
        doubts.append("the device is not given")
    return doubts


def _remarks(needs: Needs, purpose: str, known: Catalogue, candidates: Sequence[Candidate]) -> list[Reason]:
    from speechtune.corpus.planning.volume import GOALS

    remarks = []
    goal = GOALS.get({"code-switched": "code-switching"}.get(purpose, purpose)) or GOALS["general"]
    if needs.hours is not None and needs.hours < goal.least_h:
        text = f"{needs.hours:.2g} h are little for {goal.name}: at least {goal.least_h:g} h are advised"
        remarks.append(Reason(text=text, source=goal.source))
    small = known.small_data
    large = [one.name for one in candidates if one.parameters_m > small.largest_m]
    if needs.hours is not None and needs.hours < small.hours and large:
        text = f"with under {small.hours:g} h train {', '.join(large)} with an adapter rather than in full"
        remarks.append(Reason(text=text, source=small.source))
    if needs.speakers is not None and 1 < needs.speakers < 10 and purpose not in ("personal", "dictation"):
        text = f"{needs.speakers} speakers are few for a recogniser of anyone's speech: at least 10 are advised"
        remarks.append(Reason(text=text, source="requirements notebook, lines 14570-14573"))
    if purpose == "low-resource":
        text = "wav2vec 2.0 for little data, or Whisper for everyone: the notebook says both, so train one of each"
        remarks.append(Reason(text=text, source="notebook-start"))
    return remarks


def _commands(needs: Needs, chosen: Sequence[CatalogueModel], fitting: Sequence[CatalogueModel]) -> list[str]:
    """What to run: fetch the models, then measure them; the last is always the baseline.

    A search needs two models that write text; where fewer fit, the smallest that suit are added.
    """
    writers = [one for one in chosen if one.recognises]
    spare = sorted((one for one in fitting if one.recognises), key=lambda one: one.parameters_m.value)
    known = catalogue()
    small = [known.get(name) for name in ("whisper-tiny", "whisper-base")]
    for one in [*spare, *small]:
        if len(writers) < 2 and one not in writers:
            writers.append(one)
    names = [one.name for one in writers]
    corpus = shlex.quote(needs.corpus) if needs.corpus else "CORPUS"
    folder = shlex.quote((needs.corpus or "search").rstrip("/").split("/")[-1] or "search")
    language = f" --language {short_code(needs.languages[0])}" if len(needs.languages) == 1 else ""
    fetch = [f"speechtune models get {name}" for name in dict.fromkeys([*(one.name for one in chosen), *names])]
    return [*fetch, f"speechtune baseline {corpus} --models {','.join(names)}{language} --out searches/{folder}"]


def _nothing(left_out: dict[str, int]) -> str:
    counted = ", ".join(f"{count}: {why}" for why, count in sorted(left_out.items(), key=lambda pair: -pair[1]))
    return f"no model of the catalogue fits ({counted}): allow more memory, another purpose or licence"


def with_corpus(needs: Needs, corpus: Any) -> Needs:
    """What a corpus says of itself, where the user has not said it: hours, languages, speakers, children.

    Children are speakers under 13 who hold more than half of the audio whose age is a number. The training split is
    counted where there is one.
    """
    rows = [one for one in corpus.utterances if one.split == "train"] or list(corpus.utterances)
    hours = sum(one.duration_s for one in rows) / 3600
    found = dict.fromkeys(short_code(one.language) for one in rows if one.language)
    speakers = len({one.speaker_id for one in rows if one.speaker_id}) or None
    aged = [(float(one.age), one.duration_s) for one in rows if str(one.age or "").replace(".", "", 1).isdigit()]
    young = sum(seconds for age, seconds in aged if age < 13)
    return replace(
        needs,
        hours=hours if needs.hours is None else needs.hours,
        languages=needs.languages or tuple(found),
        speakers=speakers if needs.speakers is None else needs.speakers,
        children=needs.children or 2 * young > sum(seconds for _, seconds in aged) > 0,
        corpus=needs.corpus or str(corpus.root),
    )
