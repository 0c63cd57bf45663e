"""Splits that someone has fixed: test and dev lists of utterances or speakers, and k folds for cross-validation."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from speechtune.core.errors import InputError
from speechtune.core.progress import note
from speechtune.corpus.split import (
    SplitResult,
    assign_groups,
    describe_split,
    group_by,
    refuse_existing,
    split_corpus,
)
from speechtune.corpus.table import Corpus, Utterance

HELD_OUT = "held_out"
"""The split of what is in no list but belongs to a listed speaker: no training, no measuring."""


@dataclass(frozen=True, slots=True)
class SplitOptions:
    """What the ways of splitting share; see `speechtune.corpus.split.split_corpus`."""

    dev_frac: float = 0.1
    test_frac: float = 0.1
    by: str = "speaker_id"
    stratify: Sequence[str] = ("age",)
    seed: int = 0
    keep_existing: bool = False
    overwrite: bool = False


@dataclass(frozen=True, slots=True)
class FixedLists:
    """Files with one utterance id or group (speaker) a line; blank lines and lines that begin with # do not count.

    ``allow_overlap`` lets the unlisted utterances of listed speakers into train; otherwise they are `HELD_OUT`.
    """

    test: Path | None = None
    dev: Path | None = None
    allow_overlap: bool = False


def split_as_told(
    corpus: Corpus, options: SplitOptions, lists: FixedLists, folds: int | None = None, fold: int | None = None
) -> SplitResult:
    """By fractions, by lists or by folds, whichever the arguments ask for; in memory.

    Raises:
        InputError: they ask for two of these, or the way that is asked for cannot be gone.
    """
    has_lists = lists.test is not None or lists.dev is not None
    if (folds is None) != (fold is None):
        raise InputError("--folds and --fold belong together: give both, for instance --folds 5 --fold 1")
    if has_lists and folds is not None:
        raise InputError("--folds and lists exclude each other: give one of them")
    if options.keep_existing and (has_lists or folds is not None):
        raise InputError("--keep-existing has no meaning with lists or folds: use --overwrite to assign all anew")
    if lists.allow_overlap and not has_lists:
        raise InputError("--allow-speaker-overlap has no meaning without --test-list or --dev-list: leave it out")
    if has_lists:
        return split_by_lists(corpus, lists, options)
    if folds is not None and fold is not None:
        return split_folds(corpus, folds, fold, options)
    return split_corpus(corpus, **asdict(options))


def split_by_lists(corpus: Corpus, lists: FixedLists, options: SplitOptions) -> SplitResult:
    """Give listed utterances their split; divide the speakers that no list touches as usual, in memory.

    A split that has a list holds exactly that list; ``dev_frac`` and ``test_frac`` count for a split that has none, as
    a share of the utterances of untouched speakers. What else listed speakers said is `HELD_OUT`, or train with
    ``lists.allow_overlap``, never dev or test, and is counted either way.

    Raises:
        InputError: a list is missing or empty, names something that is not in the corpus, both lists name one
            utterance (or one speaker without ``allow_overlap``), nothing is left to train on, or splits exist already.
    """
    refuse_existing(corpus, options.overwrite, "")
    groups = group_by(corpus, options.by)
    listed: dict[str, str] = {}
    for split, path in (("test", lists.test), ("dev", lists.dev)):
        for utterance_id in _listed(path, groups, options.by) if path is not None else ():
            if listed.setdefault(utterance_id, split) != split:
                raise InputError(
                    f"{lists.test} and {lists.dev} both hold utterance {utterance_id}: keep it in one of them"
                )
    counts = {"listed in test": 0, "listed in dev": 0}
    free: dict[str, list[Utterance]] = {}
    left: list[Utterance] = []
    for key, rows in groups.items():
        splits = {listed[row.utterance_id] for row in rows if row.utterance_id in listed}
        if len(splits) > 1 and not lists.allow_overlap:
            raise InputError(
                f"{options.by} {key} is in {lists.test} and in {lists.dev}: keep it in one of them, or add "
                "--allow-speaker-overlap"
            )
        if not splits:
            free[key] = rows
        for row in rows:
            row.split = listed.get(row.utterance_id)
            if row.split is not None:
                counts[f"listed in {row.split}"] += 1
            elif splits:
                left.append(row)
    for row in left:
        row.split = "train" if lists.allow_overlap else HELD_OUT
    counts[f"of listed groups, {'train' if lists.allow_overlap else HELD_OUT}"] = len(left)
    if left:
        where = "in train: their speakers are also measured" if lists.allow_overlap else "held out of every split"
        note(f"{len(left)} utterances that no list names belong to listed speakers: {where}")
    fractions = {"dev": options.dev_frac if lists.dev is None else 0.0}
    fractions["test"] = options.test_frac if lists.test is None else 0.0
    _assign_free(free, fractions, options, corpus)
    if not any(row.split == "train" for row in corpus):
        raise InputError(f"the lists leave nothing of {corpus.root} to train on: shorten them")
    return describe_split(corpus, groups, options.by, options.stratify, options.seed, counts)


def split_folds(corpus: Corpus, folds: int, fold: int, options: SplitOptions) -> SplitResult:
    """Fold ``fold`` of ``folds``: that fold is test, ``options.dev_frac`` of the corpus is dev, the rest train.

    The folds depend on the seed and not on ``fold``: the tests of all folds share no group and cover everything.

    Raises:
        InputError: ``fold`` is not from 1 to ``folds``, there are too few groups, or splits exist already.
    """
    if folds < 2 or not 1 <= fold <= folds:
        raise InputError(f"--folds {folds} --fold {fold}: give 2 folds or more, and a fold from 1 to {max(folds, 2)}")
    rest = 1.0 - 1.0 / folds
    if not 0 <= options.dev_frac < rest:
        raise InputError(f"--dev {options.dev_frac:g} leaves nothing to train on in {folds} folds: lower it")
    refuse_existing(corpus, options.overwrite, "")
    groups = group_by(corpus, options.by)
    if len(groups) < folds:
        raise InputError(f"{corpus.root} has {len(groups)} groups by {options.by}, too few for {folds} folds")
    names = {str(number + 1): 1.0 / folds for number in range(folds)}
    choice = assign_groups(corpus, groups, names, options.stratify, options.seed)
    free = {}
    for key, rows in groups.items():
        if choice[key] == str(fold):
            _set(rows, "test")
        else:
            free[key] = rows
    _assign_free(free, {"dev": options.dev_frac / rest}, options, corpus)
    return describe_split(corpus, groups, options.by, options.stratify, options.seed, {"fold": fold, "folds": folds})


def _assign_free(
    free: dict[str, list[Utterance]], fractions: dict[str, float], options: SplitOptions, corpus: Corpus
) -> None:
    wanted = {name: share for name, share in fractions.items() if share > 0}
    if any(share < 0 for share in fractions.values()) or sum(wanted.values()) >= 1:
        raise InputError(f"--dev {options.dev_frac:g} and --test {options.test_frac:g} leave nothing to train on")
    shares = {"train": 1.0 - sum(wanted.values()), **wanted}
    if len(shares) == 1 or not free:
        for rows in free.values():
            _set(rows, "train")
        return
    if len(free) < len(shares):
        raise InputError(
            f"{corpus.root} has {len(free)} groups by {options.by} left, too few for {len(shares)} splits: set --dev "
            "or --test to 0"
        )
    choice = assign_groups(corpus, free, shares, options.stratify, options.seed)
    for key, rows in free.items():
        _set(rows, choice[key])


def _set(rows: list[Utterance], split: str) -> None:
    for row in rows:
        row.split = split


def _listed(path: Path, groups: dict[str, list[Utterance]], by: str) -> list[str]:
    """The utterance ids that a list names, by themselves or by their group."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist: check the path of the list") from error
    except (UnicodeDecodeError, IsADirectoryError) as error:
        raise InputError(f"{path} is not a UTF-8 text file: give one utterance id or {by} a line") from error
    ids = {row.utterance_id for rows in groups.values() for row in rows}
    found: list[str] = []
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name or name.startswith("#"):
            continue
        if name in ids and name in groups and {row.utterance_id for row in groups[name]} != {name}:
            raise InputError(f"{path} line {number}: {name} is an utterance id and a {by}: rename one of them")
        if name not in ids and name not in groups:
            raise InputError(f"{path} line {number}: {name} is no utterance id and no {by} of the corpus: remove it")
        found += [name] if name in ids else [row.utterance_id for row in groups[name]]
    if not found:
        raise InputError(f"{path} names nothing: give one utterance id or {by} a line")
    return found
