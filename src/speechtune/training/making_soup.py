"""``speechtune soup``: measure the members, choose the weights, write the soup and what is known of it."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, write_json
from speechtune.core.progress import note
from speechtune.core.provenance import provenance
from speechtune.corpus.table import Corpus
from speechtune.decoding.batched import transcribe_corpus
from speechtune.decoding.config import DecodingConfig
from speechtune.decoding.sources import trained_for
from speechtune.models.family import Family, load_family
from speechtune.models.obtaining import resolve_model
from speechtune.scoring.score import Score, compare, score_transcripts
from speechtune.training.monitor.measures import layer_group
from speechtune.training.soup_choice import Learned, SoupLearner, Vector, greedy, mean_of, over_members
from speechtune.training.soups import Member, Weights, mixed, open_members, refactor, write_soup

SOUP = "soup.json"
METHODS = ("uniform", "greedy", "learned")


@dataclass(slots=True, kw_only=True)
class SoupOptions:
    """What goes into a soup and how.

    ``groups``: soups of their own, each uniform, that are the ingredients beside the single ``models``. ``context``,
    ``beams``, ``language``: how the corpus is decoded. ``lower``: labels in lower case for the learned loss.
    """

    models: Sequence[str] = ()
    groups: Sequence[Sequence[str]] = ()
    method: Literal["uniform", "greedy", "learned"] = "uniform"
    corpus: Path | None = None
    split: str | None = "dev"
    context: str | None = None
    beams: int = 1
    batch_size: int = 16
    language: str | None = None
    per_layer: bool = False
    passes: int = 5
    rate: float = 0.1
    lower: bool = False
    base: str | None = None
    adapter_rank: int | None = None
    overwrite: bool = False
    plan: list[list[str]] = field(init=False)

    def __post_init__(self) -> None:
        self.plan = [*([name] for name in self.models), *(list(group) for group in self.groups)]
        if self.method not in METHODS:
            raise InputError(f"--method {self.method!r} is unknown: use one of {', '.join(METHODS)}")
        if sum(len(group) for group in self.plan) < 2:
            raise InputError("a soup needs at least two models: name more, or give --group a,b")
        if self.method != "uniform" and len(self.plan) < 2:
            raise InputError(
                f"--method {self.method} chooses between ingredients and there is one: give a second --group"
            )
        if self.method != "uniform" and self.corpus is None:
            raise InputError(f"--method {self.method} needs labelled speech to judge by: give --corpus")
        if self.per_layer and self.method != "learned":
            raise InputError("--per-layer is for --method learned")


class Kitchen:
    """The members, and one loaded model to try mixtures in."""

    def __init__(self, options: SoupOptions, members: Sequence[Member]) -> None:
        self.members = members
        self.corpus: Corpus | None = None
        self.family: Family | None = None
        if options.corpus is None:
            return
        whole = Corpus.load(options.corpus)
        self.corpus = whole.split(options.split) if options.split else whole
        trained = trained_for(members[0].path)
        contexts = trained.get("audio_contexts", ["full"])
        context = options.context or ("fit" if "fit" in contexts else "full")
        if context not in ("fit", "full"):
            raise InputError(f"--context {context!r} is unknown: use fit or full")
        self.decoding = DecodingConfig(context=context, beams=options.beams, batch_size=options.batch_size)
        self.family = load_family(members[0].path, language=options.language or trained.get("language"))

    def score(self, weights: Weights, per_layer: bool = False) -> Score:
        """The score of a mixture on the corpus."""
        assert self.family is not None and self.corpus is not None
        self.put(mixed(self.members, weights, layer_group if per_layer else lambda name: ""))
        transcripts = transcribe_corpus(self.family, self.corpus, self.decoding)
        return score_transcripts(self.corpus, transcripts, language=self.family.language)

    @torch.no_grad()
    def put(self, tensors: Iterator[tuple[str, torch.Tensor]]) -> None:
        """Load tensors into the model, one by one."""
        assert self.family is not None
        own: dict[str, torch.Tensor] = self.family.model.state_dict()
        for name, tensor in tensors:
            if name in own:
                own[name].copy_(tensor)


def make_soup(options: SoupOptions, out: Path) -> dict[str, Any]:
    """Carry the options out and write ``out`` as a model directory with ``soup.json``; returns what that says.

    Raises:
        InputError: members that do not fit together, no labels where the method needs them, or ``out`` is taken.
    """
    with tempfile.TemporaryDirectory() as scratch, new_directory(out, options.overwrite) as draft:
        names = list(dict.fromkeys(name for group in options.plan for name in group))
        members = open_members(names, Path(scratch), options.base)
        ingredients = [_vector(group, names) for group in options.plan]
        kitchen = Kitchen(options, members)
        facts: dict[str, Any] = {"method": options.method, "corpus": str(options.corpus) if options.corpus else None}
        scores: list[Score] = []
        if kitchen.corpus is not None:
            facts |= {"split": options.split, "context": kitchen.decoding.context, "beams": options.beams}
            for label, vector in zip(options.plan, ingredients, strict=True):
                scores.append(kitchen.score({"": vector}))
                note(f"{' + '.join(label)}: WER {_percent(scores[-1])}")
        weights, learned = _choose(options, kitchen, ingredients, scores)
        group = layer_group if options.per_layer else lambda name: ""
        tensors = dict(mixed(members, weights, group))
        write_soup(draft, members, tensors)
        facts |= _account(options, names, weights, scores, ingredients)
        if learned:
            facts["dev_loss"] = {"uniform": learned.loss_uniform, "learned": learned.loss, "passes": learned.passes}
        if scores:
            facts |= _compared(kitchen.score(weights, options.per_layer), scores, options)
        if options.adapter_rank is not None:
            facts["adapter"] = refactor(members, tensors, _base(options), options.adapter_rank, draft / "adapter")
        summary = {**facts, "provenance": provenance(None)}
        write_json(draft / SOUP, summary)
    return {"model": str(out), **summary}


def _vector(group: Sequence[str], names: Sequence[str]) -> Vector:
    return tuple(group.count(name) / len(group) for name in names)


def _choose(
    options: SoupOptions, kitchen: Kitchen, ingredients: list[Vector], scores: list[Score]
) -> tuple[Weights, Learned | None]:
    if options.method == "uniform":
        return {"": mean_of(ingredients)}, None
    if options.method == "greedy":
        places = sorted(range(len(ingredients)), key=lambda one: str(options.plan[one]))
        kept = greedy(
            [ingredients[one] for one in places],
            [_rate(scores[one]) for one in places],
            lambda vector: _rate(kitchen.score({"": vector})),
        )
        return {"": mean_of([ingredients[places[one]] for one in kept])}, None
    assert kitchen.family is not None and kitchen.corpus is not None
    learner = SoupLearner(kitchen.family, kitchen.members, ingredients, options.per_layer)
    learned = learner.learn(kitchen.corpus, kitchen.decoding, options.passes, options.rate, options.lower)
    weights = dict(over_members(learned.weights, ingredients))
    return weights | ({"": mean_of(ingredients)} if "" not in weights else {}), learned


def _rate(score: Score) -> float:
    if score.wer is None:
        raise InputError("the corpus has no reference words to judge by: choose another --corpus or --split")
    return score.wer


def _account(
    options: SoupOptions, names: Sequence[str], weights: Weights, scores: list[Score], ingredients: Sequence[Vector]
) -> dict[str, Any]:
    overall = weights.get("")
    rows: list[dict[str, Any]] = []
    for place, name in enumerate(names):
        row: dict[str, Any] = {"model": name}
        if overall is not None and not options.per_layer:
            row["weight"] = overall[place]
        rows.append(row)
    tried = []
    for place, group in enumerate(options.plan):
        entry: dict[str, Any] = {"models": group}
        if scores:
            interval = scores[place].interval
            entry |= {"wer": scores[place].wer, "interval": interval.to_json() if interval else None}
        tried.append(entry)
    by_layer = {group: list(values) for group, values in weights.items()} if options.per_layer else None
    return {"members": rows, "ingredients": tried} | ({"weights_by_layer": by_layer} if by_layer else {})


def _compared(soup: Score, scores: list[Score], options: SoupOptions) -> dict[str, Any]:
    """The soup's WER, and its paired difference from the best ingredient."""
    best = min(range(len(scores)), key=lambda place: _rate(scores[place]))
    difference = compare(scores[best], soup).wer
    found: Mapping[str, Any] = {
        "wer": soup.wer,
        "interval": soup.interval.to_json() if soup.interval else None,
        "best_ingredient": options.plan[best],
        "difference": difference.to_json(),
        "chosen_on_the_same_data": options.method != "uniform",
    }
    return {"soup": found}


def _base(options: SoupOptions) -> Path:
    from speechtune.core.files import read_json

    named = options.base
    for name in (one for group in options.plan for one in group):
        config = Path(name) / "adapter_config.json"
        if named is None and config.is_file():
            named = read_json(config).get("base_model_name_or_path")
    if named is None:
        raise InputError("--adapter-rank needs the base model of the adapters: name it with --base")
    return Path(named) if Path(named).is_dir() else resolve_model(named)


def _percent(score: Score) -> str:
    return "unknown" if score.wer is None else f"{100 * score.wer:.2f} %"


def soup_text(found: Mapping[str, Any]) -> str:
    """The result as lines for a person."""
    lines = [
        f"{' + '.join(one['models'])}" + (f": WER {100 * one['wer']:.2f} %" if one.get("wer") is not None else "")
        for one in found["ingredients"]
    ]
    lines += [f"weight {row['weight']:.3f}  {row['model']}" for row in found["members"] if "weight" in row]
    if "soup" in found:
        soup = found["soup"]
        change, interval = soup["difference"]["difference"], soup["difference"]["interval"]
        line = f"soup: WER {100 * soup['wer']:.2f} % ({100 * change:+.2f} points against the best ingredient"
        if interval:
            low, high = 100 * interval["low"], 100 * interval["high"]
            line += f", {100 * interval['level']:.0f} % interval {low:+.2f} to {high:+.2f}"
        lines.append(line + ")")
        if soup["chosen_on_the_same_data"]:
            lines.append("the weights were chosen on this data: measure the soup on other speech too")
    if "adapter" in found:
        adapter = found["adapter"]
        lines.append(f"adapter of rank {adapter['rank']}: relative error {adapter['relative_error']:.3f}")
    return "\n".join([*lines, f"model: {found['model']}"])
