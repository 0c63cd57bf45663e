"""Laws of splitting: groups stay together, seeds decide, shares are near, strata are everywhere."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from speechtune.core.errors import InputError
from speechtune.corpus.split import split_corpus
from speechtune.corpus.split_lists import FixedLists, SplitOptions, split_as_told
from speechtune.corpus.table import Corpus, Utterance


def make_corpus(speakers: int = 40, seed: int = 0, root: Path = Path("corpus")) -> Corpus:
    """Speakers of five ages (the last one rare) with 5 to 40 utterances of 1 to 6 s each."""
    rng = np.random.default_rng(seed)
    rows = []
    for speaker in range(speakers):
        age = "12" if speaker < 3 else str(5 + speaker % 4)
        for number in range(int(rng.integers(5, 40))):
            rows.append(
                Utterance(
                    utterance_id=f"s{speaker}-{number}",
                    file_name="x.wav",
                    text=f"text {speaker} {number}",
                    duration_s=float(rng.uniform(1, 6)),
                    speaker_id=f"s{speaker}",
                    session_id=f"s{speaker}-{number % 2}",
                    age=age,
                    gender="fm"[speaker % 2],
                )
            )
    return Corpus(root, rows)


def splits(corpus: Corpus) -> dict[str, str | None]:
    return {row.utterance_id: row.split for row in corpus}


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("speakers", [9, 40, 150])
def test_no_group_is_in_two_splits_and_every_stratum_is_in_every_split(speakers: int, seed: int) -> None:
    corpus = make_corpus(speakers, seed)
    split_corpus(corpus, seed=seed)
    places, strata, holders = defaultdict(set), defaultdict(set), defaultdict(set)
    for row in corpus:
        places[row.speaker_id].add(row.split)
        strata[row.age].add(row.split)
        holders[row.age].add(row.speaker_id)
    assert all(len(names) == 1 for names in places.values())
    assert all(strata[age] == {"train", "dev", "test"} for age, who in holders.items() if len(who) >= 3)


@pytest.mark.parametrize(("dev", "test"), [(0.1, 0.1), (0.2, 0.0), (0.25, 0.15)])
def test_shares_are_near_the_fractions(dev: float, test: float) -> None:
    corpus = make_corpus(150)
    result = split_corpus(corpus, dev_frac=dev, test_frac=test, stratify=("age", "gender"))
    wanted = {"train": 1 - dev - test, "dev": dev, "test": test}
    assert [part.name for part in result.parts] == [name for name, share in wanted.items() if share]
    for part in result.parts:
        assert part.utterances / len(corpus) == pytest.approx(wanted[part.name], abs=0.02)
        assert part.seconds / corpus.seconds_of_audio == pytest.approx(wanted[part.name], abs=0.02)
        for gender, share in part.shares["gender"].items():
            whole = sum(row.gender == gender for row in corpus) / len(corpus)
            assert share == pytest.approx(whole, abs=0.06)


def test_the_seed_decides_and_the_order_of_rows_does_not() -> None:
    first, shuffled, other = make_corpus(), make_corpus(), make_corpus()
    random.Random(1).shuffle(shuffled.utterances)
    split_corpus(first, seed=3)
    split_corpus(shuffled, seed=3)
    split_corpus(other, seed=4)
    assert splits(first) == splits(shuffled)
    assert splits(first) != splits(other)


def test_by_another_column_and_by_none() -> None:
    corpus = make_corpus(4)
    split_corpus(corpus, by="session_id")
    places = defaultdict(set)
    for row in corpus:
        places[row.session_id].add(row.split)
    assert all(len(names) == 1 for names in places.values())
    split_corpus(corpus, by="none", overwrite=True, dev_frac=0.2)
    assert sum(row.split == "dev" for row in corpus) / len(corpus) == pytest.approx(0.2, abs=0.03)


def test_existing_splits_are_kept_or_replaced_only_when_told() -> None:
    corpus = make_corpus()
    for row in corpus:
        row.split = {"s5": "test", "s6": "holdout"}.get(row.speaker_id or "")
    with pytest.raises(InputError, match="--keep-existing"):
        split_corpus(corpus)
    split_corpus(corpus, keep_existing=True)
    assert {row.split for row in corpus if row.speaker_id == "s5"} == {"test"}
    assert {row.split for row in corpus if row.speaker_id == "s6"} == {"holdout"}
    assert {row.split for row in corpus} == {"train", "dev", "test", "holdout"}
    corpus.utterances[0].split = "holdout" if corpus.utterances[0].split != "holdout" else "dev"
    with pytest.raises(InputError, match="is in the splits"):
        split_corpus(corpus, keep_existing=True)
    split_corpus(corpus, overwrite=True)
    assert {row.split for row in corpus} == {"train", "dev", "test"}


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"dev_frac": 0.6, "test_frac": 0.4}, "add up"),
        ({"dev_frac": -0.1}, "add up"),
        ({"dev_frac": 0.0, "test_frac": 0.0}, "add up"),
        ({"by": "classroom"}, "--by none"),
    ],
)
def test_what_cannot_be_done_is_said(options: dict[str, Any], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        split_corpus(make_corpus(), **options)


def test_too_few_groups() -> None:
    with pytest.raises(InputError, match="2 groups"):
        split_corpus(make_corpus(2))


def test_shared_transcripts_are_counted() -> None:
    corpus = make_corpus()
    assert split_corpus(corpus).texts_in_two == 0
    for row in corpus:
        row.text = "Same  Words" if row.utterance_id.endswith("-1") else row.text
    corpus.utterances[1].text = "same words"
    assert split_corpus(corpus, overwrite=True).texts_in_two == 1


def test_the_verb_writes_the_table_and_the_card(tmp_path: Path, run: Any) -> None:
    corpus = make_corpus(root=tmp_path)
    corpus.save()
    done = run(
        "split", tmp_path, "--dev", "0.2", "--test", "0", "--stratify", "age", "--stratify", "gender", "--json", "-q"
    )
    assert (done.exit_code, done.stderr) == (0, "")
    saved = Corpus.load(tmp_path)
    assert json.loads(done.stdout)["splits"]["dev"]["utterances"] == len(saved.split("dev"))
    assert saved.card["fingerprint"] == saved.fingerprint()
    assert saved.card["split"]["stratify"] == ["age", "gender"]
    assert [row.utterance_id for row in saved] == [row.utterance_id for row in corpus]
    assert run("split", tmp_path).exit_code == 2
    shown = run("split", tmp_path, "--overwrite").stdout
    assert "utterances" in shown
    assert "age (share)" in shown


def write_list(path: Path, *names: str) -> Path:
    path.write_text("# fixed\n\n" + "\n".join(names) + "\n", encoding="utf-8")
    return path


@pytest.mark.parametrize("allow", [False, True])
def test_a_list_is_exactly_the_test_split_and_its_speakers_are_not_learnt_from_unless_told(
    tmp_path: Path, allow: bool
) -> None:
    corpus = make_corpus()
    whole = {row.utterance_id for row in corpus if row.speaker_id == "s7"}
    lists = FixedLists(test=write_list(tmp_path / "test.txt", "s3-0", "s3-1", "s7"), allow_overlap=allow)
    result = split_as_told(corpus, SplitOptions(seed=2), lists)
    given = splits(corpus)
    assert {name for name, split in given.items() if split == "test"} == {"s3-0", "s3-1"} | whole
    rest = [row for row in corpus if row.speaker_id == "s3" and row.utterance_id not in ("s3-0", "s3-1")]
    assert {row.split for row in rest} == {"train" if allow else "held_out"}
    assert result.to_json()["counts"][f"of listed groups, {'train' if allow else 'held_out'}"] == len(rest)
    assert result.to_json()["kept"] == len(corpus)
    others = defaultdict(set)
    for row in corpus:
        if row.speaker_id not in ("s3", "s7"):
            others[row.speaker_id].add(row.split)
    assert all(len(places) == 1 for places in others.values())
    assert set().union(*others.values()) == {"train", "dev"}
    share = sum(split == "dev" for split in given.values()) / len(corpus)
    assert share == pytest.approx(0.1, abs=0.03)


def test_both_lists_leave_the_rest_to_train(tmp_path: Path) -> None:
    corpus = make_corpus()
    lists = FixedLists(write_list(tmp_path / "test.txt", "s1"), write_list(tmp_path / "dev.txt", "s2"))
    split_as_told(corpus, SplitOptions(), lists)
    places = {row.speaker_id: row.split for row in corpus}
    assert (places.pop("s1"), places.pop("s2")) == ("test", "dev")
    assert set(places.values()) == {"train"}


@pytest.mark.parametrize(
    ("test", "dev", "expected"),
    [
        (["s1"], ["s1-0"], "both hold utterance s1-0"),
        (["s1-1"], ["s1-0"], "--allow-speaker-overlap"),
        (["s99"], ["s1"], "line 3: s99 is no utterance id and no speaker_id"),
        ([], ["s1"], "names nothing"),
    ],
)
def test_lists_that_cannot_be_followed(tmp_path: Path, test: list[str], dev: list[str], expected: str) -> None:
    lists = FixedLists(write_list(tmp_path / "test.txt", *test), write_list(tmp_path / "dev.txt", *dev))
    with pytest.raises(InputError, match=expected):
        split_as_told(make_corpus(), SplitOptions(), lists)


def test_folds_test_everything_once_without_a_shared_speaker() -> None:
    tested: dict[str, int] = {}
    for fold in range(1, 6):
        corpus = make_corpus()
        split_as_told(corpus, SplitOptions(seed=1), FixedLists(), folds=5, fold=fold)
        places = defaultdict(set)
        for row in corpus:
            places[row.speaker_id].add(row.split)
        assert all(len(names) == 1 for names in places.values())
        for split, share in (("train", 0.7), ("dev", 0.1), ("test", 0.2)):
            part = [row for row in corpus if row.split == split]
            assert len(part) / len(corpus) == pytest.approx(share, abs=0.04)
            for age in "5678":
                whole = sum(row.age == age for row in corpus) / len(corpus)
                assert sum(row.age == age for row in part) / len(part) == pytest.approx(whole, abs=0.12)
        for row in corpus.split("test"):
            tested[row.utterance_id] = tested.get(row.utterance_id, 0) + 1
    assert tested == dict.fromkeys((row.utterance_id for row in make_corpus()), 1)


@pytest.mark.parametrize(
    ("options", "told", "expected"),
    [
        ({}, {"folds": 5}, "belong together"),
        ({}, {"folds": 5, "fold": 6}, "a fold from 1 to 5"),
        ({}, {"folds": 50, "fold": 1}, "too few for 50 folds"),
        ({"dev_frac": 0.6}, {"folds": 2, "fold": 1}, "leaves nothing to train on"),
        ({"keep_existing": True}, {"folds": 2, "fold": 1}, "no meaning"),
    ],
)
def test_folds_that_cannot_be_made(options: dict[str, Any], told: dict[str, int], expected: str) -> None:
    with pytest.raises(InputError, match=expected):
        split_as_told(make_corpus(), SplitOptions(**options), FixedLists(), **told)


def test_the_verb_takes_lists_and_folds(tmp_path: Path, run: Any) -> None:
    corpus = make_corpus(root=tmp_path / "corpus")
    corpus.root.mkdir()
    corpus.save()
    listed = write_list(tmp_path / "test.txt", "s3-0")
    done = run("split", corpus.root, "--test-list", listed, "--json", "-q")
    assert (done.exit_code, done.stderr) == (0, "")
    assert json.loads(done.stdout)["splits"]["test"]["utterances"] == 1
    assert Corpus.load(corpus.root).card["split"]["counts"]["listed in test"] == 1
    assert run("split", corpus.root, "--folds", "5", "--fold", "2").exit_code == 2
    assert "fold: 2" in run("split", corpus.root, "--folds", "5", "--fold", "2", "--overwrite").stdout
