"""Several corpora as one, written out: by ratio, by hours, balanced, without duplicates, without leaks.

Ratios, hours and balance shape what is learnt from: the rows of the split ``train`` and those without a split. Rows of
every other split are kept whole: a ratio never shrinks a test set. Conditions are for every row.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal, get_args

from speechtune.core.errors import InputError
from speechtune.core.files import new_directory, write_json
from speechtune.core.progress import note
from speechtune.corpus.conditions import Condition, filter_utterances, require_column
from speechtune.corpus.mixing_audio import AudioMode, audio_digests, place_audio
from speechtune.corpus.sampling import subset_of_seconds, temperature_shares
from speechtune.corpus.table import Corpus, Utterance, count_by
from speechtune.corpus.text_keys import text_key

MANIFEST = "mix.json"
"""What came from where: one object per source with its share, counts and drops."""

FROM = "mixed_from"
"""The column with the name of the source corpus; ``source`` holds it too, where it was empty."""

UNKNOWN = "(unknown)"


@dataclass(frozen=True, slots=True)
class MixSource:
    """A corpus to mix; ``weight`` is its share of the seconds learnt from (``None``: as it comes)."""

    root: Path
    weight: float | None = None


@dataclass(frozen=True, slots=True)
class MixOptions:
    """How corpora are mixed.

    Attributes:
        hours: total of what is learnt from, in hours; ``None``: as much as the ratio allows.
        where: conditions that every row must meet, whatever its split.
        splits: only rows of these splits; empty: all of them.
        balance: column whose values get equal shares of the seconds (see ``temperature``); nothing is repeated, so
            frequent values are cut down.
        temperature: 1 leaves the shares as they are, infinity makes them equal.
        deduplicate: of rows with the same audio and text one stays: that of an evaluation split, else the first.
        on_leak: what to do with rows that are learnt from although their speaker or audio is in the dev or test split
            of another source.
        speakers: ``shared``: equal speaker ids are one person; ``separate``: every source has its own, and the ids get
            the source's name in front.
        audio: ``reference`` names the files where they are; ``link`` and ``copy`` put them below ``out``.
        seed: seed of every draw.

    Raises:
        InputError: a choice is unknown, or the hours are not above 0.
    """

    hours: float | None = None
    where: Sequence[Condition] = ()
    splits: Sequence[str] = ()
    balance: str | None = None
    temperature: float = math.inf
    deduplicate: bool = False
    on_leak: Literal["error", "drop"] = "error"
    speakers: Literal["shared", "separate"] = "shared"
    audio: AudioMode = "reference"
    seed: int = 0

    def __post_init__(self) -> None:
        choices = {"on_leak": ("error", "drop"), "speakers": ("shared", "separate"), "audio": get_args(AudioMode)}
        for name, known in choices.items():
            if getattr(self, name) not in known:
                option = "--" + name.replace("_", "-")
                raise InputError(f"{option} {getattr(self, name)} is unknown: choose {' or '.join(known)}")
        if self.hours is not None and not 0 < self.hours < math.inf:
            raise InputError(f"--hours {self.hours:g} must be above 0")


def parse_source(text: str) -> MixSource:
    """``own=0.8`` as a corpus with its weight; ``own`` as a corpus."""
    root, sign, weight = text.rpartition("=")
    try:
        return MixSource(Path(root), float(weight)) if sign and root else MixSource(Path(text))
    except ValueError:
        return MixSource(Path(text))


@dataclass(slots=True)
class Part:
    """One source while it is mixed."""

    name: str
    corpus: Corpus
    weight: float | None
    rows: list[Utterance]
    dropped: dict[str, int] = field(default_factory=dict)
    renamed: int = 0

    def drop(self, reason: str, count: int) -> None:
        """Count what is left out."""
        if count:
            self.dropped[reason] = self.dropped.get(reason, 0) + count

    def to_json(self, learnt_s: float) -> dict[str, Any]:
        """A JSON-ready record; ``learnt_s``: seconds of all parts that are learnt from."""
        mine_s = sum(row.duration_s for row in self.rows if is_learnt_from(row))
        return {
            "name": self.name,
            "corpus": str(self.corpus.root.resolve()),
            "fingerprint": self.corpus.fingerprint(),
            "weight": self.weight,
            "share_of_training_seconds": round(mine_s / learnt_s, 4) if learnt_s else None,
            "rows": len(self.corpus),
            "kept": len(self.rows),
            "dropped_by_reason": self.dropped,
            "renamed_ids": self.renamed,
            "seconds_of_audio": round(sum(row.duration_s for row in self.rows), 3),
            "splits": count_by(self.rows, "split"),
        }


@dataclass(frozen=True, slots=True)
class MixResult:
    """What a mixture holds; ``summary`` is also its manifest."""

    out: Path
    summary: dict[str, Any]

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {"corpus": str(self.out), **self.summary}

    def __str__(self) -> str:
        lines = [f"{'source':<28}{'rows':>9}{'kept':>9}{'minutes':>10}{'share':>8}{'renamed':>9}"]
        for one in self.summary["sources"]:
            share = one["share_of_training_seconds"]
            shown = "-" if share is None else f"{share:.1%}"
            lines.append(
                f"{one['name']:<28}{one['rows']:>9}{one['kept']:>9}{one['seconds_of_audio'] / 60:>10.1f}{shown:>8}"
                f"{one['renamed_ids']:>9}"
            )
            lines += [f"  dropped: {reason}: {count}" for reason, count in one["dropped_by_reason"].items()]
        minutes = self.summary["seconds_of_audio"] / 60
        return "\n".join([*lines, f"{self.out}: {self.summary['kept']} utterances, {minutes:.1f} minutes"])


def mix_corpora(sources: Sequence[MixSource], out: Path, options: MixOptions, overwrite: bool = False) -> MixResult:
    """Write the corpus ``out`` from several (or one, to shape it).

    Conditions come first, then leaks and duplicates, then balance, ratio and hours. A part's subset of fewer hours lies
    inside its subset of more, with the same seed.

    Raises:
        InputError: a corpus or column is missing, weights are given for some sources only, a row learnt from leaks
            (``options.on_leak``), the hours cannot be had, audio cannot be read, or ``out`` cannot be written.
    """
    parts = _parts(sources, out, options)
    digests: dict[int, str] = {}
    if options.deduplicate or len(parts) > 1:
        digests = audio_digests((part.corpus, row) for part in parts for row in part.rows)
    if len(parts) > 1:
        _leaks(parts, digests, options)
    if options.deduplicate:
        _deduplicate(parts, digests)
    _shape(parts, options)
    for part in parts:
        if not part.rows:
            raise InputError(
                f"nothing of {part.corpus.root} is left ({part.dropped}): leave it out or loosen the options"
            )
    with new_directory(out, overwrite) as draft:
        rows = list(_finished(parts, draft, options))
        learnt_s = sum(row.duration_s for part in parts for row in part.rows if is_learnt_from(row))
        summary: dict[str, Any] = {
            "kept": len(rows),
            "dropped_by_reason": _total(parts),
            "seconds_of_audio": round(sum(row.duration_s for row in rows), 3),
            "sources": [part.to_json(learnt_s) for part in parts],
            "options": _options_json(options),
        }
        corpus = Corpus(draft, rows)
        corpus.card = {**summary, "splits": count_by(rows, "split"), "fingerprint": corpus.fingerprint()}
        write_json(draft / MANIFEST, summary)
        corpus.save()
    return MixResult(out, summary)


def is_learnt_from(row: Utterance) -> bool:
    """Whether a row is in the training split, or in none."""
    return row.split in (None, "train")


def _parts(sources: Sequence[MixSource], out: Path, options: MixOptions) -> list[Part]:
    if len({source.weight is None for source in sources}) != 1:
        raise InputError("some corpora have a weight and some have none: write CORPUS=WEIGHT for all or for none")
    parts: list[Part] = []
    for source in sources:
        if source.weight is not None and not 0 < source.weight < math.inf:
            raise InputError(f"the weight of {source.root} is {source.weight:g}: it must be above 0")
        corpus = Corpus.load(source.root)
        root, target = corpus.root.resolve(), out.resolve()
        if root == target or root.is_relative_to(target) or target.is_relative_to(root):
            raise InputError(f"--out {out} and the corpus {source.root} lie inside each other: choose another --out")
        if any(part.corpus.root.resolve() == root for part in parts):
            raise InputError(f"{source.root} is given twice: give each corpus once")
        name = _unused(root.name, {part.name for part in parts})
        part = Part(name, corpus, source.weight, list(corpus))
        if options.splits:
            part.rows = [row for row in part.rows if row.split in options.splits]
            if not part.rows:
                known = ", ".join(count_by(corpus, "split"))
                raise InputError(
                    f"{source.root} has no row in the split {' or '.join(options.splits)} (it has: {known})"
                )
            part.drop("in another split", len(corpus) - len(part.rows))
        part.rows, reasons = filter_utterances(part.rows, options.where, str(source.root))
        for reason, count in reasons.items():
            part.drop(reason, count)
        if options.speakers == "separate":
            part.rows = [
                replace(row, speaker_id=f"{name}-{row.speaker_id}") if row.speaker_id is not None else row
                for row in part.rows
            ]
        parts.append(part)
    return parts


def _unused(stem: str, names: set[str]) -> str:
    number, name = 1, stem
    while name in names:
        number += 1
        name = f"{stem}-{number}"
    return name


def _leaks(parts: list[Part], digests: dict[int, str], options: MixOptions) -> None:
    """Rows that are learnt from while another source measures with their speaker or audio: refused, or dropped."""
    for part in parts:
        measured = [row for other in parts if other is not part for row in other.rows if not is_learnt_from(row)]
        sounds = {digests[id(row)] for row in measured}
        people = {row.speaker_id for row in measured} - {None}
        kept, found = [], {"audio": 0, "speaker": 0}
        first: Utterance | None = None
        for row in part.rows:
            what = "audio" if digests[id(row)] in sounds else "speaker" if row.speaker_id in people else None
            if what is None or not is_learnt_from(row):
                kept.append(row)
                continue
            first = first or row
            found[what] += 1
        if first is not None and options.on_leak == "error":
            raise InputError(
                f"{part.corpus.root}: {sum(found.values())} rows to learn from have their audio ({found['audio']}) or "
                f"speaker ({found['speaker']}) in the dev or test split of another corpus (the first is "
                f"{first.utterance_id}): add --on-leak drop, or --speakers separate if equal ids are different people"
            )
        part.rows = kept
        for what, count in found.items():
            part.drop(f"its {what} is in an evaluation split of another corpus", count)


def _deduplicate(parts: list[Part], digests: dict[int, str]) -> None:
    """Keep one of the rows with the same audio and text: that of an evaluation split, else of the earlier source."""
    keys = {id(row): (digests[id(row)], text_key(row.text)) for part in parts for row in part.rows}
    chosen: dict[tuple[str, str], int] = {}
    for measured in (True, False):
        for part in parts:
            for row in part.rows:
                if is_learnt_from(row) != measured:
                    chosen.setdefault(keys[id(row)], id(row))
    for part in parts:
        kept = [row for row in part.rows if chosen[keys[id(row)]] == id(row)]
        part.drop("the same audio and text as another row", len(part.rows) - len(kept))
        part.rows = kept


def _shape(parts: list[Part], options: MixOptions) -> None:
    """Cut what is learnt from to the balance, the ratio and the hours."""
    groups = [_groups(part, options) for part in parts]
    most_s = [_most_s(one) for one in groups]
    weights = [part.weight for part in parts if part.weight is not None]
    if not any(most_s):
        if options.hours is not None or weights:
            raise InputError("no row is in the split train or without a split: nothing to take a ratio or hours of")
        return
    if weights:
        if not all(most_s):
            empty = parts[most_s.index(0.0)].corpus.root
            raise InputError(f"{empty} has no row to learn from, and a weight: leave the weight or the corpus out")
        shares = [weight / sum(weights) for weight in weights]
        total_s = min(one / share for one, share in zip(most_s, shares, strict=True))
    else:
        total_s = sum(most_s)
        shares = [one / total_s for one in most_s]
    if options.hours is not None:
        if options.hours * 3600 > total_s + 1:
            note(f"{options.hours:g} hours are asked for and {total_s / 3600:.2f} can be had without repetition")
        total_s = min(total_s, options.hours * 3600)
    for part, mine, share in zip(parts, groups, shares, strict=True):
        kept = {id(row) for row in part.rows if not is_learnt_from(row)}
        for rows, inside in mine:
            chosen = subset_of_seconds(rows, inside * share * total_s, options.seed)
            kept |= {id(rows[index]) for index in chosen}
        before = len(part.rows)
        part.rows = [row for row in part.rows if id(row) in kept]
        part.drop("not drawn for the ratio, hours or balance", before - len(part.rows))


def _groups(part: Part, options: MixOptions) -> list[tuple[list[Utterance], float]]:
    """The balanced values of what is learnt from: their rows, and their share of the part's seconds."""
    rows = [row for row in part.rows if is_learnt_from(row)]
    if options.balance is None or not rows:
        return [(rows, 1.0)] if rows else []
    require_column(rows, options.balance, str(part.corpus.root))
    values: dict[str, list[Utterance]] = {}
    for row in rows:
        value = row.column(options.balance)
        values.setdefault(UNKNOWN if value is None else str(value), []).append(row)
    groups = [values[name] for name in sorted(values)]
    shares = temperature_shares([_seconds(group) for group in groups], options.temperature)
    return list(zip(groups, shares.tolist(), strict=True))


def _most_s(groups: list[tuple[list[Utterance], float]]) -> float:
    """Seconds that can be had at the groups' shares without repeating anything."""
    return min((_seconds(rows) / share for rows, share in groups), default=0.0)


def _seconds(rows: Sequence[Utterance]) -> float:
    return sum(row.duration_s for row in rows)


def _finished(parts: list[Part], draft: Path, options: MixOptions) -> Iterator[Utterance]:
    """The rows as they are written: unique ids, where they come from, and where their audio is."""
    counts: dict[str, int] = {}
    for part in parts:
        for row in part.rows:
            counts[row.utterance_id] = counts.get(row.utterance_id, 0) + 1
    taken = {name for name, count in counts.items() if count == 1}
    for part in parts:
        names = place_audio(part.corpus, part.rows, part.name, draft, options.audio)
        for row, file_name in zip(part.rows, names, strict=True):
            extra = {**row.extra, FROM: part.name}
            name = row.utterance_id
            if counts[name] > 1:
                extra["original_id"] = name
                name = f"{part.name}-{name}"
                while name in taken:
                    name += "x"
                taken.add(name)
                part.renamed += 1
            source = row.source if row.source is not None else part.name
            yield replace(row, utterance_id=name, file_name=file_name, source=source, extra=extra)
        if part.renamed:
            note(f"{part.renamed} ids of {part.corpus.root} got {part.name}- in front: another corpus has them too")


def _total(parts: list[Part]) -> dict[str, int]:
    total: dict[str, int] = {}
    for part in parts:
        for reason, count in part.dropped.items():
            total[reason] = total.get(reason, 0) + count
    return total


def _options_json(options: MixOptions) -> dict[str, Any]:
    temperature = "inf" if math.isinf(options.temperature) else options.temperature
    return {
        "hours": options.hours,
        "where": [condition.model_dump() for condition in options.where],
        "splits": list(options.splits),
        "balance": options.balance,
        "temperature": temperature if options.balance is not None else None,
        "deduplicate": options.deduplicate,
        "on_leak": options.on_leak,
        "speakers": options.speakers,
        "audio": options.audio,
        "seed": options.seed,
    }
