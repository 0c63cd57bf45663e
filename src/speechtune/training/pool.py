"""The training utterances of a recipe: one split, or several corpora by ratio; filtered, checked and counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.corpus.conditions import filter_utterances, number_of, require_column
from speechtune.corpus.config import DataConfig, MixPart
from speechtune.corpus.reading import SAID_IN_DEV, SAID_TWICE, repeated_rows
from speechtune.corpus.sampling import Group, PoolDraw, subset_of_seconds, temperature_shares
from speechtune.corpus.table import Corpus, Utterance
from speechtune.models.family import Family

UNKNOWN = "(unknown)"
NO_TEXT = "has no text"


@dataclass(slots=True)
class PoolPart:
    """One corpus of the pool, with the recipe's ``weight``; ``split`` is ``None`` for a corpus without splits."""

    name: str
    corpus: Corpus
    utterances: list[Utterance]
    weight: float
    split: str | None
    fingerprint: str

    def to_json(self) -> dict[str, Any]:
        """A JSON-ready record."""
        return {
            "name": self.name,
            "corpus": str(self.corpus.root),
            "split": self.split,
            "weight": self.weight,
            "fingerprint": self.fingerprint,
            "kept": len(self.utterances),
            "seconds_of_audio": round(sum(row.duration_s for row in self.utterances), 3),
        }


@dataclass(slots=True)
class Pool:
    """What a run may learn from, and how an epoch is drawn from it (``draw`` is ``None``: everything once)."""

    corpus: Corpus
    utterances: list[Utterance]
    dropped: dict[str, int]
    draw: PoolDraw | None = None
    parts: list[PoolPart] = field(default_factory=list)

    @property
    def seconds_of_audio(self) -> float:
        """Total length of the different utterances, however often each is shown."""
        return sum(utterance.duration_s for utterance in self.utterances)

    def to_json(self) -> dict[str, Any]:
        """What provenance keeps of it; without a mixture and a draw, the same keys as ever."""
        facts: dict[str, Any] = {
            "kept": len(self.utterances),
            "dropped_by_reason": self.dropped,
            "seconds_of_audio": round(self.seconds_of_audio, 3),
        }
        if self.parts:
            facts["mix"] = [part.to_json() for part in self.parts]
        if self.draw is not None:
            facts["draw"] = self.draw.to_json()
        return facts


def training_pool(corpus: Corpus, family: Family, data: DataConfig, *, keep_empty: bool = False) -> Pool:
    """The utterances that a recipe's ``data`` names and a model can take, with the draw of its epochs.

    Args:
        corpus: the whole of ``data.corpus``, with the splits that ``data.split`` asks for (`load_corpus`).
        family: says what the model can take.
        data: the recipe's section.
        keep_empty: take utterances without text (see ``training.format.keep_empty``).

    Raises:
        InputError: a corpus, split, language or column is missing, a value is not a number, an utterance cannot be
            used (see ``data.unusable``), nothing is left, or training audio is also dev audio.
    """
    dropped: dict[str, int] = {}
    if data.mix:
        parts = _parts(corpus, family, data, dropped, keep_empty)
        _refuse_dev_audio(parts, corpus, data)
        if data.deduplicate:
            _deduplicate(corpus, [(part.corpus, part.utterances) for part in parts], data, dropped)
        utterances = [replace(row, file_name=str(_path(part, row))) for part in parts for row in part.utterances]
        owners = np.repeat(np.arange(len(parts)), [len(part.utterances) for part in parts])
        pool_corpus = Corpus(corpus.root, utterances, corpus.card)
    else:
        parts = []
        pool_corpus = corpus.split(data.train_split)
        utterances = _chosen(pool_corpus, family, data, MixPart(weight=1.0, hours=data.hours), dropped, keep_empty)
        if data.deduplicate:
            _deduplicate(corpus, [(pool_corpus, utterances)], data, dropped)
        owners = np.zeros(len(utterances), dtype=np.int64)
    keep = _positive_weights(utterances, data, dropped)
    keep = _few(keep, data, dropped)
    utterances, owners = [utterances[index] for index in keep], owners[keep]
    for number, part in enumerate(parts):
        part.utterances = [utterances[index] for index in np.flatnonzero(owners == number)]
        if not part.utterances:
            raise InputError(
                f"{part.corpus.root} has no utterance left in the mix: raise data.max_utterances, or correct the "
                f"weights in {data.weight_column}"
            )
    for reason, count in dropped.items():
        note(f"left out of training: {count} utterances, {reason}")
    draw = _draw(utterances, owners, parts, data) if data.draws else None
    if draw is not None:
        note(f"an epoch shows {draw.epoch_utterances} utterances drawn from {len(utterances)}: " + _shares(draw))
    return Pool(pool_corpus, utterances, dropped, draw, parts)


def _parts(
    corpus: Corpus, family: Family, data: DataConfig, dropped: dict[str, int], keep_empty: bool
) -> list[PoolPart]:
    """The parts of the mixture; ``dropped`` is added to."""
    loaded = {corpus.root.resolve(): (corpus, corpus.fingerprint())}
    parts: list[PoolPart] = []
    for wanted in data.mix:
        root = Path(wanted.corpus or corpus.root)
        if root.resolve() not in loaded:
            whole = Corpus.load(root)
            loaded[root.resolve()] = whole, whole.fingerprint()
        whole, fingerprint = loaded[root.resolve()]
        split = wanted.split or data.train_split
        unsplit = wanted.split is None and all(row.split is None for row in whole)
        part = whole if unsplit else whole.split(split)
        if wanted.language is not None:
            languages = sorted({row.language or UNKNOWN for row in part})
            part = part.subset(lambda row, code=wanted.language: row.language == code)  # type: ignore[misc]
            if not part.utterances:
                raise InputError(
                    f"{root} split {split} has no utterance in language {wanted.language!r} (it has: "
                    f"{', '.join(languages)}): correct data.mix"
                )
        name = "/".join(filter(None, (whole.root.resolve().name, wanted.language)))
        names = [one.name for one in parts]
        name = name if name not in names else f"{name}#{len(parts) + 1}"
        utterances = _chosen(part, family, data, wanted, dropped, keep_empty)
        parts.append(PoolPart(name, part, utterances, wanted.weight, None if unsplit else split, fingerprint))
    return parts


def _chosen(
    corpus: Corpus, family: Family, data: DataConfig, part: MixPart, dropped: dict[str, int], keep_empty: bool
) -> list[Utterance]:
    """Conditions, then what the model can take, then the subset by hours; ``dropped`` is added to."""
    kept, reasons = filter_utterances(corpus.utterances, [*data.where, *part.where], str(corpus.root))
    _add(dropped, reasons)
    kept = _usable(Corpus(corpus.root, kept, corpus.card), family, data, dropped, keep_empty)
    if part.hours is not None:
        chosen = subset_of_seconds(kept, part.hours * 3600, data.subset_seed)
        if len(chosen) < len(kept):
            _add(dropped, {"not drawn for hours": len(kept) - len(chosen)})
        elif sum(row.duration_s for row in kept) < part.hours * 3600 - 1:
            note(f"{corpus.root} has less than the {part.hours:g} hours that are asked for: all of it is used")
        kept = [kept[index] for index in chosen]
    return kept


def _deduplicate(
    corpus: Corpus, parts: list[tuple[Corpus, list[Utterance]]], data: DataConfig, dropped: dict[str, int]
) -> None:
    """Take out, in place, what the dev split or an earlier row says with the same samples; ``dropped`` is added to."""
    dev = [(corpus, row) for row in corpus.split(data.dev_split)]
    learnt = [(whole, row) for whole, rows in parts for row in rows]
    said = repeated_rows(learnt)
    in_dev = repeated_rows([*dev, *learnt])[len(dev) :]
    place = 0
    for whole, rows in parts:
        mine = slice(place, place + len(rows))
        place += len(rows)
        reasons = Counter(
            SAID_TWICE if twice else SAID_IN_DEV for twice, known in zip(said[mine], in_dev[mine], strict=True) if known
        )
        _add(dropped, dict(reasons))
        rows[:] = [row for row, known in zip(rows, in_dev[mine], strict=True) if not known]
        if reasons and not rows:
            raise InputError(f"data.deduplicate leaves nothing of {whole.root} to learn from: leave it out of the mix")


def _usable(
    corpus: Corpus, family: Family, data: DataConfig, dropped: dict[str, int], keep_empty: bool
) -> list[Utterance]:
    kept: list[Utterance] = []
    for utterance in corpus:
        reason = _why_unusable(utterance, family, utterance.text.lower() if data.case == "lower" else utterance.text)
        if reason is None or (keep_empty and reason == NO_TEXT):
            kept.append(utterance)
        elif data.unusable == "error":
            raise InputError(
                f"{corpus.root} utterance {utterance.utterance_id} ({utterance.file_name}) {reason}: shorten or remove "
                "it, or set data.unusable=drop to leave such utterances out"
            )
        else:
            _add(dropped, {reason.split(",")[0].split(" (")[0]: 1})
    if not kept:
        limits = family.limits
        raise InputError(
            f"{corpus.root} has no training utterance the model can take (limits: {limits.max_audio_s:g} s, "
            f"{limits.max_label_tokens} tokens): check the split and the texts"
        )
    return kept


def _why_unusable(utterance: Utterance, family: Family, text: str) -> str | None:
    limits = family.limits
    if utterance.duration_s > limits.max_audio_s:
        return f"is too long, {utterance.duration_s:.2f} s (the model's window is {limits.max_audio_s:g} s)"
    if not text.strip():
        return NO_TEXT
    tokens, _ = family.tokens(text)
    if len(tokens) - 1 > limits.max_label_tokens:
        return f"has too many tokens, {len(tokens) - 1} (the model takes {limits.max_label_tokens})"
    return family.refusal(utterance.duration_s, tokens)


def _few(keep: list[int], data: DataConfig, dropped: dict[str, int]) -> list[int]:
    if data.max_utterances is None or data.max_utterances >= len(keep):
        return keep
    chosen = np.random.default_rng(data.subset_seed).permutation(len(keep))[: data.max_utterances]
    dropped["not drawn for data.max_utterances"] = len(keep) - data.max_utterances
    return [keep[index] for index in sorted(chosen)]


def _positive_weights(utterances: Sequence[Utterance], data: DataConfig, dropped: dict[str, int]) -> list[int]:
    """Positions of the utterances that can be drawn at all."""
    column = data.weight_column
    if column is None:
        return list(range(len(utterances)))
    weights = _numbers(utterances, column, data.corpus)
    if (weights < 0).any():
        bad = utterances[int(np.argmax(weights < 0))]
        raise InputError(f"utterance {bad.utterance_id} has a negative {column}: a weight must be 0 or more")
    keep = np.flatnonzero(weights > 0).tolist()
    if not keep:
        raise InputError(f"every training utterance has {column} 0: nothing would be drawn")
    if len(keep) < len(utterances):
        _add(dropped, {f"{column} is 0": len(utterances) - len(keep)})
    return keep


def _draw(utterances: list[Utterance], owners: Any, parts: list[PoolPart], data: DataConfig) -> PoolDraw:
    weights = _part_weights(utterances, owners, parts, data)
    groups: list[Group] = []
    for number, weight in enumerate(weights):
        mine = np.flatnonzero(owners == number)
        prefix = parts[number].name if parts else ""
        for value, members, share in _balanced(utterances, mine, data):
            groups.append(Group(" ".join(filter(None, (prefix, value))) or "all", members, weight * share))
    if data.epoch_utterances is not None:
        size = data.epoch_utterances
    elif data.balance.column is not None and data.balance.how == "oversample":
        size = round(max(len(group.members) / group.share for group in groups))
    else:
        size = round(int((owners == 0).sum()) / weights[0])
    by = data.curriculum.by
    difficulty = None
    if by is not None:
        difficulty = _numbers(utterances, by, data.corpus) * (1.0 if data.curriculum.ascending else -1.0)
    column = data.weight_column
    frequency = _numbers(utterances, column, data.corpus) if column is not None else None
    return PoolDraw(tuple(groups), size, frequency, difficulty, data.curriculum)


def _part_weights(utterances: list[Utterance], owners: Any, parts: list[PoolPart], data: DataConfig) -> list[float]:
    """The share of each part in the utterances of an epoch."""
    if not parts:
        return [1.0]
    weights = np.array([part.weight for part in parts])
    if data.mix_unit == "seconds":
        seconds = np.array([row.duration_s for row in utterances])
        weights /= np.bincount(owners, seconds, len(parts)) / np.bincount(owners, minlength=len(parts))
    return list(map(float, weights / weights.sum()))


def _balanced(utterances: list[Utterance], mine: Any, data: DataConfig) -> list[tuple[str, Any, float]]:
    """The balanced values of a part with their members and their share of the part."""
    column = data.balance.column
    if column is None:
        return [("", mine, 1.0)]
    require_column(utterances, column, "the training data")
    values: dict[str, list[int]] = {}
    for index in mine.tolist():
        value = utterances[index].column(column)
        values.setdefault(UNKNOWN if value is None else str(value), []).append(index)
    names = sorted(values)
    shares = temperature_shares([len(values[name]) for name in names], data.balance.temperature)
    return [
        (f"{column}={name}", np.array(values[name], dtype=np.int64), float(share))
        for name, share in zip(names, shares, strict=True)
    ]


def _numbers(utterances: Sequence[Utterance], column: str, place: str) -> Any:
    require_column(utterances, column, place)
    missing = [row.utterance_id for row in utterances if row.column(column) is None]
    if missing:
        raise InputError(
            f"{len(missing)} training utterances have no {column} (the first is {missing[0]}): fill it in, or leave "
            f"them out with a condition on {column} in data.where"
        )
    return np.array([number_of(row.column(column), column, row.utterance_id) for row in utterances])


def _refuse_dev_audio(parts: list[PoolPart], corpus: Corpus, data: DataConfig) -> None:
    """No audio of the dev split may be learnt from through another part; shared speakers are said."""
    dev = corpus.split(data.dev_split)
    heard = {(corpus.path_of(row).resolve(), row.start_s, row.end_s) for row in dev}
    speakers = {row.speaker_id for row in dev} - {None}
    for part in parts:
        both = [row for row in part.utterances if (_path(part, row), row.start_s, row.end_s) in heard]
        if both:
            raise InputError(
                f"{len(both)} training utterances of {part.corpus.root} are also in the dev split "
                f"{data.dev_split} of {corpus.root} (the first is {both[0].utterance_id}): correct data.mix"
            )
        known = {row.speaker_id for row in part.utterances} & speakers
        if known:
            note(f"{len(known)} speaker ids of {part.corpus.root} occur in the dev split too: the dev WER may flatter")


def _path(part: PoolPart, utterance: Utterance) -> Path:
    return part.corpus.path_of(utterance).resolve()


def _shares(draw: PoolDraw) -> str:
    shown = [f"{group.name} {100 * group.share:.1f} %" for group in draw.groups[:12]]
    return ", ".join(shown) + (f" and {len(draw.groups) - 12} more" if len(draw.groups) > 12 else "")


def _add(dropped: dict[str, int], reasons: dict[str, int]) -> None:
    for reason, count in reasons.items():
        dropped[reason] = dropped.get(reason, 0) + count
