"""Dividing a corpus into train, dev and test so that no group (speaker) is in two of them.

Groups are assigned greedily, the large ones first, to the split that lacks most, then moved one at a time while that
brings the splits' shares of every stratum (in utterances and in seconds) and of the whole closer to the requested
fractions; the best of several seeded orders is kept. The idea is that of iterative stratification (Sechidis, Tsoumakas
& Vlahavas, ECML PKDD 2011) with groups as units, as scikit-learn's StratifiedGroupKFold has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.corpus.table import Corpus, Utterance, count_by

SPLITS = ("train", "dev", "test")
UNKNOWN = "(unknown)"
KEEPING = "add --keep-existing to assign only the others, or "
_ABSENCE_COST = 100.0  # far above any sum of squared share errors: a stratum absent from a split outweighs them all
_ORDERS = 10
_SIZE_JITTER = 0.5  # standard deviation of the log size by which groups are ordered: what the seed changes
_SEARCHED_GROUPS = 2_000  # with more groups than this, one greedy pass is already close

Matrix = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class SplitPart:
    """One split: how much is in it; ``shares`` is column -> value -> share of the split's utterances."""

    name: str
    utterances: int
    seconds: float
    groups: int
    shares: dict[str, dict[str, float]]


@dataclass(frozen=True, slots=True)
class SplitResult:
    """How a corpus was divided.

    ``texts_in_two`` counts distinct transcripts that occur in more than one split; ``counts`` is what lists and folds
    add to say.
    """

    parts: tuple[SplitPart, ...]
    by: str
    stratify: tuple[str, ...]
    seed: int
    texts_in_two: int
    counts: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """The result as one JSON object."""
        return {
            "kept": sum(part.utterances for part in self.parts),
            "dropped_by_reason": {},
            "seconds_of_audio": round(sum(part.seconds for part in self.parts), 3),
            "by": self.by,
            "stratify": list(self.stratify),
            "seed": self.seed,
            "texts_in_two_splits": self.texts_in_two,
            **({"counts": self.counts} if self.counts else {}),
            "splits": {
                part.name: {
                    "utterances": part.utterances,
                    "seconds_of_audio": round(part.seconds, 3),
                    "groups": part.groups,
                    "shares": part.shares,
                }
                for part in self.parts
            },
        }

    def __str__(self) -> str:
        lines = [f"{'split':<18}" + "".join(f"{name:>12}" for name in ("utterances", "minutes", "groups"))]
        for part in self.parts:
            lines.append(f"{part.name:<18}{part.utterances:>12}{part.seconds / 60:>12.1f}{part.groups:>12}")
        for column in self.stratify:
            lines += ["", f"{column + ' (share)':<18}" + "".join(f"{part.name:>12}" for part in self.parts)]
            for value in sorted({value for part in self.parts for value in part.shares[column]}, key=_natural):
                shares = "".join(f"{part.shares[column].get(value, 0.0):>12.1%}" for part in self.parts)
                lines.append(f"  {value:<16}{shares}")
        if self.counts:
            lines += ["", ", ".join(f"{name}: {count}" for name, count in self.counts.items())]
        return "\n".join(lines)


def split_corpus(
    corpus: Corpus,
    *,
    dev_frac: float = 0.1,
    test_frac: float = 0.1,
    by: str = "speaker_id",
    stratify: Sequence[str] = ("age",),
    seed: int = 0,
    keep_existing: bool = False,
    overwrite: bool = False,
) -> SplitResult:
    """Set ``split`` of every utterance and describe it in the card, in memory; `Corpus.save` writes it.

    The order of the rows does not matter, and the same seed gives the same splits.

    Args:
        corpus: what to divide.
        dev_frac: share for ``dev`` (0: no such split).
        test_frac: share for ``test`` (0: no such split).
        by: the column whose groups stay together; ``none``: every utterance is its own group.
        stratify: columns whose values each split should hold in the corpus's proportions.
        seed: seed of the order in which groups are considered.
        keep_existing: utterances that have a split keep it, and their groups follow them.
        overwrite: assign all anew although there are splits.

    Raises:
        InputError: fractions that do not add up, an unknown group, too few groups, or splits that exist already.
    """
    fractions = _fractions(dev_frac, test_frac)
    refuse_existing(corpus, keep_existing or overwrite)
    groups = group_by(corpus, by)
    fixed = _fixed(groups, corpus, by) if keep_existing else {}
    if len(groups) < len(fractions):
        raise InputError(
            f"{corpus.root} has {len(groups)} groups by {by}, too few for {len(fractions)} splits: "
            "set --dev or --test to 0, or choose another --by"
        )
    for name in sorted(set(stratify) - set(_known(corpus, stratify))):
        note(f"no utterance has {name}: the splits are not stratified by it")
    choice = assign_groups(corpus, groups, fractions, stratify, seed, fixed)
    for key, rows in groups.items():
        for row in rows:
            row.split = choice[key]
    result = describe_split(corpus, groups, by, stratify, seed)
    corpus.card["split"] |= {"dev_frac": dev_frac, "test_frac": test_frac}
    return result


def refuse_existing(corpus: Corpus, allowed: bool, keeping: str = KEEPING) -> None:
    """Make sure that there is something to split, and no split that is not to be touched.

    ``keeping`` is what the message offers beside replacing the splits.

    Raises:
        InputError: there are splits and ``allowed`` is not set, or there is no utterance.
    """
    assigned = sum(row.split is not None for row in corpus)
    if assigned and not allowed:
        raise InputError(
            f"{corpus.root} is already split ({assigned} utterances): {keeping}add --overwrite to assign all anew"
        )
    if not corpus.utterances:
        raise InputError(f"{corpus.root} has no utterance to split: import one first")


def assign_groups(
    corpus: Corpus,
    groups: dict[str, list[Utterance]],
    fractions: dict[str, float],
    stratify: Sequence[str],
    seed: int,
    fixed: dict[str, str] | None = None,
) -> dict[str, str]:
    """Group -> split, so that each split gets its fraction of the groups' seconds, utterances and strata.

    Args:
        corpus: says which of the columns of ``stratify`` are known.
        groups: group -> its utterances (see `group_by`).
        fractions: split -> requested share, adding up to 1.
        stratify: columns whose values each split should hold in the groups' proportions.
        seed: seed of the order in which groups are considered.
        fixed: group -> split of those that are assigned already.
    """
    return _assign(groups, _known(corpus, stratify), fractions, fixed or {}, seed)


def _known(corpus: Corpus, columns: Sequence[str]) -> tuple[str, ...]:
    return tuple(name for name in columns if any(row.column(name) is not None for row in corpus))


def _fractions(dev_frac: float, test_frac: float) -> dict[str, float]:
    """Requested share of each split that is to have utterances."""
    if not (0 <= dev_frac < 1 and 0 <= test_frac < 1 and 0 < dev_frac + test_frac < 1):
        raise InputError(f"--dev {dev_frac:g} and --test {test_frac:g} must be 0 or more and add up to between 0 and 1")
    shares = {"train": 1.0 - dev_frac - test_frac, "dev": dev_frac, "test": test_frac}
    return {name: share for name, share in shares.items() if share > 0}


def group_by(corpus: Corpus, by: str) -> dict[str, list[Utterance]]:
    """Group key -> its utterances, in key order; ``none``: every utterance by itself.

    Raises:
        InputError: an utterance has no such column.
    """
    groups: dict[str, list[Utterance]] = {}
    unknown = [row for row in corpus if by != "none" and row.column(by) is None]
    if unknown:
        raise InputError(
            f"{len(unknown)} of {len(corpus)} utterances of {corpus.root} have no {by} (the first is "
            f"{unknown[0].utterance_id}): give --by none to split by utterance, or another column (--by session_id)"
        )
    for row in corpus:
        groups.setdefault(row.utterance_id if by == "none" else str(row.column(by)), []).append(row)
    return dict(sorted(groups.items()))


def _fixed(groups: dict[str, list[Utterance]], corpus: Corpus, by: str) -> dict[str, str]:
    """The groups that have a split already."""
    fixed = {}
    for key, rows in groups.items():
        names = sorted({row.split for row in rows if row.split is not None})
        if len(names) > 1:
            raise InputError(
                f"{by} {key} of {corpus.root} is in the splits {' and '.join(names)} already: use --overwrite"
            )
        if names:
            fixed[key] = names[0]
    return fixed


def _assign(
    groups: dict[str, list[Utterance]],
    columns: Sequence[str],
    fractions: dict[str, float],
    fixed: dict[str, str],
    seed: int,
) -> dict[str, str]:
    """The split of each group."""
    names = list(fractions)
    weights, present = _shares(groups, columns)
    target = np.outer(list(fractions.values()), np.sqrt(_column_weights(weights.shape[1])))
    keys = list(groups)
    given = np.array([names.index(fixed[key]) if fixed.get(key) in names else -1 for key in keys])
    free = np.array([position for position, key in enumerate(keys) if key not in fixed], dtype=int)
    rng = np.random.default_rng(seed)
    best: npt.NDArray[np.int64] | None = None
    best_cost = np.inf
    for _ in range(_ORDERS if len(free) <= _SEARCHED_GROUPS else 1):
        sizes = (weights[free] ** 2).sum(axis=1) * np.exp(_SIZE_JITTER * rng.standard_normal(len(free)))
        choice = _greedy(free[np.argsort(-sizes, kind="stable")], weights, target, given)
        if len(free) <= _SEARCHED_GROUPS or _cost(choice, weights, present, target) >= _ABSENCE_COST:
            choice = _improve(choice, free, weights, present, target)
        cost = _cost(choice, weights, present, target)
        if cost < best_cost - 1e-12:
            best, best_cost = choice, cost
    assert best is not None
    return {key: fixed.get(key) or names[best[position]] for position, key in enumerate(keys)}


def _shares(groups: dict[str, list[Utterance]], columns: Sequence[str]) -> tuple[Matrix, Matrix]:
    """Each group's share of the total and of each stratum, in seconds and utterances, weighted; and which it has.

    Returns:
        Arrays of shape (groups, 2 * strata) and (groups, strata); stratum 0 is the whole corpus.
    """
    names = [("", "")]
    names += sorted({(column, _value(row, column)) for rows in groups.values() for row in rows for column in columns})
    index = {name: position for position, name in enumerate(names)}
    amounts = np.zeros((len(groups), 2, len(names)), dtype=np.int64)  # integers: the order of rows cannot matter
    for position, rows in enumerate(groups.values()):
        for row in rows:
            strata = [0, *(index[column, _value(row, column)] for column in columns)]
            amounts[position, 0, strata] += round(row.duration_s * 1e6)
            amounts[position, 1, strata] += 1
    totals = np.maximum(amounts.sum(axis=0, keepdims=True), 1)
    shares = (amounts / totals).reshape(len(groups), -1)
    return shares * np.sqrt(_column_weights(shares.shape[1])), (amounts[:, 1] > 0).astype(np.float64)


def _column_weights(columns: int) -> Matrix:
    """The whole corpus counts as much as all strata together."""
    strata = columns // 2
    weights = np.full((2, strata), 1.0 / max(strata - 1, 1))
    weights[:, 0] = 1.0
    return weights.reshape(-1)


def _greedy(order: npt.NDArray[np.int64], weights: Matrix, target: Matrix, given: Any) -> npt.NDArray[np.int64]:
    choice = given.copy()
    lacking = target.copy()
    for split in range(len(target)):
        lacking[split] -= weights[given == split].sum(axis=0)
    for group in order:
        split = int(np.argmax(lacking @ weights[group]))
        choice[group] = split
        lacking[split] -= weights[group]
    return choice


def _cost(choice: npt.NDArray[np.int64], weights: Matrix, present: Matrix, target: Matrix) -> float:
    """Squared errors of the shares, plus a price for each stratum that a split lacks although it need not."""
    cost = 0.0
    can = present.sum(axis=0) >= len(target)
    for split in range(len(target)):
        mine = choice == split
        cost += float(((weights[mine].sum(axis=0) - target[split]) ** 2).sum())
        cost += _ABSENCE_COST * int((can & (present[mine].sum(axis=0) == 0)).sum())
    return cost


def _improve(
    choice: npt.NDArray[np.int64], free: npt.NDArray[np.int64], weights: Matrix, present: Matrix, target: Matrix
) -> npt.NDArray[np.int64]:
    """Move one group at a time, always the one that lowers the cost most, until none does."""
    choice = choice.copy()
    can = present.sum(axis=0) >= len(target)
    norms = (weights[free] ** 2).sum(axis=1)
    rows = np.arange(len(free))
    for _ in range(10 * len(free) + 10):
        mine = [choice == split for split in range(len(target))]
        excess = np.stack([weights[one].sum(axis=0) for one in mine]) - target
        held = np.stack([present[one].sum(axis=0) for one in mine])
        now = choice[free]
        pull = weights[free] @ excess.T  # (free groups, splits)
        gain = 2 * pull + 2 * norms[:, None] - 2 * pull[rows, now][:, None]
        gained = present[free] @ (can & (held == 0)).T.astype(float)
        lost = present[free] @ (can & (held == 1)).T.astype(float)
        gain += _ABSENCE_COST * (lost[rows, now][:, None] - gained)
        gain[rows, now] = 0.0
        group, split = np.unravel_index(int(np.argmin(gain)), gain.shape)
        if gain[group, split] >= -1e-12:
            break
        choice[free[group]] = split
    return choice


def describe_split(
    corpus: Corpus,
    groups: dict[str, list[Utterance]],
    by: str,
    stratify: Sequence[str],
    seed: int,
    counts: dict[str, int] | None = None,
) -> SplitResult:
    """What the splits of a corpus hold; it is also written into the card, in memory.

    Args:
        corpus: every utterance has its split.
        groups: the groups that were kept together (see `group_by`).
        by: the column they come from.
        stratify: columns whose shares are told.
        seed: the seed that was used.
        counts: anything else to tell.
    """
    columns = _known(corpus, stratify)
    found = {row.split or "" for row in corpus}
    names = sorted(found, key=lambda name: (SPLITS.index(name) if name in SPLITS else 9, name))
    parts = []
    for name in names:
        rows = [row for row in corpus if row.split == name]
        shares = {
            column: {value: count / len(rows) for value, count in sorted(count_by(rows, column).items())}
            for column in columns
        }
        inside = sum(any(row.split == name for row in members) for members in groups.values())
        parts.append(SplitPart(name, len(rows), sum(row.duration_s for row in rows), inside, shares))
    places: dict[str, set[str]] = {}
    for row in corpus:
        places.setdefault(" ".join(row.text.casefold().split()), set()).add(row.split or "")
    shared = sum(len(splits) > 1 for splits in places.values())
    if shared:
        note(f"{shared} of {len(places)} distinct transcripts occur in more than one split")
    result = SplitResult(tuple(parts), by, columns, seed, shared, counts or {})
    corpus.card["splits"] = count_by(corpus, "split")
    corpus.card["split"] = result.to_json()
    corpus.card["fingerprint"] = corpus.fingerprint()
    return result


def _value(row: Utterance, column: str) -> str:
    value = row.column(column)
    return UNKNOWN if value is None else str(value)


def _natural(text: str) -> tuple[bool, float, str]:
    """Numbers by size, then words."""
    try:
        return False, float(text), text
    except ValueError:
        return True, 0.0, text
