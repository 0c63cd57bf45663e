"""A corpus with changed copies of its training clips, for models and trainers that cannot change them on the fly."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from speechtune.audio.augment import (
    AugmentConfig,
    AugmentDraw,
    Augmenter,
    ClipInfo,
    ConcatenateDraw,
    EffectDraw,
    apply_concatenation,
    draw_concatenations,
    join_texts,
    rng_for,
)
from speechtune.audio.augment.materials import Materials, Recording
from speechtune.audio.augment.measure import decibels
from speechtune.audio.augment.presets import CLEAN, CLEAN_SHARE_MIN
from speechtune.audio.io import SAMPLE_RATE_HZ, load_audio, write_audio
from speechtune.core.errors import InputError
from speechtune.core.progress import note, track
from speechtune.core.provenance import provenance
from speechtune.corpus.naming import audio_stem
from speechtune.corpus.resumable import Workshop, link_or_copy, resumable_directory
from speechtune.corpus.table import Corpus, Utterance
from speechtune.corpus.workers import in_order

NO_SPLIT = "none"
_FULL_SCALE = 0.999
DEFAULT_SHARE = 0.5


@dataclass(frozen=True, slots=True)
class AugmentPlan:
    """What to add to a corpus.

    ``share`` is copies per training clip (``None``: what makes a mixture's clean share true of the whole, else 0.5);
    ``empty_share`` silence and noise-only clips, and ``join_share`` the clips that go into joined ones, per training
    clip. ``splits`` are the splits that are added to; ``none`` names the utterances without one. ``only_changed``
    leaves the originals out, for a test set under other conditions.
    """

    config: AugmentConfig
    share: float | None = None
    empty_share: float = 0.0
    join_share: float = 0.0
    join_partner: Literal["speaker", "any"] = "speaker"
    splits: tuple[str, ...] = ("train",)
    seed: int = 0
    only_changed: bool = False


@dataclass(slots=True)
class AugmentResult:
    """What was written: all utterances, the added ones by part of the mixture, and what was not written and why."""

    out: Path
    kept: int
    added: dict[str, int]
    dropped_by_reason: dict[str, int]
    seconds_of_audio: float
    clean_share: float

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {**asdict(self), "out": str(self.out)}

    def __str__(self) -> str:
        added = ", ".join(f"{count} {name}" for name, count in self.added.items()) or "nothing"
        dropped = ", ".join(f"{count} {reason}" for reason, count in self.dropped_by_reason.items()) or "none"
        return (
            f"{self.out}: {self.kept} utterances, {self.seconds_of_audio / 60:.1f} minutes; added {added}\n"
            f"unchanged: {100 * self.clean_share:.0f} % of the clips of the augmented splits; not written: {dropped}"
        )


@dataclass(frozen=True, slots=True)
class _Job:
    """One clip to write, with only the materials its draw names."""

    name: str
    sources: tuple[tuple[Path, float | None, float | None], ...]
    draw: AugmentDraw | None
    join: ConcatenateDraw | None
    materials: Materials
    row: Utterance = field(repr=False)


def speech_of(corpus: Corpus | Iterable[Utterance], root: Path | None = None) -> list[Recording]:
    """The utterances of a corpus as material for babble."""
    place = corpus.root if isinstance(corpus, Corpus) else root or Path()
    return [
        Recording(one.utterance_id, place / one.file_name, one.duration_s, one.start_s or 0.0, one.speaker_id)
        for one in corpus
    ]


def clip_info(utterance: Utterance) -> ClipInfo:
    """What a draw may know about an utterance."""
    return ClipInfo(utterance.utterance_id, utterance.duration_s, utterance.speaker_id)


def chosen_utterances(corpus: Corpus, splits: Sequence[str]) -> list[Utterance]:
    """The utterances of some splits.

    Raises:
        InputError: there are none in one of them.
    """
    found: list[Utterance] = []
    for name in splits:
        part = [one for one in corpus if (one.split or NO_SPLIT) == name]
        if not part:
            known = ", ".join(sorted({one.split or NO_SPLIT for one in corpus}))
            raise InputError(
                f"{corpus.root} has no utterance in split {name!r} (it has: {known}): run speechtune split on it "
                "first, or name others with --splits"
            )
        found += part
    return found


def augment_corpus(
    corpus: Corpus, out: Path, plan: AugmentPlan, *, overwrite: bool = False, workers: int | None = None
) -> AugmentResult:
    """Write a corpus that has every utterance of ``corpus`` and changed copies of some.

    Copies keep speaker, split, text and all columns of their original; the columns ``augmented_from`` (its id) and
    ``augment_draw`` (the draw as JSON text, to be applied again) mark them. Original audio is hard-linked where the
    file system allows. An interrupted call continues where it was.

    Args:
        corpus: what to start from.
        out: the directory to make.
        plan: what to add.
        overwrite: replace ``out`` if it exists.
        workers: processes (``None``: one per core).

    Raises:
        InputError: a split is empty, an effect lacks its material, a clip cannot be read, or ``out`` cannot be written.
    """
    found = chosen_utterances(corpus, plan.splits)
    chosen = [one for one in found if not one.extra.get("augmented_from")]
    if not chosen:
        raise InputError(f"{corpus.root} has only changed copies in {', '.join(plan.splits)}: give the original corpus")
    augmenter = Augmenter(plan.config, speech_of(chosen, corpus.root))
    share = _share(plan, augmenter)
    if share < 0 or min(plan.empty_share, plan.join_share) < 0:
        raise InputError("a share is negative: give --share, --empty and --join as 0 or more")
    if out.resolve() == corpus.root.resolve():
        raise InputError(f"--out {out} is the corpus itself: choose a directory beside it")
    dropped = {"changed copies left as they are": len(found) - len(chosen)} if len(found) > len(chosen) else {}
    jobs = [
        *_copies(corpus, chosen, augmenter, share, plan.seed, dropped),
        *_joined(corpus, chosen, plan, dropped),
        *_empty(chosen, augmenter, plan),
    ]
    key = hashlib.sha256(
        json.dumps(
            [corpus.fingerprint(), plan.only_changed, str(corpus.root.resolve()), [_key(job) for job in jobs]]
        ).encode()
    ).hexdigest()
    with resumable_directory(out, key, overwrite) as shop:
        kept = [] if plan.only_changed else corpus.utterances
        rows = [_kept_row(one, corpus.root, shop.folder) for one in track(kept, "linking")]
        rows += _write(jobs, shop, workers or os.cpu_count() or 1)
        added: dict[str, int] = {}
        for job in jobs:
            branch = "joined" if job.draw is None else job.draw.branch
            added[branch] = added.get(branch, 0) + 1
        made = Corpus(shop.folder, rows)
        clean = 0 if plan.only_changed else len(chosen)
        clean_share = clean / max(clean + len(jobs), 1)
        seconds = round(made.seconds_of_audio, 3)
        result = AugmentResult(out, len(rows), added, dropped, seconds, clean_share)
        if jobs and not plan.only_changed and result.clean_share < CLEAN_SHARE_MIN:
            note(f"only {100 * result.clean_share:.0f} % of the clips are unchanged: 30-50 % is advised (see the docs)")
        settings = plan.config.model_dump(mode="json", exclude_defaults=True)
        made.card = {
            **{name: value for name, value in result.to_json().items() if name != "out"},
            "augment": {"config": settings, "share": share, "splits": list(plan.splits), "of": str(corpus.root)},
            "provenance": provenance(plan.seed, source=corpus.card.get("provenance")),
        }
        made.save()
    return result


def _share(plan: AugmentPlan, augmenter: Augmenter) -> float:
    if not augmenter.branches:
        return 0.0
    if plan.share is not None:
        return plan.share
    clean = sum(branch.share for branch in augmenter.branches if branch.name == CLEAN)
    return (1 - clean) / clean if clean else DEFAULT_SHARE


def quotas(count: int, shares: dict[str, float]) -> dict[str, int]:
    """``count`` things dealt out in proportion, each within one of its exact share (largest remainders first)."""
    total = sum(shares.values())
    exact = {name: count * share / total for name, share in shares.items()}
    dealt = {name: int(value) for name, value in exact.items()}
    rest = sorted(exact, key=lambda name: dealt[name] - exact[name])
    for name in rest[: count - sum(dealt.values())]:
        dealt[name] += 1
    return dealt


def _copies(
    corpus: Corpus, chosen: list[Utterance], augmenter: Augmenter, share: float, seed: int, dropped: dict[str, int]
) -> Iterator[_Job]:
    count = round(share * len(chosen))
    shares = {branch.name: branch.share for branch in augmenter.branches if branch.effects and branch.share > 0}
    if not count or not shares:
        return
    rng = np.random.default_rng([seed, 1])
    branches = [name for name, many in quotas(count, shares).items() for _ in range(many)]
    rng.shuffle(branches)
    order: list[int] = []
    while len(order) < count:
        order += rng.permutation(len(chosen)).tolist()
    taken = {one.utterance_id for one in corpus}
    copies: dict[int, int] = {}
    for index, branch in zip(order, branches, strict=False):
        utterance = chosen[index]
        copies[index] = copies.get(index, 0) + 1
        draw = augmenter.draw(rng_for(seed, copies[index], utterance.utterance_id), clip_info(utterance), branch)
        if draw is None:
            dropped["nothing was drawn"] = dropped.get("nothing was drawn", 0) + 1
            continue
        name = _new_id(f"{utterance.utterance_id}-aug{copies[index]}", taken)
        source = (corpus.path_of(utterance), utterance.start_s, utterance.end_s)
        row = _changed_row(utterance, name, utterance.utterance_id)
        yield _Job(name, (source,), draw, None, _needed(draw, augmenter.materials), row)


def _joined(corpus: Corpus, chosen: list[Utterance], plan: AugmentPlan, dropped: dict[str, int]) -> Iterator[_Job]:
    rng = np.random.default_rng([plan.seed, 2])
    count = min(round(plan.join_share * len(chosen)), len(chosen))
    if not count:
        return
    by_id = {one.utterance_id: one for one in chosen}
    picked = [chosen[index] for index in rng.permutation(len(chosen))[:count].tolist()]
    taken = {one.utterance_id for one in corpus}
    used = 0
    groups: dict[str | None, list[Utterance]] = {}
    for one in picked:  # splits never mix
        groups.setdefault(one.split, []).append(one)
    for members in groups.values():
        infos = [clip_info(one) for one in members]
        limit_s = plan.config.max_duration_s
        for draw in draw_concatenations(rng, infos, max_duration_s=limit_s, partner=plan.join_partner):
            parts = [by_id[name] for name in draw.utterance_ids]
            used += len(parts)
            row = _changed_row(
                parts[0], _new_id(f"{parts[0].utterance_id}-joined", taken), "; ".join(draw.utterance_ids)
            )
            row.text = join_texts([one.text for one in parts], parts[0].language)
            if len({one.speaker_id for one in parts}) > 1:
                row.speaker_id = row.age = row.gender = row.session_id = None
            sources = tuple((corpus.path_of(one), one.start_s, one.end_s) for one in parts)
            yield _Job(row.utterance_id, sources, None, draw, Materials(), row)
    if used < count:
        dropped["no partner to join with"] = count - used


def _empty(chosen: list[Utterance], augmenter: Augmenter, plan: AugmentPlan) -> Iterator[_Job]:
    taken = {one.utterance_id for one in chosen}
    languages = {one.language for one in chosen}
    for number in range(round(plan.empty_share * len(chosen))):
        name = _new_id(f"empty-{number + 1:05d}", taken)
        draw = augmenter.draw_empty(rng_for(plan.seed, 0, name), name)
        row = Utterance(
            utterance_id=name,
            file_name="",
            text="",
            duration_s=0.0,
            split=chosen[number % len(chosen)].split,
            language=next(iter(languages)) if len(languages) == 1 else None,
            source="synthetic:empty",
        )
        yield _Job(name, (), draw, None, _needed(draw, augmenter.materials), row)


def _changed_row(utterance: Utterance, name: str, origin: str) -> Utterance:
    extra = {**utterance.extra, "augmented_from": origin}
    return replace(utterance, utterance_id=name, start_s=None, end_s=None, extra=extra)


def _new_id(name: str, taken: set[str]) -> str:
    while name in taken:
        name += "x"
    taken.add(name)
    return name


def _needed(draw: AugmentDraw, materials: Materials) -> Materials:
    """Only the recordings that a draw names, so that a job is small when it goes to another process."""
    part = Materials(max_duration_s=materials.max_duration_s)
    for one in draw.effects:
        if one.kind == "noise" and one.parameters["source"] == "files":
            part.noises.append(materials.recording("noises", one.parameters["name"]))
        elif one.kind == "noise" and one.parameters["source"] == "babble":
            part.speech += [materials.recording("speech", talker["name"]) for talker in one.parameters["talkers"]]
        elif one.kind == "reverb" and "name" in one.parameters:
            part.impulses.append(materials.recording("impulses", one.parameters["name"]))
    return part


def _key(job: _Job) -> list[Any]:
    used = [one for shelf in (job.materials.noises, job.materials.impulses) for one in shelf]
    facts = [[str(one.path), one.path.stat().st_size] for one in used]
    return [job.name, job.draw and job.draw.to_json(), job.join and job.join.to_json(), facts]


def _kept_row(utterance: Utterance, root: Path, folder: Path) -> Utterance:
    """The original, its audio linked; a file outside the corpus directory is named by its absolute path."""
    path = root / utterance.file_name
    if Path(utterance.file_name).is_absolute() or not path.resolve().is_relative_to(root.resolve()):
        return replace(utterance, file_name=str(path.resolve()))
    if not path.is_file():
        raise InputError(
            f"{root} utterance {utterance.utterance_id}: {path} does not exist: run speechtune import again"
        )
    link_or_copy(path, folder / utterance.file_name)
    return utterance


def _write(jobs: list[_Job], shop: Workshop, workers: int) -> list[Utterance]:
    taken: set[str] = set()
    targets = {job.name: f"augmented/{audio_stem(job.name, taken)}.flac" for job in jobs}
    waiting = [job for job in jobs if job.name not in shop.done]
    pieces = [(job, shop.folder / targets[job.name]) for job in waiting]
    for job, facts in zip(
        waiting,
        track(in_order(_make, pieces, min(workers, len(pieces) // 50 + 1)), "changing", len(pieces)),
        strict=True,
    ):
        if "problem" in facts:
            raise InputError(facts["problem"])
        shop.finish(job.name, facts)
    rows = []
    for job in jobs:
        facts = shop.done[job.name]
        row = replace(job.row, file_name=targets[job.name], duration_s=round(facts["samples"] / SAMPLE_RATE_HZ, 4))
        row.extra = {**row.extra, "augment_draw": facts["draw"]}
        rows.append(row)
    return rows


def _make(piece: tuple[_Job, Path]) -> dict[str, Any]:
    """Write one clip; what is louder than full scale is turned down, which the draw then says."""
    job, target = piece
    try:
        clips = [load_audio(*source) for source in job.sources]
        if job.join is not None:
            changed, drawn = apply_concatenation(job.join, clips), json.dumps(job.join.to_json(), ensure_ascii=False)
        else:
            assert job.draw is not None
            augmenter = Augmenter(AugmentConfig(), materials=job.materials)
            draw = job.draw
            changed = augmenter.apply(draw, clips[0] if clips else np.zeros(0, np.float32))
            peak = float(np.abs(changed).max(initial=0.0))
            if peak > _FULL_SCALE:
                quieter = EffectDraw("gain", {"gain_db": -round(decibels(peak**2 / _FULL_SCALE**2) + 0.005, 2)})
                draw = replace(draw, effects=(*draw.effects, quieter))
                changed = augmenter.apply(replace(draw, effects=(quieter,)), changed)
            drawn = draw.dumps()
        write_audio(target, changed)
    except InputError as error:
        return {"problem": str(error)}
    return {"samples": len(changed), "draw": drawn}


def preview_sample(corpus: Corpus, splits: Sequence[str], count: int, seed: int) -> list[Utterance]:
    """``count`` utterances drawn from some splits, in the order of the corpus."""
    chosen = chosen_utterances(corpus, splits)
    picked = np.random.default_rng([seed, 3]).permutation(len(chosen))[:count]
    return [chosen[index] for index in sorted(picked.tolist())]
